"""What the command line chooses: loads, contenders, and for how long."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import idle
import loads
from clients import missing_clients
from contenders import CONTENDERS, ROOT, Contender, example, missing_tools
from isolation import SCENARIOS, Scenario
from loads import Load


@dataclass(frozen=True)
class Idle:
    """The load that is not one: connections that are held."""

    name: str = idle.NAME
    title: str = idle.TITLE


Task = Load | Idle | Scenario
TASKS: tuple[Task, ...] = (*loads.LOADS, Idle(), *SCENARIOS)
ISOLATION = "isolation"


@dataclass
class Options:
    tasks: list[Task]
    contenders: list[Contender]
    seconds: float
    warm: float
    rounds: int
    connections: int
    out: Path
    server_core: int
    client_core: int
    only_check: bool
    left_out: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def from_arguments(doc: str) -> Options:
        names = ", ".join(task.name for task in TASKS)
        parser = argparse.ArgumentParser(description=doc.splitlines()[0])
        parser.add_argument("--loads", help=f"which of {names}; `{ISOLATION}` for the last four (default: all)")
        parser.add_argument("--only", help=f"which of {', '.join(it.name for it in CONTENDERS)} (default: all)")
        parser.add_argument("--seconds", type=float, help="how long each measurement takes (default: 3)")
        parser.add_argument("--rounds", type=int, help="how often each is made (default: 3)")
        parser.add_argument("--connections", type=int, help="how many idle connections (default: 2000)")
        parser.add_argument("--quick", action="store_true", help="one round of one second, 200 idle connections")
        parser.add_argument("--out", type=Path, help="where the JSON goes (default: loadtest/results/, by date)")
        parser.add_argument("--installed", action="store_true", help="measure a portico that is no optimised wheel")
        parser.add_argument("--check", action="store_true", help="only say which programs have to be installed")
        given = parser.parse_args()
        quick = given.quick
        if not given.check and not given.installed and (why := not_the_wheel()):
            parser.error(f"{why}: run `make bench`, or add --installed")
        tasks = choose(parser, given.loads, [task.name for task in TASKS], {ISOLATION: [it.name for it in SCENARIOS]})
        only = choose(parser, given.only, [contender.name for contender in CONTENDERS], {})
        chosen = [contender for contender in CONTENDERS if contender.name in only]
        left_out = {contender.name: why for contender in chosen if not given.check and (why := contender.missing())}
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) == 1:
            parser.error("server and client want a core each, and here is only one")
        return Options(
            tasks=[task for task in TASKS if task.name in tasks],
            contenders=[contender for contender in chosen if contender.name not in left_out],
            seconds=given.seconds or (1.0 if quick else 3.0),
            warm=0.0 if quick else 1.0,
            rounds=given.rounds or (1 if quick else 3),
            connections=given.connections or (200 if quick else 2000),
            out=given.out or ROOT / "loadtest" / "results" / f"{datetime.now():%Y-%m-%d-%H%M}.json",
            server_core=cores[-1],
            client_core=cores[0],
            only_check=given.check,
            left_out=left_out,
        )

    def missing(self) -> dict[str, str]:
        """Programs that are needed and not here, each with how to get it. With --check, not those that are built."""
        loads = {task.name for task in self.tasks}
        missing = {**missing_clients(loads), **missing_tools(self.contenders)}
        built = {
            "reconnect": bool(loads & {"resumed", "full"}),
            "limit": "limit" in [it.name for it in self.contenders],
        }
        for name, wanted in built.items():
            if wanted and not self.only_check and not example(name).exists():
                missing[name] = "cargo build --release -p portico-core --examples"
        return missing

    def fitting(self, task: Task) -> list[Contender]:
        """Who can take part in it."""
        if isinstance(task, Idle):
            return self.contenders
        only = task.only if isinstance(task, Scenario) else ""
        return [
            contender
            for contender in self.contenders
            if task.protocol in contender.protocols and task.app in contender.apps and contender.name.startswith(only)
        ]


def choose(
    parser: argparse.ArgumentParser, given: str | None, known: list[str], groups: dict[str, list[str]]
) -> set[str]:
    """Names out of a list with commas; all without one."""
    if given is None:
        return set(known)
    chosen: set[str] = set()
    for name in filter(None, given.split(",")):
        if name not in known and name not in groups:
            parser.error(f"{name} is not known; there are: {', '.join([*known, *groups])}")
        chosen |= set(groups.get(name, [name]))
    return chosen


def not_the_wheel() -> str | None:
    """Why this interpreter's portico is not to be measured: a build for development is not optimised across crates."""
    import portico

    inside = Path(portico.__file__).is_relative_to(ROOT / "python")
    return "this Python has portico as built for development" if inside else None
