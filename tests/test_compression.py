"""Compression of responses: which coding, of what, and what it changes of the head."""

import gzip
import os
import threading
import zlib

import pytest

import portico

TEXT = "a line that comes again and again\n" * 200
LARGE = "".join(f"line {number} of many\n" for number in range(20_000))


def answer(body=TEXT, content_type="text/plain", status=200, **headers):
    """A handler with that answer; header names have underscores for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: {"statusCode": status, "headers": {"content-type": content_type, **named}, "body": body}


def ask(served, accept="gzip", method="GET"):
    with served.wire() as wire:
        line = f"accept-encoding: {accept}\r\n" if accept is not None else ""
        wire.send(f"{method} / HTTP/1.1\r\nhost: localhost\r\n{line}\r\n".encode())
        return wire.read(method)


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (None, None),
        ("gzip", "gzip"),
        ("gzip, deflate, br", "br"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1, br;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("identity;q=0, gzip", "gzip"),
        ("identity", None),
        ("*", "zstd"),
    ],
)
def test_the_client_chooses(serve, accept, coding):
    reply = ask(serve(answer()), accept)
    assert reply.header("content-encoding") == coding
    assert reply.header("vary") == "accept-encoding"
    assert int(reply.header("content-length")) == len(reply.body)
    assert (len(reply.body) < len(TEXT)) == (coding is not None)
    if coding == "gzip":
        assert gzip.decompress(reply.body).decode() == TEXT


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("body", [TEXT, LARGE])
def test_both_versions_send_what_decodes_to_the_same(serve, http2, body):
    with serve(answer(body)).httpx(http2=http2) as client:
        reply = client.get("/", headers={"accept-encoding": "gzip"})
        assert reply.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert reply.headers["content-encoding"] == "gzip"
        assert reply.text == body
        # The length of a large one is not known before it is sent.
        assert ("content-length" in reply.headers) == (body is TEXT)


@pytest.mark.parametrize(
    "handler",
    [
        answer("short"),
        answer(content_type="image/png"),
        answer(os.urandom(4000)),
        answer(os.urandom(100_000)),
        answer(cache_control="private, no-transform"),
        answer(content_encoding="identity"),
        answer(status=206, content_range="bytes 0-6799/9999"),
        answer(content_digest="sha-256=:AAAA:"),
    ],
)
def test_what_is_sent_as_it_is(serve, handler):
    plain = handler(None)["body"]
    reply = ask(serve(handler))
    assert reply.header("content-encoding") is None
    assert reply.body == (plain if isinstance(plain, bytes) else plain.encode())


def test_what_is_coded_already_is_not_coded_again(serve):
    coded = gzip.compress(os.urandom(5000))
    reply = ask(serve(answer(coded, content_encoding="gzip")), "zstd, gzip")
    assert (reply.header("content-encoding"), reply.body) == ("gzip", coded)


def test_a_strong_etag_becomes_weak_and_vary_is_merged(serve):
    served = serve(answer(etag='"one"', vary="cookie"))
    coded, plain = ask(served), ask(served, None)
    assert (coded.header("etag"), coded.header("vary")) == ('W/"one"', "cookie, accept-encoding")
    assert (plain.header("etag"), plain.header("vary")) == ('"one"', "cookie, accept-encoding")


def test_head_is_answered_as_get_would_be(serve):
    served = serve(answer())
    get, head = ask(served), ask(served, method="HEAD")
    for name in ("content-encoding", "content-length", "vary"):
        assert head.header(name) == get.header(name) is not None
    assert head.body == b""


def test_a_piece_arrives_before_the_next_is_made(serve):
    made = threading.Event()

    def pieces():
        yield "first\n"
        assert made.wait(30)
        yield "second\n"

    served = serve(lambda request: {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": pieces()})
    decoder, text = zlib.decompressobj(31), b""
    with served.httpx() as client, client.stream("GET", "/", headers={"accept-encoding": "gzip"}) as reply:
        assert reply.headers["content-encoding"] == "gzip"
        for piece in reply.iter_raw():
            text += decoder.decompress(piece)
            if text == b"first\n":
                made.set()
    assert text == b"first\nsecond\n"
    assert decoder.eof


def test_event_streams_are_not_compressed(serve):
    with serve(lambda request: portico.event_stream(["x" * 2000])).httpx() as client:
        reply = client.get("/", headers={"accept-encoding": "gzip"})
        assert "content-encoding" not in reply.headers
        assert reply.text == "data: " + "x" * 2000 + "\n\n"


@pytest.mark.parametrize("text", [TEXT, LARGE])
def test_files_are_compressed_and_lose_their_ranges(serve, tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with serve(portico.StaticFiles(tmp_path)).httpx() as client:
        for method in ("GET", "HEAD"):
            reply = client.request(method, "/a.txt", headers={"accept-encoding": "gzip"})
            assert reply.headers["content-encoding"] == "gzip"
            assert reply.headers["vary"] == "accept-encoding"
            assert "accept-ranges" not in reply.headers
            assert reply.text == (text if method == "GET" else "")
        tag = reply.headers["etag"]
        assert tag.startswith('W/"')
        assert client.get("/a.txt", headers={"if-none-match": tag}).status_code == 304
        part = client.get("/a.txt", headers={"accept-encoding": "gzip", "range": "bytes=2-9"})
        assert (part.status_code, part.text) == (206, text[2:10])
        assert "content-encoding" not in part.headers
        whole = client.get("/a.txt", headers={"accept-encoding": "gzip", "range": "bytes=2-9", "if-range": tag})
        assert (whole.status_code, whole.text) == (200, text)


@pytest.mark.parametrize("text", [TEXT, LARGE])
def test_http_1_0_ends_with_the_connection(serve, text):
    with serve(answer(text)).wire() as wire:
        wire.send(b"GET / HTTP/1.0\r\naccept-encoding: gzip\r\n\r\n")
        head, _, body = wire.file.read().partition(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head
    assert b"transfer-encoding" not in head
    assert gzip.decompress(body).decode() == text


def test_vary_stands_once_however_it_is_written(serve):
    for said in ("Accept-Encoding", "cookie, ACCEPT-ENCODING", "*"):
        reply = ask(serve(answer(vary=said)))
        assert [value for name, value in reply.headers if name == "vary"] == [said]


@pytest.mark.parametrize("off", [(), None, []])
def test_it_can_be_switched_off(serve, off):
    reply = ask(serve(answer(), compression=off))
    assert (reply.header("content-encoding"), reply.header("vary")) == (None, None)


def test_the_order_of_the_setting_decides_among_equals(serve):
    assert ask(serve(answer(), compression=["gzip", "zstd"]), "zstd, gzip").header("content-encoding") == "gzip"


def test_small_bodies_are_compressed_when_asked_for(serve):
    reply = ask(serve(answer("a" * 200), compression_min_bytes=100))
    assert gzip.decompress(reply.body) == b"a" * 200


def test_a_wrong_coding_is_refused():
    with pytest.raises(portico.ConfigError, match="compression: expected a tuple of any of zstd, br, gzip"):
        portico.Server(compression=("gzip", "lzw"))
