"""WebSockets (RFC 6455): the handshake, messages, the end, and what clients do wrong, with frames made by hand and by the
client of `websockets`."""

import asyncio
import contextlib
import queue
import threading

import pytest

import portico
from clients import GENEROUS, wait_until
from secure_websocket import connect
from sockets import (
    ACCEPT,
    ASKED,
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    OverHTTP1,
    close,
    echo,
    echo_async,
    frame,
)

BOTH = pytest.mark.parametrize("handler", [echo, echo_async], ids=["def", "async def"])


@pytest.fixture
def open_socket(serve):
    """Starts a server with a handler; a function that opens a WebSocket on it, on a connection of its own."""
    wires = []

    def open_socket(handler=echo, headers="", path="/", settings=None, **options):
        open_socket.served = served = serve(portico.websocket(handler, **options), **(settings or {}))

        def again():
            wires.append(served.wire())
            return OverHTTP1(wires[-1], path, headers)

        open_socket.again = again
        return again()

    yield open_socket
    for wire in wires:
        wire.close()


class Outcome:
    """A handler that keeps what came of each socket."""

    def __init__(self, body):
        self.body, self.of = body, queue.Queue()

    def __call__(self, ws):
        try:
            self.body(ws)
        except BaseException as exception:
            self.of.put((ws, exception))
            raise
        self.of.put((ws, None))

    def next(self):
        return self.of.get(timeout=GENEROUS)


# ---- the handshake


@BOTH
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_a_client_that_people_use(serve, handler, tls):
    served = serve(portico.websocket(handler))
    url = f"wss://localhost:{served.port}/" if tls else f"ws://localhost:{served.clear}/"
    with connect(url, ssl=served.context() if tls else None, compression=None) as client:
        for message in ("hällo", b"\x00\xff", "", b"", "x" * 300_000, b"y" * 300_000):
            client.send(message)
            assert client.recv(GENEROUS) == message
        client.send(["in ", "frag", "ments"])
        assert client.recv(GENEROUS) == "in fragments"
        client.ping()
    assert client.close_code == 1000
    served.wait_stat("websockets_open", value=0)
    assert served.stat("websockets") == 1
    assert served.stat("websocket_messages_received") == served.stat("websocket_messages_sent") == 7


def test_the_answer_to_a_handshake(open_socket):
    reply = open_socket(headers="Sec-WebSocket-Protocol: b, a\r\n", subprotocols=["a", "b"]).reply
    assert reply.status == 101
    assert reply.header("sec-websocket-accept") == ACCEPT
    assert reply.header("sec-websocket-protocol") == "a"
    assert reply.header("upgrade") == "websocket"
    assert reply.header("connection") == "upgrade"
    assert reply.header("content-length") is None


@pytest.mark.parametrize(
    ("status", "head"),
    [
        (426, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        (426, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"),
        (426, "GET / HTTP/1.0\r\nHost: h\r\n" + ASKED + "\r\n"),
        (426, "GET / HTTP/1.1\r\nHost: h\r\n" + ASKED.replace("13", "8") + "\r\n"),
        (426, "GET / HTTP/1.1\r\nHost: h\r\n" + ASKED.replace("Connection: Upgrade", "Connection: x") + "\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n" + ASKED + "\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: h\r\n" + ASKED.replace("==", "") + "\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: h\r\n" + ASKED + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"),
        (403, "GET / HTTP/1.1\r\nHost: h\r\n" + ASKED + "Origin: https://evil.test\r\n\r\n"),
        (403, "GET / HTTP/1.1\r\nHost: h\r\n" + ASKED + "\r\n"),
    ],
)
def test_what_is_no_handshake_is_refused_and_the_handler_not_called(serve, status, head):
    called = []
    served = serve(portico.websocket(called.append, origins=["https://good.test"]))
    with served.wire() as wire:
        reply = wire.send(head).read()
        assert reply.status == status
        if status == 426:
            assert reply.header("upgrade") == "websocket"
            assert reply.header("sec-websocket-version") == "13"
            assert "upgrade" in reply.header("connection")
        if "1.0" not in head:
            assert wire.get().status == 426, "the connection is as good as before"
    assert called == []
    assert served.stat("websockets") == 0


def test_origins_that_are_allowed(open_socket):
    allowed = {"origins": ["https://Good.test", None]}
    assert open_socket(headers="Origin: https://good.test\r\n", **allowed).reply.status == 101
    assert open_socket(**allowed).reply.status == 101


def test_what_comes_with_the_handshake_is_not_lost(serve):
    served = serve(portico.websocket(echo))
    with served.wire() as wire:
        wire.send(f"GET / HTTP/1.1\r\nHost: h\r\n{ASKED}\r\n".encode() + frame(TEXT, "early"))
        assert wire.read().status == 101
        assert OverHTTP1(wire, headers=None).read() == (TEXT, b"early")


def test_it_is_a_handler_like_any_other(serve):
    def tell(ws):
        ws.send(f"{ws.request.pathParameters['name']} {ws.request.queryString} {ws.request.headers['x-a']}")

    seen = []
    router = portico.Router()
    router.add_middleware(leave=lambda request, response: seen.append(response["statusCode"]))
    router.add_route(
        "GET", "/rooms/{name}", portico.websocket(tell), guards=(lambda request: "x-a" in request.headers,)
    )
    served = serve(router)
    with served.wire() as wire:
        assert wire.get("/rooms/a", ASKED).status == 404, "its guard does not let it"
        socket = OverHTTP1(wire, "/rooms/caf%C3%A9?q=1", "X-A: yes\r\n")
        assert socket.reply.status == 101
        assert socket.read() == (TEXT, "café q=1 yes".encode())
        assert socket.read_close() == (1000, "")
    assert seen == [404, 101]


def test_the_setting_that_turns_it_off(open_socket):
    assert open_socket(settings={"websocket": False}).reply.status == 501


def test_wrong_options_are_told():
    for options in (
        {"max_message_bytes": 0},
        {"ping_interval": -1},
        {"idle_timeout": "1"},
        {"subprotocols": "chat"},
        {"subprotocols": ["a\r\nb"]},
        {"origins": [1]},
    ):
        with pytest.raises(portico.ConfigError, match=next(iter(options))):
            portico.websocket(echo, **options)
    for handler in (None, lambda ws: (yield)):
        with pytest.raises(portico.ConfigError):
            portico.websocket(handler)


# ---- messages, pings


def test_fragments_with_pings_between_them(open_socket):
    socket = open_socket().send(
        frame(TEXT, "ca", fin=False),
        frame(PING, b"between"),
        frame(CONTINUATION, "fé"[:1], fin=False),
        frame(CONTINUATION, "é".encode()[:1], fin=False),
        frame(CONTINUATION, b"", fin=False),
        frame(CONTINUATION, "é".encode()[1:]),
    )
    assert socket.read() == (PONG, b"between")
    assert socket.read() == (TEXT, "café".encode())


def test_bytes_that_come_one_by_one(open_socket):
    socket = open_socket()
    for byte in frame(TEXT, "drop by drop") + frame(PING, b"?"):
        socket.send(bytes([byte]))
    assert {socket.read(), socket.read()} == {(TEXT, b"drop by drop"), (PONG, b"?")}


@pytest.mark.parametrize(
    ("code", "frames"),
    [
        (1002, [frame(TEXT, "a", mask=None)]),
        (1002, [frame(TEXT, "a", bits=0x40)]),
        (1002, [frame(TEXT, "a", bits=0x10)]),
        (1002, [frame(3, "a")]),
        (1002, [frame(11, "a")]),
        (1002, [frame(PING, "a", fin=False)]),
        (1002, [frame(PING, b"x" * 126)]),
        (1002, [frame(CONTINUATION, "a")]),
        (1002, [frame(TEXT, "a", fin=False), frame(TEXT, "b")]),
        (1002, [frame(CLOSE, b"\x03")]),
        (1002, [close(1005)]),
        (1002, [close(999)]),
        (1002, [close(2999)]),
        (1002, [close(5000)]),
        (1007, [frame(CLOSE, b"\x03\xe8\xff")]),
        (1007, [frame(TEXT, b"\xff")]),
        (1007, [frame(TEXT, "é".encode()[:1])]),
        (1007, [frame(TEXT, b"\xed\xa0", fin=False)]),
        (1008, [frame(TEXT, "", fin=False), *([frame(CONTINUATION, b"", fin=False)] * 1001)]),
        (1009, [frame(BINARY, b"x" * 1001)]),
        (1009, [frame(BINARY, b"x" * 1001)[:8]]),
        (1009, [frame(BINARY, b"x" * 600, fin=False), frame(CONTINUATION, b"x" * 600)]),
    ],
)
def test_what_breaks_the_rules_ends_it_with_the_code_for_that(open_socket, code, frames):
    outcome = Outcome(echo)
    socket = open_socket(outcome, max_message_bytes=1000).send(*frames)
    assert socket.read_close()[0] == code
    assert socket.read() is None
    ws, error = outcome.next()
    assert isinstance(error, portico.WebSocketError)
    assert (ws.close_code, error.code) == (code, code)
    socket.wire.close()
    open_socket.served.wait_stat("connections_closed", "refused")
    assert open_socket.served.stat("handler_failures") == 0, "it is the client's doing"


@BOTH
def test_what_came_before_a_fault_is_answered_before_it(open_socket, handler):
    texts = [str(number) for number in range(50)]
    socket = open_socket(handler).send(*[frame(TEXT, text) for text in texts], frame(3))
    assert [socket.read() for _ in texts] == [(TEXT, text.encode()) for text in texts]
    assert socket.read_close()[0] == 1002
    assert socket.read() is None


def test_a_busy_handler_holds_up_the_answer_to_a_fault_for_a_moment_only(open_socket):
    go_on = threading.Event()

    def handler(ws):
        assert go_on.wait(GENEROUS)
        list(ws)

    outcome = Outcome(handler)
    socket = open_socket(outcome).send(frame(3))
    assert socket.read_close()[0] == 1002
    go_on.set()
    assert outcome.next()[1].code == 1002


@BOTH
@pytest.mark.parametrize("fault", [frame(3), frame(BINARY, b"x" * 1001)], ids=["1002", "1009"])
def test_who_waits_for_a_message_is_told_of_a_fault_at_once(open_socket, handler, fault):
    ended = queue.SimpleQueue()

    def waits(ws):
        try:
            ended.put(ws.receive())
        except portico.WebSocketError as error:
            ended.put(error.code)

    async def waits_async(ws):
        try:
            ended.put(await ws.receive())
        except portico.WebSocketError as error:
            ended.put(error.code)

    socket = open_socket(waits if handler is echo else waits_async, max_message_bytes=1000, ping_interval=None)
    socket.send(fault)
    assert ended.get(timeout=GENEROUS) in (1002, 1009)
    assert socket.read_close()[0] in (1002, 1009)
    assert socket.read() is None
    open_socket.served.wait_stat("websockets_open", value=0)


def test_a_fault_is_no_end_in_order_where_the_server_ends_too(open_socket):
    begun, go_on = threading.Event(), threading.Event()

    def handler(ws):
        begun.set()
        assert go_on.wait(GENEROUS)
        list(ws)

    outcome = Outcome(handler)
    socket = open_socket(outcome)
    assert begun.wait(GENEROUS)
    other = open_socket.again()
    assert socket.send(frame(3)).read_close()[0] == 1002
    closing = threading.Thread(target=open_socket.served.server.close, kwargs={"grace": GENEROUS})
    closing.start()
    assert other.read_close()[0] == 1001
    go_on.set()
    ends = {ws.close_code: type(error) for ws, error in (outcome.next(), outcome.next())}
    assert ends == {1001: type(None), 1002: portico.WebSocketError}
    closing.join(GENEROUS)


# ---- the end


@BOTH
@pytest.mark.parametrize(("sent", "answered"), [(1000, 1000), (1001, 1001), (3456, 3456), (4999, 4999), (None, None)])
def test_the_client_says_goodbye(open_socket, handler, sent, answered):
    socket = open_socket(handler).send(frame(TEXT, "last"), close(sent, "" if sent is None else "bye"))
    assert socket.read() == (TEXT, b"last")
    assert socket.read_close() == (answered, "bye" if answered else "")
    assert socket.read() is None, "the server closes first (RFC 6455 section 7.1.1)"
    open_socket.served.wait_stat("connections_closed", "client")


def test_how_it_ended_is_known(open_socket):
    outcome = Outcome(lambda ws: list(ws))
    open_socket(outcome).send(close(4000, "enough"))
    ws, error = outcome.next()
    assert (ws.close_code, ws.close_reason, error) == (4000, "enough", None)
    with pytest.raises(portico.WebSocketError, match="4000") as raised:
        ws.send("too late")
    assert (raised.value.code, raised.value.reason) == (4000, "enough")
    assert ws.receive() is None


def test_the_handler_says_goodbye(open_socket):
    def handler(ws):
        ws.send("last")
        ws.close(4001, "enough")
        with pytest.raises(portico.WebSocketError):
            ws.send("too late")
        assert list(ws) == []

    outcome = Outcome(handler)
    socket = open_socket(outcome)
    assert socket.read() == (TEXT, b"last")
    assert socket.read_close() == (4001, "enough")
    ws, error = outcome.next()
    assert (ws.close_code, error) == (4001, None)
    socket.send(close(4001))
    assert socket.read() is None


def test_codes_that_may_not_be_sent(open_socket):
    def handler(ws):
        for code in (999, 1005, 1006, 1015, 2000, 5000, 70000, -1, "1000"):
            with pytest.raises(ValueError, match="code"):
                ws.close(code)

    assert open_socket(handler).read_close() == (1000, "")


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
def test_a_handler_that_raises(open_socket, is_async):
    def fails(ws):
        raise ValueError("handler failed")

    async def fails_async(ws):
        fails(ws)

    socket = open_socket(fails_async if is_async else fails)
    assert socket.read_close()[0] == 1011
    error, ws = open_socket.served.errors.next(ValueError)
    assert str(error) == "handler failed"
    assert ws.request.path == "/"
    open_socket.served.wait_stat("handler_failures")


@BOTH
def test_a_client_that_is_gone(open_socket, handler):
    socket = open_socket(handler)
    socket.send(frame(TEXT, "here"))
    assert socket.read() == (TEXT, b"here")
    socket.wire.close()
    open_socket.served.wait_stat("websockets_open", value=0)
    open_socket.served.wait_stat("connections_closed", "aborted")
    assert open_socket.served.stat("handler_failures") == 0


def test_a_client_that_is_gone_is_told_to_the_handler(open_socket):
    outcome = Outcome(echo)
    socket = open_socket(outcome).send(frame(TEXT, "here"))
    assert socket.read() == (TEXT, b"here")
    socket.wire.close()
    ws, error = outcome.next()
    assert isinstance(error, portico.WebSocketError)
    assert isinstance(error, ConnectionError)
    assert (error.code, ws.close_code) == (1006, 1006)


@BOTH
def test_the_server_ends(open_socket, handler):
    socket = open_socket(handler)
    socket.send(frame(TEXT, "here"))
    assert socket.read() == (TEXT, b"here")
    closing = threading.Thread(target=open_socket.served.server.close, kwargs={"grace": GENEROUS})
    closing.start()
    assert socket.read_close()[0] == 1001
    socket.send(close(1001))
    assert socket.read() is None
    closing.join(GENEROUS)
    assert not closing.is_alive()
    assert open_socket.served.stat("connections_closed", "shutdown") == 1


def test_a_handler_may_use_the_grace(open_socket):
    def handler(ws):
        assert list(ws) == []
        codes.append(ws.close_code)
        assert go_on.wait(GENEROUS)
        codes.append("done")

    codes, go_on = [], threading.Event()
    socket = open_socket(handler)
    closing = threading.Thread(target=open_socket.served.server.close, kwargs={"grace": GENEROUS})
    closing.start()
    assert socket.read_close()[0] == 1001
    socket.send(close(1001))
    wait_until(lambda: codes == [1001])
    assert closing.is_alive()
    go_on.set()
    closing.join(GENEROUS)
    assert codes == [1001, "done"]


# ---- time and room


def test_receive_with_a_timeout_loses_nothing(open_socket):
    def handler(ws):
        with pytest.raises(TimeoutError):
            ws.receive(timeout=0.01)
        ws.send("late")
        ws.send(ws.receive(timeout=GENEROUS))

    socket = open_socket(handler)
    assert socket.read() == (TEXT, b"late")
    assert socket.send(frame(TEXT, "now")).read() == (TEXT, b"now")


def test_a_quiet_client_is_asked_and_then_taken_for_lost(open_socket):
    outcome = Outcome(echo)
    socket = open_socket(outcome, ping_interval=1)
    assert socket.read() == (PING, b"")
    socket.send(frame(PONG))
    assert socket.read() == (PING, b"")
    ws, error = outcome.next()
    assert isinstance(error, portico.WebSocketError)
    assert "ping_interval" in str(error)
    assert ws.close_code == 1006
    open_socket.served.wait_stat("connections_closed", "idle")


def test_pings_of_the_handler(open_socket):
    def handler(ws):
        ws.ping(b"are you there")
        with pytest.raises(RuntimeError, match="125"):
            ws.ping(b"x" * 126)
        ws.receive()

    assert open_socket(handler, ping_interval=None).read() == (PING, b"are you there")


def test_a_socket_without_messages_is_ended(open_socket):
    socket = open_socket(idle_timeout=1, ping_interval=None)
    socket.send(frame(PING))
    assert socket.read() == (PONG, b"")
    assert socket.read_close() == (1001, "idle")


def test_a_client_that_reads_nothing_holds_up_the_handler_and_is_dropped(open_socket):
    sent = []

    def handler(ws):
        while True:
            ws.send(b"x" * 65536)
            sent.append(65536)

    outcome = Outcome(handler)
    open_socket(outcome, settings={"write_timeout": 0.5})
    _, error = outcome.next()
    assert isinstance(error, portico.WebSocketError)
    assert "write_timeout" in str(error)
    assert sum(sent) < 16 * 2**20, "no more than the kernel takes"
    open_socket.served.wait_stat("connections_closed", "write_timeout")


def test_a_handler_that_reads_nothing_holds_up_its_client(open_socket):
    go_on = threading.Event()
    counted = []

    def handler(ws):
        assert go_on.wait(GENEROUS)
        counted.extend(len(message) for message in ws)

    outcome = Outcome(handler)
    socket = open_socket(outcome, settings={"max_read_buffer_size": 65536})
    socket.wire.sock.settimeout(1)
    with pytest.raises(TimeoutError):
        socket.send(*[frame(BINARY, b"x" * 60_000)] * 1000)
    served = open_socket.served
    assert served.stat("websocket_messages_received") <= 3, "it stops reading"
    socket.wire.close()
    go_on.set()
    outcome.next()
    assert len(counted) >= served.stat("websocket_messages_received") - 1


def test_a_client_that_sends_pings_and_reads_nothing_is_dropped(open_socket):
    socket = open_socket(settings={"write_timeout": 0.5})
    with contextlib.suppress(OSError):  # It may be dropped before all of them are sent.
        socket.send(frame(PING, b"x" * 125) * 100_000)
    open_socket.served.wait_stat("websockets_open", value=0)
    open_socket.served.wait_stat("connections_closed", "write_timeout")


def test_one_thread_may_send_while_another_receives(open_socket):
    def handler(ws):
        def push():
            for number in range(100):
                ws.send(str(number))

        pushing = threading.Thread(target=push)
        pushing.start()
        for message in ws:
            ws.send(message)
        pushing.join()

    socket = open_socket(handler)
    socket.send(*[frame(BINARY, bytes([number])) for number in range(100)])
    came = [socket.read() for _ in range(200)]
    assert [payload for opcode, payload in came if opcode == TEXT] == [b"%d" % number for number in range(100)]
    assert [payload for opcode, payload in came if opcode == BINARY] == [bytes([number]) for number in range(100)]


def test_many_at_once_on_the_event_loop(serve):
    rooms = set()

    async def chat(ws):
        rooms.add(ws)
        try:
            async for message in ws:
                await asyncio.gather(*(member.send(message) for member in rooms))
        finally:
            rooms.discard(ws)

    served = serve(portico.websocket(chat))
    wires = [served.wire() for _ in range(30)]
    sockets = [OverHTTP1(wire) for wire in wires]
    wait_until(lambda: len(rooms) == 30)
    sockets[0].send(frame(TEXT, "to all"))
    assert [socket.read() for socket in sockets] == [(TEXT, b"to all")] * 30
    for wire in wires:
        wire.close()
    served.wait_stat("websockets_open", value=0)


def test_more_sockets_than_threads_are_told_to_try_again(open_socket):
    socket = open_socket(settings={"stream_threads": 1, "stream_timeout": 0.3})
    socket.send(frame(TEXT, "here"))
    assert socket.read() == (TEXT, b"here")
    assert open_socket.again().read_close() == (1013, "busy")
