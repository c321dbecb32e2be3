"""What HTTP/1.1 asks of a server, byte by byte: the cases of h1_cases.py, each with an ordinary request right behind it, and what
every response has to be (RFC 9110, RFC 9112)."""

import contextlib
import os
import re
from datetime import datetime, timezone

import h11
import pytest

import portico
from clients import Wire
from h1_cases import GROUPS, Served, Waits, get, lines
from odd_requests import MARKER
from recorder import Recorder
from sockets import ASKED

# How long an answer may be awaited, in seconds. Only a case that fails waits for it.
PATIENCE = 5.0


@pytest.fixture(scope="module")
def recorder():
    recorder = Recorder()
    yield recorder
    recorder.close()


def connect(recorder):
    wire = Wire(recorder.port)
    wire.sock.settimeout(PATIENCE)
    return wire


def tell(group, case):
    return f"{group}: rfc{case[0]}: {case[1]}".encode("unicode_escape").decode()


CASES = [pytest.param(*case, id=tell(group, case)) for group, cases in GROUPS.items() for case in cases]


def send(wire, data):
    # Where it is refused before the last byte, sending fails.
    with contextlib.suppress(ConnectionError):
        wire.send(data)


@pytest.mark.parametrize(("section", "name", "outcome", "sent"), CASES)
def test_the_server_keeps_to_the_protocol(recorder, section, name, outcome, sent):
    recorder.seen.clear()
    if isinstance(outcome, Waits):
        with connect(recorder) as wire:
            wire.send(sent).half_close()
            assert wire.cut() == b"", "nothing is answered that is not whole"
        assert recorder.seen == []
        sent, outcome = [sent, outcome.rest + MARKER], outcome.then
    else:
        sent = [sent + MARKER]
    with connect(recorder) as wire:
        for piece in sent:
            send(wire, piece)
        method, target, *_ = [*"".join(sent).lstrip().split(" ", 2), ""]
        reply = wire.read(method)
        if reply.status == 100:
            reply = wire.read(method)
        if not isinstance(outcome, Served):
            assert (reply.status, reply.header("connection")) == (outcome, "close")
            assert wire.cut() == b"", "one answer, then the end"
            assert recorder.seen == []
            return
        asked = [(method, outcome.target or target, outcome.body.encode("latin-1"))]
        if sent[0].startswith("OPTIONS * "):
            assert reply.status == 204
            asked = []
        else:
            assert reply.status == 200
        if outcome.last:
            assert reply.header("connection") == "close"
            assert wire.cut() == b"", "what follows the last request is nobody's"
        else:
            assert wire.read().text == "hello /marker"
            asked += [("GET", "/marker", b"")]
        assert recorder.seen == asked


# ---- what is sent


STATUSES = [200, 201, 202, 203, 204, 205, 206, 299, 300, 301, 304, 400, 404, 405, 418, 426, 451, 500, 503, 511, 599]
BODIES = {
    "none": lambda: None,
    "empty": lambda: "",
    "text": lambda: "hello\r\n\r\nHTTP/1.1 200 OK\r\n",
    "large": lambda: b"x" * 200_000,
    "pieces": lambda: iter([b"one", b"", b"two", b"x" * 70_000]),
    "no-pieces": lambda: iter([]),
}


def whole(body):
    """What it is in one piece."""
    made = BODIES[body]() or b""
    return made.encode() if isinstance(made, str) else made if isinstance(made, bytes) else b"".join(made)


def answer(request):
    """As the path says: `/status/body`."""
    _, status, body = request.path.split("/")
    if status == "raise":
        raise ValueError(body)
    headers = {"content-type": "text/plain", "allow": "GET", "upgrade": "x", "www-authenticate": "Basic", "x-empty": ""}
    return {"statusCode": int(status), "headers": headers, "body": BODIES[body]()}


@pytest.fixture(scope="module")
def answering():
    server = portico.Server(answer, dispatch="inline", compression=(), on_error=lambda *_: None)
    yield server.listen(0, tls=False).port
    server.close(0)


def exchange(port, method, path, version="1.1", *fields):
    """Everything that comes, and what h11 reads in it: status, headers, body. h11 finds fault with what is not well-formed."""
    with Wire(port) as wire:
        wire.sock.settimeout(PATIENCE)
        came = wire.send(lines(f"{method} {path} HTTP/{version}", "Host: h", *fields)).half_close().rest()
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target=path, headers=[("host", "h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(came)
    client.receive_data(b"")
    head, body = client.next_event(), b""
    assert isinstance(head, h11.Response), head
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data[0] == b"", "nothing comes behind the response"
    return came, head.status_code, [(name.decode(), value.decode()) for name, value in head.headers], body


def kept(headers):
    """What is the same in each of them."""
    return [(name, value) for name, value in headers if name not in ("date", "connection")]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", STATUSES)
def test_every_response_is_framed_as_its_status_and_its_request_ask(answering, status, body):
    path = f"/{status}/{body}"
    answers = {method: exchange(answering, method, path) for method in ("GET", "POST", "HEAD")}
    for method, (came, told, headers, got) in answers.items():
        head = came.split(b"\r\n\r\n")[0]
        assert re.fullmatch(rb"HTTP/1\.1 \d{3} [ -~]+(\r\n[a-z-]+: ?[ -~]*)*", head), "RFC 9112 section 4 and 5"
        assert told == status
        fields = dict(headers)
        once = [name for name, _ in headers]
        assert len(once) == len(set(once)), "RFC 9110 section 5.3: each once"
        made = datetime.strptime(fields["date"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=timezone.utc)
        assert abs((datetime.now(timezone.utc) - made).total_seconds()) < 60, "RFC 9110 section 6.6.1"
        assert not ("content-length" in fields and "transfer-encoding" in fields), "RFC 9112 section 6.2"
        if status == 204:
            assert not {"content-length", "transfer-encoding"} & fields.keys(), "RFC 9110 section 8.6"
        if status in (204, 205, 304) or method == "HEAD":
            assert got == b""
            assert came.endswith(b"\r\n\r\n")
            assert status == 205 or "transfer-encoding" not in fields
        else:
            assert got == whole(body)
            assert fields["connection"] == "upgrade", "RFC 9110 section 7.8: it is for this connection"
    if "pieces" in body:
        # Whether the last piece is known to be the last in time to tell the length is a matter of luck.
        return
    assert kept(answers["GET"][2]) == kept(answers["POST"][2]) == kept(answers["HEAD"][2]), "RFC 9110 section 9.3.2"


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", [200, 204, 304, 404])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_http_1_0_gets_no_chunks_and_no_interim_response(answering, method, status, body):
    _, told, headers, got = exchange(answering, method, f"/{status}/{body}", "1.0", "Expect: 100-continue")
    assert told == status
    assert "transfer-encoding" not in dict(headers)
    assert "close" in dict(headers)["connection"]
    if status not in (204, 304) and method == "GET":
        assert got == whole(body)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_handler_that_raises_is_a_whole_500(answering, method):
    _, status, headers, body = exchange(answering, method, "/raise/x")
    assert status == 500
    assert (body == b"") == (method == "HEAD")
    assert dict(headers)["content-length"] == "26"


@pytest.mark.parametrize(
    "sent",
    ["HEAD / HTTP/1.1\r\n\r\n", "HEAD * HTTP/1.1\r\nHost: h\r\n\r\n", "HEAD / HTTP/9.9\r\n\r\n",
     "HEAD / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n",
     "HEAD / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"],
)  # fmt: skip
def test_a_refusal_of_head_has_no_body(answering, sent):
    with Wire(answering) as wire:
        reply = wire.send(sent).read("HEAD")
        assert reply.status >= 400
        assert int(reply.header("content-length")) > 0
        assert wire.cut() == b"", "RFC 9110 section 9.3.2"


# ---- upgrades before their time


@pytest.mark.parametrize(
    ("upgrade", "early", "status"),
    [
        ("h2c", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 505),
        ("TLS/1.2", "\x16\x03\x01\0\xa5\1\0\0\xa1\3\3", 400),
        ("websocket", "\x81\x85\0\0\0\0hello", 400),
        ("x", "\0\0\0", 400),
    ],
)
def test_what_comes_in_another_protocol_before_the_server_has_changed_is_no_request(recorder, upgrade, early, status):
    recorder.seen.clear()
    with connect(recorder) as wire:
        send(wire, get("Connection: Upgrade", f"Upgrade: {upgrade}") + early + MARKER)
        assert wire.read().status == 200
        assert wire.read().status == status
        assert wire.cut() == b""
    assert recorder.seen == [("GET", "/", b"")]


def test_a_request_behind_the_handshake_of_a_websocket_is_none(serve):
    got = []

    def take(ws):
        with contextlib.suppress(Exception):
            got.extend(ws)

    served = serve(portico.websocket(take))
    with served.wire() as wire:
        wire.sock.settimeout(PATIENCE)
        wire.send(lines("GET / HTTP/1.1", "Host: h", *ASKED.splitlines()) + MARKER)
        assert wire.read("HEAD").status == 101
        assert b"HTTP/1.1" not in wire.cut(), "what follows are frames, and these are none (RFC 6455 section 5.1)"
    assert got == []
    assert served.stat("requests", "1.1") == 1


@pytest.mark.parametrize(
    "sent",
    [
        lines("POST / HTTP/1.1", "Host: h", *ASKED.splitlines()),
        lines("GET / HTTP/1.0", "Host: h", *ASKED.splitlines()),
        lines("GET / HTTP/1.1", "Host: h", *ASKED.replace("Connection: Upgrade", "X: y").splitlines()),
        lines("GET / HTTP/1.1", "Host: h", *ASKED.replace("13", "99").splitlines()),
        lines("GET / HTTP/1.1", "Host: h", *ASKED.replace("websocket", "h2c").splitlines()),
        lines("GET / HTTP/1.1", "Host: h", "Content-Length: 5", *ASKED.splitlines()) + "hel",
    ],
    ids=["POST", "HTTP/1.0", "no Connection", "another version", "h2c", "half a body"],
)
def test_no_101_for_what_is_no_handshake(serve, sent):
    served = serve(portico.websocket(lambda ws: None))
    with served.wire() as wire:
        came = wire.send(sent).half_close().cut()
        assert not came.startswith(b"HTTP/1.1 101")
        assert came.startswith(b"HTTP/1.1 4") or sent.endswith("hel")
    assert served.stat("websockets") == 0


# ---- parts and conditions


CONTENT = b"0123456789" * 10


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / "a.bin").write_bytes(CONTENT)
    os.utime(folder / "a.bin", (1e9, 1e9))
    server = portico.Server(portico.StaticFiles(folder), compression=())
    yield server.listen(0, tls=False).port
    server.close(0)


BEFORE, SINCE, AFTER = (f"Sun, 09 Sep 2001 01:46:{second} GMT" for second in (39, 40, 41))


@pytest.mark.parametrize(
    ("section", "fields", "status", "body"),
    [
        ("9110-14.2", [], 200, CONTENT),
        ("9110-14.2", ["Range: bytes=0-0"], 206, b"0"),
        ("9110-14.2", ["Range: bytes=0-9"], 206, b"0123456789"),
        ("9110-14.2", ["Range: bytes=90-"], 206, b"0123456789"),
        ("9110-14.2", ["Range: bytes=-5"], 206, b"56789"),
        ("9110-14.2", ["Range: bytes=95-1000"], 206, b"56789"),
        ("9110-14.2", ["Range: bytes=-1000"], 206, CONTENT),
        ("9110-14.1", ["Range: BYTES=0-0"], 206, b"0"),
        ("9110-15.5.17", ["Range: bytes=100-"], 416, None),
        ("9110-15.5.17", ["Range: bytes=-0"], 416, None),
        ("9110-15.5.17", ["Range: bytes=1000-2000"], 416, None),
        ("9110-14.2", ["Range: bytes=abc-xyz"], 200, CONTENT),
        ("9110-14.2", ["Range: bytes=5-1"], 200, CONTENT),
        ("9110-14.2", ["Range: bytes"], 200, CONTENT),
        ("9110-14.2", ["Range: bytes="], 200, CONTENT),
        ("9110-14.2", ["Range: bytes=+1-2"], 200, CONTENT),
        ("9110-14.2", ["Range: bytes=0x1-2"], 200, CONTENT),
        ("9110-14.2", ["Range: lines=1-2"], 200, CONTENT),
        ("9110-14.2", ["Range: bytes=0-99999999999999999999999"], 206, CONTENT),
        ("9110-14.2", ["Range: bytes=" + ",".join(["0-"] * 1000)], 200, CONTENT),
        ("9110-13.1.2", ["If-None-Match: TAG"], 304, b""),
        ("9110-13.1.2", ["If-None-Match: W/TAG"], 304, b""),
        ("9110-13.1.2", ['If-None-Match: "x", TAG'], 304, b""),
        ("9110-13.1.2", ["If-None-Match: *"], 304, b""),
        ("9110-13.1.2", ['If-None-Match: "x"'], 200, CONTENT),
        ("9110-13.1.3", [f"If-Modified-Since: {SINCE}"], 304, b""),
        ("9110-13.1.3", [f"If-Modified-Since: {AFTER}"], 304, b""),
        ("9110-13.1.3", [f"If-Modified-Since: {BEFORE}"], 200, CONTENT),
        ("9110-13.1.3", ["If-Modified-Since: yesterday"], 200, CONTENT),
        ("9110-13.1.3", ['If-None-Match: "x"', f"If-Modified-Since: {AFTER}"], 200, CONTENT),
        ("9110-13.2.2", ["If-None-Match: TAG", f"If-Modified-Since: {BEFORE}"], 304, b""),
        ("9110-13.1.1", ["If-Match: TAG"], 200, CONTENT),
        ("9110-13.1.1", ["If-Match: *"], 200, CONTENT),
        ("9110-13.1.1", ['If-Match: "x"'], 412, None),
        ("9110-13.1.1", ["If-Match: W/TAG"], 412, None),
        ("9110-13.1.4", [f"If-Unmodified-Since: {SINCE}"], 200, CONTENT),
        ("9110-13.1.4", [f"If-Unmodified-Since: {BEFORE}"], 412, None),
        ("9110-13.1.4", ["If-Unmodified-Since: yesterday"], 200, CONTENT),
        ("9110-13.1.5", ["Range: bytes=0-0", "If-Range: TAG"], 206, b"0"),
        ("9110-13.1.5", ["Range: bytes=0-0", "If-Range: W/TAG"], 200, CONTENT),
        ("9110-13.1.5", ["Range: bytes=0-0", 'If-Range: "x"'], 200, CONTENT),
        ("9110-13.1.5", ["Range: bytes=0-0", f"If-Range: {SINCE}"], 206, b"0"),
        ("9110-13.1.5", ["Range: bytes=0-0", f"If-Range: {AFTER}"], 200, CONTENT),
        ("9110-13.2.2", ["Range: bytes=0-0", "If-None-Match: TAG"], 304, b""),
    ],
)  # fmt: skip
def test_parts_and_conditions(files, section, fields, status, body):
    tag = dict(exchange(files, "GET", "/a.bin")[2])["etag"]
    fields = [field.replace("TAG", tag) for field in fields]
    _, told, headers, got = exchange(files, "GET", "/a.bin", "1.1", *fields)
    assert told == status
    assert body is None or got == body
    headers = dict(headers)
    if status in (200, 206, 304):
        assert headers["etag"] == tag, "RFC 9110 section 15.4.5"
    if status == 206:
        assert headers["content-range"].endswith("/100")
    if status == 416:
        assert headers["content-range"] == "bytes */100"
    # HEAD is not asked for a part (RFC 9110 section 14.2), and has the length of the whole.
    _, told, headers, got = exchange(files, "HEAD", "/a.bin", "1.1", *fields)
    assert got == b""
    if status in (200, 206):
        assert (told, dict(headers)["content-length"]) == (200, "100")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "FOO", "TRACE"])
def test_405_tells_what_is_allowed(files, method):
    _, status, headers, _ = exchange(files, method, "/a.bin")
    assert status == 405
    assert {"GET", "HEAD"} <= set(dict(headers)["allow"].split(", ")), "RFC 9110 section 15.5.6"
