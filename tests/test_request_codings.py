"""Content codings of request bodies: `decompression`, off unless it is asked for, and bounded."""

from __future__ import annotations

import gzip
import os
import threading
import time
import zlib

import pytest

import portico
from clients import request as get
from clients import wait_until
from frames import H2

ALL = ("zstd", "br", "gzip", "deflate")
TEXT = b"".join(b"line %d of a body\n" % number for number in range(4_000))


def zstd(*blocks, window=20):
    """A frame of zstd (RFC 8878 section 3.1.1) of these blocks: bytes as they are, or (byte, times)."""
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([window - 10 << 3])
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        size, kind, content = (len(block), 0, block) if isinstance(block, bytes) else (block[1], 1, block[0])
        frame += (size << 3 | kind << 1 | last).to_bytes(3, "little") + content
    return frame


def zstd_of(data, window=20):
    return zstd(*(data[at : at + 100_000] for at in range(0, len(data), 100_000)), window=window)


@pytest.fixture(scope="module")
def br_of():
    """Brotli by portico itself, which is its own other end here."""

    def br_of(data):
        def answer(request):
            return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": data}

        with portico.Server(answer, compression=["br"]) as server:
            reply = get(server.listen(0, tls=False).port, headers={"accept-encoding": "br"})
        assert reply.header("content-encoding") == "br"
        return reply.body

    return br_of


@pytest.fixture(scope="module")
def coded(br_of):
    """TEXT by every coding."""
    return {"zstd": zstd_of(TEXT), "br": br_of(TEXT), "gzip": gzip.compress(TEXT), "deflate": zlib.compress(TEXT)}


def told(request):
    """A response that tells how the headers of its request were."""
    names = ("content-encoding", "content-length")
    headers = {f"x-{name}": request.headers.get(name, "none") for name in names}
    return {"statusCode": 200, "headers": headers}


def whole(request):
    return {**told(request), "body": request.body}


def streamed(request):
    return {**told(request), "body": b"".join(request.stream())}


async def coroutine(request):
    return {**told(request), "body": b"".join([piece async for piece in request.stream()])}


streamed.stream_body = True
coroutine.stream_body = True
handlers = pytest.mark.parametrize("handler", [whole, streamed, coroutine])
versions = pytest.mark.parametrize("http2", [False, True])


def post(body, coding, *, chunked=False, pieces=1):
    """A request of HTTP/1.1 as bytes."""
    lines = f"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-encoding: {coding}\r\n"
    if not chunked:
        return f"{lines}content-length: {len(body)}\r\n\r\n".encode() + body
    size = max(1, len(body) // pieces)
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return f"{lines}transfer-encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


def ask(served, body, coding, **how):
    with served.wire() as wire:
        return wire.send(post(body, coding, **how)).read()


@versions
@handlers
@pytest.mark.parametrize("coding", ALL)
def test_handlers_get_what_was_coded(serve, coded, handler, http2, coding):
    with serve(handler, decompression=ALL).httpx(http2=http2) as client:
        for _ in range(2):  # the connection goes on
            reply = client.post(
                "/", content=coded[coding], headers={"content-encoding": coding, "accept-encoding": "identity"}
            )
            assert reply.content == TEXT
            assert reply.headers["x-content-encoding"] == "none"
            # That of the body that the handler has; none where it has none yet.
            expected = str(len(TEXT)) if handler is whole else "none"
            assert reply.headers["x-content-length"] == expected


@handlers
def test_chunks_and_codings_together(serve, coded, handler):
    reply = ask(serve(handler, decompression=ALL), coded["gzip"], "gzip", chunked=True, pieces=50)
    assert reply.body == TEXT


@versions
@handlers
def test_off_by_default(serve, coded, handler, http2):
    with serve(handler).httpx(http2=http2) as client:
        for coding in ("gzip", "never-heard-of"):
            headers = {"content-encoding": coding, "accept-encoding": "identity"}
            reply = client.post("/", content=coded["gzip"], headers=headers)
            assert (reply.content, reply.headers["x-content-encoding"]) == (coded["gzip"], coding)


@handlers
def test_several_codings_in_order(serve, handler):
    served = serve(handler, decompression=ALL)
    body = zlib.compress(zstd_of(gzip.compress(TEXT)))
    assert ask(served, body, "x-gzip, identity, zstd\r\ncontent-encoding: Deflate").body == TEXT
    assert ask(served, gzip.compress(body), "gzip, zstd, deflate, gzip").status == 415
    assert ask(served, body, "deflate, zstd, gzip").status in (400, 500)
    assert ask(served, TEXT, "identity").body == TEXT


@versions
@handlers
def test_a_coding_that_is_not_taken_is_415(serve, coded, handler, http2):
    served = serve(handler, decompression=("br", "gzip"))
    with served.httpx(http2=http2) as client:
        for coding in ("zstd", "compress", "gzip, aes128gcm"):
            reply = client.post("/", content=coded["zstd"], headers={"content-encoding": coding})
            assert reply.status_code == 415
            assert reply.headers["accept-encoding"] == "br, gzip"
    assert served.stat("requests_refused", "content_coding") == 3
    # None of it is for requests without a body.
    with served.httpx(http2=http2) as client:
        assert client.get("/", headers={"content-encoding": "compress"}).status_code == 200


@handlers
def test_the_refusal_comes_before_the_body(serve, handler):
    with serve(handler, decompression=["gzip"]).wire() as wire:
        wire.send("POST / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-encoding: br\r\n")
        wire.send("content-length: 5\r\n\r\n")
        assert wire.read().status == 415
    with serve(handler, decompression=["gzip"]).wire() as wire:
        body = gzip.compress(b"hi")
        wire.send("POST / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-encoding: gzip\r\n")
        wire.send(f"content-length: {len(body)}\r\n\r\n")
        assert wire.read().status == 100
        assert wire.send(body).read().body == b"hi"


@pytest.mark.parametrize("coding", ALL)
def test_what_is_cut_at_any_byte_is_400(serve, br_of, coding):
    text = TEXT[:1200]
    coded = {"zstd": zstd_of(text), "br": br_of(text), "gzip": gzip.compress(text), "deflate": zlib.compress(text)}
    body = coded[coding]
    served = serve(whole, decompression=ALL)
    step = 1 if len(body) < 400 else 7
    for end in range(1, len(body), step):
        assert ask(served, body[:end], coding).status == 400, end
    # No body is no coding's, and is none.
    assert ask(served, b"", coding, chunked=True).body == b""
    assert served.stat("requests_refused", "undecodable") == len(range(1, len(body), step))


@versions
@pytest.mark.parametrize("coding", ALL)
def test_what_is_damaged_is_400(serve, coded, coding, http2):
    body = coded[coding]
    with serve(whole, decompression=ALL).httpx(http2=http2) as client:
        for wrong in (
            body + b"trailing garbage",
            body + b"\0",
            b"\0" + body,
            os.urandom(1) + body[:-20] + os.urandom(20),
        ):
            assert client.post("/", content=wrong, headers={"content-encoding": coding}).status_code == 400


def test_members_and_frames_follow_each_other(serve):
    served = serve(whole, decompression=ALL)
    assert ask(served, gzip.compress(b"one ") + gzip.compress(b"two"), "gzip").body == b"one two"
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0any"
    assert ask(served, zstd(b"one ") + skippable + zstd(b"two"), "zstd").body == b"one two"
    # Many small ones cost time and give little: others have turns.
    assert ask(served, gzip.compress(b"x") * 20_000, "gzip").body == b"x" * 20_000
    assert ask(served, zstd(b"x") * 20_000, "zstd").body == b"x" * 20_000


def bombs(br_of):
    zeros = bytes(10 * 2**20)
    return {
        "gzip": gzip.compress(zeros),
        "deflate": zlib.compress(zeros),
        "br": br_of(bytes(4 * 2**20)),
        "zstd": zstd(*[(b"\0", 128 * 1024)] * 8_000),
        "gzip, gzip": gzip.compress(gzip.compress(zeros)),
        "gzip, zstd": zstd_of(gzip.compress(zeros)),
    }


@versions
@handlers
def test_bombs_are_413_and_take_no_memory(serve, br_of, handler, http2):
    import psutil

    served = serve(handler, decompression=ALL, max_request_read_bytes=2**30)
    process = psutil.Process()
    made = bombs(br_of)
    assert len(made["gzip"]) < 11_000
    assert len(made["gzip, gzip"]) < 300
    with served.httpx(http2=http2) as client:
        before = process.memory_info().rss
        for coding, bomb in made.items():
            reply = client.post("/", content=bomb, headers={"content-encoding": coding})
            assert reply.status_code == 413, coding
        grown = process.memory_info().rss - before
    assert grown < 24 * 2**20, f"{grown / 2**20:.1f} MiB"
    assert served.stat("requests_refused", "body_bytes") == len(made)


@handlers
@pytest.mark.parametrize("coding", ALL)
def test_the_limit_is_on_what_was_decoded(serve, coded, handler, coding):
    assert (
        ask(serve(handler, decompression=ALL, max_request_read_bytes=len(TEXT) + 1000), coded[coding], coding).body
        == TEXT
    )
    assert (
        ask(serve(handler, decompression=ALL, max_request_read_bytes=len(TEXT) - 1), coded[coding], coding).status
        == 413
    )


def test_windows_of_zstd_are_bounded(serve):
    served = serve(whole, decompression=ALL)
    assert ask(served, zstd_of(TEXT, window=23), "zstd").body == TEXT
    # 16 and 128 MiB: RFC 9659.
    for window in (24, 27):
        assert ask(served, zstd_of(TEXT, window=window), "zstd").status == 400


def test_large_windows_take_memory_only_as_it_is_used(serve):
    """Decoders that wait for the rest of a body, each with the largest window there is."""
    import psutil

    served = serve(whole, decompression=ALL)
    process = psutil.Process()
    start = zstd_of(TEXT + b"x" * 100_000, window=23)[:-1000]
    wires = []
    try:
        wires = [served.wire() for _ in range(100)]
        before = process.memory_info().rss
        for wire in wires:
            wire.send(post(start + bytes(1000), "zstd")[:-1000])
        wait_for_bodies(served, wires)
        grown = process.memory_info().rss - before
    finally:
        for wire in wires:
            wire.close()
    # What came of each is 170 KB, and decoded as much again.
    assert grown < 100 * 2**20, f"{grown / 2**20:.1f} MiB"


def wait_for_bodies(served, wires):
    """Until the server has taken what they sent: one more request on each loop comes behind it."""
    for _ in range(20):
        assert ask(served, gzip.compress(b"x"), "gzip").body == b"x"


def test_pieces_of_a_stream_come_as_they_are_flushed(serve):
    seen = threading.Semaphore(0)
    pieces = []

    def handler(request):
        for piece in request.stream():
            pieces.append(piece)
            seen.release()
        return {"statusCode": 200, "body": b"".join(pieces)}

    handler.stream_body = True
    with serve(handler, decompression=ALL).wire() as wire:
        wire.send("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n")
        packer = zlib.compressobj(wbits=31)
        for text in (b"one ", b"two ", b"three"):
            data = packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)
            wire.send(b"%x\r\n%s\r\n" % (len(data), data))
            assert seen.acquire(timeout=30)
            assert pieces[-1] == text
        data = packer.flush()
        wire.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
        assert wire.read().body == b"one two three"


@versions
def test_a_handler_that_does_not_read_bounds_what_is_decoded(serve, http2):
    """A body of 18 MiB in 0.6: decoded as the handler takes it."""
    import psutil

    process, read = psutil.Process(), threading.Event()
    came = []

    def handler(request):
        if request.path == "/other":
            return {"statusCode": 200}
        pieces = iter(request.stream())
        came.append(len(next(pieces)))
        assert read.wait(30)
        came.append(max(map(len, pieces)))
        return {"statusCode": 200, "body": "read"}

    handler.stream_body = True
    served = serve(handler, decompression=ALL, max_request_read_bytes=2**30)
    body = gzip.compress(b"".join(os.urandom(800) * 40 for _ in range(600)), 1)
    with served.httpx(http2=http2) as client:
        replies = []
        before = process.memory_info().rss
        thread = threading.Thread(
            target=lambda: replies.append(client.post("/", content=body, headers={"content-encoding": "gzip"}))
        )
        thread.start()
        try:
            wait_until(lambda: came, "the first piece")
            for _ in range(50):  # time enough to decode what nobody wants
                assert get(served.clear, path="/other").status == 200
            grown = process.memory_info().rss - before
        finally:
            read.set()
            thread.join()
    assert grown < 8 * 2**20, f"{grown / 2**20:.1f} MiB"
    assert replies[0].text == "read"
    assert max(came) <= 64 * 1024


def test_neighbours_go_on_while_a_body_is_decoded(serve):
    """Bombs as large as the limits allow, on the one I/O thread that there is."""
    served = serve(whole, decompression=ALL, io_threads=1, max_request_read_bytes=2**28)
    line = os.urandom(1000)
    body = gzip.compress(b"".join(line * 30 for _ in range(800)), 1)  # 24 MB
    assert len(body) * 200 > 24_000_000
    done = threading.Event()
    waits = []

    def bomb():
        try:
            with served.wire() as wire:
                wire.send(post(body, "gzip"))
                head = wire.file.readline()
                assert b" 200 " in head
        finally:
            done.set()

    thread = threading.Thread(target=bomb)
    with served.wire() as neighbour:
        neighbour.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").read()
        thread.start()
        while not done.is_set():
            began = time.monotonic()
            assert neighbour.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").read().status == 200
            waits.append(time.monotonic() - began)
    thread.join()
    waits.sort()
    assert len(waits) > 10, waits
    assert waits[len(waits) // 2] < 0.05, waits


def test_one_that_answers_early_keeps_its_connection_where_the_rest_is_short(serve):
    def early(request):
        return {"statusCode": 200, "body": "early"}

    early.stream_body = True
    with serve(early, decompression=ALL).wire() as wire:
        for _ in range(3):
            assert wire.send(post(gzip.compress(TEXT), "gzip")).read().body == b"early"


def test_frames_of_http2_however_they_are_cut(serve, coded):
    with serve(whole, decompression=ALL).wire() as wire:
        client = H2(wire)
        body = coded["gzip"]
        stream = client.open(("content-encoding", "gzip"), method="POST", end=False)
        for at in range(0, len(body), 100):
            client.data(stream, body[at : at + 100])
        client.data(stream, b"", end=True)
        assert client.reply(stream).body == TEXT


def test_gateways_see_the_decoded_body(serve, coded):
    def app(environ, start_response):
        start_response("200 OK", [("x-length", environ.get("CONTENT_LENGTH", "none"))])
        assert "HTTP_CONTENT_ENCODING" not in environ
        return [environ["wsgi.input"].read()]

    async def asgi_app(scope, receive, send):
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        assert b"content-encoding" not in dict(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    assert ask(serve(portico.wsgi(app), decompression=ALL), coded["br"], "br").body == TEXT
    assert ask(serve(portico.asgi(asgi_app), decompression=ALL), coded["br"], "br").body == TEXT


def test_words_of_the_setting():
    with pytest.raises(portico.ConfigError, match="decompression: expected a tuple of any of zstd, br, gzip, deflate"):
        portico.Server(decompression=("gzip", "lzw"))
