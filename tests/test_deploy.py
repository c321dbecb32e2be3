"""examples/deploy: what systemd and Docker are given."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clients import GENEROUS, request, trusting
from portico import config
from portico.cli._exits import Exit
from programs import Program

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "examples" / "deploy"


def unit(name):
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str
    parser.read(DEPLOY / name)
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", ["portico.service", "portico.socket"])
def test_systemd_takes_the_units(name, tmp_path):
    """With a command that is there, which systemd looks at."""
    for each in ("portico.service", "portico.socket"):
        text = (DEPLOY / each).read_text()
        (tmp_path / each).write_text(text.replace("/srv/app/.venv/bin/portico", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / name], capture_output=True, text=True, timeout=GENEROUS
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_says_what_the_command_takes():
    service = unit("portico.service")["Service"]
    assert service["Type"] == "notify"
    from portico import cli

    for key in ("ExecStart", "ExecReload"):
        program, *arguments = shlex.split(service[key])
        assert program == "/srv/app/.venv/bin/portico"
        cli.parser_of_all().parse_args(arguments)
    codes = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert codes == {Exit.MISTAKE, Exit.USAGE, Exit.ADDRESS, Exit.NOBODY}
    configuration, problems = config.load(config.Options(DEPLOY / "portico.toml"), {})
    assert not problems
    assert float(service["TimeoutStopSec"]) > configuration.grace + 5
    assert float(service["TimeoutStartSec"]) > configuration.ready_timeout
    assert unit("portico.socket")["Socket"]["FileDescriptorName"] == "https"


INSTRUCTIONS = {
    "ARG",
    "FROM",
    "RUN",
    "CMD",
    "EXPOSE",
    "ENV",
    "COPY",
    "ENTRYPOINT",
    "USER",
    "WORKDIR",
    "STOPSIGNAL",
    "HEALTHCHECK",
}


def instructions():
    """What the Dockerfile says, a stage after the other."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in lines]


def test_the_dockerfile_is_as_it_should_be():
    said = instructions()
    assert {name for name, _ in said} <= INSTRUCTIONS
    stages = [at for at, (name, _) in enumerate(said) if name == "FROM"]
    assert len(stages) == 2
    last = said[stages[-1] :]
    (default,) = (rest.removeprefix("PYTHON=") for name, rest in said if name == "ARG")
    assert re.fullmatch(r"3\.\d+", default)
    for _, image in (said[at] for at in stages):
        assert re.match(r"python:\$\{PYTHON\}-slim\b", image), "a version, and a small one"
    names = [name for name, _ in last]
    assert "RUN" not in names[names.index("USER") :], "nothing is changed by the user that serves"
    user = dict(last)["USER"]
    assert user.isdigit(), "a number: Kubernetes' runAsNonRoot knows no names"
    assert user != "0"
    for name in ("ENTRYPOINT", "CMD"):
        assert json.loads(dict(last)[name]), "a list: a shell would keep signals to itself"
    assert dict(last)["STOPSIGNAL"] == "SIGTERM"
    for name, rest in said:
        if name == "RUN" and "pip install" in rest:
            assert "--no-cache-dir" in rest
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert source.startswith("dist/") or (ROOT / source).exists(), source


def test_what_the_container_runs_serves_and_is_found_healthy(tmp_path):
    """As the Dockerfile has it, but for places and ports."""
    last = dict(
        instructions()[next(at for at, (name, _) in reversed(list(enumerate(instructions()))) if name == "FROM") :]
    )
    command = [*json.loads(last["ENTRYPOINT"]), *json.loads(last["CMD"])]
    assert command == ["portico", "run", "--config", "/srv/app/portico.toml"]
    variables = dict(re.findall(r'(PORTICO_\w+)="([^"]*)"', last["ENV"]))
    assert variables == {"PORTICO_LISTEN": "0.0.0.0:8443", "PORTICO_ADMIN": "127.0.0.1:9443"}
    places = {"PORTICO_LISTEN": "127.0.0.1:0", "PORTICO_ADMIN": "127.0.0.1:0"}
    for name in ("app.py", "portico.toml"):
        shutil.copy(DEPLOY / name, tmp_path)
    # The certificate that the image has, and who can be told to trust it, which nobody is there.
    (certs,) = (shlex.split(rest) for name, rest in instructions() if name == "RUN" and "portico certs" in rest)
    certs = [one.replace("/tmp/", f"{tmp_path}/") for one in certs[1:]]
    subprocess.run([sys.executable, "-m", "portico", *certs], cwd=tmp_path, check=True, timeout=GENEROUS)
    context = trusting((tmp_path / "authority" / "ca.crt").read_bytes())
    arguments = [str(tmp_path / "portico.toml") if one.endswith(".toml") else one for one in command[1:]]
    program = Program("-m", "portico", *arguments, HOME=str(tmp_path), **places)
    try:
        program.wait_for("^Ctrl-C stops the server")
        port, admin = map(int, re.findall(r"https?://127\.0\.0\.1:(\d+)/", program.output)[:2])
        assert request(port, "GET", "/x", host="localhost", context=context).text == "hello /x\n"
        # The words after the options of HEALTHCHECK.
        check = json.loads(re.search(r"CMD (\[.*\])$", last["HEALTHCHECK"])[1])
        check = [sys.executable, *(one.replace("9443", str(admin)) for one in check[1:])]
        assert subprocess.run(check, timeout=GENEROUS, env={"PATH": os.environ["PATH"]}, check=False).returncode == 0
        program.process.kill()
        program.process.wait()
        assert subprocess.run(check, timeout=GENEROUS, capture_output=True, check=False).returncode != 0
    finally:
        program.close()
