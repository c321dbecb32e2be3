"""The access log: a line for each request that has ended, in every way that it may end, wherever the lines go."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time

import httpx
import pytest

import portico
import sockets
from clients import GENEROUS, wait_until

COMBINED = re.compile(
    r'(?P<ip>\S+) - - \[(?P<date>[^\]]+)\] "(?P<line>(?:[^"\\]|\\.)*)" (?P<status>\d+|-) (?P<sent>\d+)'
    r'(?: "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?'
)


class Log:
    """A log in a file, as a test reads it."""

    def __init__(self, path):
        self.path = path

    def lines(self, number):
        """So many lines, waited for; no more are there."""
        wait_until(lambda: len(self.read()) >= number, f"{number} lines in {self.read()}")
        lines = self.read()
        assert len(lines) == number, lines
        return lines

    def read(self):
        return self.path.read_bytes().decode("ascii").splitlines() if self.path.exists() else []

    def parsed(self, number):
        matches = [COMBINED.fullmatch(line) for line in self.lines(number)]
        assert all(matches), self.read()
        return [match.groupdict() for match in matches]

    def objects(self, number):
        return [json.loads(line) for line in self.lines(number)]


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "access.log")


@pytest.fixture
def logged(serve, log):
    """Starts a server whose log is a file of JSON. One loop ends all its requests, so that lines come in their order: that one
    is over is known to its client a moment before it is to the log."""

    def logged(handler=None, **settings):
        settings = {"access_log": log.path, "access_log_format": "json", "io_threads": 1, **settings}
        return serve(**settings) if handler is None else serve(handler, **settings)

    return logged


# ---- what a line says


def test_combined_is_the_default(logged, log):
    served = logged(access_log_format="combined")
    served.get("/a?b=c", headers={"user-agent": "probe/1", "referer": "https://example.com/"})
    (line,) = log.parsed(1)
    date = line.pop("date")
    assert re.fullmatch(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000", date)
    assert line == {
        "ip": "127.0.0.1",
        "line": "GET /a?b=c HTTP/1.1",
        "status": "200",
        "sent": str(len("hello /a")),
        "referer": "https://example.com/",
        "agent": "probe/1",
    }


def test_common_has_no_headers(logged, log):
    logged(access_log_format="common").get("/a")
    assert log.parsed(1)[0]["referer"] is None


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_json_says_what_is_known(logged, log, http2):
    router = portico.Router()
    router.add_route("POST", "/users/{id}", lambda request: {"statusCode": 201, "body": "x" * 1000})
    outer = portico.Router()
    outer.mount("/api", router)
    served = logged(outer, hosts=("one.test", "two.test"))
    with served.httpx(host="two.test", http2=http2) as client:
        client.post(
            "/api/users/7?a=b", content=b"y" * 2000, headers={"user-agent": "me", "accept-encoding": "identity"}
        )
    (entry,) = log.objects(1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    assert 0 <= entry.pop("time_to_first_byte") <= entry.pop("duration") < GENEROUS
    assert entry.pop("remote_port") > 0
    assert (entry.pop("pid"), entry.pop("connection")) == (os.getpid(), 1)
    assert entry.pop("tls_cipher").startswith("TLS")
    assert entry == {
        "remote_addr": "127.0.0.1",
        "method": "POST",
        "target": "/api/users/7?a=b",
        "protocol": "HTTP/2.0" if http2 else "HTTP/1.1",
        "host": f"two.test:{served.port}",
        "server_name": "two.test",
        "route": "/api/users/{id}",
        "status": 201,
        "bytes_received": 2000,
        "bytes_sent": 1000,
        "outcome": "whole",
        "user_agent": "me",
        "tls_version": "TLSv1.3",
        "tls_server_name": "two.test",
        "tls_resumed": False,
    }


def test_clear_requests_know_their_host_too(logged, log):
    served = logged(hosts=("one.test", "two.test"))
    with served.wire() as wire:
        wire.get(host="TWO.test")
    (entry,) = log.objects(1)
    assert (entry["server_name"], entry["host"]) == ("two.test", "TWO.test")
    assert "tls_version" not in entry


@pytest.mark.parametrize("form", ["combined", "json"])
def test_the_client_is_whom_a_trusted_proxy_names(logged, log, form):
    served = logged(trusted_proxies=["127.0.0.1"], forwarded="x-forwarded", access_log_format=form)
    served.get("/", headers={"x-forwarded-for": "198.51.100.7, 203.0.113.9"})
    served.get("/")
    if form == "combined":
        assert [line["ip"] for line in log.parsed(2)] == ["203.0.113.9", "127.0.0.1"]
        return
    named, own = log.objects(2)
    assert (named["remote_addr"], named["proxy_addr"]) == ("203.0.113.9", "127.0.0.1")
    assert "remote_port" not in named
    assert own["remote_addr"] == "127.0.0.1"
    assert "proxy_addr" not in own


def test_what_goes_over_the_wire_is_counted(logged, log):
    """Bodies as they went, not as handlers have them."""
    served = logged(
        lambda request: {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": "a" * 100_000}
    )
    with served.httpx() as client:
        client.get("/")
    with served.wire() as wire:
        wire.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").read("HEAD")
    coded, head = log.objects(2)
    assert 0 < coded["bytes_sent"] < 10_000
    assert head["bytes_sent"] == 0


def test_injected_lines_stay_one_line(logged, log):
    served = logged(access_log_format="combined")
    agent = 'a"\\\x1b[31m\xff'.encode("latin-1")
    with served.wire() as wire:
        wire.send(b'GET /%0a HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a"\\\t\xff\xe9\r\nReferer: \xc3\xa9\r\n\r\n')
        assert wire.read().status == 200
    with served.wire() as wire:
        # ESC stands in no header; as no request at all it is logged.
        wire.send(b"GET /\x1b[2J HTTP/1.1\r\nHost: localhost\r\nUser-Agent: " + agent + b"\r\n\r\n")
        assert wire.read().status == 400
    good, bad = log.parsed(2)
    assert (good["agent"], good["referer"]) == (r"a\"\\\x09\xff\xe9", r"\xc3\xa9")
    assert (bad["line"], bad["status"]) == (r"GET /\x1b[2J HTTP/1.1", "400")


# ---- however it ends


def test_refusals_are_logged_with_what_is_known(logged, log):
    served = logged(max_request_read_bytes=10, header_timeout=0.3)
    for sent, status in [
        (b"\x16\x03\x01\x02\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n", 413),
        (b"GET /slow HTTP/1.1\r\nHost:", 408),
    ]:
        with served.wire() as wire:
            assert wire.send(sent).read().status == status
    entries = log.objects(4)
    assert [entry["refused"] for entry in entries] == ["request_line", "host", "body_bytes", "header_timeout"]
    assert [entry["status"] for entry in entries] == [400, 400, 413, 408]
    assert entries[0]["request_line"] == "\x16\x03\x01\x02"
    assert entries[1]["request_line"] == "GET / HTTP/1.1"
    assert (entries[2]["method"], entries[2]["target"]) == ("POST", "/upload")
    assert entries[3]["request_line"] == "GET /slow HTTP/1.1"
    assert all(entry["bytes_sent"] > 0 for entry in entries)


def test_refusals_on_http2(logged, log, h2_of):
    served = logged(max_request_read_bytes=10)
    client = h2_of(served)
    with served.httpx() as other:
        assert other.post("/big", content=b"x" * 11).status_code == 413
        assert other.get("/", headers={"expect": "magic"}).status_code == 417
    first = client.open(("x-a", " b"), path="/white")
    wait_until(lambda: len(log.read()) == 3, "the reset stream")
    big, magic, white = log.objects(3)
    assert (big["target"], big["refused"], big["status"]) == ("/big", "body_bytes", 413)
    assert (magic["refused"], magic["status"]) == ("expectation", 417)
    assert (white["target"], white["refused"], white["status"]) == ("/white", "header", None)
    assert first


def test_too_many_in_flight_and_no_handler(logged, log, gate):
    served = logged(gate, max_in_flight=1)
    with served.wire() as first:
        first.send("GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        gate.wait_for()
        assert served.get("/2").status == 503
        gate.opened.set()
        assert first.read().status == 200
    refused, fine = log.objects(2)
    assert (refused["target"], refused["refused"]) == ("/2", "max_in_flight")
    assert (fine["target"], fine["outcome"]) == ("/1", "whole")


def test_handlers_that_fail(logged, log):
    def handler(request):
        if request.path == "/broken":

            def body():
                yield b"begun"
                assert seen.acquire(timeout=GENEROUS)
                raise RuntimeError("no more")

            return {"statusCode": 200, "body": body()}
        raise RuntimeError("no")

    seen = threading.Semaphore(0)
    served = logged(handler)
    assert served.get("/raises").status == 500
    with served.wire() as wire:
        wire.send("GET /broken HTTP/1.1\r\nHost: localhost\r\n\r\n").file.readline()
        seen.release()
        wire.rest()
    with served.httpx() as client, client.stream("GET", "/broken") as answer:
        seen.release()
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
    raised, broken, reset = log.objects(3)
    assert (raised["status"], raised["outcome"]) == (500, "whole")
    for entry in (broken, reset):
        assert (entry["status"], entry["outcome"], entry["bytes_sent"]) == (200, "handler", 5)


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_clients_that_leave(logged, log, gate, h2_of, http2):
    async def never(request):
        gate.entered.release()
        await asyncio.Event().wait()

    served = logged(never)
    if http2:
        client = h2_of(served)
        stream = client.open(path="/left")
        gate.wait_for()
        client.connection.reset_stream(stream)
        client.flush()
    else:
        wire = served.wire().send("GET /left HTTP/1.1\r\nHost: localhost\r\n\r\n")
        gate.wait_for()
        wire.close()
    (entry,) = log.objects(1)
    assert (entry["target"], entry["status"], entry["outcome"]) == ("/left", None, "aborted")


def test_clients_that_leave_within_a_request_or_a_response(logged, log):
    served = logged(lambda request: {"statusCode": 200, "body": b"x" * 50_000_000})
    with served.wire() as wire:
        wire.send("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n" + "x" * 40)
    wait_until(lambda: len(log.read()) == 1, "the upload")
    with served.wire() as wire:
        wire.send("GET /heads")
    wait_until(lambda: len(log.read()) == 2, "the head")
    with served.wire(receive_buffer=4096) as wire:
        wire.send("GET /download HTTP/1.1\r\nHost: localhost\r\n\r\n").file.read(100_000)
    upload, head, download = log.objects(3)
    assert (upload["target"], upload["bytes_received"], upload["outcome"]) == ("/upload", 40, "aborted")
    assert (head["request_line"], head["status"]) == ("GET /heads", None)
    assert (download["status"], download["outcome"]) == (200, "aborted")
    assert 100_000 <= download["bytes_sent"] < 50_000_000


def test_clients_that_take_nothing(logged, log):
    served = logged(lambda request: {"statusCode": 200, "body": b"x" * 50_000_000}, write_timeout=0.5)
    with served.wire(receive_buffer=4096) as wire:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        (entry,) = log.objects(1)
    assert (entry["status"], entry["outcome"]) == (200, "write_timeout")


def test_what_is_dropped_at_the_end_is_logged(logged, log, gate):
    served = logged(gate)
    with served.wire() as wire:
        wire.send("GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        gate.wait_for()
        served.server.close(grace=0.1)
    (entry,) = log.objects(1)
    assert (entry["target"], entry["status"], entry["outcome"]) == ("/1", None, "shutdown")


def test_websockets_are_logged_at_their_end(logged, log, open_socket):
    @portico.websocket
    def echo(ws):
        for message in ws:
            ws.send(message)

    served = logged(echo)
    opened = open_socket(served, "/chat")
    opened.socket.send(sockets.frame(sockets.TEXT, "x" * 1000))
    assert opened.socket.read() == (sockets.TEXT, b"x" * 1000)
    assert log.read() == []
    opened.socket.send(sockets.close(1000))
    opened.socket.read_close()
    (entry,) = log.objects(1)
    http1 = open_socket.version == "1.1"
    assert (entry["status"], entry["outcome"]) == (101 if http1 else 200, "whole")
    assert entry["method"] == ("GET" if http1 else "CONNECT")
    assert entry["bytes_sent"] > 1000 < entry["bytes_received"]


def test_pipelined_requests_have_a_line_each(logged, log):
    served = logged()
    with served.wire() as wire:
        wire.send("".join(f"GET /{n} HTTP/1.1\r\nHost: localhost\r\n\r\n" for n in range(20)))
        assert [wire.read().text for _ in range(20)] == [f"hello /{n}" for n in range(20)]
    assert [entry["target"] for entry in log.objects(20)] == [f"/{n}" for n in range(20)]


def test_uploads_that_handlers_take_as_they_come(logged, log):
    def handler(request):
        return {"statusCode": 200, "body": str(sum(map(len, request.stream())))}

    handler.stream_body = True
    served = logged(handler)
    for http2 in (False, True):
        with served.httpx(http2=http2) as client:
            assert client.post("/", content=iter([b"x" * 100_000] * 5)).text == "500000"
    assert [entry["bytes_received"] for entry in log.objects(2)] == [500_000, 500_000]


# ---- where it goes


def test_logger(serve, caplog):
    with caplog.at_level(logging.INFO, "portico.access"):
        served = serve(access_log="logging", access_log_format="common", io_threads=1)
        served.get("/a")
        served.get("/b")
        wait_until(lambda: len(caplog.records) == 2, "two records")
    assert {record.name for record in caplog.records} == {"portico.access"}
    assert [COMBINED.fullmatch(record.getMessage())["line"] for record in caplog.records] == [
        "GET /a HTTP/1.1",
        "GET /b HTTP/1.1",
    ]


@pytest.mark.parametrize(("word", "number"), [("-", 1), ("stderr", 2)])
def test_standard_output_and_error(word, number, tmp_path):
    """In a process of its own, whose output is a pipe."""
    program = (
        "import portico, http.client\n"
        f"with portico.Server(lambda request: {{'statusCode': 200}}, access_log={word!r}) as server:\n"
        "    port = server.listen(0, tls=False).port\n"
        "    client = http.client.HTTPConnection('127.0.0.1', port)\n"
        "    client.request('GET', '/'), client.getresponse().read()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    (line,) = [done.stdout, done.stderr][number - 1].splitlines()
    assert COMBINED.fullmatch(line)["line"] == "GET / HTTP/1.1"


def test_a_log_that_cannot_be_opened(tmp_path):
    missing = tmp_path / "missing" / "access.log"
    with pytest.raises(
        portico.ConfigError, match=rf"setting access_log: cannot open the access log {missing}: No such file"
    ):
        portico.Server(access_log=missing)
    with pytest.raises(portico.ConfigError, match="Is a directory"):
        portico.Server(access_log=tmp_path)
    with pytest.raises(portico.ConfigError, match='the path of a file, "-", "stderr", "logging", or None, not 3'):
        portico.Server(access_log=3)
    with pytest.raises(portico.ConfigError, match="one of combined, common, json"):
        portico.Server(access_log_format="w3c")


def test_a_new_file_is_not_for_everybody(logged, log):
    logged()
    assert log.path.stat().st_mode & 0o777 == 0o640 & ~os.umask(os.umask(0o22))


def test_two_servers_share_a_file(logged, log):
    one, two = logged(), logged()
    threads = [threading.Thread(target=lambda s=s: [s.get("/" + "x" * 500) for _ in range(50)]) for s in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.objects(100)) == 100


def test_what_waits_is_written_at_the_end(logged, log):
    served = logged()
    served.get("/")
    served.server.close()
    assert len(log.objects(1)) == 1


# ---- classic readers


@pytest.mark.parametrize("form", ["common", "combined"])
def test_a_classic_parser_reads_the_lines(logged, log, form):
    apachelogs = pytest.importorskip("apachelogs")
    served = logged(access_log_format=form, max_request_read_bytes=10)
    served.get("/a", headers={"user-agent": 'x "quoted" \\ é'.encode(), "referer": "https://example.com/?a"})
    with served.httpx() as client:
        client.post("/b", content=b"x" * 20)
    with served.wire() as wire:
        wire.send(b"\x00\xff\r\n\r\n").read()
    parser = apachelogs.LogParser(apachelogs.COMBINED if form == "combined" else apachelogs.COMMON)
    a, b, c = [parser.parse(line) for line in log.lines(3)]
    assert (a.request_line, a.final_status, a.bytes_sent) == ("GET /a HTTP/1.1", 200, 8)
    assert abs(a.request_time.timestamp() - time.time()) < GENEROUS
    if form == "combined":
        assert a.headers_in["User-Agent"].encode("latin-1") == 'x "quoted" \\ é'.encode()
    assert (b.request_line, b.final_status) == ("POST /b HTTP/2.0", 413)
    assert (c.request_line, c.final_status) == ("\x00\xff", 400)
