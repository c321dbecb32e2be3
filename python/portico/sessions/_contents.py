"""What a session holds, as bytes: plain data as JSON (RFC 8259), and the bytes of pages beside it. No pickle: whoever
can write to a store must not be able to run code here."""

from __future__ import annotations

import json
import math
from typing import Any

# As many bits as any text of a number that JSON readers here take.
_LARGEST_INT = 4096
_DEEPEST = 64
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def check_plain(value: object, where: str, depth: int = 0) -> None:
    """Raises `TypeError` or `ValueError` for what would not come back from a store as it went in."""
    if value is None or isinstance(value, (bool, str)):
        return
    if depth > _DEEPEST:
        raise ValueError(f"{where}: more than {_DEEPEST} lists and dicts in each other")
    if type(value) is int:
        if value.bit_length() > _LARGEST_INT:
            raise ValueError(f"{where}: a number of more than {_LARGEST_INT} bits")
    elif type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{where}: {value!r} is no number that JSON has")
    elif type(value) is list:
        for index, item in enumerate(value):
            check_plain(item, f"{where}[{index}]", depth + 1)
    elif type(value) is dict:
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"{where}: the keys of a dict in a session are str, not {type(name).__name__}")
            check_plain(item, f"{where}[{name!r}]", depth + 1)
    else:
        raise TypeError(
            f"{where}: a session holds None, bool, int, float, str, lists and dicts of them, not {type(value).__name__}"
        )


def pack_data(data: dict[str, Any]) -> bytes:
    return _ENCODER.encode(data).encode()


def pack(data: bytes, state: bytes | None) -> bytes:
    return (b"0" if state is None else b"1") + len(data).to_bytes(4, "big") + data + (state or b"")


def unpack(contents: bytes) -> tuple[bytes, dict[str, Any], bytes | None] | None:
    """The mapping, as bytes and as it is, and the state; None for what is none, of a version to come perhaps."""
    length = int.from_bytes(contents[1:5], "big")
    packed, state = contents[5 : 5 + length], contents[5 + length :]
    try:
        data = json.loads(packed)
    except (ValueError, RecursionError):
        return None
    if contents[:1] not in (b"0", b"1") or not isinstance(data, dict):
        return None
    return packed, data, state if contents[:1] == b"1" else None
