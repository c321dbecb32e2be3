"""What every interpreter of a visitor begins with, in the language of pages."""

from __future__ import annotations

SOURCE = '''\
from time import sleep as _psp_s
_psp_p = print
def _psp_e(value):
    value = str(value)
    if "&" in value or "<" in value or ">" in value or '"' in value or "'" in value:
        value = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return value.replace('"', "&quot;").replace("'", "&#39;")
    return value
escape = _psp_e
def exit(*args):
    _psp_end("exit", args, {})
    _psp_s(1)
def reply_file(*args, **options):
    _psp_end("reply_file", args, options)
    _psp_s(1)
def reply_data(*args, **options):
    _psp_end("reply_data", args, options)
    _psp_s(1)
def reply_error(*args, **options):
    _psp_end("reply_error", args, options)
    _psp_s(1)
def reply_redirect(*args, **options):
    _psp_end("reply_redirect", args, options)
    _psp_s(1)
'''
"""A page ends early by a sleep that its limits do not allow: the interpreter stops there, past every `except` and
`finally`, and keeps what it has. An exception, of whatever class, a bare `except:` would hold up."""

STOPPED = "sleep limit exceeded"
"""How the error of that begins."""

NAMES = frozenset({"escape", "exit", "reply_file", "reply_data", "reply_error", "reply_redirect"})
"""What a page finds here."""
