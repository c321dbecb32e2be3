"""Forms, by real clients and by hand: whole, and as they come; what is malformed, and limits."""

from __future__ import annotations

import asyncio
import json
import random
import threading

import pytest

import portico
from clients import curl, run
from forms import KINDS, LAST, MULTIPART, URLENCODED, file_part, handler_of, part, post, post_late, told


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


# ---- clients that people use


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_httpx(serve, kind, http2):
    content = random.Random(1).randbytes(300_000)
    files = [
        ("file", ('../../x "y".png', content, "image/png")),
        ("file", ("zweite.txt", b"", "text/plain")),
        ("other", ("J\u00fcrgen.txt", b"\r\n--", "text/plain")),
    ]
    with serve(handler_of(kind)).httpx(http2=http2) as client:
        answer = client.post("/", data={"name": "J\u00fcrgen", "empty": ""}, files=files)
    assert answer.json() == [
        ["name", "J\u00fcrgen"],
        ["empty", ""],
        ["file", "../../x %22y%22.png", "image/png", content.hex()],
        ["file", "zweite.txt", "text/plain", ""],
        ["other", "J\u00fcrgen.txt", "text/plain", b"\r\n--".hex()],
    ]


def test_curl(serve, kind, tmp_path):
    path = tmp_path / "x;y.bin"
    path.write_bytes(bytes(range(256)) * 1000)
    fields = ["-F", "a=1 2", "-F", f'f=@"{path}";type=image/png', "-F", "f=@-;filename=../in"]
    done = run("curl", "-sS", *fields, f"http://127.0.0.1:{serve(handler_of(kind)).clear}/", input="typed")
    assert json.loads(done.stdout) == [
        ["a", "1 2"],
        ["f", "x;y.bin", "image/png", path.read_bytes().hex()],
        ["f", "../in", None, b"typed".hex()],
    ]


def test_curl_urlencoded(serve, kind):
    port = serve(handler_of(kind)).clear
    answer = curl(port, "/", "--data-urlencode", "a=1 + 2 & 3%", "-d", "b=c")
    assert json.loads(answer) == [["a", "1 + 2 & 3%"], ["b", "c"]]


def test_of_a_request_by_hand():
    body = part(b"; name=a") + file_part(b"content") + LAST
    head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {MULTIPART}\r\ncontent-length: {len(body)}\r\n\r\n"
    form = portico.parse_request(head.encode() + body).form()
    assert told(form) == [["a", "1"], ["file", "x", None, b"content".hex()]]
    body = part(b"; name=a") * 2
    with pytest.raises(portico.RequestError, match="last boundary"):
        portico.parse_request(head.encode() + body.ljust(int(head.split()[-1]))).form()
    body = b"&".join([b"a"] * 1001)
    head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {URLENCODED}\r\ncontent-length: {len(body)}\r\n\r\n"
    with pytest.raises(portico.LimitError, match="max_form_parts") as caught:
        portico.parse_request(head.encode() + body).form()
    assert (caught.value.status, caught.value.reason) == (413, "body_bytes")


# ---- odd and hostile bodies


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"a=1+2&a=3&b=%2B", [["a", "1 2"], ["a", "3"], ["b", "+"]]),
        (b"a=%&b=%4&c=%zz&d=100%&e=%%41", [["a", "%"], ["b", "%4"], ["c", "%zz"], ["d", "100%"], ["e", "%A"]]),
        (b"a=%ff&b=\xff&%e2%82=c", [["a", "\ufffd"], ["b", "\ufffd"], ["\ufffd", "c"]]),
        (b"&&a&=b&c==&;d=e", [["a", ""], ["", "b"], ["c", "="], [";d", "e"]]),
        (b"a=%00%0d%0a", [["a", "\0\r\n"]]),
        (b"", []),
    ],
    ids=["plus", "percent", "UTF-8", "empty", "control", "nothing"],
)
@pytest.mark.parametrize("pieces", [None, 1])
def test_odd_urlencoded(serve, kind, body, fields, pieces):
    with serve(handler_of(kind)).wire() as wire:
        assert post(wire, body, URLENCODED, pieces).json() == fields


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (LAST, []),
        (b"preamble\r\n" + part(b"; name=a") + LAST + b"--X\r\nepilogue", [["a", "1"]]),
        (part(b'; name="a\\"b\\\\c\\d"') + LAST, [['a"b\\c\\d', "1"]]),
        (part(b'; name=""; filename=""', b"") + LAST, [["", "", None, ""]]),
        (part(b"; name=f; filename*=utf-8''caf%C3%A9") + LAST, [["f", "caf\u00e9", None, "31"]]),
        (part(b"; name=f; filename*=utf-8''b; filename=a") + LAST, [["f", "a", None, "31"]]),
        (part(b'; name="\xff"', b"\xff") + LAST, [["\ufffd", "\ufffd"]]),
        (part(b"; name=a", b"\xe9", b"content-type: text/plain; charset=latin1\r\n") + LAST, [["a", "\u00e9"]]),
        (
            part(b"; name=_charset_", b"latin1") + part(b"; name=a", b"\xc3\xa9") + LAST,
            [["_charset_", "latin1"], ["a", "\u00e9"]],
        ),
        (
            part(b"; name=a", b"--Y\r\n\r\n1\r\n--Y--", b"content-type: multipart/mixed; boundary=Y\r\n") + LAST,
            [["a", "--Y\r\n\r\n1\r\n--Y--"]],
        ),
        (part(b"; name=a", b"\r\n--\r\n-X\r\n --X") + LAST, [["a", "\r\n--\r\n-X\r\n --X"]]),
    ],
    ids=[
        "no part",
        "preamble and epilogue",
        "quotes and backslashes",
        "no file chosen",
        "filename*",
        "filename and filename*",
        "UTF-8",
        "charset",
        "_charset_",
        "nested",
        "nearly a boundary",
    ],
)
def test_odd_multipart(serve, kind, body, fields):
    with serve(handler_of(kind)).wire() as wire:
        for pieces in (None, 1):
            assert post(wire, body, pieces=pieces).json() == fields


@pytest.mark.parametrize(
    ("body", "content_type", "why"),
    [
        (part(b"; name=a") + LAST, "multipart/form-data", "names no boundary"),
        (part(b"; name=a") + LAST, f"multipart/form-data; boundary={'X' * 10_000}", "has 10000 bytes, not 1 to 70"),
        (part(b"; name=a") + LAST, "multipart/form-data; boundary=X; boundary=Y", "comes twice"),
        (b"nothing of the kind", MULTIPART, "no line of it is the boundary"),
        (part(b"; name=a"), MULTIPART, "ends before its last boundary"),
        (part(b"; name=a") + b"--X", MULTIPART, "ends before its last boundary"),
        (part(b"; name=a") + b"--Xtra\r\n", MULTIPART, "stands behind a boundary"),
        (part(b"; name=a").replace(b"\r\n", b"\n"), MULTIPART, "stands behind a boundary"),
        (part(b"; filename=a") + LAST, MULTIPART, "part 1: its content-disposition has no name"),
        (b"--X\r\n\r\n1\r\n" + LAST, MULTIPART, "part 1: it has no content-disposition"),
        (part(b"; name=a") + part(b"; name=b\0") + LAST, MULTIPART, "part 2: a control character"),
        (part(b'; name="a\rb"') + LAST, MULTIPART, "half a line end"),
        (part(b'; name="a\r\n b"') + LAST, MULTIPART, "a line without a colon"),
        (part(b"; name=a; name=b") + LAST, MULTIPART, "a parameter comes twice"),
        (part(b'; name="a\\"') + LAST, MULTIPART, "a quote is not closed"),
        (part(b"; name=a; filename*=x") + LAST, MULTIPART, "filename[*] is malformed"),
        (part(b"; name=a", more=b"content-transfer-encoding: base64\r\n") + LAST, MULTIPART, "base64 is not undone"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) and " " in value else "",
)
def test_malformed_multipart_is_the_clients_fault(serve, kind, body, content_type, why):
    served = serve(handler_of(kind))
    for pieces in (None, 7):
        with served.wire() as wire:
            assert post(wire, body, content_type, pieces).status == 400
        error, _ = served.errors.next(portico.RequestError)
        assert (error.status, error.reason) == (400, "framing")
        with pytest.raises(portico.RequestError, match=why):
            raise error


def test_cut_at_every_byte(serve, kind):
    body = part(b'; name="a"') + file_part(b"content\r\n") + LAST
    with serve(handler_of(kind)).wire() as wire:
        for at in range(len(body) + 1):
            answer = post(wire, body[:at])
            # The last line end is nobody's.
            assert answer.status == (200 if at >= len(body) - 2 else 400), body[:at]


def test_a_form_of_another_type_is_empty_and_leaves_the_body(serve, kind):
    def plain(request):
        return {"statusCode": 200, "body": json.dumps([told(request.form()), request.text])}

    async def coroutine(request):
        form = await request.form()
        return {"statusCode": 200, "body": json.dumps([told(form), (await request.read()).decode()])}

    handler = coroutine if kind.endswith("async def") else plain
    handler.stream_body = kind.startswith("streaming")
    with serve(handler).wire() as wire:
        assert post(wire, b"a=1", "text/plain", pieces=1).json() == [[], "a=1"]


# ---- limits


@pytest.mark.parametrize(
    ("settings", "body", "content_type"),
    [
        ({"max_form_parts": 3}, part(b"; name=a") * 4 + LAST, MULTIPART),
        ({}, part(b"; name=a") * 20_000 + LAST, MULTIPART),
        ({"max_form_parts": 3}, b"a&b&c&d", URLENCODED),
        ({}, b"a&" * 1_001, URLENCODED),
        ({"max_form_field_bytes": 1000}, part(b"; name=a", bytes(500)) * 2 + LAST, MULTIPART),
        ({"max_form_field_bytes": 1000}, part(b"; name=" + b"n" * 1001, b"") + LAST, MULTIPART),
        ({"max_form_field_bytes": 1000}, b"a=" + b"1" * 1000, URLENCODED),
        ({"max_form_field_bytes": 1000}, b"%" * 1_000_000, URLENCODED),
        ({"max_form_file_bytes": 1000}, file_part(bytes(1000)) + file_part(bytes(1001)) + LAST, MULTIPART),
        ({"max_header_bytes": 1024}, b"--X\r\nx: " + b"1" * 1_000_000, MULTIPART),
        ({}, b"--X\r\n" + b"x: 1\r\n" * 101 + b"\r\n", MULTIPART),
    ],
)
def test_a_limit_that_is_passed_is_413(serve, kind, settings, body, content_type):
    served = serve(handler_of(kind), **settings)
    with served.wire() as wire:
        try:
            status = post(wire, body, content_type, pieces=10_000).status
        except ConnectionError:
            status = 413  # It was said, and the connection closed, while much of the body was on its way.
        assert status == 413
    error, _ = served.errors.next(portico.LimitError)
    assert (error.status, error.reason) == (413, "body_bytes")
    setting = next(iter(settings), "max_form_parts" if b"x: 1" not in body else "max_headers")
    assert str(error).endswith(f"({setting})")


def test_within_the_limits(serve, kind):
    settings = {"max_form_parts": 2, "max_form_field_bytes": 8, "max_form_file_bytes": 1000}
    with serve(handler_of(kind), **settings).wire() as wire:
        assert post(wire, part(b"; name=a", b"12") + file_part(bytes(1000)) + LAST).status == 200
        assert post(wire, b"a=1&%62=%31%32", URLENCODED).status == 200


@pytest.mark.parametrize(
    ("settings", "sent", "status"),
    [({"max_request_read_bytes": 1000}, 2000, 413), ({"body_timeout": 0.3}, 10, 408)],
    ids=["larger", "slower"],
)
def test_what_holds_for_bodies_holds_for_forms(serve, streaming, settings, sent, status):
    with serve(handler_of(streaming), **settings).wire() as wire:
        head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {MULTIPART}\r\ntransfer-encoding: chunked\r\n\r\n"
        wire.send(head).send(b"%x\r\n%s\r\n" % (sent, file_part(b"x" * sent)[:sent]))
        assert wire.read().status == status


# ---- forms as they come


def test_a_form_is_asked_for_once(serve, streaming):
    called = threading.Event()

    def look(request, form):
        assert request.form() is form
        with pytest.raises(RuntimeError, match="read as a form"):
            request.body  # noqa: B018
        return {"statusCode": 200, "body": form["a"]}

    def plain(request):
        called.set()
        return look(request, request.form())

    async def coroutine(request):
        form = request.form()
        called.set()
        with pytest.raises(RuntimeError, match=r"await request\.form\(\)"):
            form["a"]
        assert "still coming" in repr(form)
        both = await asyncio.gather(form._read(), form._read())
        assert both == [form, form]
        assert await request.form() is form
        return look(request, form)

    handler = coroutine if streaming.endswith("async def") else plain
    handler.stream_body = True
    with serve(handler).wire() as wire:
        for body, content_type in ((b"a=b", URLENCODED), (part(b"; name=a", b"b") + LAST, MULTIPART)):
            assert post_late(wire, called, body, content_type).text == "b"


def test_a_form_that_failed_stays_so(serve, streaming):
    raised, called = [], threading.Event()

    def plain(request):
        called.set()
        for _ in range(2):
            try:
                request.form()
            except Exception as error:
                raised.append(type(error))
        return {"statusCode": 200}

    async def coroutine(request):
        called.set()
        for _ in range(2):
            try:
                await request.form()
            except Exception as error:
                raised.append(type(error))
        return {"statusCode": 200}

    handler = coroutine if streaming.endswith("async def") else plain
    handler.stream_body = True
    with serve(handler).wire() as wire:
        assert post_late(wire, called, b"--Xtra").status == 200
    assert raised == [portico.RequestError, RuntimeError]


def test_others_go_on_while_a_form_comes(serve):
    async def handler(request):
        form = await request.form() if request.method == "POST" else {"a": "hello"}
        return {"statusCode": 200, "body": form["a"]}

    handler.stream_body = True
    served = serve(handler)
    with served.wire() as slow, served.wire() as other:
        slow.send(f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {URLENCODED}\r\ncontent-length: 3\r\n\r\na=")
        assert other.get().text == "hello"
        assert slow.send("1").read().text == "1"
