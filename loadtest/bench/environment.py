"""The machine, the versions, and a certificate: what has to be known to compare one run with another."""

from __future__ import annotations

import os
import platform
import re
import ssl
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from contenders import ROOT
from options import Options


def describe(options: Options) -> dict[str, Any]:
    return {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "commit": said(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]),
        "machine": {
            "cpu": processor(),
            "cores": os.cpu_count(),
            "memory": re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[0] + " KiB",
            "kernel": platform.release(),
        },
        "versions": {
            "python": platform.python_version(),
            "openssl of python": ssl.OPENSSL_VERSION,
            "wrk": first(["wrk", "-v"], r"wrk (\S+)"),
            "h2load": first(["h2load", "--version"], r"nghttp2/(\S+)"),
            **{contender.name: contender.version() for contender in options.contenders},
        },
        "options": {
            "seconds": options.seconds,
            "warm": options.warm,
            "rounds": options.rounds,
            "server_core": options.server_core,
            "client_core": options.client_core,
        },
        "left_out": options.left_out,
    }


def in_words(results: dict[str, Any]) -> str:
    machine, options = results["machine"], results["options"]
    return (
        f"{machine['cpu']}, Linux {machine['kernel']}, Python {platform.python_version()}; server on core "
        f"{options['server_core']}, client on core {options['client_core']}; {options['rounds']} rounds of "
        f"{options['seconds']:g} s"
    )


def processor() -> str:
    found = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[0] if found else platform.machine()


def said(command: list[str]) -> str:
    """What a program printed, also where it is not there or ends with an error, as `wrk -v` does."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return ""
    return (ended.stdout + ended.stderr).strip()


def first(command: list[str], pattern: str) -> str:
    found = re.findall(pattern, said(command))
    return found[0] if found else "not installed"


def certificate(folder: Path) -> None:
    """One for all contenders: ECDSA with P-256, for this run."""
    from portico import _core

    authority, authority_key = _core.make_authority("portico benchmark")
    chain, key = _core.issue_certificate(authority, authority_key, ["localhost"], 1)
    # nginx, where root starts it, reads files as somebody else.
    folder.chmod(0o755)
    # Without the authority: servers do not send it. The key's file is for this user alone.
    end = "-----END CERTIFICATE-----\n"
    (folder / "certificate.pem").write_text(chain.split(end)[0] + end)
    (folder / "key.pem").touch(0o600)
    (folder / "key.pem").write_text(key)


if sys.platform != "linux":
    sys.exit("the benchmark measures through /proc, which is Linux's")
