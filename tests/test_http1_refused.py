"""HTTP/1 requests that are refused: each ends its connection, is counted, and is told to `on_error`."""

import pytest

import portico
from odd_requests import LIMITS, MARKER, REFUSED, ROWS, chunked, get

# One of each kind; test_differential.py sends them all.
KINDS = [next(name for name in row if name in REFUSED) for row in ROWS.values() if row.keys() & REFUSED]


@pytest.mark.parametrize("name", KINDS)
def test_refused_with_its_status_and_told(serve, name):
    sent, status = REFUSED[name]
    seen = []
    served = serve(lambda request: seen.append(request.path) or {"statusCode": 200}, **LIMITS)
    with served.wire() as wire:
        reply = wire.send(sent + MARKER).read()
        assert reply.status == status
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
