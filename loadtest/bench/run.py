"""Measures portico beside other servers, on one machine, in one run.

    python loadtest/bench/run.py [--loads h1,h2] [--only portico-auto,nginx] [--seconds 3] [--rounds 3] [--quick]

`make bench` builds and installs what it needs. A line for each measurement; at the end a table, a chart, and the
results as JSON. `report.py` makes docs/performance.md of them. Exits with 2 where a program is missing, before anything
runs, and with 1 where a measurement failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import chart
import clients
import environment
import idle
import loads
import summary
from contenders import Contender
from isolation import Scenario
from loads import Load
from options import Options, Task
from process import Server, ServerFailed


def measure(task: Task, contender: Contender, options: Options, folder: Path) -> dict[str, Any]:
    """One contender under one load, from its start to its end."""
    scenario_environment = dict(task.environment) if isinstance(task, Scenario) else {}
    connections = task.connections if isinstance(task, Load) else options.connections
    app = task.app if isinstance(task, Load | Scenario) else "hello"
    path = task.path if isinstance(task, Load) else "/"
    with Server(contender, app, options.server_core, folder, scenario_environment) as server:
        target = clients.Target(server.port, path, options.seconds, connections, options.client_core, folder)
        match task:
            case Load():
                return loads.closed_loop(task, server, target, options.warm)
            case Scenario():
                return task.measure(server, target)
        return idle.idle(server, options.connections)


def tell(result: dict[str, Any]) -> str:
    """A measurement on one line."""
    if "each" in result:
        return f"{result['each'] / 1024:9.1f} KiB for each of {result['connections']} connections"
    if "cpu_us" not in result:
        return ", ".join(f"{name} {value}" for name, value in result.items() if not name.startswith("resident"))
    errors = ", ".join(f"{name} {count}" for name, count in result["errors"].items()) or "no errors"
    line = f"{result['per_second']:9.0f} req/s {result['cpu_us']:9.2f} µs CPU {result['resident'] / 2**20:7.1f} MiB"
    line += f", core {result['core_busy']:4.0%} busy, {errors}"
    if result["resumed"] is not None:
        line += f", {result['resumed'] / result['requests']:.0%} resumed"
    return line


def run(options: Options, folder: Path, results: dict[str, Any]) -> None:
    """Every measurement, into `results` as it comes."""
    plan = [(task, options.fitting(task)) for task in options.tasks]
    total, done, started = sum(len(who) for _, who in plan) * options.rounds, 0, time.monotonic()
    for task, who in plan:
        print(f"\n{task.title}", flush=True)
        failed: set[str] = set()
        for number in range(options.rounds):
            # There and back, so that a drift of the machine meets all alike.
            for contender in who if number % 2 == 0 else who[::-1]:
                done += 1
                if contender.name in failed:
                    continue
                begin = f"[{done:3}/{total} {time.monotonic() - started:4.0f} s] {task.name:12} {contender.name:16}"
                try:
                    result = measure(task, contender, options, folder)
                except (ServerFailed, clients.ClientFailed, OSError, subprocess.TimeoutExpired) as error:
                    print(f"{begin} FAILED: {error}", flush=True)
                    failed.add(contender.name)
                    results["failures"].append({"load": task.name, "contender": contender.name, "why": str(error)})
                    continue
                print(f"{begin} {tell(result)}", flush=True)
                results["measurements"].append(
                    {"load": task.name, "contender": contender.name, "round": number + 1, **result}
                )


def interrupted(number: int, _: Any) -> None:
    # The next Ctrl-C must not keep us from ending the server.
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, lambda *_: None)
    raise KeyboardInterrupt


def main() -> int:
    options = Options.from_arguments(__doc__ or "")
    if missing := options.missing():
        for name, how in missing.items():
            print(f"{name} is not installed: {how}", file=sys.stderr)
        return 2
    if options.only_check:
        return 0
    for name, why in options.left_out.items():
        print(f"{name} is left out: {why}")
    # So that servers are ended however this is.
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    os.sched_setaffinity(0, {options.client_core})
    results: dict[str, Any] = {**environment.describe(options), "measurements": [], "failures": []}
    print(environment.in_words(results))
    try:
        with tempfile.TemporaryDirectory(prefix="portico-bench-") as folder:
            environment.certificate(Path(folder))
            run(options, Path(folder), results)
    except KeyboardInterrupt:
        print("\ninterrupted: what was measured until now is kept")
        results["interrupted"] = True
    if results["measurements"]:
        summary.save(results, options.out)
        chart.save(results, options.out.with_suffix(".svg"))
        print(f"\n{summary.text(results)}")
        print(f"\nresults: {options.out}, chart: {options.out.with_suffix('.svg')}")
    return 1 if results["failures"] or results.get("interrupted") else 0


if __name__ == "__main__":
    sys.exit(main())
