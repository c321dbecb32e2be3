"""HTTP/2 (RFC 9113): over TLS by ALPN, in the clear by prior knowledge, with frames made by hand where no client would."""

import asyncio
import json
import threading

import h2.errors
import h2.events
import pytest

from clients import curl, wait_until


def echo(request):
    return {"statusCode": 200, "headers": {"x-version": request.version}, "body": request.body}


@pytest.mark.parametrize("clear", [False, True], ids=["tls", "prior knowledge"])
def test_it_is_spoken(serve, clear):
    served = serve(echo)
    with served.httpx(clear=clear) as client:
        responses = [client.post("/", content=b"x" * n) for n in range(5)]
    assert [response.http_version for response in responses] == ["HTTP/2"] * 5
    assert [response.headers["x-version"] for response in responses] == ["2"] * 5
    assert served.stat("requests", "2") == 5
    assert served.stat("connections_accepted") == 1


def test_cleartext_that_begins_like_the_preface_is_http_1(serve):
    with serve().wire() as wire:
        for piece in ("P", "RI", " / HTTP/1.1\r\nHost: h\r\n\r\n"):
            wire.send(piece)
        assert wire.read().text == "hello /"


def test_many_streams_at_once(serve, h2_of):
    async def handler(request):
        # Everybody waits until all have come: one after the other would never end.
        arrived.append(request.path)
        if len(arrived) == 100:
            everybody.set()
        await everybody.wait()
        return {"statusCode": 200, "body": request.path}

    arrived, everybody = [], asyncio.Event()
    client = h2_of(serve(handler))
    client.wait_for(h2.events.RemoteSettingsChanged)
    streams = {client.open(path=f"/{n}"): f"/{n}" for n in range(100)}
    assert {stream: client.reply(stream).text for stream in streams} == streams


def test_a_slow_stream_does_not_hold_up_the_others(serve, gate, h2_of):
    client = h2_of(serve(lambda request: gate(request) if request.path == "/slow" else echo(request)))
    slow = client.open(path="/slow")
    gate.wait_for()
    for _ in range(10):
        assert client.reply(client.open(path="/fast")).status == 200
    gate.opened.set()
    assert client.reply(slow).text == "through /slow"


def test_large_bodies_both_ways(serve):
    body = bytes(range(256)) * 4 * 5000
    with serve(echo).httpx() as client:
        assert client.post("/", content=body).content == body
        # In pieces, without a length told in advance.
        assert client.post("/", content=iter([body[:7], body[7:100_000], body[100_000:]])).content == body


def test_small_window_is_respected(serve, h2_of):
    client = h2_of(serve(lambda request: {"statusCode": 200, "body": bytes(300_000)}))
    assert client.reply(client.open()).body == bytes(300_000)


@pytest.mark.parametrize("size", [13, 20_000, 300_000])
def test_answers_wait_for_a_window_that_was_closed(serve, h2_of, size):
    client = h2_of(serve(lambda request: {"statusCode": 200, "body": bytes(size)}))
    client.windows(0)
    streams = [client.open() for _ in range(3)]
    for stream in streams:
        client.wait_for(h2.events.ResponseReceived, stream)
    assert not any(isinstance(event, h2.events.DataReceived) for event in client.events)
    client.windows(2**20)
    client.connection.increment_flow_control_window(2**20)
    client.flush()
    for stream in streams:
        assert client.body(stream) == bytes(size)


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_413(serve, h2_of, told):
    served = serve(echo, max_request_read_bytes=1000)
    client = h2_of(served)
    stream = client.open(*([("content-length", "1001")] if told else []), method="POST", end=False)
    client.data(stream, bytes(1001))
    assert client.reply(stream).status == 413
    assert served.stat("requests_refused", "body_bytes") == 1
    stream = client.open(method="POST", end=False)
    client.data(stream, bytes(1000), end=True)
    assert client.reply(stream).body == bytes(1000), "the connection goes on"


@pytest.mark.parametrize("size", [1001, 100_000, 5_000_000])
def test_413_is_read_by_clients_that_send_everything_first(serve, tmp_path, size):
    served = serve(echo, max_request_read_bytes=1000)
    (tmp_path / "ca.pem").write_text(served.testing.ca_pem)
    (tmp_path / "upload").write_bytes(bytes(size))
    upload = ["--http2", "--data-binary", f"@{tmp_path / 'upload'}", "--write-out", "%{http_code}"]
    assert curl(served.port, "/", *upload, ca=tmp_path / "ca.pem").endswith("413")
    with served.httpx() as client:
        assert client.post("/", content=bytes(size)).status_code == 413
        assert client.post("/", content=b"ok").content == b"ok"


def test_wrong_content_length_is_no_request(serve, h2_of):
    seen = []
    served = serve(lambda request: seen.append(request.body) or {"statusCode": 200})
    client = h2_of(served)
    stream = client.open(("content-length", "5"), method="POST", end=False)
    client.data(stream, b"abc", end=True)
    event = client.wait_for((h2.events.ResponseReceived, h2.events.StreamReset), stream)
    assert isinstance(event, h2.events.StreamReset) or dict(event.headers)[":status"] == "400"
    assert client.reply(client.open()).status == 200
    assert seen == [b""]


def test_head(serve, h2_of):
    client = h2_of(serve(lambda request: {"statusCode": 200, "body": "0123456789"}))
    reply = client.reply(client.open(method="HEAD"))
    assert (reply.status, reply.body, reply.header("content-length")) == (200, b"", "10")


def test_headers_of_a_connection_are_not_sent(serve, h2_of):
    headers = {"Connection": "close, x-hop", "X-Hop": "1", "Keep-Alive": "5", "Upgrade": "h2c", "X-Kept": "1"}
    client = h2_of(serve(lambda request: {"statusCode": 200, "headers": headers, "body": "all"}))
    for _ in range(2):
        reply = client.reply(client.open())
        assert reply.text == "all"
        assert sorted(name for name, _ in reply.headers) == ["content-length", "date", "x-kept"]


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(serve, h2_of, status):
    client = h2_of(serve(lambda request: {"statusCode": status, "body": "not to be sent"}))
    reply = client.reply(client.open())
    assert (reply.status, reply.body) == (status, b"")


def test_authority_is_the_host(serve, h2_of):
    def tell(request):
        return {"statusCode": 200, "body": json.dumps([request.headers["host"], request.url])}

    served = serve(tell)
    client = h2_of(served)
    assert client.reply(client.open(path="/p?q")).json() == ["localhost", "https://localhost/p?q"]
    assert client.reply(client.open(authority="localhost:1")).json() == ["localhost:1", "https://localhost:1/"]
    reply = client.reply(client.open(("host", "localhost"), authority=None))
    assert reply.json() == ["localhost", "https://localhost/"]
    assert client.reply(client.open(("host", "localhost"))).status == 200, "both, agreeing"


@pytest.mark.parametrize(
    ("authority", "headers"),
    [
        ("localhost", [("host", "other")]),
        (None, []),
        ("a b", []),
        ("", [("host", "")]),
        (None, [("host", "localhost"), ("host", "localhost")]),
        ("user@localhost", []),
    ],
    ids=["differing", "neither", "malformed", "empty", "Host twice", "user"],
)
def test_host_that_is_missing_or_wrong_is_refused(serve, h2_of, authority, headers):
    seen = []
    client = h2_of(serve(lambda request: seen.append(request) or {"statusCode": 200}))
    stream = client.open(*headers, authority=authority)
    event = client.wait_for((h2.events.ResponseReceived, h2.events.StreamReset), stream)
    # What cannot be parsed at all is a stream error (RFC 9113 section 8.1.1).
    assert isinstance(event, h2.events.StreamReset) or dict(event.headers)[":status"] == "400"
    assert client.reply(client.open()).status == 200
    assert len(seen) == 1


def test_another_host_on_the_connection_is_misdirected(serve, h2_of):
    served = serve(hosts=("localhost", "other.test"))
    client = h2_of(served)
    assert client.reply(client.open(authority="other.test")).status == 421
    assert client.reply(client.open()).status == 200
    assert served.stat("requests_refused", "misdirected") == 1


@pytest.mark.parametrize("headers", [[("x-a", "y" * 5000)], [("x-a", "y")] * 20], ids=["long", "many"])
def test_431(serve, h2_of, headers):
    served = serve(max_header_bytes=4096, max_headers=10)
    client = h2_of(served)
    assert client.reply(client.open(*headers)).status == 431
    assert client.reply(client.open()).status == 200, "the connection goes on"


def test_cookie_crumbs_are_joined(serve, h2_of):
    def tell(request):
        return {"statusCode": 200, "body": json.dumps([request.headers["cookie"], request.cookies])}

    client = h2_of(serve(tell))
    reply = client.reply(client.open(("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")))
    assert reply.json() == ["a=1; b=2; c=3", {"a": "1", "b": "2", "c": "3"}]


@pytest.mark.parametrize("value", [" a", "a ", "\ta", "a\t", " ", "\t"])
@pytest.mark.parametrize("end", [True, False])
def test_white_space_around_a_value_is_a_stream_error(serve, h2_of, value, end):
    served = serve()
    client = h2_of(served)
    stream = client.open(("x-test", value), method="POST", end=end)
    reset = client.wait_for(h2.events.StreamReset, stream)
    assert reset.error_code == h2.errors.ErrorCodes.PROTOCOL_ERROR
    assert client.reply(client.open(("x-test", "a \t b"), ("x-empty", ""))).status == 200, "the connection goes on"
    assert served.stat("requests", "2") == 1


@pytest.mark.parametrize("length", [(), (("content-length", "5"),)])
def test_a_client_waits_for_100_continue(serve, h2_of, length):
    client = h2_of(serve(lambda request: {"statusCode": 200, "body": request.body}))
    stream = client.open(("expect", "100-continue"), *length, method="POST", end=False)
    interim = client.wait_for((h2.events.InformationalResponseReceived, h2.events.ResponseReceived), stream)
    assert [tuple(header) for header in interim.headers] == [(":status", "100")]
    client.data(stream, b"hello", end=True)
    assert client.reply(stream).body == b"hello"


@pytest.mark.parametrize(
    ("headers", "end", "status"),
    [
        ((("expect", "100-continue"),), True, 200),
        ((("expect", "100-continue"), ("content-length", "11")), False, 413),
        ((("expect", "200-ok"),), False, 417),
    ],
)
def test_no_100_continue_where_no_body_is_wanted(serve, h2_of, headers, end, status):
    client = h2_of(serve(max_request_read_bytes=10))
    stream = client.open(*headers, method="POST", end=end)
    first = client.wait_for((h2.events.InformationalResponseReceived, h2.events.ResponseReceived), stream)
    assert isinstance(first, h2.events.ResponseReceived)
    assert int(dict(first.headers)[":status"]) == status


def test_curl_waits_for_100_continue(serve, tmp_path):
    served = serve(lambda request: {"statusCode": 200, "body": str(len(request.body))})
    (tmp_path / "upload").write_bytes(bytes(2_000_000))
    options = ["--http2-prior-knowledge", "-H", "Expect: 100-continue", "--expect100-timeout", "25", "--data-binary"]
    assert curl(served.clear, "/", *options, f"@{tmp_path / 'upload'}") == "2000000"


def test_connect_is_refused(serve, h2_of):
    client = h2_of(serve())
    client.connection.send_headers(1, [(":method", "CONNECT"), (":authority", "localhost:443")], end_stream=True)
    client.flush()
    event = client.wait_for((h2.events.ResponseReceived, h2.events.StreamReset), 1)
    assert isinstance(event, h2.events.StreamReset) or dict(event.headers)[":status"] in ("400", "501")


def test_cancelled_stream_harms_nobody(serve, gate, h2_of):
    served = serve(lambda request: gate(request) if request.path == "/slow" else echo(request))
    client = h2_of(served)
    stream = client.open(path="/slow")
    gate.wait_for()
    client.connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    assert client.reply(client.open(path="/fast")).status == 200
    gate.opened.set()
    served.wait_stat("requests_in_flight", value=0)
    assert client.reply(client.open(path="/fast")).status == 200


@pytest.mark.parametrize("code", [h2.errors.ErrorCodes.CANCEL, h2.errors.ErrorCodes.NO_ERROR])
def test_half_a_request_that_is_cancelled_is_none(serve, h2_of, code):
    seen = []
    served = serve(lambda request: seen.append(request.body) or {"statusCode": 200})
    client = h2_of(served)
    stream = client.open(method="POST", end=False)
    client.data(stream, b"half")
    client.connection.reset_stream(stream, code)
    client.flush()
    assert client.reply(client.open()).status == 200
    served.wait_stat("requests_aborted")
    assert seen == [b""]


def test_requests_that_are_reset_while_they_wait_are_not_answered(serve, gate, h2_of):
    seen = []
    served = serve(lambda request: seen.append(request.path) or gate(request), threads=(1, 1), dispatch="threads")
    client = h2_of(served)
    first = client.open(path="/first")
    gate.wait_for()
    # Not all at once: those that nobody has looked at yet are few, or it is a rapid reset.
    for asked in range(2, 52):
        client.connection.reset_stream(client.open(path="/reset"))
        if asked % 10 == 1:
            client.flush()
            served.wait_stat("requests", "2", value=asked)
    last = client.open(path="/last")
    served.wait_stat("requests", "2", value=52)
    gate.opened.set()
    assert [client.reply(first).text, client.reply(last).text] == ["through /first", "through /last"]
    assert seen == ["/first", "/last"]
    served.wait_stat("requests_in_flight", value=0)
    assert served.stat("responses", "2xx") == 2
    assert served.stat("handler_failures") == 0


def test_rapid_reset_ends_the_connection(serve, h2_of):
    served = serve()
    client = h2_of(served)
    headers = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "localhost")]
    for _ in range(500):
        stream = client.connection.get_next_available_stream_id()
        client.connection.send_headers(stream, headers, end_stream=True)
        client.connection.reset_stream(stream)
    client.flush()
    end = client.wait_for(h2.events.ConnectionTerminated)
    assert end.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
    assert served.get().status == 200


def test_junk_instead_of_frames_ends_the_connection_alone(serve, h2_of):
    served = serve()
    client = h2_of(served)
    client.wire.send(b"\xff" * 1000)
    client.wire.cut()
    assert served.get().status == 200


def test_closing_sends_goaway_and_finishes_what_is_in_flight(serve, gate, h2_of):
    served = serve(gate)
    client = h2_of(served)
    stream = client.open()
    gate.wait_for()
    closing = threading.Thread(target=served.server.close)
    closing.start()
    try:
        assert client.wait_for(h2.events.ConnectionTerminated).error_code == h2.errors.ErrorCodes.NO_ERROR
        gate.opened.set()
        assert client.reply(stream).text == "through /"
        assert client.wire.cut() is not None
    finally:
        gate.opened.set()
        closing.join(30)
    assert not closing.is_alive()
    wait_until(lambda: served.stat("connections_closed", "shutdown") == 1)


@pytest.mark.parametrize("listens", [True, False], ids=["polite client", "client that no longer reads"])
def test_idle_connection_is_told_to_go_when_the_server_closes(serve, h2_of, listens):
    served = serve()
    client = h2_of(served)
    assert client.reply(client.open()).status == 200
    closing = threading.Thread(target=served.server.close)
    closing.start()
    assert client.wait_for(h2.events.ConnectionTerminated).error_code == h2.errors.ErrorCodes.NO_ERROR
    if listens:
        client.wait_until_closed()
    closing.join(10)
    assert not closing.is_alive(), "nothing is in flight"


def test_a_task_is_cancelled_with_its_stream(serve, h2_of):
    async def handler(request):
        if request.path == "/answered":
            return {"statusCode": 200}
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    begun, cancelled = threading.Event(), threading.Event()
    served = serve(handler)
    client = h2_of(served)
    assert client.reply(client.open(path="/answered")).status == 200
    stream = client.open(path="/left")
    assert begun.wait(30)
    assert not cancelled.is_set()
    client.connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    assert cancelled.wait(30)
    served.wait_stat("requests_in_flight", value=0)
    assert client.reply(client.open(path="/answered")).status == 200, "the connection goes on"
