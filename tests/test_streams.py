"""Connections without HTTP: bytes in and out by callbacks of both kinds, over TLS and in the clear."""

import asyncio
import contextlib
import logging
import os
import queue
import socket
import ssl
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import portico
from callbacks import BOTH, OVER, Calls, echo, echo_async
from clients import GENEROUS, Wire, openssl, run, wait_until

# ---- reading and writing


@BOTH
@OVER
def test_echo(stream, callback, tls):
    served = stream(callback, tls=tls)
    with served.connect() as wire:
        for size in (1, 100, 70_000):
            data = os.urandom(size)
            wire.send(data)
            assert wire.file.read(size) == data
    # Python's `ssl` closes without close_notify.
    served.wait_stat("connections_closed", "aborted" if tls else "client")
    served.wait_stat("connections_open", value=0)


@BOTH
def test_fifty_clients_at_once(stream, callback):
    served = stream(callback, tls=True)
    everybody = threading.Barrier(50)

    def client(number):
        with served.connect() as wire:
            wire.send(f"hello {number}")
            assert wire.file.read(len(f"hello {number}")) == f"hello {number}".encode()
            everybody.wait(GENEROUS)  # All of them are open now.
            wire.send("again")
            return wire.file.read(5)

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(client, range(50))) == [b"again"] * 50


@pytest.mark.parametrize("kind", ["openssl", "asyncio"])
def test_other_peoples_clients(stream, ca_pem, kind):
    if kind == "openssl":
        served = stream(lambda conn: conn.write(b"hello openssl " + conn.read_until(b"\n")), tls=True)
        client = [
            "openssl",
            "s_client",
            "-quiet",
            "-servername",
            "localhost",
            "-connect",
            f"127.0.0.1:{served.listener.port}",
        ]
        assert run(*client, input="line\nmore").stdout == "hello openssl line\n"
        shown = openssl(served.listener.port)
        assert "TLSv1.3" in shown
        assert "No ALPN negotiated" in shown
        return
    served = stream(echo_async, tls=True)

    async def client():
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", served.listener.port, ssl=served.context(), server_hostname="localhost"
        )
        writer.write(b"hello")
        answer = await reader.readexactly(5)
        writer.close()
        await writer.wait_closed()
        return answer

    assert asyncio.run(asyncio.wait_for(client(), GENEROUS)) == b"hello"


def test_unix_sockets_and_handed_over_ones(serve, tmp_path):
    served = serve()
    path = str(tmp_path / "echo.sock")
    served.server.listen(unix=path, tls=False, stream=echo)
    with Wire(0, unix=path) as wire:
        assert wire.send("hello").file.read(5) == b"hello"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listener = served.server.listen(fd=listening.fileno(), tls=False, stream=echo)
        with Wire(listener.port) as wire:
            assert wire.send("hello").file.read(5) == b"hello"


def test_what_is_known_of_a_connection(stream):
    told = queue.Queue()
    names = [name for name in dir(portico.ConnectionInfo) if not name.startswith("_")]

    def tell(conn):
        told.put(({name: getattr(conn, name) == getattr(conn.info, name) for name in names}, conn.sni, repr(conn)))
        assert set(names) <= set(dir(conn))
        with pytest.raises(AttributeError):
            _ = conn.no_such_thing
        told.put((conn.peername, conn.secure, conn.tls_version, conn.alpn))

    served = stream(tell, tls=True)
    with served.connect() as wire:
        wire.rest()
        same, sni, text = told.get(timeout=GENEROUS)
        assert all(same.values())
        assert sni == "localhost"
        assert "TLSv1.3" in text
        assert told.get(timeout=GENEROUS) == (wire.sock.getsockname(), True, "TLSv1.3", None)


# What is sent, how the callback reads it, and what it gets: b"" is the end.
READS = {
    "some": (b"abc", lambda conn: [conn.read_exactly(3), conn.read(5), conn.read(5)], [b"abc", b"", b""]),
    "fewer than there are": (b"abcdef", lambda conn: [conn.read_exactly(6)[:2], conn.read(0)], [b"ab", b""]),
    "all": (b"abc" * 100_000, lambda conn: [conn.read()], [b"abc" * 100_000]),
    "exactly": (b"abcdef", lambda conn: [conn.read_exactly(2), conn.read_exactly(4), conn.read_exactly(1)],
                [b"ab", b"cdef", b""]),
    "lines": (b"a\nbc\n", lambda conn: [conn.read_until(), conn.read_until(), conn.read_until()],
              [b"a\n", b"bc\n", b""]),
    "long separators": (b"a\r\nb\r\n\r\nc", lambda conn: [conn.read_until(b"\r\n\r\n"), conn.read()],
                        [b"a\r\nb\r\n\r\n", b"c"]),
    "the limit itself": (b"abc\nd", lambda conn: [conn.read_until(limit=4), conn.read()], [b"abc\n", b"d"]),
    "larger than what is read ahead": (bytes(3_000_000), lambda conn: [len(conn.read_exactly(3_000_000))],
                                       [3_000_000]),
}  # fmt: skip


@pytest.mark.parametrize("case", READS)
@pytest.mark.parametrize("piece", [1, 2, 100_000])
def test_reads(stream, case, piece):
    sent, read, expected = READS[case]
    calls = Calls(read)
    served = stream(calls)
    with served.connect() as wire:
        if len(sent) > 1000:
            piece = max(piece, 10_000)
        for at in range(0, len(sent), piece):
            wire.send(sent[at : at + piece])
        wire.half_close()
        assert calls.outcome() == expected


WRONG_READS = {
    "line cut off": (b"ab", lambda conn: conn.read_until(), asyncio.IncompleteReadError),
    "too few": (b"ab", lambda conn: conn.read_exactly(3), asyncio.IncompleteReadError),
    "line too long": (b"abcd\n", lambda conn: conn.read_until(limit=4), portico.LimitError),
    "no line in sight": (b"abcdefgh", lambda conn: conn.read_until(limit=4), portico.LimitError),
    "too much to the end": (bytes(5000), lambda conn: conn.read(), portico.LimitError),
    "more at once than is ever read": (b"", lambda conn: conn.read_exactly(4097), portico.LimitError),
    "no separator": (b"", lambda conn: conn.read_until(b""), ValueError),
    "odd time": (b"", lambda conn: conn.read(timeout=-1), ValueError),
    "text": (b"", lambda conn: conn.write("text"), TypeError),
}


@pytest.mark.parametrize("case", WRONG_READS)
def test_reads_that_cannot_be(stream, case):
    sent, read, expected = WRONG_READS[case]
    calls = Calls(read)
    served = stream(calls, settings={"max_request_read_bytes": 4096})
    with served.connect() as wire:
        wire.send(sent).half_close()
        error = calls.outcome()
        assert isinstance(error, expected), repr(error)
        if expected is asyncio.IncompleteReadError:
            assert error.partial == sent
        wire.rest()


@BOTH
@OVER
def test_each_side_may_end_before_the_other(stream, callback, tls):
    """A client that ended its side still gets everything; over TLS it says so by close_notify."""
    if callback is echo:

        def answer_at_the_end(conn):
            conn.write(b"first ")
            conn.write(conn.read().upper())
    else:

        async def answer_at_the_end(conn):
            await conn.write(b"first ")
            await conn.write((await conn.read()).upper())

    served = stream(answer_at_the_end, tls=tls)
    if not tls:
        with served.connect() as wire:
            assert wire.send("hello").half_close().rest() == b"first HELLO"
        return
    with Records(served) as client:
        client.send(b"hello")
        client.end()
        assert client.read_to_end() == b"first HELLO"


@OVER
def test_the_server_may_end_first(stream, tls):
    calls = Calls(lambda conn: [conn.write(b"bye"), conn.write_eof(), conn.read()])
    served = stream(calls, tls=tls)
    if tls:
        with Records(served) as client:
            assert client.read_to_end() == b"bye"
            client.send(b"still here")
            client.end()
            assert calls.outcome()[-1] == b"still here"
    else:
        with served.connect() as wire:
            assert wire.rest() == b"bye"
            wire.send("still here").half_close()
            assert calls.outcome()[-1] == b"still here"


class Records:
    """A TLS client without a socket of its own: it sees the records, and can go on reading after it has ended."""

    def __init__(self, served):
        self.sock = socket.create_connection(("127.0.0.1", served.listener.port), GENEROUS)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = served.context().wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.came = b""
        self._do(self.tls.do_handshake)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def _do(self, action):
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                self._flush()
                data = self.sock.recv(65536)
                self.came += data
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
            else:
                self._flush()
                return result

    def _flush(self):
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def send(self, data):
        self._do(lambda: self.tls.write(data))

    def end(self):
        """close_notify, and the reading goes on."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self._flush()

    def read_to_end(self):
        read = b""
        while True:
            try:
                piece = self._do(lambda: self.tls.read(65536))
            except ssl.SSLZeroReturnError:
                return read
            if not piece:
                return read
            read += piece


@pytest.mark.parametrize("ending", ["returns", "closes twice", "ends before", "raises", "with"])
def test_close_notify_comes_once_and_after_everything(stream, ending):
    def callback(conn):
        conn.write(b"x" * 200_000)
        if ending == "closes twice":
            conn.close()
            conn.close()
        elif ending == "ends before":
            conn.write_eof()
            conn.write_eof()
        elif ending == "raises":
            raise ValueError("on purpose")
        elif ending == "with":
            with conn:
                pass
            with pytest.raises(portico.ClosedError):
                conn.write(b"more")
            with pytest.raises(portico.ClosedError):
                conn.read(1)

    served = stream(callback, tls=True)
    with Records(served) as client:
        assert client.read_to_end() == b"x" * 200_000
        # After the alert's record comes FIN and nothing else. In TLS 1.3 an alert is 19 bytes of application data.
        assert client.sock.recv(1) == b""
    lengths, rest = [], client.came
    while rest:
        length = 5 + int.from_bytes(rest[3:5], "big")
        lengths.append(length)
        rest = rest[length:]
    assert lengths.count(24) == 1
    assert lengths[-1] == 24


# ---- much data


@BOTH
@OVER
def test_a_hundred_megabytes_there_and_back(stream, callback, tls):
    served = stream(callback, tls=tls)
    piece, count = os.urandom(1 << 20), 100

    async def client():
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            served.listener.port,
            **({"ssl": served.context(), "server_hostname": "localhost"} if tls else {}),
        )

        async def feed():
            for _ in range(count):
                writer.write(piece)
                await writer.drain()

        feeding = asyncio.ensure_future(feed())
        for _ in range(count):
            assert await reader.readexactly(len(piece)) == piece
        await feeding
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    asyncio.run(asyncio.wait_for(client(), 60))


def test_a_write_of_a_hundred_megabytes_arrives(stream):
    data = os.urandom(100 << 20)
    served = stream(lambda conn: conn.write(data))
    with served.connect() as wire:
        assert wire.rest() == data


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured through /proc")
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_client_that_does_not_read_holds_up_who_writes(stream, kind):
    written = 0

    def flood(conn):
        nonlocal written
        while True:
            conn.write(bytes(16384))
            written += 16384

    async def flood_async(conn):
        nonlocal written
        while True:
            await conn.write(bytes(16384))
            written += 16384

    served = stream(flood if kind == "def" else flood_async, settings={"write_timeout": 3})
    with served.connect(receive_buffer=4096) as wire:
        assert wire.sock.recv(1)
        served.wait_stat("connections_closed", "write_timeout")
    # What the kernel takes (net.ipv4.tcp_wmem: 4 MiB) and 64 KiB.
    assert written < 8 << 20


def test_a_callback_that_does_not_read_holds_up_who_sends(stream):
    go_on = threading.Event()
    served = stream(lambda conn: [go_on.wait(GENEROUS), conn.write(str(len(conn.read())).encode())])
    with served.connect() as wire:
        wire.sock.setblocking(False)
        sent, quiet_since = 0, time.monotonic()
        while time.monotonic() - quiet_since < 1:
            try:
                sent += wire.sock.send(bytes(65536))
                quiet_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
            assert sent < 64 << 20, "nobody held it up"
        go_on.set()
        wire.sock.settimeout(GENEROUS)
        wire.half_close()
        # More than max_request_read_bytes: that is LimitError; else the length.
        assert wire.rest() in (str(sent).encode(), b"")


# ---- time


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_read_that_takes_too_long_loses_nothing(stream, kind):
    told = queue.Queue()

    def wait(conn):
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            conn.read_exactly(4, timeout=0.05)
        conn.write(b"late")
        told.put(conn.read_exactly(4))

    async def wait_async(conn):
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            await conn.read_exactly(4, timeout=0.05)
        await conn.write(b"late")
        told.put(await conn.read_exactly(4))

    served = stream(wait if kind == "def" else wait_async)
    with served.connect() as wire:
        wire.send("ab")
        assert wire.file.read(4) == b"late"
        wire.send("cd")
        assert told.get(timeout=GENEROUS) == b"abcd"


@BOTH
def test_the_setting_holds_where_no_time_is_given(stream, callback, caplog):
    caplog.set_level(logging.INFO, "portico.error")
    served = stream(callback, settings={"stream_timeout": 0.1})
    with served.connect() as wire:
        assert wire.rest() == b""
    served.wait_stat("connections_closed", "idle")
    # A client that says nothing is no error of the callback.
    wait_until(lambda: "within 0.1 s" in caplog.text)
    assert "Traceback" not in caplog.text


def test_no_time_at_all(stream):
    calls = Calls(lambda conn: conn.read(1, timeout=float("inf")))
    served = stream(calls, settings={"stream_timeout": 0.05})
    with served.connect() as wire:
        with pytest.raises(queue.Empty):
            calls.ended.get(timeout=0.3)
        wire.send("x")
        assert calls.outcome() == b"x"


def test_cancelling_a_read_loses_nothing(stream):
    told = queue.Queue()

    async def callback(conn):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(conn.read_exactly(4), 0.05)
        await conn.write(b"now")
        told.put(await conn.read_exactly(4))

    served = stream(callback)
    with served.connect() as wire:
        wire.send("ab")
        assert wire.file.read(3) == b"now"
        wire.send("cd")
        assert told.get(timeout=GENEROUS) == b"abcd"


def test_connections_wait_for_a_thread_and_not_for_ever(stream):
    entered, go_on = threading.Event(), threading.Event()
    served = stream(lambda conn: [entered.set(), go_on.wait(GENEROUS), conn.write(b"hi")],
                    settings={"stream_threads": 1, "stream_timeout": 1})  # fmt: skip
    with served.connect() as first:
        assert entered.wait(GENEROUS)
        with served.connect() as second:
            assert second.rest() == b""
        error, _ = served.errors.next(portico.LimitError)
        assert error.reason == "stream_threads"
        with served.connect() as third:
            go_on.set()
            assert first.rest() == b"hi"
            assert third.rest() == b"hi"


# ---- ALPN, arguments


@pytest.mark.parametrize(
    ("offered", "wanted", "chosen"),
    [((), ["h2", "http/1.1"], None), (("mqtt",), ["x", "mqtt"], "mqtt"), (("mqtt",), None, None)],
)
def test_alpn(stream, offered, wanted, chosen):
    calls = Calls(lambda conn: conn.alpn)
    served = stream(calls, tls=True, alpn=offered)
    with served.connect(client_alpn=wanted) as wire:
        assert wire.sock.selected_alpn_protocol() == chosen
        assert calls.outcome() == chosen


def test_a_client_with_other_protocols_only_is_refused(stream):
    served = stream(echo, tls=True, alpn=["mqtt"])
    with pytest.raises(ssl.SSLError):
        served.connect(client_alpn=["x"])
    served.errors.next(portico.HandshakeError)
    # Another listener of the same server offers what it did.
    with served.tls_wire(alpn=["h2"]) as wire:
        assert wire.sock.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"stream": 3}, "stream: a function of a connection, not int"),
        ({"alpn": ["mqtt"]}, "alpn: only with stream"),
        ({"stream": echo, "alpn": ["x" * 256]}, "alpn: names of protocols"),
        ({"stream": echo, "alpn": [3]}, "alpn: names of protocols"),
    ],
)
def test_wrong_arguments(make_server, arguments, expected):
    with pytest.raises(portico.ConfigError, match=expected):
        make_server().listen(0, tls=False, **arguments)


def test_limits_on_connections_hold(stream):
    served = stream(echo, settings={"max_connections": 1})
    with served.connect() as wire:
        assert wire.send("x").file.read(1) == b"x"
        with served.connect() as other:
            assert other.cut() == b""
    assert served.stat("connections_turned_away", "max_connections") == 1
