"""`trace=`: what connections do, step by step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

from ._core import TraceRecord

Trace = Callable[[TraceRecord], object]


def print_trace(record: TraceRecord, file: TextIO | None = None) -> None:
    """Prints a record on one line, to standard error where no `file` is given: `Server(trace=portico.print_trace)`."""
    print(record, file=sys.stderr if file is None else file, flush=True)
