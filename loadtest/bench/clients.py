"""The programs that make load, each run on the client's core, and what they say made comparable."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from contenders import HERE, example

# wrk offers what OpenSSL puts first, AES-256. Browsers, h2load and `reconnect` put AES-128 first; so does wrk by this.
OPENSSL = """openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = offer
[offer]
Ciphersuites = TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
"""


@dataclass
class Counted:
    """What a client saw."""

    requests: int
    seconds: float
    errors: dict[str, int] = field(default_factory=dict)
    resumed: int | None = None


@dataclass(frozen=True)
class Target:
    port: int
    path: str
    seconds: float
    connections: int
    core: int
    folder: Path


Client = Callable[[Target], Counted]


class ClientFailed(Exception):
    """A client could not do its work; with the end of what it said."""


def on_core(core: int, command: list[str]) -> list[str]:
    return ["taskset", "--cpu-list", str(core), *command]


def run(target: Target, command: list[str]) -> str:
    """What a client printed."""
    openssl = target.folder / "openssl.cnf"
    openssl.write_text(OPENSSL)
    ended = subprocess.run(
        on_core(target.core, command),
        capture_output=True,
        text=True,
        check=False,
        timeout=target.seconds * 3 + 60,
        env={**os.environ, "OPENSSL_CONF": str(openssl)},
    )
    if ended.returncode:
        raise ClientFailed(
            f"{command[0]} ended with {ended.returncode}: {(ended.stderr or ended.stdout)[-300:].strip()}"
        )
    if ended.stderr.strip():
        print(f"      {Path(command[0]).name}: {ended.stderr.strip()[-300:]}", flush=True)
    return ended.stdout


def found(pattern: str, text: str, client: str) -> re.Match[str]:
    match = re.search(pattern, text)
    if match is None:
        raise ClientFailed(f"{client} said what is not understood: {text[-300:].strip()}")
    return match


def seconds_of(number: str, unit: str) -> float:
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}[unit]


def wrk(target: Target, *more: str) -> Counted:
    """HTTP/1.1 on connections that are kept. Its durations are whole seconds."""
    said = run(
        target,
        [
            *(
                "wrk",
                "-t1",
                f"-c{target.connections}",
                f"-d{max(1, round(target.seconds))}s",
                "--timeout",
                "10s",
                *more,
            ),
            f"https://127.0.0.1:{target.port}{target.path}",
        ],
    )
    total = found(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h)", said, "wrk")
    errors = {}
    if refused := re.search(r"Non-2xx or 3xx responses: (\d+)", said):
        errors["status"] = int(refused[1])
    if sockets := re.search(r"Socket errors: (.*)", said):
        errors |= {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", sockets[1]) if int(count)}
    answered = int(total[1]) - errors.get("status", 0)
    return Counted(answered, seconds_of(total[2], total[3]), errors)


def wrk_upload(target: Target) -> Counted:
    return wrk(target, "-s", str(HERE / "upload.lua"))


def wrk_with(headers: dict[str, str]) -> Client:
    options = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    return lambda target: wrk(target, *options)


def h2load(target: Target, streams: int = 32) -> Counted:
    """HTTP/2 with so many streams on each connection."""
    said = run(
        target,
        [
            *("h2load", "-t1", f"-c{target.connections}", f"-m{streams}", f"-D{max(1, round(target.seconds))}s"),
            f"https://127.0.0.1:{target.port}{target.path}",
        ],
    )
    took = found(r"finished in ([\d.]+)(us|ms|s|m|h)", said, "h2load")
    statuses = found(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said, "h2load")
    counts = found(r"(\d+) failed, (\d+) errored, (\d+) timeout", said, "h2load")
    names = ("3xx", "4xx", "5xx", "failed", "errored", "timeout")
    numbers = [*statuses.groups()[1:], *counts.groups()]
    errors = {name: int(number) for name, number in zip(names, numbers, strict=True) if int(number)}
    if "Application protocol: h2" not in said:
        errors["protocol"] = 1
    return Counted(int(statuses[1]), seconds_of(took[1], took[2]), errors)


def reconnect(kind: str) -> Client:
    """A new connection for each request: `resumed` or `full`."""

    def client(target: Target) -> Counted:
        program = str(example("reconnect"))
        arguments = [str(target.port), str(target.seconds), str(target.connections), kind]
        said = json.loads(run(target, [program, *arguments]))
        errors = {"connection": said["errors"]} if said["errors"] else {}
        return Counted(said["requests"], said["seconds"], errors, said["resumed"])

    return client


def talk(kind: str) -> Client:
    """A conversation: `websocket` or `echo`, by `talk.py`."""

    def client(target: Target) -> Counted:
        arguments = [kind, str(target.port), str(target.seconds), str(target.connections)]
        said = json.loads(run(target, [sys.executable, str(HERE / "talk.py"), *arguments]))
        errors = {"connection": said["errors"]} if said["errors"] else {}
        return Counted(said["requests"], said["seconds"], errors)

    return client


WRK = {
    "h1",
    "headers",
    "suspend",
    "upload",
    "large",
    "starlette",
    "static_1k",
    "static_100k",
    "static_10m",
    "h2-beside",
}


def missing_clients(loads: set[str]) -> dict[str, str]:
    """Programs that chosen loads want, and that are not here: each with how to get it."""
    needed = {
        "taskset": ("apt install util-linux", bool(loads)),
        "wrk": ("apt install wrk", bool(loads & WRK)),
        "h2load": ("apt install nghttp2-client", bool(loads & {"h2", "h2-beside"})),
    }
    return {name: how for name, (how, wanted) in needed.items() if wanted and not shutil.which(name)}
