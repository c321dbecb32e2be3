"""The wheel alone serves HTTPS: installed in an empty environment, run from elsewhere, without this repository."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import portico

ROOT = Path(__file__).parents[1]
MATURIN = Path(sys.prefix) / "bin" / "maturin"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not MATURIN.exists(), reason="maturin is not installed: pip install --group build"),
    pytest.mark.skipif(shutil.which("cargo") is None, reason="no Rust toolchain"),
]

PROGRAM = """
import sys
import portico
from portico import _core

authority, authority_key = _core.make_authority("wheel")
cert, key = _core.issue_certificate(authority, authority_key, ["wheel.test"], 1)
with portico.Server(lambda request: {"statusCode": 200, "body": f"from {portico.__file__}"}) as server:
    server.add_context("wheel.test", cert=cert.encode(), key=key.encode())
    listener = server.listen(0)
    print(listener.port, flush=True)
    print(authority, flush=True)
    sys.stdin.read()
"""


def run(*command: str | Path, **options: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the profile that `make test` has built already."""
    out = tmp_path_factory.mktemp("dist")
    run(MATURIN, "build", "--profile", "quick", "--locked", "--interpreter", sys.executable, "--out", out, cwd=ROOT)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has portico from the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    install = ["-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    run(sys.executable, *install)
    return python


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def test_the_wheel_serves_https_from_an_empty_environment(python: Path, tmp_path: Path) -> None:
    command = [python, "-c", PROGRAM]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout
            assert program.stdin
            port = int(program.stdout.readline())
            authority = "".join(iter(program.stdout.readline, "\n"))
            context = ssl.create_default_context(cadata=authority)
            with (
                socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
                context.wrap_socket(plain, server_hostname="wheel.test") as secure,
            ):
                secure.sendall(b"GET / HTTP/1.1\r\nHost: wheel.test\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: secure.recv(4096), b"")).decode()
            program.stdin.close()
            assert program.wait(60) == 0
        finally:
            program.kill()
    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    assert f"from {python.parents[1]}" in answer


def test_the_wheel_brings_command_and_version(python: Path, tmp_path: Path) -> None:
    command = [python.with_name("portico"), "--help"]
    told = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert "demo" in told.stdout
    ask = "import importlib.metadata as m; print(m.version('portico'))"
    command = [python, "-c", ask]
    told = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout.strip() == portico.__version__


def test_the_wheel_has_all_that_the_demo_shows(wheel: Path) -> None:
    demo = ROOT / "python" / "portico" / "demo"
    there = {f"portico/demo/{path.relative_to(demo)}" for path in demo.rglob("*.*") if path.suffix != ".pyc"}
    assert {"portico/demo/pages/_site.psp", "portico/demo/files/portico.webm"} < there
    assert there <= set(zipfile.ZipFile(wheel).namelist())
