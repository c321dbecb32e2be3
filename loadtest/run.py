"""Loads a server with three HTTPS hosts by locust, for a bounded time, and fails where it should.

    python loadtest/run.py [--seconds 60] [--users 40] [--report loadtest/report]

Starts `server.py` and `locustfile.py` in processes of their own; all traffic stays on 127.0.0.1. Writes into the
report folder: `report.html` (locust's, with charts), `requests_*.csv`, `memory.svg` and `memory.csv` (the server's
resident size). Exits with 1 where a request failed, where the server counts a failure of its own, or where its memory
grew: the line through its resident size over the last half of the run may climb by GROWTH_BOUND at the most.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from memory import Sample, resident, slope

HERE = Path(__file__).parent
# In bytes. Coarser than in tests/test_memory.py, which finds leaks: here the server is measured while it works, and the
# bodies in its hands come and go by about 2 MiB. In a minute this bound is about 70 bytes for each request.
GROWTH_BOUND = 4 << 20
# How often the resident size is looked at, in seconds.
INTERVAL = 0.25


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: 60)")
    parser.add_argument("--users", type=int, default=40, help="how many at once (default: 40)")
    parser.add_argument("--report", type=Path, default=HERE / "report", help="where the report goes")
    return parser.parse_args()


def load(port: int, server: int, authority: Path, options: argparse.Namespace) -> tuple[bool, list[Sample]]:
    """Runs locust to its end: whether it was content, and the server's resident size meanwhile."""
    command = [
        *(sys.executable, "-m", "locust", "--locustfile", str(HERE / "locustfile.py")),
        *("--host", f"https://127.0.0.1:{port}", "--headless", "--only-summary", "--loglevel", "WARNING"),
        *("--users", str(options.users), "--spawn-rate", str(options.users), "--run-time", f"{options.seconds}s"),
        *("--stop-timeout", "10", "--html", str(options.report / "report.html")),
        *("--csv", str(options.report / "requests")),
    ]
    environment = {
        **os.environ,
        "PORTICO_LOAD_AUTHORITY": str(authority),
        "PORTICO_LOAD_SERVER": str(server),
        "PORTICO_LOAD_PROGRESS": "5" if options.seconds >= 30 else "2",
    }
    samples = []
    started = time.monotonic()
    locust = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    try:
        while locust.poll() is None:
            if time.monotonic() - started > options.seconds + 60:
                raise TimeoutError(f"locust is still there {options.seconds + 60} s after its start")
            samples.append((time.monotonic() - started, resident(server)))
            time.sleep(INTERVAL)
    finally:
        locust.kill()
        locust.wait()
    return locust.returncode == 0, samples


def failures(stats: dict[str, Any]) -> dict[str, int]:
    """What the server counted that must not happen here."""
    counted = {
        "handler_failures": stats["handler_failures"],
        "accept_errors": stats["accept_errors"],
        "handshakes_failed": sum(stats["handshakes_failed"].values()),
        "requests_refused": sum(stats["requests_refused"].values()),
        "connections_turned_away": sum(stats["connections_turned_away"].values()),
        "responses 5xx": stats["responses"]["5xx"],
    }
    return {name: count for name, count in counted.items() if count}


def chart(samples: list[Sample], middle: float, title: str) -> str:
    """The resident size over time as an SVG; the half that is judged is shaded."""
    left, top, right, bottom = 70, 50, 880, 320
    end = samples[-1][0] or 1
    most = max(size for _, size in samples) * 1.1

    def x(moment: float) -> float:
        return left + (right - left) * moment / end

    def y(size: float) -> float:
        return bottom - (bottom - top) * size / most

    shade = f'x="{x(middle):.1f}" y="{top}" width="{right - x(middle):.1f}" height="{bottom - top}"'
    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 360" font-family="sans-serif" font-size="13">',
        '<rect width="900" height="360" fill="white"/>',
        f'<rect {shade} fill="#eef3fa"/>',
        f'<text x="{left}" y="28" font-size="15">{title}</text>',
    ]
    for quarter in range(5):
        size, moment = most * quarter / 4, end * quarter / 4
        out += [
            f'<line x1="{left}" x2="{right}" y1="{y(size):.1f}" y2="{y(size):.1f}" stroke="#ccc"/>',
            f'<text x="{left - 8}" y="{y(size) + 4:.1f}" text-anchor="end">{size / 2**20:.0f} MiB</text>',
            f'<text x="{x(moment):.1f}" y="{bottom + 26}" text-anchor="middle">{moment:.0f} s</text>',
        ]
    line = " ".join(f"{x(moment):.1f},{y(size):.1f}" for moment, size in samples)
    out += [f'<polyline points="{line}" fill="none" stroke="#1a5fb4" stroke-width="2"/>', "</svg>\n"]
    return "\n".join(out)


def main() -> int:
    options = arguments()
    shutil.rmtree(options.report, ignore_errors=True)
    options.report.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(HERE / "server.py"), folder]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout
            port = json.loads(server.stdout.readline())["port"]
            print(f"{options.users} users on https://127.0.0.1:{port} for {options.seconds} s", flush=True)
            content, samples = load(port, server.pid, Path(folder) / "authority.pem", options)
            stats = json.loads(server.communicate(timeout=60)[0])
        finally:
            server.kill()
            server.wait()

    # The time in which locust starts and ends is no load.
    loaded = [sample for sample in samples if sample[0] <= options.seconds]
    requests = sum(stats["requests"].values())
    last_half = loaded[len(loaded) // 2 :]
    growth = slope(last_half) * (last_half[-1][0] - last_half[0][0])
    memory = (
        f"resident size of the server: {loaded[-1][1] / 2**20:.1f} MiB at the end, {growth / 2**20:+.1f} MiB over the "
        f"last half (bound: {GROWTH_BOUND / 2**20:+.0f})"
    )
    (options.report / "memory.svg").write_text(chart(samples, last_half[0][0], memory))
    with open(options.report / "memory.csv", "w", newline="") as file:
        csv.writer(file).writerows([("seconds", "bytes"), *((f"{moment:.2f}", size) for moment, size in samples)])

    print(f"{requests} requests in {stats['handshakes']} TLS connections; {memory}")
    print(f"report: {options.report / 'report.html'}, {options.report / 'memory.svg'}")
    problems = [] if content else ["requests failed, see above"]
    problems += [f"the server counted {counted}" for counted in (failures(stats),) if counted]
    if growth > GROWTH_BOUND:
        problems.append("the server's memory grew")
    for problem in problems:
        print(f"FAILED: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
