"""`portico.parse_request`: bytes alone, read as the server reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import portico
from test_http1_refused import LIMITS, MARKER, REFUSED

ASKED = (
    b"POST /a%20b?x=1&y=2 HTTP/1.1\r\nHost: x.test:81\r\nCookie: a=1; b=2\r\nContent-Type: application/json\r\n"
    b'Content-Length: 8\r\n\r\n{"a": 1}'
)
CHUNKED = b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\n"


def test_a_request():
    request = portico.parse_request(ASKED)
    assert isinstance(request, portico.Request)
    assert (request.method, request.path, request.version) == ("POST", "/a b", "1.1")
    assert request.url == "http://x.test:81/a%20b?x=1&y=2"
    assert request.json() == {"a": 1}
    assert request.cookies == {"a": "1", "b": "2"}
    assert request.connection is None
    assert request.server is None
    assert dict(request)["queryStringParameters"] == {"x": "1", "y": "2"}
    assert "POST" in repr(request)


def test_without_a_host_the_url_is_the_path():
    assert portico.parse_request(b"GET /a?b HTTP/1.0\r\n\r\n").url == "/a?b"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_whatever_holds_bytes(kind):
    assert portico.parse_request(kind(CHUNKED)).body == b"abcde"


def test_what_holds_none():
    for wrong in ("GET / HTTP/1.1", None, 3):
        with pytest.raises(portico.ConfigError, match="data: bytes"):
            portico.parse_request(wrong)


@pytest.mark.parametrize("data", [ASKED, CHUNKED])
def test_any_beginning_is_incomplete(data):
    for cut in range(len(data)):
        with pytest.raises(portico.IncompleteRequest) as caught:
            portico.parse_request(data[:cut])
        assert caught.value.reason == "incomplete"


@given(st.sampled_from([ASKED, CHUNKED]), st.binary(min_size=1, max_size=20))
def test_what_follows_the_request_is_an_error_that_says_where(data, more):
    with pytest.raises(portico.RequestError, match=f"ends at byte {len(data)}$") as caught:
        portico.parse_request(data + more)
    assert caught.value.reason == "longer"
    assert not isinstance(caught.value, portico.IncompleteRequest)


@given(
    st.lists(
        st.sampled_from([b"GET", b"POST", b" ", b"/", b"HTTP/1.1", b"\r\n", b"\n", b"Host: h", b"Content-Length: 3",
                         b"Transfer-Encoding: chunked", b"3\r\n", b"abc", b"0\r\n\r\n", b":", b"\0"]) | st.binary(max_size=3),
        max_size=15,
    )
)  # fmt: skip
def test_any_bytes_have_one_answer(pieces):
    """A request, more needed, or an error; and a longer beginning never takes back an error."""
    data = b"".join(pieces)

    def parse(upto):
        try:
            request = portico.parse_request(data[:upto])
        except portico.IncompleteRequest:
            return "incomplete"
        except portico.RequestError as error:
            return error.reason
        return (request.method, request.rawPath, request.body)

    answers = [parse(upto) for upto in range(len(data) + 1)]
    decided = next((at for at, answer in enumerate(answers) if answer != "incomplete"), len(answers))
    for answer in answers[decided + 1 :]:
        if isinstance(answers[decided], tuple):
            assert answer == "longer"
        else:
            assert answer == answers[decided]


@pytest.mark.parametrize("case", REFUSED)
def test_the_server_and_this_agree(serve, case):
    sent, _ = REFUSED[case]
    with pytest.raises(portico.RequestError) as caught:
        portico.parse_request((sent + MARKER).encode("latin-1"), **LIMITS)
    served = serve(**LIMITS)
    with served.wire() as wire:
        reply = wire.send(sent + MARKER).read()
    assert reply.status == caught.value.status
    error, _ = served.errors.next(portico.RequestError)
    assert (error.reason, str(error).split(";")[0]) == (caught.value.reason, str(caught.value))


@pytest.mark.parametrize(
    ("limits", "reason", "status"),
    [
        ({"max_request_read_bytes": 7}, "body_bytes", 413),
        ({"max_headers": 3}, "headers", 431),
        ({"max_header_bytes": 1024}, "header_bytes", 431),
    ],
)
def test_limits(limits, reason, status):
    data = ASKED.replace(b"Cookie: ", b"Cookie: " + b"c" * 1000)
    assert portico.parse_request(data)
    with pytest.raises(portico.LimitError) as caught:
        portico.parse_request(data, **limits)
    assert (caught.value.reason, caught.value.status) == (reason, status)


def test_limits_have_their_ranges():
    with pytest.raises(portico.ConfigError, match="setting max_headers: expected"):
        portico.parse_request(ASKED, max_headers=0)


def test_a_gateway_takes_it():
    """No connection, so what is told of one is told as of a cleartext one on localhost."""

    def app(environ, start_response):
        start_response("200 OK", [("content-type", "text/plain")])
        return [environ["wsgi.url_scheme"].encode(), environ["SERVER_NAME"].encode()]

    assert portico.wsgi(app)(portico.parse_request(ASKED))["body"] == b"httplocalhost"
