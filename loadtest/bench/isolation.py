"""Whether what is slow stays apart from what is fast: four scenarios, each with a quick request alone and beside."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import clients
import https
from process import Server

SLEEPERS = 32
# The limit that the overloaded server is started with, and how many clients press on it.
IN_FLIGHT = 4
PRESSING = 32


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    measure: Callable[[Server, clients.Target], dict[str, Any]]
    app: str = "isolation"
    protocol: str = "h1"
    only: str = ""
    """The beginning of the names of those that it is for; only portico has the setting that `overload` is about."""
    environment: tuple[tuple[str, str], ...] = ()


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def hello(server: Server, seconds: float) -> list[float]:
    """How long each of a client's requests takes, one after the other, in milliseconds."""
    connection = https.Connection(server.port)
    times = []
    try:
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            connection.get("/")
            times.append((time.perf_counter() - begin) * 1000)
    finally:
        connection.close()
    return times


@contextmanager
def pressing(server: Server, path: str, count: int) -> Iterator[None]:
    """So many clients that ask for a path without pause, on connections of their own."""
    opened = https.open_many(server.port, count)
    ended = threading.Event()

    def ask(connection: https.Connection) -> None:
        try:
            while not ended.is_set():
                connection.get(path)
        except OSError:
            pass  # Counted by nobody: it is the quick request beside that is looked at.
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(connection,), daemon=True) for connection in opened]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(https.PATIENCE)


def beside(path: str, count: int) -> Callable[[Server, clients.Target], dict[str, Any]]:
    """How long a hello takes alone, and beside clients in a slow route."""

    def measure(server: Server, target: clients.Target) -> dict[str, Any]:
        alone = hello(server, target.seconds)
        with pressing(server, path, count):
            time.sleep(0.2)
            with_others = hello(server, target.seconds)
        return {
            "alone_p50_ms": round(percentile(alone, 0.5), 3),
            "alone_p99_ms": round(percentile(alone, 0.99), 3),
            "beside_p50_ms": round(percentile(with_others, 0.5), 3),
            "beside_p99_ms": round(percentile(with_others, 0.99), 3),
            "beside_max_ms": round(max(with_others), 3),
        }

    return measure


def ask_for_work(server: Server, count: int, seconds: float, rate: float | None) -> list[tuple[int, float]]:
    """Status and milliseconds of requests by so many clients: one after the other, or at a common rate."""
    connections = https.open_many(server.port, count)
    seen: list[tuple[int, float]] = []
    begin = time.perf_counter()

    def ask(number: int, connection: https.Connection) -> None:
        due = begin + (number / rate if rate else 0)
        try:
            while (now := time.perf_counter()) < begin + seconds:
                if rate:
                    time.sleep(max(0.0, due - now))
                    due += count / rate
                asked = time.perf_counter()
                status, _ = connection.get("/work")
                seen.append((status, (time.perf_counter() - asked) * 1000))
        except OSError:
            seen.append((0, 0.0))
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=pair, daemon=True) for pair in enumerate(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + https.PATIENCE)
    return seen


def overload(server: Server, target: clients.Target) -> dict[str, Any]:
    """What is answered at the most, and when twice as much is asked of a server that turns away what is too much."""
    peak = sum(status == 200 for status, _ in ask_for_work(server, IN_FLIGHT, target.seconds, None)) / target.seconds
    before = server.resident()
    seen = ask_for_work(server, PRESSING, target.seconds, max(1.0, 2 * peak))
    refused = [took for status, took in seen if status == 503]
    return {
        "peak_per_second": round(peak, 1),
        "asked_per_second": round(len(seen) / target.seconds, 1),
        "answered_per_second": round(sum(status == 200 for status, _ in seen) / target.seconds, 1),
        "refused_per_second": round(len(refused) / target.seconds, 1),
        "refused_p50_ms": round(percentile(refused, 0.5), 3) if refused else None,
        "refused_p99_ms": round(percentile(refused, 0.99), 3) if refused else None,
        "errors": sum(status not in (200, 503) for status, _ in seen),
        "resident_before": before,
        "resident": server.resident(),
    }


def beside_h2(server: Server, target: clients.Target) -> dict[str, Any]:
    """How fast an HTTP/1.1 client is alone, and beside one of HTTP/2 with 100 requests open all the time."""
    single = clients.Target(**{**vars(target), "connections": 1})
    alone = clients.wrk(single)
    # Longer than the other on both sides.
    command = ["h2load", "-t1", "-c1", "-m100", f"-D{round(target.seconds) + 2}s", f"https://127.0.0.1:{target.port}/"]
    other = subprocess.Popen(
        clients.on_core(target.core, command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        time.sleep(0.5)
        together = clients.wrk(single)
        said = other.communicate(timeout=target.seconds + 60)[0]
    finally:
        other.kill()
        other.wait()
    return {
        "alone_per_second": round(alone.requests / alone.seconds, 1),
        "beside_per_second": round(together.requests / together.seconds, 1),
        "h2_per_second": float(clients.found(r"([\d.]+) req/s", said, "h2load")[1]),
    }


SCENARIOS = (
    Scenario("sleep-beside", f"Hello beside {SLEEPERS} clients in a route that sleeps 1 s", beside("/sleep", SLEEPERS)),
    Scenario("burn-beside", "Hello beside a client in a route that computes 100 ms", beside("/burn", 1)),
    Scenario(
        "overload",
        f"Twice what a route of 5 ms can answer, `max_in_flight={IN_FLIGHT}`",
        overload,
        only="portico-",
        environment=(("PORTICO_BENCH_MAX_IN_FLIGHT", str(IN_FLIGHT)),),
    ),
    Scenario("h2-beside", "An HTTP/1.1 client beside one of HTTP/2 with 100 streams", beside_h2, "hello", "h2"),
)
