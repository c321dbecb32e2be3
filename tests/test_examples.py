"""Every program of `examples/` runs as it is, answers the command lines that it prints, and stops on Ctrl-C."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from programs import Program, shell

EXAMPLES = Path(__file__).parent.parent / "examples"

SHA256 = "b94f6f125c79e3a5ffaa826f584c10d52ada669e6762051b826b55776d05aed2"  # of "some text"
TICKS = "data: tick 0\n\ndata: tick 1\n\ndata: tick 2\n\n"

# What the curl lines of each print, in their order.
ANSWERS = {
    "hello.py": ["hello /world"],
    "readme.py": ["hello /tls", "https://vip.shop.test/", "hello /cleartext"],
    "several_hosts.py": [
        "Here live books.localhost, bread.localhost, localhost. ",
        "Books, by the yard.",
        "Bread, while it lasts.",
        "https://bakery.localhost is new",
        "bakery.localhost is open",
    ],
    "routes.py": [
        "Notes are at /api/notes/1.",
        "buy bread",
        "kept",
        "wine",
        "/old has /page",
        "405 Method Not Allowed",
    ],
    "files.py": ["<p>home", "0\n1\n", "<!DOCTYPE html>", "day,visits\n1,12"],
    "pages.py": ["<!doctype html>\n<title>Guest book</title>", "a text is missing", "<!doctype html>"],
    "pages_sessions.py": [
        "<p>In your cart: tea\n",
        "<p>In your cart: tea, milk\n",
        "<p>Which item? There are: 3 tea, 1 milk\n",
        "<p>Sold.\n",
        "there is no milk left\n",
    ],
    "status_page.py": ["<!doctype html>", "by POST\n", "<!doctype html>", "404 Not Found"],
    "workers.py": ["hello /one", "hello /another"],
    "async_app.py": ["hello /async at tick "],
    "starlette_app.py": ["hello world", f'{{"name":"note.txt","size":9,"sha256":"{SHA256}"}}', TICKS],
    "fastapi_app.py": [
        '{"name":"bread","price":2.5}',
        '{"name":"bread","price":2.5}',
        '{"detail":"no item 2"}',
        f'{{"name":"note.txt","size":9,"sha256":"{SHA256}"}}',
        "0\n1\n2\n",
    ],
    "django_app.py": ["hello world", "done", f'{{"name": "note.txt", "size": 9, "sha256": "{SHA256}"}}', TICKS],
    "flask_app.py": [
        "hello world, visit 1",
        f'{{"name":"note.txt","sha256":"{SHA256}","size":9}}',
        "line 0\nline 1\nline 2\n",
    ],
    "login.py": ["welcome, Ada\nAda, visit 1\nAda, visit 2\ngood-bye\nwho are you?\n", "who are you?"],
    "chat.py": ["<!doctype html>\n<title>chat</title>"],
    "echo.py": ["426 Upgrade Required"],
    "lambda_app.py": ["hello Ada, GET /greet", "3 bytes"],
    "streams.py": ["request 1 on this connection: /one\nrequest 2 on this connection: /two\n"],
}


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(ANSWERS)


@pytest.mark.parametrize("name", ANSWERS)
def test_example_answers_as_it_says(name, tmp_path):
    program = Program(EXAMPLES / name, HOME=str(tmp_path))
    try:
        for _ in ANSWERS[name]:
            program.wait_for("^curl ")
        answers = [shell(line.replace("curl ", "curl --noproxy '*' ", 1), tmp_path) for line in program.curls()]
        assert len(answers) == len(ANSWERS[name])
        clients = [line.strip() for line in program.printed if line.startswith("python ")]
        shown = [shell(re.sub("^python", sys.executable, line), tmp_path) for line in clients]
        if name == "chat.py":
            assert re.fullmatch(r"(guest \d+) is here, with 0 others\n\1: hello\n\1: anybody there\?\n", "".join(shown))
        if name == "echo.py":
            assert shown == ["hello\nagain\n"]
        if name == "streams.py":
            counted = "apples is 3\napples is 7\npears is 0\ncommands: add NAME NUMBER, get NAME, quit\n"
            assert shown == ["hello\nagain\n", counted]
        for answer, expected in zip(answers, ANSWERS[name], strict=True):
            assert answer.startswith(expected)
            assert answer.endswith("\n")
        assert program.signal().end() == 0
    finally:
        program.close()
