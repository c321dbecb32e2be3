"""HTTP/1.0 and HTTP/1.1 as RFC 9112 has them: connections, pipelines, lengths, expectations."""

import http.client
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import GENEROUS, Wire


def echo(request):
    """Answers with what it understood."""
    told = {"method": request.method, "path": request.rawPath, "body": request.body.decode("latin-1")}
    return {"statusCode": 200, "body": json.dumps(told)}


GET = "GET {} HTTP/1.1\r\nHost: h\r\n\r\n"
POST = "POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{}"
CHUNKED = "PUT {} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_connection_is_kept_alive(serve):
    served = serve(lambda request: {"statusCode": 200, "body": str(request.connection.id)})
    with served.tls_wire() as wire:
        assert len({wire.get().text for _ in range(10)}) == 1
    served.wait_stat("connections_closed", "client")
    assert served.stat("requests", "1.1") == 10


@pytest.mark.parametrize(
    ("version", "connection", "stays", "told"),
    [
        ("1.1", None, True, None),
        ("1.1", "close", False, "close"),
        ("1.1", "Close", False, "close"),
        ("1.1", "x-other, close", False, "close"),
        ("1.1", "keep-alive", True, None),
        ("1.0", None, False, "close"),
        ("1.0", "keep-alive", True, "keep-alive"),
        ("1.0", "Keep-Alive", True, "keep-alive"),
        ("1.0", "keep-alive, close", False, "close"),
    ],
)
def test_who_keeps_the_connection(serve, version, connection, stays, told):
    served = serve()
    header = f"Connection: {connection}\r\n" if connection else ""
    asking = f"GET /{{}} HTTP/{version}\r\nHost: h\r\n{header}\r\n"
    with served.wire() as wire:
        reply = wire.send(asking.format(1)).read()
        assert (reply.status, reply.text) == (200, "hello /1")
        assert reply.version == "HTTP/1.1", "RFC 9110 section 6.2: the server's own version"
        assert reply.header("connection") == told
        if stays:
            assert wire.send(asking.format(2)).read().text == "hello /2"
        else:
            assert wire.rest() == b""


def test_http_1_0_without_host(serve):
    with serve().wire() as wire:
        assert wire.send("GET /old HTTP/1.0\r\n\r\n").read().text == "hello /old"


def test_pipelined_requests_are_answered_in_order(serve):
    served = serve(echo)
    asked = "".join(
        [
            GET.format("/1"),
            POST.format("/2", 5, "hello"),
            CHUNKED.format("/3") + "3\r\nabc\r\n0\r\n\r\n",
            GET.format("/4"),
        ]
    )
    with served.wire() as wire:
        wire.send(asked)
        told = [wire.read().json() for _ in range(4)]
    assert [each["path"] for each in told] == ["/1", "/2", "/3", "/4"]
    assert [each["body"] for each in told] == ["", "hello", "abc", ""]


def test_pipelined_requests_wait_for_a_slow_first_one(serve, gate):
    served = serve(lambda request: gate(request) if request.path == "/slow" else {"statusCode": 200, "body": "fast"})
    with served.wire() as wire:
        wire.send(GET.format("/slow") + GET.format("/fast"))
        gate.wait_for()
        gate.opened.set()
        assert [wire.read().text, wire.read().text] == ["through /slow", "fast"]


def test_pipeline_ends_at_connection_close(serve):
    seen = []
    served = serve(lambda request: seen.append(request.path) or {"statusCode": 200})
    with served.wire() as wire:
        wire.send("GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + GET.format("/2"))
        assert wire.read().status == 200
        assert wire.rest() == b""
    assert seen == ["/1"]


REQUESTS = st.sampled_from(
    [
        GET.format("/a?b=c"),
        POST.format("/p", 5, "hello"),
        POST.format("/e", 0, ""),
        "POST /crlf HTTP/1.1\r\nhost: h\r\nX: y\r\ncontent-LENGTH: 4\r\n\r\n\r\n\r\n",
        CHUNKED.format("/c") + "3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n",
        CHUNKED.format("/n") + "0\r\n\r\n",
        "\r\n" + GET.format("/after-an-empty-line"),
        "HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    ]
)


@settings(max_examples=40)
@given(data=st.data())
def _check_fragments(wire_of, data):
    requests = data.draw(st.lists(REQUESTS, min_size=1, max_size=5))
    whole = "".join(requests).encode()
    cuts = data.draw(st.lists(st.integers(1, len(whole)), max_size=12).map(sorted))

    def answers(pieces):
        with wire_of() as wire:
            for piece in pieces:
                wire.send(piece)
            replies = [wire.read(asked.lstrip().split()[0]) for asked in requests]
        return [(reply.status, reply.body, reply.header("content-length")) for reply in replies]

    pieces = [whole[start:end] for start, end in itertools.pairwise([0, *cuts, len(whole)])]
    assert answers(pieces) == answers([whole])


@pytest.mark.parametrize("tls", [False, True])
def test_how_bytes_are_cut_changes_nothing(serve, tls):
    served = serve(echo)
    _check_fragments(served.tls_wire if tls else served.wire)


def test_byte_by_byte(serve):
    with serve(echo).wire() as wire:
        for byte in CHUNKED.format("/slow") + "5\r\nhello\r\n0\r\n\r\n":
            wire.send(byte)
        assert wire.read().json() == {"method": "PUT", "path": "/slow", "body": "hello"}


def test_options_of_the_whole_server(serve):
    called = []
    served = serve(lambda request: called.append(request.path) or {"statusCode": 200})
    with served.wire() as wire:
        reply = wire.send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").read()
        assert reply.status == 204
        assert "GET" in reply.header("allow")
        assert not called
        wire.send("OPTIONS /path HTTP/1.1\r\nHost: h\r\n\r\n").read()
        assert called == ["/path"], "a path's options are the handler's"


def test_absolute_form(serve):
    served = serve(
        lambda request: {"statusCode": 200, "body": f"{request.rawPath}?{request.queryString} {request.url}"}
    )
    with served.wire() as wire:
        wire.send("GET http://localhost:1/p?q=1 HTTP/1.1\r\nHost: other\r\n\r\n")
        assert wire.read().text == "/p?q=1 http://localhost:1/p?q=1", "RFC 9112 section 3.2.2: Host is ignored"
        wire.send("GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wire.read().text.startswith("/? ")


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "m-search"]
)
def test_any_method_reaches_the_handler(serve, method):
    seen = []
    served = serve(lambda request: seen.append(request.method) or {"statusCode": 200})
    with served.wire() as wire:
        wire.send(f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n").read(method)
    assert seen == [method]


def test_half_closed_client_is_still_answered(serve, gate):
    served = serve(gate)
    with served.wire() as wire:
        wire.send(GET.format("/1") + GET.format("/2")).half_close()
        gate.wait_for()
        gate.opened.set()
        assert [wire.read().text, wire.read().text] == ["through /1", "through /2"]
        assert wire.rest() == b""


def test_http_client_keeps_its_connection(serve):
    served = serve(lambda request: {"statusCode": 200, "body": request.body})
    client = http.client.HTTPConnection("127.0.0.1", served.clear, timeout=GENEROUS)
    try:
        for size in (0, 1, 16_384, 16_385, 500_000):
            client.request("POST", "/", body=bytes(size))
            assert len(client.getresponse().read()) == size
    finally:
        client.close()
    assert served.stat("connections_accepted") == 1


def test_client_that_leaves_in_mid_request_or_response_harms_nobody(serve):
    served = serve(lambda request: {"statusCode": 200, "body": bytes(20_000_000)})
    for sent in ("GET / HT", POST.format("/", 100, "part"), GET.format("/")):
        with Wire(served.clear, receive_buffer=4096) as wire:
            wire.send(sent)
            if "GET / HTTP" in sent:
                wire.sock.recv(1)
    served.wait_stat("connections_closed", "aborted", 3)
    assert len(served.get().body) == 20_000_000
