"""Nothing that a client or a handler does makes a server grow.

Each case does at least 20 000 operations of one kind after a warm-up, in windows. After each window, when every
connection is gone, the server's process is measured. Then:

- the resident size may climb by at most RESIDENT_BOUND for 10 000 operations. The slope is the median of those
  between all pairs of windows (Theil-Sen), so that a single step, as an allocator makes, does not count, and a little
  in each window does. The bound is less than one allocation of the smallest kind (32 bytes) for each operation;
- threads and descriptors are as many as before, live Python objects too, type by type.

`test_a_leak_is_caught` lets handlers leak on purpose, and the same check must say so.
"""

from __future__ import annotations

import itertools
import json
import queue
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="memory is measured through /proc"),
]

# Bytes for 10 000 operations: 26 bytes for each.
RESIDENT_BOUND = 256 * 1024
# Bytes for one server started and stopped.
RESIDENT_BOUND_OF_A_START = 2 * 1024
# Objects of one type, and blocks of Python's allocator, that may be more than before: caches fill late.
OBJECTS_BOUND = 20
BLOCKS_BOUND = 500

PROGRAMS = Path(__file__).parent / "memory"


class Program:
    """A program in a process of its own that answers lines of JSON."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / name), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answers: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put("")

    def tell(self, **command: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        line = self.answers.get(timeout=120)
        assert line, f"{self.process.args} ended; its error is above"
        return json.loads(line)

    def ask(self, **command: Any) -> dict[str, Any]:
        self.tell(**command)
        return self.answer()

    def end(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            self.reader.join()
            self.process.stdout.close()


@dataclass
class Pair:
    """A server to be measured, and its clients."""

    server: Program
    client: Program

    def load(self, name: str) -> Callable[[int], None]:
        return lambda count: (self.client.ask(load=name, count=count), None)[1]


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    dispatch = getattr(request, "param", "threads")
    server = Program("server.py", dispatch)
    client = Program("client.py")
    try:
        client.tell(**server.answer())
        yield Pair(server, client)
    finally:
        client.end()
        server.end()
    assert server.process.returncode == 0


@dataclass
class Figures:
    """What a server used after each window, those of the warm-up left out."""

    operations: int  # in one window
    samples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.operations * (len(self.samples) - 1)

    @property
    def slope(self) -> float:
        """Bytes by which the resident size climbs for each operation."""
        sizes = [sample["resident"] for sample in self.samples]
        pairs = itertools.combinations(enumerate(sizes), 2)
        return statistics.median((later - size) / ((j - i) * self.operations) for (i, size), (j, later) in pairs)

    def counted(self, *names: str) -> int:
        """How much some of the statistics rose, together."""

        def look(stats: dict[str, Any], name: str) -> int:
            outer, _, label = name.partition(".")
            value = stats[outer][label] if label else stats[outer]
            return value if isinstance(value, int) else sum(value.values())

        first, last = self.samples[0]["stats"], self.samples[-1]["stats"]
        return sum(look(last, name) - look(first, name) for name in names)


def check(figures: Figures, bound: float = RESIDENT_BOUND / 10_000) -> None:
    """Raises AssertionError where a server grew."""
    first, last = figures.samples[0], figures.samples[-1]
    problems = []
    if figures.slope > bound:
        sizes = " ".join(f"{sample['resident'] / 2**20:.2f}" for sample in figures.samples)
        problems.append(
            f"the resident size climbs by {figures.slope:.1f} bytes for each operation, more than {bound:.1f}; "
            f"MiB after windows of {figures.operations}: {sizes}"
        )
    for what in ("threads", "descriptors"):
        if last[what] > first[what]:
            problems.append(f"{what}: {last[what]}, before {first[what]}")
    before = first["objects"]
    more = {name: count - before.get(name, 0) for name, count in last["objects"].items()}
    if grown := {name: count for name, count in more.items() if count > OBJECTS_BOUND}:
        problems.append(f"more Python objects after {figures.total} operations: {grown}")
    if (blocks := last["blocks"] - first["blocks"]) > BLOCKS_BOUND:
        problems.append(f"{blocks} more blocks of Python's allocator after {figures.total} operations")
    assert not problems, "; ".join(problems)


@pytest.fixture
def measure(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[..., Figures]:
    """Runs a load in windows and measures after each; shows on the terminal how it goes."""

    def measure(
        server: Program, load: Callable[[int], None], *, windows: int = 10, operations: int = 2_000, warm_up: int = 3
    ) -> Figures:
        def show(text: str) -> None:
            with capsys.disabled():
                print(text, end="", flush=True)

        figures = Figures(operations)
        show(f"\n  {request.node.name}: MiB after each {operations}:")
        for number in range(warm_up + windows):
            load(operations)
            sample = server.ask(do="sample")
            show(f" {sample['resident'] / 2**20:.1f}")
            if number >= warm_up - 1:
                figures.samples.append(sample)
        show(f"; slope {figures.slope * 10_000 / 1024:+.0f} KiB per 10 000 ")
        return figures

    return measure


CASES = [
    # dispatch, load, operations in a window, and what must be counted as often in stats()
    pytest.param("threads", "plain", 5_000, ["requests.1.1"], id="requests-threads"),
    pytest.param("inline", "plain", 5_000, ["requests.1.1"], id="requests-inline"),
    pytest.param("asyncio", "plain", 5_000, ["requests.1.1"], id="requests-asyncio"),
    pytest.param("threads", "keep_alive", 5_000, ["requests.1.1"], id="keep-alive"),
    pytest.param("asyncio", "/session", 2_000, ["requests.1.1"], id="sessions"),
    pytest.param("threads", "connections", 2_000, ["handshakes"], id="new-connections"),
    # Those that the client resets within their body are refused.
    pytest.param("threads", "http2", 20_000, ["requests.2", "requests_refused", "requests_aborted"], id="http2"),
    pytest.param("threads", "/raise", 5_000, ["handler_failures"], id="handler-raises"),
    pytest.param("threads", "/empty", 5_000, ["handler_failures"], id="handler-returns-empty"),
    pytest.param("threads", "/junk", 5_000, ["handler_failures"], id="handler-returns-junk"),
    pytest.param("asyncio", "/raise", 4_000, ["handler_failures"], id="async-handler-raises"),
    pytest.param("threads", "handshakes", 5_000, ["handshakes_failed"], id="aborted-handshakes"),
    pytest.param("threads", "streams", 2_000, ["connections_closed", "handshakes_failed.left"], id="streams"),
    pytest.param("asyncio", "streams", 2_000, ["connections_closed", "handshakes_failed.left"], id="async-streams"),
    pytest.param("threads", "websockets", 2_000, ["websockets"], id="websockets"),
    pytest.param("asyncio", "websockets", 2_000, ["websockets"], id="websockets-asgi"),
    pytest.param("threads", "pieces", 2_000, ["requests.1.1"], id="bodies-in-pieces"),
    pytest.param("asyncio", "pieces", 2_000, ["requests.1.1"], id="async-bodies-in-pieces"),
    pytest.param("threads", "uploads", 2_000, ["connections_closed", "handshakes_failed.left"], id="streamed-uploads"),
    pytest.param(
        "asyncio", "uploads", 2_000, ["connections_closed", "handshakes_failed.left"], id="async-streamed-uploads"
    ),
    pytest.param("threads", "leave_in_body", 2_000, ["connections_closed.aborted"], id="clients-leave-in-body"),
    # Those that leave at once may be gone before the server is done with the handshake.
    pytest.param(
        "threads",
        "leave_in_response",
        2_000,
        ["connections_closed.aborted", "handshakes_failed.left"],
        id="clients-leave-in-response",
    ),
]


@pytest.mark.parametrize(("pair", "load", "operations", "counted"), CASES, indirect=["pair"])
def test_memory_does_not_climb(
    pair: Pair, load: str, operations: int, counted: list[str], measure: Callable[..., Figures]
) -> None:
    figures = measure(pair.server, pair.load(load), operations=operations)
    assert figures.total >= 20_000
    assert figures.counted(*counted) == figures.total
    check(figures)


def test_memory_does_not_climb_with_servers_started_and_stopped(pair: Pair, measure: Callable[..., Figures]) -> None:
    def start_and_stop(count: int) -> None:
        pair.server.ask(do="start_and_stop", count=count)

    figures = measure(pair.server, start_and_stop, operations=50)
    assert figures.total >= 300
    check(figures, RESIDENT_BOUND_OF_A_START)


@pytest.mark.parametrize(
    ("leak", "found"),
    [
        ("native", "the resident size climbs"),
        ("objects", "more Python objects .*list"),
        ("threads", "threads: "),
        ("descriptors", "descriptors: "),
    ],
)
def test_a_leak_is_caught(pair: Pair, leak: str, found: str, measure: Callable[..., Figures]) -> None:
    figures = measure(pair.server, pair.load(f"/leak/{leak}"))
    with pytest.raises(AssertionError, match=found):
        check(figures)
