"""HTTP/1 request bodies: chunked or not, waited for with 100-continue, too large."""

import pytest

from clients import curl, request

EXPECT = "POST / HTTP/{}\r\nHost: h\r\nExpect: {}\r\nContent-Length: {}\r\n\r\n"
CHUNKED = "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


def echo(request):
    return {"statusCode": 200, "body": request.body}


def test_chunked_upload(serve):
    served = serve(echo)
    pieces = [bytes([n]) * (n * 997 + 1) for n in range(60)]
    for context, port in ((served.context(), served.port), (None, served.clear)):
        reply = request(port, "POST", body=iter(pieces), context=context, encode_chunked=True,
                        headers={"Transfer-Encoding": "chunked"})  # fmt: skip
        assert reply.body == b"".join(pieces)


def test_curl_uploads_and_downloads(serve, tmp_path):
    served = serve(echo)
    (tmp_path / "ca.pem").write_text(served.testing.ca_pem)
    (tmp_path / "upload").write_text("x" * 3_000_000)
    # curl offers `http/1.0` by ALPN when told to speak it, and nothing else.
    for options in (["--http1.1"], ["--http2"], ["--http1.1", "-H", "Transfer-Encoding: chunked"], ["--http1.0"]):
        sent = curl(served.port, "/", *options, "--data-binary", f"@{tmp_path / 'upload'}", ca=tmp_path / "ca.pem")
        assert sent == "x" * 3_000_000


def test_100_continue_is_sent_when_the_client_waits(serve):
    with serve(echo).wire() as wire:
        for _ in range(2):
            interim = wire.send(EXPECT.format("1.1", "100-Continue", 5)).read()
            assert (interim.status, interim.headers) == (100, [])
            assert wire.send("hello").read().body == b"hello"


@pytest.mark.parametrize("head", [EXPECT.format("1.1", "100-continue", 5), EXPECT.format("1.0", "100-continue", 5)])
def test_100_continue_is_not_sent_when_the_body_is_there_or_the_client_is_old(serve, head):
    with serve(echo).wire() as wire:
        reply = wire.send(head + "hello").read()
        assert (reply.status, reply.body) == (200, b"hello")


def test_100_continue_is_not_sent_without_a_body(serve):
    with serve(echo).wire() as wire:
        assert wire.send(EXPECT.format("1.1", "100-continue", 0)).read().status == 200


def test_too_large_a_body_is_refused_before_it_is_sent(serve):
    with serve(echo, max_request_read_bytes=10).wire() as wire:
        assert wire.send(EXPECT.format("1.1", "100-continue", 11)).read().status == 413
        assert wire.rest() == b""


def test_other_expectations_are_417(serve):
    with serve(echo).wire() as wire:
        assert wire.send(EXPECT.format("1.1", "200-ok", 5)).read().status == 417
        assert wire.rest() == b""


def test_curl_waits_for_100_continue(serve, tmp_path):
    served = serve(lambda request: {"statusCode": 200, "body": str(len(request.body))})
    (tmp_path / "upload").write_bytes(bytes(2_000_000))
    options = ["--http1.1", "-H", "Expect: 100-continue", "--expect100-timeout", "25", "--data-binary"]
    assert curl(served.clear, "/", *options, f"@{tmp_path / 'upload'}") == "2000000"


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_413_is_readable_by_a_client_that_sends_everything_first(serve, tls, chunked):
    served = serve(echo)
    # 20 MiB against the default of 10 MiB.
    pieces = [bytes(2**16)] * 320
    more = {"body": iter(pieces), "encode_chunked": True, "headers": {"Transfer-Encoding": "chunked"}}
    if not chunked:
        more = {"body": b"".join(pieces)}
    port, context = (served.port, served.context()) if tls else (served.clear, None)
    assert request(port, "POST", context=context, **more).status == 413
    assert served.stat("requests_refused", "body_bytes") == 1


def test_body_of_exactly_the_limit(serve):
    served = serve(echo, max_request_read_bytes=10)
    with served.wire() as wire:
        assert wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789").read().status == 200
        assert wire.send(CHUNKED + "9\r\n012345678\r\n1\r\n9\r\n0\r\n\r\n").read().status == 200
        assert wire.send(CHUNKED + "9\r\n012345678\r\n2\r\n9a\r\n0\r\n\r\n").read().status == 413
