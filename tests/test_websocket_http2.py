"""WebSockets in streams of HTTP/2 (RFC 8441), with frames of both made by hand."""

import contextlib
import threading

import h2.errors
import h2.events
import h2.settings
import pytest

import portico
from clients import GENEROUS, wait_until
from sockets import CLOSE, PING, PONG, TEXT, OverHTTP2, close, echo, frame


def test_messages_in_a_stream(serve, h2_of):
    served = serve(portico.websocket(echo, subprotocols=["chat"]))
    client = h2_of(served)
    socket = OverHTTP2(client, "/", ("sec-websocket-protocol", "chat"))
    assert client.connection.remote_settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1
    assert socket.status == 200
    assert socket.headers["sec-websocket-protocol"] == "chat"
    assert not {"sec-websocket-accept", "upgrade", "connection", "content-length"} & socket.headers.keys()
    socket.send(frame(TEXT, "hällo"), frame(PING, b"?"))
    assert {socket.read(), socket.read()} == {(TEXT, "hällo".encode()), (PONG, b"?")}
    socket.send(close(1000, "bye"))
    assert socket.read_close() == (1000, "bye")
    assert socket.read() is None
    served.wait_stat("websockets_open", value=0)
    assert client.reply(client.open()).status == 426, "the connection goes on, and a GET is none"


def test_several_beside_requests(serve, h2_of):
    router = portico.Router()
    router.add_route("GET", "/socket", portico.websocket(echo))
    router.add_route("GET", "/page", lambda request: {"statusCode": 200, "body": "page"})
    client = h2_of(serve(router))
    sockets = [OverHTTP2(client, "/socket") for _ in range(5)]
    for number, socket in enumerate(sockets):
        socket.send(frame(TEXT, str(number)))
    assert client.reply(client.open(path="/page")).body == b"page"
    assert [socket.read() for socket in sockets] == [(TEXT, b"%d" % number) for number in range(5)]


@pytest.mark.parametrize("options", [{}, {"handler_timeout": 30.0}], ids=["", "with handler_timeout"])
def test_who_is_no_websocket_says_no(serve, h2_of, options):
    client = h2_of(serve(**options))
    assert OverHTTP2(client).status == 501, "any 2xx would say that there is one"
    assert client.reply(client.open()).status == 200
    client = h2_of(serve(portico.websocket(echo), **options))
    assert OverHTTP2(client, version="12").status == 426
    assert OverHTTP2(client).status == 200


def test_without_the_setting_it_is_not_offered(serve, h2_of):
    client = h2_of(serve(portico.websocket(echo), websocket=False))
    assert client.reply(client.open()).status == 501
    assert not client.connection.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL, 0)


def test_other_protocols_and_plain_connect_are_refused(serve, h2_of):
    client = h2_of(serve(portico.websocket(echo)))
    client.wait_for(h2.events.RemoteSettingsChanged)
    stream = client.open((":protocol", "connect-udp"), method="CONNECT", end=False)
    answer = client.wait_for(h2.events.ResponseReceived, stream)
    assert dict(answer.headers)[":status"] == "501"


def test_a_stream_that_is_reset(serve, h2_of):
    ended = []

    def handler(ws):
        try:
            ws.send("here")
            ws.receive()
        except portico.WebSocketError as error:
            ended.append(error.code)
            raise

    served = serve(portico.websocket(handler))
    client = h2_of(served)
    socket = OverHTTP2(client)
    assert socket.read() == (TEXT, b"here")
    client.connection.reset_stream(socket.stream, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    wait_until(lambda: ended == [1006])
    served.wait_stat("websockets_open", value=0)
    assert client.reply(client.open()).status == 426, "the connection goes on"


def test_the_server_ends(serve, h2_of):
    served = serve(portico.websocket(echo))
    socket = OverHTTP2(h2_of(served))
    closing = threading.Thread(target=served.server.close, kwargs={"grace": GENEROUS})
    closing.start()
    assert socket.read_close()[0] == 1001
    socket.send(close(1001))
    assert socket.read() is None
    closing.join(GENEROUS)
    assert not closing.is_alive()


def test_many_small_messages_are_no_flood(serve, h2_of):
    served = serve(portico.websocket(echo))
    client = h2_of(served)
    socket = OverHTTP2(client)
    for number in range(3_000):
        # The client opens both windows for each of them.
        socket.send(frame(TEXT, str(number)))
        assert socket.read() == (TEXT, b"%d" % number)
    socket.send(close(1000))
    assert socket.read()[0] == CLOSE


def test_frames_for_nothing_are_a_flood_beside_a_socket_too(serve, h2_of):
    served = serve(portico.websocket(echo))
    client = h2_of(served)
    OverHTTP2(client)
    for _ in range(2_000):
        client.connection.ping(b"12345678")
    with contextlib.suppress(OSError):  # It may be ended before all of them are sent.
        client.flush()
    served.wait_stat("connections_closed", "aborted")
    served.wait_stat("websockets_open", value=0)


def test_a_client_that_opens_no_window_holds_up_the_handler_and_its_stream_is_reset(serve, h2_of):
    sent = []

    def handler(ws):
        try:
            while True:
                ws.send(b"x" * 16_384)
                sent.append(16_384)
        except portico.WebSocketError as error:
            sent.append(error)
            raise

    served = serve(portico.websocket(handler), write_timeout=0.5)
    OverHTTP2(h2_of(served))
    wait_until(lambda: sent and isinstance(sent[-1], Exception))
    served.wait_stat("websockets_open", value=0)
    assert "write_timeout" in str(sent.pop())
    assert sum(sent) < 2**20


def test_what_came_before_a_fault_is_answered_before_it(serve, h2_of):
    served = serve(portico.websocket(echo))
    client = h2_of(served)
    socket = OverHTTP2(client)
    texts = [str(number) for number in range(50)]
    socket.send(*[frame(TEXT, text) for text in texts], frame(3))
    assert [socket.read() for _ in texts] == [(TEXT, text.encode()) for text in texts]
    assert socket.read_close()[0] == 1002
    assert socket.read() is None
    assert client.reply(client.open()).status == 426, "the connection goes on"
