"""The cases of the Autobahn test suite, which the field measures WebSocket servers by, with frames made by hand: its
sections 1 to 7, 9 and 10, by its numbers, against an echo with the options that it has by default. Those that it calls
"non-strict" where a server does a little less have to be right here. Its sections 12 and 13 are in
`test_websocket_compression.py`."""

import contextlib
import select

import pytest

import portico
import portico.testing
from clients import Wire
from sockets import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, OverHTTP1, close, echo, echo_async, frame
from utf8_cases import UTF8

HELLO = b"Hello, world!"


@pytest.fixture(scope="module", params=[(echo, True), (echo_async, False)], ids=["def, TLS", "async def, plain"])
def port(request):
    handler, tls = request.param
    with portico.testing.server(portico.websocket(handler)) as server:
        if tls:
            yield server.port, server.ssl_context
        else:
            yield server.server.listen(0, tls=False).port, None


@pytest.fixture
def open_socket(port):
    """Opens a WebSocket."""
    with contextlib.ExitStack() as stack:

        def open_socket():
            number, context = port
            return OverHTTP1(stack.enter_context(Wire(number, context=context)))

        yield open_socket


def in_chops(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)] if size else [data]


def write(socket, data, chop):
    for piece in in_chops(data, chop):
        socket.write(piece)


def goes_well(socket, frames, expected, chop=None):
    """Sends frames; what comes is exactly what is expected, then both say goodbye, and the server ends the connection."""
    write(socket, b"".join(frames), chop)
    assert [socket.read() for _ in expected] == expected
    socket.send(close(1000))
    assert socket.read_close() == (1000, "")
    assert socket.read() is None


def is_refused(socket, frames, code=1002, expected=(), chop=None):
    """Sends frames; what was right before the fault is answered, then the server says why it ends, and ends."""
    with contextlib.suppress(ConnectionError):  # It may have ended before everything is sent.
        write(socket, b"".join(frames), chop)
    assert [socket.read() for _ in expected] == list(expected)
    assert socket.read_close()[0] == code
    assert socket.read() is None


def fragments(opcode, payload, size):
    """A message in frames of so many bytes."""
    pieces = in_chops(payload, size)
    last = len(pieces) - 1
    return [frame(CONTINUATION if at else opcode, piece, fin=at == last) for at, piece in enumerate(pieces)]


# ---- 1: framing


@pytest.mark.parametrize(("opcode", "byte"), [(TEXT, b"*"), (BINARY, b"\xfe")], ids=["1.1", "1.2"])
@pytest.mark.parametrize(
    ("length", "chop"),
    [(0, None), (125, None), (126, None), (127, None), (128, None), (65535, None), (65536, None), (65536, 997)],
)
def test_1_framing(open_socket, opcode, byte, length, chop):
    payload = byte * length
    goes_well(open_socket(), [frame(opcode, payload)], [(opcode, payload)], chop)


# ---- 2: pings and pongs

TEN = [b"payload-%d" % number for number in range(10)]


@pytest.mark.parametrize(
    ("payloads", "chop"),
    [
        pytest.param([b""], None, id="2.1"),
        pytest.param([HELLO], None, id="2.2"),
        pytest.param([b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"], None, id="2.3"),
        pytest.param([b"\xfe" * 125], None, id="2.4"),
        pytest.param([b"\xfe" * 125], 1, id="2.6"),
        pytest.param(TEN, None, id="2.10"),
        pytest.param(TEN, 1, id="2.11"),
    ],
)
def test_2_pings(open_socket, payloads, chop):
    goes_well(open_socket(), [frame(PING, each) for each in payloads], [(PONG, each) for each in payloads], chop)


def test_2_5_a_ping_that_is_too_long(open_socket):
    is_refused(open_socket(), [frame(PING, b"\xfe" * 126)])


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        pytest.param([frame(PONG)], [], id="2.7"),
        pytest.param([frame(PONG, b"unasked")], [], id="2.8"),
        pytest.param([frame(PONG, b"unasked"), frame(PING, b"asked")], [(PONG, b"asked")], id="2.9"),
    ],
)
def test_2_pongs_that_nobody_asked_for(open_socket, frames, expected):
    goes_well(open_socket(), frames, expected)


# ---- 3: reserved bits; 4: opcodes

ECHOED = [(TEXT, HELLO)]


@pytest.mark.parametrize(
    ("frames", "expected", "chop"),
    [
        pytest.param([frame(TEXT, HELLO, bits=0x10)], [], None, id="3.1"),
        pytest.param([frame(TEXT, HELLO), frame(TEXT, HELLO, bits=0x20), frame(PING)], ECHOED, None, id="3.2"),
        pytest.param([frame(TEXT, HELLO), frame(TEXT, HELLO, bits=0x30), frame(PING)], ECHOED, 19, id="3.3"),
        pytest.param([frame(TEXT, HELLO), frame(TEXT, HELLO, bits=0x40), frame(PING)], ECHOED, 1, id="3.4"),
        pytest.param([frame(BINARY, b"\x00\xff\xfe\xfd", bits=0x50)], [], None, id="3.5"),
        pytest.param([frame(BINARY, HELLO, bits=0x60)], [], None, id="3.6"),
        pytest.param([frame(CLOSE, bits=0x70)], [], None, id="3.7"),
    ],
)
def test_3_reserved_bits(open_socket, frames, expected, chop):
    is_refused(open_socket(), frames, expected=expected, chop=chop)


@pytest.mark.parametrize(
    ("opcode", "payload", "after", "chop"),
    [
        (first + at, payload, after, chop)
        for first in (3, 11)
        for at, (payload, after, chop) in enumerate(
            [(b"", False, None), (HELLO, False, None), (b"", True, None), (HELLO, True, None), (HELLO, True, 1)]
        )
    ],
)
def test_4_opcodes(open_socket, opcode, payload, after, chop):
    frames = [frame(opcode, payload), frame(PING)]
    is_refused(open_socket(), [frame(TEXT, HELLO), *frames] if after else frames, 1002, ECHOED if after else [], chop)


# ---- 5: fragments


def test_5_1_and_5_2_control_frames_have_none(open_socket):
    for opcode in (PING, PONG):
        is_refused(open_socket(), [frame(opcode, b"a", fin=False), frame(CONTINUATION, b"b")])


BEGUN, MORE, REST = frame(TEXT, b"frag", fin=False), frame(CONTINUATION, b"me", fin=False), frame(CONTINUATION, b"nt")


@pytest.mark.parametrize("chop", [None, 10, 1])
@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        pytest.param([BEGUN, REST], [(TEXT, b"fragnt")], id="5.3 to 5.5"),
        pytest.param([BEGUN, frame(PING, b"?"), REST], [(PONG, b"?"), (TEXT, b"fragnt")], id="5.6 to 5.8"),
    ],
)
def test_5_messages_in_fragments(open_socket, frames, expected, chop):
    goes_well(open_socket(), frames, expected, chop)


@pytest.mark.parametrize("chop", [None, 20, 1])
@pytest.mark.parametrize("fin", [True, False], ids=["5.9 to 5.11", "5.12 to 5.14"])
def test_5_nothing_to_continue(open_socket, fin, chop):
    is_refused(open_socket(), [frame(CONTINUATION, b"no", fin=fin), frame(TEXT, HELLO)], chop=chop)


def test_5_15_nothing_to_continue_after_a_message(open_socket):
    frames = [BEGUN, REST, frame(CONTINUATION, b"no", fin=False), frame(TEXT, HELLO)]
    is_refused(open_socket(), frames, expected=[(TEXT, b"fragnt")])


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([MORE, BEGUN, REST] * 2, id="5.16"),
        pytest.param([REST, BEGUN, REST] * 2, id="5.17"),
        pytest.param([BEGUN, frame(TEXT, b"fragment2")], id="5.18"),
    ],
)
def test_5_fragments_out_of_order(open_socket, frames):
    is_refused(open_socket(), frames)


@pytest.mark.parametrize("each", [False, True], ids=["5.19", "5.20"])
def test_5_pings_are_answered_while_a_message_comes(open_socket, each):
    socket = open_socket()
    for number, more in ((1, []), (2, [REST])):
        frames = [BEGUN if number == 1 else MORE, MORE, frame(PING, b"pongme %d" % number), *more]
        write(socket, b"".join(frames), 10 if each else None)
        assert socket.read() == (PONG, b"pongme %d" % number)
    goes_well(socket, [], [(TEXT, b"fragmemement")])


# ---- 6: text


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        pytest.param([frame(TEXT)], b"", id="6.1.1"),
        pytest.param([frame(TEXT, fin=False), frame(CONTINUATION, fin=False), frame(CONTINUATION)], b"", id="6.1.2"),
        pytest.param([frame(TEXT, fin=False), MORE, frame(CONTINUATION)], b"me", id="6.1.3"),
    ],
)
def test_6_1_empty_fragments(open_socket, frames, text):
    goes_well(open_socket(), frames, [(TEXT, text)])


GREEK, WORD = "κόσμε".encode(), "Hello-µ@ßöäüàá-UTF-8!!".encode()


@pytest.mark.parametrize(("text", "size"), [(WORD, None), (WORD, 12), (WORD, 1), (GREEK, 1)])
def test_6_2_text_in_fragments(open_socket, text, size):
    goes_well(open_socket(), fragments(TEXT, text, size), [(TEXT, text)])


SURROGATE = GREEK + b"\xed\xa0\x80edited"
TOO_HIGH = [GREEK, b"\xf4\x90\x80\x80", b"edited"]


@pytest.mark.parametrize("size", [None, 1])
def test_6_3_what_is_no_text(open_socket, size):
    is_refused(open_socket(), fragments(TEXT, SURROGATE, size), 1007)


@pytest.mark.parametrize(
    "parts", [TOO_HIGH[:2], [GREEK + b"\xf4", b"\x90"]], ids=["6.4.1 and 6.4.3", "6.4.2 and 6.4.4"]
)
@pytest.mark.parametrize("whole", [False, True], ids=["in frames", "in one frame"])
def test_6_4_what_cannot_become_text_is_refused_before_the_rest_comes(open_socket, parts, whole):
    good, bad = parts
    socket = open_socket()
    if whole:
        message = frame(TEXT, b"".join(TOO_HIGH))
        head = len(message) - len(b"".join(TOO_HIGH))
        write(socket, message[: head + len(good)], None)
        assert not select.select([socket.wire.sock], [], [], 0.1)[0], "what has come so far may become text"
        is_refused(socket, [message[head + len(good) :][: len(bad)]], 1007)
    else:
        socket.send(frame(TEXT, good, fin=False), frame(PING))
        assert socket.read() == (PONG, b""), "what has come so far may become text"
        is_refused(socket, [frame(CONTINUATION, bad, fin=False)], 1007)


@pytest.mark.parametrize(("valid", "payload"), UTF8)
def test_6_5_to_6_23(open_socket, valid, payload):
    if valid:
        goes_well(open_socket(), [frame(TEXT, payload)], [(TEXT, payload)])
    else:
        is_refused(open_socket(), [frame(TEXT, payload)], 1007)


# ---- 7: the end


def says_goodbye(socket, frames, code=1000, reason="", expected=()):
    """The client says goodbye among those frames; nothing behind it is answered."""
    socket.send(*frames)
    assert [socket.read() for _ in expected] == list(expected)
    assert socket.read_close() == (code, reason)
    assert socket.read() is None


BYE = close(1000)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        pytest.param([frame(TEXT, HELLO), BYE], ECHOED, id="7.1.1"),
        pytest.param([BYE, frame(CLOSE)], [], id="7.1.2"),
        pytest.param([BYE, frame(PING)], [], id="7.1.3"),
        pytest.param([BYE, frame(TEXT, HELLO)], [], id="7.1.4"),
        pytest.param([BEGUN, BYE, REST], [], id="7.1.5"),
        pytest.param(
            [frame(TEXT, b"x" * 2**18), frame(TEXT, HELLO), BYE, frame(PING)],
            [(TEXT, b"x" * 2**18), *ECHOED],
            id="7.1.6",
        ),
    ],
)
def test_7_1_what_comes_with_a_goodbye(open_socket, frames, expected):
    says_goodbye(open_socket(), frames, expected=expected)


def test_7_3_goodbyes_of_all_lengths(open_socket):
    says_goodbye(open_socket(), [close()], None)
    is_refused(open_socket(), [frame(CLOSE, b"a")])
    says_goodbye(open_socket(), [close(1000)])
    says_goodbye(open_socket(), [close(1000, "Hello World!")], 1000, "Hello World!")
    says_goodbye(open_socket(), [close(1000, "*" * 123)], 1000, "*" * 123)
    is_refused(open_socket(), [close(1000, "*" * 124)])


def test_7_5_1_a_reason_that_is_no_text(open_socket):
    is_refused(open_socket(), [frame(CLOSE, b"\x03\xe8" + SURROGATE)], 1007)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_7_7_codes(open_socket, code):
    says_goodbye(open_socket(), [close(code)], code)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535])
def test_7_9_and_7_13_codes_that_nobody_may_send(open_socket, code):
    is_refused(open_socket(), [close(code)])


# ---- 9: much; 10: in fragments of its own


@pytest.mark.parametrize("length", [2**16, 2**18, 2**20, 2**22, 2**23, 2**24])
@pytest.mark.parametrize(
    ("opcode", "unit"), [(TEXT, b"BAsd7&jh23"), (BINARY, b"\x00\xfe\x23\xfa\xf0")], ids=["9.1", "9.2"]
)
def test_9_large_messages(open_socket, opcode, unit, length):
    payload = (unit * (length // len(unit) + 1))[:length]
    goes_well(open_socket(), [frame(opcode, payload)], [(opcode, payload)])


@pytest.mark.parametrize("size", [64, 256, 1024, 4096, 2**14, 2**16, 2**18, 2**20, 2**22])
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["9.3", "9.4"])
def test_9_large_messages_in_fragments(open_socket, opcode, size):
    payload = b"*" * 2**22
    goes_well(open_socket(), fragments(opcode, payload, size), [(opcode, payload)])


@pytest.mark.parametrize("chop", [64, 128, 256, 512, 1024, 2048])
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["9.5", "9.6"])
def test_9_large_messages_in_chops(open_socket, opcode, chop):
    payload = b"BAsd7&jh23" * (2**20 // 10)
    goes_well(open_socket(), [frame(opcode, payload)], [(opcode, payload)], chop)


@pytest.mark.parametrize("length", [0, 16, 64, 256, 1024, 4096])
@pytest.mark.parametrize(("opcode", "byte"), [(TEXT, b"*"), (BINARY, b"\xfe")], ids=["9.7", "9.8"])
def test_9_many_messages(open_socket, opcode, byte, length):
    socket, message = open_socket(), frame(opcode, byte * length)
    for _ in range(1000):
        socket.write(message)
        assert socket.read() == (opcode, byte * length)
    goes_well(socket, [], [])


def test_10_1_1_fragments_that_divide_nothing(open_socket):
    payload = b"*" * 65536
    goes_well(open_socket(), fragments(TEXT, payload, 1300), [(TEXT, payload)])
