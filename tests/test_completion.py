"""`portico completion`: the scripts, as shells use them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from clients import GENEROUS
from portico import cli
from portico.cli._completion import SHELLS


@pytest.fixture
def script(capsys, tmp_path):
    """The script for a shell, in a file."""

    def script(shell):
        assert cli.main(["completion", shell]) == 0
        path = tmp_path / f"portico.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return script


def answers(*command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=GENEROUS, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


# What bash does when Tab is pressed: the function that `complete` has named, with the words and where the cursor is.
BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p portico | sed -E 's/.*-F ([^ ]+).*/\\1/')
"$function" portico "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def bash(script, tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    path = script("bash")
    return lambda *words: answers("bash", "-c", BASH, "-", str(path), "portico", *words, folder=tmp_path)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ([""], {"demo", "serve", "run", "check", "reload", "certs", "completion"}),
        (["re"], {"reload"}),
        (["run", "--wo"], {"--workers"}),
        (["run", "--w"], {"--workers", "--wsgi"}),
        (["run", "--log-level", ""], {"debug", "info", "warning", "error", "critical"}),
        (["run", "--log-level", "w"], {"warning"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["reload", "--"], {"--help", "--pid", "--control", "--config"}),
    ],
)
def test_bash_completes_commands_options_and_values(bash, words, completed):
    assert set(bash(*words)) == completed


def test_bash_completes_files_and_folders(bash, tmp_path):
    (tmp_path / "portico.toml").touch()
    (tmp_path / "public").mkdir()
    assert "portico.toml" in bash("run", "--config", "por")
    assert bash("serve", "pub") == ["public"]
    assert bash("run", "--app-dir", "p") == ["public"], "folders alone"


def test_fish_completes(script, tmp_path):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    path = script("fish")
    complete = lambda line: {  # noqa: E731
        one.split("\t")[0]
        for one in subprocess.run(
            ["fish", "--no-config", "-c", f"source {path}; complete -C {line!r}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=GENEROUS,
            check=True,
        ).stdout.splitlines()
    }
    assert {"demo", "run", "reload"} <= complete("portico ")
    assert "--workers" in complete("portico run --w")


def test_zsh_takes_the_script(script, tmp_path):
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    path = script("zsh")
    path.rename(tmp_path / "_portico")
    told = answers(
        "zsh", "-f", "-c", f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D; print $_comps[portico]",
        folder=tmp_path,
    )  # fmt: skip
    assert told == ["_portico"]
    answers("zsh", "-f", "-n", str(tmp_path / "_portico"), folder=tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_is_in_every_script(script, shell):
    text = script(shell).read_text()
    for command in ("demo", "serve", "run", "check", "reload", "certs", "completion"):
        assert command in text
    assert "max-header" not in text, "settings are typed as --set NAME=VALUE"
