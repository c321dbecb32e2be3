"""Malformed and oversized HTTP/1 requests: each has its status, ends its connection, and nothing after it is obeyed."""

import pytest

import portico

MARKER = "GET /marker HTTP/1.1\r\nHost: h\r\n\r\n"


def get(*lines):
    return "\r\n".join(["GET / HTTP/1.1", "Host: h", *lines]) + "\r\n\r\n"


def chunked(body):
    return get("Transfer-Encoding: chunked") + body


REFUSED = {
    # The request line, RFC 9112 section 3.
    "not HTTP": ("hello\r\n\r\n", 400),
    "two spaces": ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "space in target": ("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", (400, 505)),
    "space at end": ("GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
    "space at start": (" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "tab": ("GET\t/\tHTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "no target": ("GET HTTP/1.1\r\nHost: h\r\n\r\n", (400, 505)),
    "HTTP/0.9": ("GET /\r\n\r\n", 400),
    "odd method": ("G@T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "control in target": ("GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "raw byte in target": ("GET /\xe9 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "fragment": ("GET /#f HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "relative target": ("GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "asterisk": ("GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "other scheme": ("GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "user in target": ("GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "two empty lines": ("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "bare LF": ("GET / HTTP/1.1\nHost: h\n\n", 400),
    "bare CR": ("GET / HTTP/1.1\rHost: h\r\r", (400, 505)),
    "TLS hello": ("\x16\x03\x01\x02\x00\x01", 400),
    "CONNECT": ("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    "HTTP/1.2": ("GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505),
    "HTTP/2.0": ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    "HTTP/3": ("GET / HTTP/3\r\nHost: h\r\n\r\n", (400, 505)),
    # Header lines, section 5.
    "bare LF in headers": ("GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
    "bare CR in a value": (get("X: a\rb"), 400),
    "NUL in a value": (get("X: a\0b"), 400),
    "folded": (get("X: a", " b"), 400),
    "folded first": ("GET / HTTP/1.1\r\n X: y\r\nHost: h\r\n\r\n", 400),
    "space before colon": (get("X : y"), 400),
    "no colon": (get("X"), 400),
    "no name": (get(": y"), 400),
    "odd name": (get("X@Y: z"), 400),
    # Host, section 3.2.
    "no Host": ("GET / HTTP/1.1\r\n\r\n", 400),
    "empty Host": ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "Host twice": (get("Host: h"), 400),
    "Host twice, differing": (get("Host: i"), 400),
    "list in Host": ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "path in Host": ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "user in Host": ("GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", 400),
    "port in Host": ("GET / HTTP/1.1\r\nHost: h:http\r\n\r\n", 400),
    # The length of the body, section 6.
    "both lengths": (get("Content-Length: 4", "Transfer-Encoding: chunked") + "0\r\n\r\n", 400),
    "both, otherwise round": (get("Transfer-Encoding: chunked", "Content-Length: 4") + "0\r\n\r\n", 400),
    "Content-Length twice": (get("Content-Length: 1", "Content-Length: 2") + "ab", 400),
    "same Content-Length twice": (get("Content-Length: 1", "Content-Length: 1") + "a", 400),
    "list in Content-Length": (get("Content-Length: 1, 1") + "a", 400),
    "signed Content-Length": (get("Content-Length: +1") + "a", 400),
    "negative Content-Length": (get("Content-Length: -1"), 400),
    "hexadecimal Content-Length": (get("Content-Length: 0x1") + "a", 400),
    "empty Content-Length": (get("Content-Length:"), 400),
    "endless Content-Length": (get("Content-Length: " + "9" * 30), 400),
    "other coding": (get("Transfer-Encoding: gzip, chunked"), 501),
    "chunked twice": (get("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + "0\r\n\r\n", 400),
    "identity": (get("Transfer-Encoding: identity"), 400),
    "chunked not last": (get("Transfer-Encoding: chunked, gzip"), 400),
    "odd coding": (get("Transfer-Encoding: \x0bchunked"), 400),
    "space in Transfer-Encoding": (get("Transfer-Encoding : chunked") + "0\r\n\r\n", 400),
    "chunked in HTTP/1.0": ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    # Chunks, section 7.1.
    "no size": (chunked("\r\n"), 400),
    "odd size": (chunked("g\r\n"), 400),
    "negative size": (chunked("-1\r\n"), 400),
    "signed size": (chunked("+1\r\na\r\n0\r\n\r\n"), 400),
    "0x size": (chunked("0x1\r\na\r\n0\r\n\r\n"), 400),
    "space before size": (chunked(" 1\r\na\r\n0\r\n\r\n"), 400),
    "space after size": (chunked("1 \r\na\r\n0\r\n\r\n"), 400),
    "size that overflows": (chunked("10000000000000001\r\na\r\n0\r\n\r\n"), 400),
    "LF after size": (chunked("1\na\r\n0\r\n\r\n"), 400),
    "LF after data": (chunked("1\r\na\n0\r\n\r\n"), 400),
    "chunk longer than its size": (chunked("1\r\nab\r\n0\r\n\r\n"), 400),
    "control in extension": (chunked("1;\x01\r\na\r\n0\r\n\r\n"), 400),
    "LF in extension": (chunked("1;a\nb\r\na\r\n0\r\n\r\n"), 400),
    "endless extension": (chunked("1;" + "x" * 1000 + "\r\na\r\n0\r\n\r\n"), 400),
    "odd trailer": (chunked("0\r\nno colon\r\n\r\n"), 400),
    "LF after trailer": (chunked("0\r\na: b\n\r\n"), 400),
    # Sizes, with the limits of the test below.
    "long target": (f"GET /{'x' * 5000} HTTP/1.1\r\nHost: h\r\n\r\n", 414),
    "long header": (get("X: " + "y" * 5000), 431),
    "many headers": (get(*["X: y"] * 11), 431),
    "long trailers": (chunked("0\r\n" + "X: y\r\n" * 1000 + "\r\n"), 431),
    "long body": (get("Content-Length: 101") + "x" * 101, 413),
    "long chunk": (chunked("65\r\n" + "x" * 101 + "\r\n0\r\n\r\n"), 413),
    "other expectation": (get("Expect: else", "Content-Length: 1") + "a", 417),
}
LIMITS = {"max_header_bytes": 4096, "max_headers": 11, "max_request_read_bytes": 100}


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED)
def test_refused_with_its_status_and_nothing_after_it_is_obeyed(serve, sent, status):
    seen = []
    served = serve(lambda request: seen.append(request.path) or {"statusCode": 200}, **LIMITS)
    statuses = status if isinstance(status, tuple) else (status,)
    with served.wire() as wire:
        reply = wire.send(sent + MARKER).read()
        assert reply.status in statuses
        assert reply.header("connection") == "close"
        assert reply.header("content-type").startswith("text/plain")
        assert wire.rest() == b"", "one answer, then the end"
    assert seen == []
    exception, request = served.errors.next()
    assert isinstance(exception, portico.RequestError)
    assert request is None
    assert exception.status == reply.status
    assert exception.reason in served.stat("requests_refused")
    assert served.stat("requests_refused", exception.reason) == 1
    assert "from 127.0.0.1:" in str(exception)
    assert isinstance(exception, portico.LimitError) == (reply.status in (413, 414, 431))


ODD_BUT_RIGHT = {
    "empty line first": "\r\n" + MARKER,
    "any case": "GET / HTTP/1.1\r\nhOsT: H\r\n\r\n",
    "tabs around a value": get("X: \t y \t"),
    "empty value": get("X:"),
    "no space after colon": "GET / HTTP/1.1\r\nHost:h\r\n\r\n",
    "host with port": "GET / HTTP/1.1\r\nHost: h:8443\r\n\r\n",
    "IPv6 host": "GET / HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n",
    "IPv4 host": "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "bytes beyond ASCII in a value": get("X: \xe9\xff"),
    "GET with a body": get("Content-Length: 3") + "abc",
    "leading zeros": get("Content-Length: 0003") + "abc",
    "Chunked": get("Transfer-Encoding: Chunked") + "1\r\na\r\n0\r\n\r\n",
    "chunk size with zeros": chunked("0001\r\na\r\n000\r\n\r\n"),
    "upper-case size": chunked("A\r\n0123456789\r\n0\r\n\r\n"),
    "extension": chunked('1;a=b;c="d e"\r\na\r\n0\r\n\r\n'),
    "trailers": chunked("0\r\nX: y\r\nZ: w\r\n\r\n"),
    "odd characters in the target": "GET /{a}|^`\"<>\\?'[x] HTTP/1.1\r\nHost: h\r\n\r\n",
    "exactly so many headers": get(*["X: y"] * 10),
}


@pytest.mark.parametrize("sent", ODD_BUT_RIGHT.values(), ids=ODD_BUT_RIGHT)
def test_odd_but_right_is_answered(serve, sent):
    with serve(**LIMITS).wire() as wire:
        assert wire.send(sent).read().status == 200
        assert wire.get("/next").text == "hello /next", "not a byte too many or too few was read"


def test_refusals_over_tls(serve):
    served = serve(**LIMITS)
    with served.tls_wire() as wire:
        assert wire.send("GET / HTTP/1.1\r\n\r\n").read().status == 400
        assert wire.rest() == b""


def test_pipelined_requests_before_a_bad_one_are_answered(serve):
    with serve().wire() as wire:
        wire.send(MARKER + "GET / HTTP/1.1\r\n\r\n" + MARKER)
        assert [wire.read().status, wire.read().status] == [200, 400]
        assert wire.rest() == b""


def test_end_within_a_request_is_no_request(serve):
    seen = []
    served = serve(lambda request: seen.append(request) or {"statusCode": 200})
    for sent in (
        "GET / HTTP/1.1\r\nHost: h\r\n",
        get("Content-Length: 5") + "abcd",
        chunked("5\r\nabcd"),
        chunked("0\r\n"),
    ):
        with served.wire() as wire:
            wire.send(sent).half_close()
            assert wire.cut() == b""
    served.wait_stat("connections_closed", "aborted", 4)
    assert seen == []
