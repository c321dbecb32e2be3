"""`portico run`: while clients that never try again ask, it is reloaded, given more and fewer workers, and a successor;
every request is answered."""

from __future__ import annotations

import json
import os
import signal

import pytest

from clients import trusting, wait_until
from portico.cli import _control
from reload_clients import Crowd, either
from running import Running, write

EVERYBODY = {
    "KeepAlive": 4, "Slow": 2, "Uploads": 1, "Reconnecting": 4, "Multiplexing": 2, "Chatting": 2, "ChattingOverHTTP2": 1,
}  # fmt: skip

PROGRAM = """
import os
import reload_mains

taken = os.open("taken", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def count():
    os.write(taken, b".")

def answer(request):
    count()
    return {"statusCode": 200, "body": str(os.getpid())}

router = reload_mains.handler(answer, count)
"""


def configure(folder, workers):
    write(
        folder / "portico.toml",
        f"""
        handler = "web:router"
        listen = [0, "http://127.0.0.1:0"]
        workers = {workers}
        control = "control.sock"
        pid_file = "pid"
        [hosts.localhost]
        cert = "localhost.pem"
        """,
    )


@pytest.mark.slow
def test_nothing_is_lost(tmp_path, issue, ca_pem):
    cert, key = issue("localhost").values()
    (tmp_path / "localhost.pem").write_bytes(cert + key)
    (tmp_path / "web.py").write_text(PROGRAM)
    configure(tmp_path, 2)
    running = Running(tmp_path, PYTHONPATH=os.path.dirname(__file__))
    control = tmp_path / "control.sock"
    try:
        ports = running.ready()
        with Crowd(either(*ports, lambda alpn: trusting(ca_pem, alpn=alpn)), **EVERYBODY) as clients:

            def go_on():
                seen = clients.answered
                wait_until(lambda: clients.answered > seen + 100, "clients to be answered")

            go_on()
            for workers in (2, 3, 1, 2):
                configure(tmp_path, workers)
                answer = _control.ask(control, "reload", 60)
                assert answer["ok"], json.dumps(answer)
                assert answer["text"].endswith(f"by {workers} worker{'s' if workers > 1 else ''}")
                go_on()
            # What is broken is refused under load too.
            (tmp_path / "web.py").write_text("1 / 0")
            assert not _control.ask(control, "reload", 60)["ok"]
            go_on()
            (tmp_path / "web.py").write_text(PROGRAM)
            running.signal(signal.SIGHUP)
            running.wait_for("portico.run: reloaded in")
            go_on()
            running.signal(signal.SIGUSR2)
            assert running.process.wait(60) == 0
            go_on()
        assert clients.lost == []
        assert clients.sent == clients.answered == (tmp_path / "taken").stat().st_size
        assert clients.answered > 700
    finally:
        # First the successor, which has the output of the first one as well.
        if (tmp_path / "pid").exists():
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
            wait_until(lambda: not (tmp_path / "pid").exists(), "the successor to end")
        running.close()
