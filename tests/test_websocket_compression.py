"""Compressed WebSocket messages (permessage-deflate, RFC 7692): what is agreed on, the cases of the Autobahn test suite's
sections 12 and 13, and what clients do wrong, with frames made by hand and by the client of `websockets`."""

import contextlib
import json
import random
import zlib

import psutil
import pytest
from websockets.sync.client import connect

import portico
from clients import GENEROUS, wait_until
from frames import H2
from sockets import BINARY, CONTINUATION, FIN, PING, PONG, TEXT, OverHTTP1, OverHTTP2, close, echo, echo_async, frame

RSV1 = 0x40
TAIL = b"\x00\x00\xff\xff"
AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


def shrunk(message):
    coder = zlib.compressobj(wbits=-15)
    return (coder.compress(message) + coder.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def coded(opcode, message, size=None):
    """A compressed message, in fragments of so many bytes."""
    payload = shrunk(message)
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)] if size else [payload]
    frames = []
    for at, piece in enumerate(pieces):
        last = at == len(pieces) - 1
        frames.append(frame(CONTINUATION, piece, fin=last) if at else frame(opcode, piece, fin=last, bits=RSV1))
    return b"".join(frames)


class Compressed:
    """Reads messages, compressed or not, with the window that was asked for."""

    def __init__(self, socket, window=15):
        self.socket, self.window, self.came = socket, window, 0

    def read(self):
        first, length = self.socket.exactly(2)
        if length > 125:
            length = int.from_bytes(self.socket.exactly(2 if length == 126 else 8), "big")
        payload = self.socket.exactly(length)
        self.came += length
        assert first & (FIN | 0x30) == FIN
        if first & RSV1:
            # A decoder of its own: nothing of the message before is needed.
            payload = zlib.decompressobj(wbits=-self.window).decompress(payload + TAIL)
        return first & 15, payload


@pytest.fixture
def open_socket(serve):
    """Starts a server with a handler; a function that opens a WebSocket on it."""
    with contextlib.ExitStack() as stack:

        def open_socket(handler=echo, headers=OFFER, **options):
            open_socket.served = served = serve(portico.websocket(handler, **options))
            return OverHTTP1(stack.enter_context(served.wire()), headers=headers)

        yield open_socket


# ---- what is agreed on


@pytest.mark.parametrize(
    ("offers", "agreed"),
    [
        ("permessage-deflate", AGREED),
        ("permessage-deflate; client_max_window_bits", AGREED),
        ("permessage-deflate; server_max_window_bits=10", AGREED + "; server_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", AGREED),
        ("permessage-deflate; unknown, x-other", None),
        ("permessage-bzip2", None),
    ],
)
def test_what_is_agreed_on(open_socket, offers, agreed):
    reply = open_socket(headers=f"Sec-WebSocket-Extensions: {offers}\r\n").reply
    assert reply.status == 101
    assert reply.header("sec-websocket-extensions") == agreed


def test_offers_in_several_lines(open_socket):
    assert open_socket(headers="Sec-WebSocket-Extensions: x-other\r\n" + OFFER).reply.header("sec-websocket-extensions")


@pytest.mark.parametrize(("headers", "options"), [(OFFER, {"compression": False}), ("", {})])
def test_without_it_nothing_is_compressed(open_socket, headers, options):
    socket = open_socket(headers=headers, **options)
    assert socket.reply.header("sec-websocket-extensions") is None
    assert socket.send(frame(TEXT, b"a" * 1000)).read() == (TEXT, b"a" * 1000)
    assert socket.send(coded(TEXT, b"a" * 1000)).read_close()[0] == 1002


def test_an_option_that_is_none():
    with pytest.raises(portico.ConfigError, match="compression"):
        portico.websocket(echo, compression="deflate")


# ---- messages

RANDOM = random.Random(1)
WORDS = [RANDOM.randbytes(RANDOM.randint(1, 6)).hex() for _ in range(500)]
JSON = json.dumps([{"id": n, "said": " ".join(RANDOM.choices(WORDS, k=9))} for n in range(2000)]).encode()
NOISE = RANDOM.randbytes(2**18)
SIZES = [(16, None), (64, None), (256, None), (1024, None), (4096, None), (8192, 256), (32768, None), (131072, 1024)]


@pytest.mark.parametrize("handler", [echo, echo_async], ids=["def", "async def"])
@pytest.mark.parametrize(
    ("data", "opcode"), [(JSON, TEXT), (JSON, BINARY), (NOISE, BINARY)], ids=["text", "binary", "noise"]
)
@pytest.mark.parametrize(("size", "fragment"), SIZES)
def test_12_messages_of_all_sizes(open_socket, handler, data, opcode, size, fragment):
    socket = open_socket(handler)
    compressed = Compressed(socket)
    for number in range(30):
        at = number * size % (len(data) - size)
        socket.send(coded(opcode, data[at : at + size], fragment))
        assert compressed.read() == (opcode, data[at : at + size])
    if size >= 256 and data is JSON:
        assert compressed.came < 30 * size * 0.9, "they come compressed"
    socket.send(close(1000))
    assert socket.read_close() == (1000, "")
    assert socket.read() is None


@pytest.mark.parametrize("window", [9, 10, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("takeover", ["", "; server_no_context_takeover"])
def test_13_windows_that_the_client_asks_for(open_socket, window, takeover):
    offer = f"permessage-deflate; client_max_window_bits; server_max_window_bits={window}{takeover}"
    socket = open_socket(headers=f"Sec-WebSocket-Extensions: {offer}, permessage-deflate\r\n")
    compressed = Compressed(socket, window)
    for size, fragment in SIZES:
        socket.send(coded(TEXT, JSON[:size], fragment))
        assert compressed.read() == (TEXT, JSON[:size])


def test_some_are_compressed_and_some_are_not(open_socket):
    socket = open_socket()
    compressed = Compressed(socket)
    socket.send(frame(TEXT, JSON[:5000]), coded(TEXT, b""), coded(BINARY, b"x"), frame(PING, b"?"))
    came = [compressed.read() for _ in range(4)]
    assert [each for each in came if each[0] != PONG] == [(TEXT, JSON[:5000]), (TEXT, b""), (BINARY, b"x")]
    assert (PONG, b"?") in came


def test_a_ping_within_a_compressed_message(open_socket):
    socket, payload = open_socket(), shrunk(JSON[:1000])
    socket.send(frame(TEXT, payload[:50], fin=False, bits=RSV1), frame(PING, b"?"), frame(CONTINUATION, payload[50:]))
    compressed = Compressed(socket)
    assert [compressed.read(), compressed.read()] == [(PONG, b"?"), (TEXT, JSON[:1000])]


def test_in_a_stream_of_http2(serve):
    served = serve(portico.websocket(echo_async))
    with served.tls_wire(alpn=["h2"]) as wire:
        socket = OverHTTP2(H2(wire), "/", ("sec-websocket-extensions", "permessage-deflate"))
        assert socket.headers["sec-websocket-extensions"] == AGREED
        socket.send(coded(TEXT, JSON[:50_000], 5000))
        compressed = Compressed(socket)
        assert compressed.read() == (TEXT, JSON[:50_000])
        assert compressed.came < 40_000


@pytest.mark.parametrize("handler", [echo, echo_async], ids=["def", "async def"])
def test_the_client_of_websockets(serve, handler):
    served = serve(portico.websocket(handler))
    with connect(f"ws://localhost:{served.clear}/", max_size=None) as client:
        assert [extension.name for extension in client.protocol.extensions] == ["permessage-deflate"]
        for message in ("hällo" * 100, JSON.decode(), JSON, NOISE, "", b"short", "a" * 2**24):
            client.send(message)
            assert client.recv(GENEROUS) == message
        client.send([JSON[:100], JSON[100:500]])
        assert client.recv(GENEROUS) == JSON[:500]


# ---- what clients do wrong


@pytest.mark.parametrize(
    ("code", "frames"),
    [
        pytest.param(1009, [coded(BINARY, b"\0" * 2**26)], id="a bomb"),
        pytest.param(1009, [coded(BINARY, b"\0" * 2**26)[:2000]], id="the beginning of one"),
        pytest.param(1009, [coded(BINARY, b"\0" * 100_001, size=10)], id="one byte more, in fragments"),
        pytest.param(1007, [frame(BINARY, b"\xff" * 20, bits=RSV1)], id="not deflate"),
        pytest.param(1007, [coded(TEXT, b"\xff" * 20)], id="not text"),
        pytest.param(1002, [frame(PING, shrunk(b"a"), bits=RSV1)], id="a ping"),
        pytest.param(1002, [frame(TEXT, b"a", fin=False), frame(CONTINUATION, b"a", bits=RSV1)], id="a fragment"),
        pytest.param(1002, [frame(TEXT, shrunk(b"a"), bits=RSV1 | 0x20)], id="another bit"),
    ],
)
def test_faults(open_socket, code, frames):
    socket = open_socket(max_message_bytes=100_000)
    socket.send(coded(TEXT, b"fine"), *frames)
    assert Compressed(socket).read() == (TEXT, b"fine")
    assert socket.read_close()[0] == code
    assert socket.read() is None


def test_the_largest_message_is_inflated(open_socket):
    socket = open_socket()
    socket.send(coded(BINARY, b"\0" * 2**24))
    assert Compressed(socket).read() == (BINARY, b"\0" * 2**24)
    assert socket.send(coded(BINARY, b"\0" * (2**24 + 1))).read_close()[0] == 1009


def test_others_have_their_turn_while_a_large_message_is_inflated(serve):
    large = []

    async def handler(ws):
        async for message in ws:
            if len(message) < 100:
                await ws.send(message)
            else:
                large.append(len(message))

    served, many, turns = serve(portico.websocket(handler), io_threads=1), 4, 0
    with served.wire() as one, served.wire() as other:
        OverHTTP1(one, headers=OFFER).send(*[coded(BINARY, b"\0" * 2**24)] * many)
        socket = OverHTTP1(other)
        while len(large) < many:
            assert socket.send(frame(TEXT, b"and I?")).read() == (TEXT, b"and I?")
            turns += 1
    assert turns > 3 * many, "one turn a message is to wait for all of it"


def test_a_connection_that_waits_keeps_nothing_for_it(serve):
    """Each has sent and got compressed messages. With windows of their own they would keep 350 KiB each."""
    served = serve(portico.websocket(echo_async))
    many = 300

    def grow(headers):
        with contextlib.ExitStack() as stack:
            before = psutil.Process().memory_info().rss
            sockets = [OverHTTP1(stack.enter_context(served.wire()), headers=headers) for _ in range(many)]
            for socket in sockets:
                socket.send(coded(TEXT, JSON[:4096]) if headers else frame(TEXT, JSON[:4096]))
                assert Compressed(socket).read() == (TEXT, JSON[:4096])
            grown = psutil.Process().memory_info().rss - before
        wait_until(lambda: served.stat("websockets_open") == 0)
        return grown / many

    grow(OFFER)  # What every first use takes.
    assert grow(OFFER) < grow("") + 64 * 1024
