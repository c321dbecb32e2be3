"""Server pages: HTML with Python in it, run in a sandbox.

    page text ─▶ _language ─▶ Program ─▶ _engine ─▶ Result ─▶ _replies ─▶ response

`_folder` finds and compiles pages; `_tags`, `_language`, `_indent` and `_facts` are what they are written in. `_engine`
runs programs in worker processes of pydantic-monty, from one state of the visitor's interpreter to the next; `_calls`
answers what they ask of the host. `_confine` takes from the workers what they do not need. `_handler` puts it together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import ConfigError
from ._limits import PageLimits

MISSING = ""
"""What is to be done before pages can run; empty where nothing is."""

if TYPE_CHECKING:
    from ._handler import Pages
else:
    try:
        from ._handler import Pages
    except ModuleNotFoundError as missing:
        if missing.name != "pydantic_monty":
            raise
        MISSING = "they run in pydantic-monty, which is not installed: pip install 'portico[pages]'"

        class Pages:
            """Server pages, for which pydantic-monty is missing: `pip install 'portico[pages]'`."""

            def __init__(self, *args, **options):
                raise ConfigError(f"Pages: {MISSING}")


__all__ = ["MISSING", "PageLimits", "Pages"]
