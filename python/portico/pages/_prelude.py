"""What interpreters of visitors begin with, in the language of pages. All of it is part of what each session keeps, so
it is short."""

from __future__ import annotations

ENDINGS = frozenset({"exit", "reply_file", "reply_data", "reply_error", "reply_redirect"})
"""The functions that end a page."""

SOURCE = """\
_psp_p=print
_psp_r=repr
_psp_l=len
def _psp_e(v):
 v=str(v)
 if"&"in v or"<"in v or">"in v or'"'in v or"'"in v:return v.replace("&","&amp;").replace("<","&lt;")\
.replace(">","&gt;").replace('"',"&quot;").replace("'","&#39;")
 return v
escape=_psp_e
"""
"""Escaping is done here and not by the host: a call of it takes longer than a row of a table."""

ENDING_SOURCE = """\
from functools import partial as _psp_q
from time import sleep as _psp_s
def _psp_x(k,*a,**o):
 _psp_end(k,a,o)
 _psp_s(1)
""" + "".join(f'{name}=_psp_q(_psp_x,"{name}")\n' for name in sorted(ENDINGS))
"""For pages that name one of those functions. A page ends early by a sleep that its limits do not allow: the
interpreter stops there, past every `except` and `finally`, and keeps what it has. A bare `except:` would hold up any
exception."""

ENDING_NUMBER = 1
"""The number of that among the programs that an interpreter knows."""

STOPPED = "sleep limit exceeded"
"""How the error of such a sleep begins."""
