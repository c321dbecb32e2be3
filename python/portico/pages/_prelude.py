"""What every interpreter of a visitor begins with, in the language of pages."""

from __future__ import annotations

ENDINGS = ("exit", "reply_file", "reply_data", "reply_error", "reply_redirect")
"""The functions that end a page."""

SOURCE = """\
from functools import partial as _psp_q
from time import sleep as _psp_s
_psp_p = print
def _psp_e(value):
    value = str(value)
    if "&" in value or "<" in value or ">" in value or '"' in value or "'" in value:
        value = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return value.replace('"', "&quot;").replace("'", "&#39;")
    return value
escape = _psp_e
def _psp_x(kind, *args, **options):
    _psp_end(kind, args, options)
    _psp_s(1)
""" + "".join(f'{name} = _psp_q(_psp_x, "{name}")\n' for name in ENDINGS)
"""A page ends early by a sleep that its limits do not allow: the interpreter stops there, past every `except` and
`finally`, and keeps what it has. An exception, of whatever class, a bare `except:` would hold up. What is here is part
of what each session keeps, so it is short."""

STOPPED = "sleep limit exceeded"
"""How the error of that begins."""
