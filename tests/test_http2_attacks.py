"""Attacks on HTTP/2, frame by frame: each ends with GOAWAY or a closed connection within about a thousand frames, takes
next to no memory, and does not hold up a neighbour."""

import contextlib
import itertools
import select
import threading
import time

import h2.errors
import h2.events
import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from apart import Apart, Neighbour
from frames import H2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What an attack may send before it must have been stopped: "about a thousand".
FRAMES = 1300
# What the server may grow by, in bytes.
GROWTH = 5_000_000
# How slow a neighbour's answer may be, in seconds, on a machine that does much else. Alone it is below 0.05.
SLOWEST = 2.0


@pytest.fixture(scope="module")
def apart():
    with Apart() as apart:
        # Its allocator, its pool and its caches find their size first.
        with Neighbour(apart) as neighbour:
            for _ in range(200):
                neighbour.ask()
        for attack in (settings_flood, opens_only, header_bomb):
            Attacker(apart).run(attack())
        yield apart


def head(path="/", method="POST", *more):
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost"), *more]
    # Without the dynamic table, so that every block stands for itself.
    return b"".join(literal(name, value) for name, value in fields)


def literal(name, value):
    """A header that is not indexed (RFC 7541 section 6.2.2)."""
    return b"\x00" + string(name) + string(value)


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return integer(len(data), 7) + data


def integer(number, bits, flags=0):
    """RFC 7541 section 5.1."""
    most = (1 << bits) - 1
    if number < most:
        return bytes([flags | number])
    out, number = bytearray([flags | most]), number - most
    while number >= 128:
        out.append(number % 128 | 128)
        number //= 128
    return bytes([*out, number])


def opens(stream, path="/", method="POST", end=False, *more):
    return HeadersFrame(stream, data=head(path, method, *more), flags=["END_HEADERS", *(["END_STREAM"] if end else [])])


def raw(kind, stream, body, flags=0):
    """A frame of any kind."""
    frame = ExtensionFrame(kind, stream, flag_byte=flags, body=body)
    frame.length = len(body)
    return frame


def streams():
    return itertools.count(1, 2)


# The attacks: each a sequence of frames that could go on for ever.


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


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attack_is_stopped(apart, attack):
    neighbour, stop = Neighbour(apart), threading.Event()
    peak = before = apart.resident()

    def ask():
        while not stop.is_set():
            neighbour.ask()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        attackers = []
        for _ in range(3):
            attackers.append(Attacker(apart))
            stopped = attackers[-1].run(attack())
            peak = max(peak, apart.resident())
            assert stopped, f"it goes on after {attackers[-1].sent} frames"
    finally:
        stop.set()
        asking.join()
        neighbour.wire.close()
    slowest = max(neighbour.took)
    last = attackers[-1]
    print(f"{attack.__name__}: {last.sent} frames, GOAWAY {last.goaway}, {(peak - before) / 1e6:.2f} MB, "
          f"neighbour {slowest * 1000:.1f} ms at most")  # fmt: skip
    assert peak - before < GROWTH
    assert slowest < SLOWEST


def data_of(client):
    """What the next frame brings of a response, unlike by `wait_for` not acknowledged."""
    frame = client.frame()
    assert frame, "the server has closed"
    return [event for event in client.connection.receive_data(frame) if isinstance(event, h2.events.DataReceived)]


def test_busy_clients_are_no_flood(apart):
    with apart.tls_wire(alpn=["h2"]) as wire:
        client = H2(wire)
        for n in range(1500):
            stream = client.open(path=f"/{n}")
            client.connection.prioritize(stream, weight=10)
            client.connection.increment_flow_control_window(1)
            assert client.reply(stream).status == 200
        # A large response, of which every frame opens both windows again.
        stream, received = client.open(path="/large"), 0
        while received < 10_000_000:
            for event in data_of(client):
                received += len(event.data)
                if not event.stream_ended:
                    client.connection.increment_flow_control_window(len(event.data))
                    client.connection.increment_flow_control_window(len(event.data), stream)
            client.flush()
        # As a browser does that goes to another page.
        # As many as the credit bears in one burst, with the windows that they open.
        many = [client.open(path="/large") for _ in range(30)]
        for stream in many:
            client.wait_for(h2.events.ResponseReceived, stream)
        for stream in many:
            client.connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        client.flush()
        assert client.reply(client.open()).status == 200


def test_a_client_with_large_windows_opens_them_when_it_likes(apart):
    with apart.tls_wire(alpn=["h2"]) as wire:
        client = H2(wire)
        client.windows(2**24)
        client.connection.increment_flow_control_window(2**24)
        client.open(path="/large")
        sizes = []
        while sum(sizes) < 10_000_000:
            sizes += [event.flow_controlled_length for event in data_of(client)]
        for size in sizes:
            # The second stands for that of the stream, which has ended by now.
            client.connection.increment_flow_control_window(size)
            client.connection.increment_flow_control_window(1)
        client.flush()
        assert len(sizes) > 500
        assert client.reply(client.open()).status == 200
