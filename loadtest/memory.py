"""How much memory the server has, and whether that grows."""

from __future__ import annotations

import itertools
import os
import statistics

Sample = tuple[float, int]  # seconds, bytes


def resident(process: int) -> int:
    """The resident size of a process in bytes."""
    with open(f"/proc/{process}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def slope(samples: list[Sample]) -> float:
    """Bytes a second: the median of the slopes between all pairs of samples (Theil-Sen), which a single step does not
    move."""
    pairs = itertools.combinations(samples, 2)
    return statistics.median((later - size) / (end - begin) for (begin, size), (end, later) in pairs)
