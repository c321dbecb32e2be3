"""What is kept of a visitor's interpreter between two requests: bytes.

A head that portico writes, and the dump of pydantic-monty behind it. Sessions sign these bytes, because neither is made
to be read from strangers.
"""

from __future__ import annotations

import functools
import json
import struct
from dataclasses import dataclass

_MAGIC = b"PSP1"
# Each feed of an interpreter is numbered, and its name `<python-input-N>` stays in the dump for ever: 40 bytes and more
# for each request. So a page has a number of its own, which is set before it is fed, and its name is there already. The
# field is one of the first of the dump's CBOR, before anything that a page has a say in.
_COUNTER = b"mnext_input_id"
_COUNTER_WITHIN = 256
_LONGEST_HEAD = 2**16


@functools.lru_cache(maxsize=256)
def _head(limits: str, defined: frozenset[int], bound: frozenset[str]) -> bytes:
    """Few are different from each other, and this takes as long as a part of a page."""
    head = json.dumps([limits, sorted(defined), sorted(bound)], separators=(",", ":")).encode()
    return b"".join((_MAGIC, struct.pack(">I", len(head)), head))


@functools.lru_cache(maxsize=256)
def _parsed(head: bytes) -> tuple[str, frozenset[int], frozenset[str]] | None:
    try:
        limits, defined, bound = json.loads(head)
        return str(limits), frozenset(map(int, defined)), frozenset(map(str, bound))
    except (ValueError, TypeError, RecursionError):
        return None


@dataclass(frozen=True)
class State:
    """An interpreter that waits for the next request of its visitor."""

    dump: bytes
    limits: str
    """Under which limits it was begun, since a dump keeps its own, and by which version."""
    defined: frozenset[int] = frozenset()
    """Numbers of the programs whose functions it knows."""
    bound: frozenset[str] = frozenset()
    """Which of the names that each request gives anew it has."""

    def to_bytes(self) -> bytes:
        return _head(self.limits, self.defined, self.bound) + self.dump

    @classmethod
    def from_bytes(cls, data: bytes) -> State | None:
        """None where it is not what `to_bytes` of this version wrote."""
        if data[:4] != _MAGIC or len(data) < 8:
            return None
        end = 8 + struct.unpack(">I", data[4:8])[0]
        head = _parsed(data[8:end]) if end <= _LONGEST_HEAD else None
        return cls(data[end:], *head) if head is not None else None

    def numbered(self, number: int) -> bytes:
        """The dump, with the number that the next feed has. Where the field is not found, feeds count on, and it
        grows."""
        at = self.dump.find(_COUNTER, 0, _COUNTER_WITHIN)
        if at < 0:
            return self.dump
        at += len(_COUNTER)
        # CBOR, RFC 8949 section 3: an unsigned integer in its first byte, or in 1, 2, 4 or 8 that follow.
        length = 1 + {0x18: 1, 0x19: 2, 0x1A: 4, 0x1B: 8}.get(self.dump[at], 0)
        return b"".join((self.dump[:at], b"\x1a", struct.pack(">I", number), self.dump[at + length :]))
