"""Forms, by real clients and by hand: whole, and as they come; what is malformed, limits, temporary files, memory."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import hashlib
import io
import json
import os
import random
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

import portico
from clients import curl, run, wait_until
from programs import Program

KINDS = ["def", "async def", "streaming def", "streaming async def"]
MULTIPART = "multipart/form-data; boundary=X"
URLENCODED = "application/x-www-form-urlencoded"
TESTS = Path(__file__).parent


def told(form):
    """What is in a form, as JSON has it."""
    values = [(name, value) for name in form for value in form.getlist(name)]
    return [
        [name, value] if isinstance(value, str) else [name, value.filename, value.content_type, value.read().hex()]
        for name, value in values
    ]


def handler_of(kind, look=told):
    def plain(request):
        return {"statusCode": 200, "body": json.dumps(look(request.form()))}

    async def coroutine(request):
        return {"statusCode": 200, "body": json.dumps(look(await request.form()))}

    handler = coroutine if kind.endswith("async def") else plain
    handler.stream_body = kind.startswith("streaming")
    return handler


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=KINDS[2:])
def streaming(request):
    """A kind of handlers that read forms as they come."""
    return request.param


def post(wire, body, content_type=MULTIPART, pieces=None):
    """Sends a form, in chunks of `pieces` bytes where that is given, and reads the answer."""
    framing = f"content-length: {len(body)}" if pieces is None else "transfer-encoding: chunked"
    wire.send(f"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n")
    if pieces is None:
        return wire.send(body).read()
    for at in range(0, len(body), pieces):
        piece = body[at : at + pieces]
        wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    return wire.send(b"0\r\n\r\n").read()


def post_late(wire, called, body, content_type=MULTIPART):
    """The same with a body that is not sent before the handler has set `called`."""
    head = f"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    wire.send(head)
    assert called.wait(30)
    called.clear()
    return wire.send(body).read()


def part(disposition, content=b"1", more=b""):
    head = b"--X\r\ncontent-disposition: form-data" + disposition + b"\r\n" + more
    return head + b"\r\n" + content + b"\r\n"


def file_part(content, filename=b"x"):
    return part(b'; name="file"; filename="' + filename + b'"', content)


LAST = b"--X--\r\n"


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
        (part(b'; name="C:\\dir\\"x"'[:14] + b'x"'), None),
        (part(b'; name="a\\"b\\\\c\\d"') + LAST, [['a"b\\c\\d', "1"]]),
        (part(b'; name=""; filename=""', b"") + LAST, [["", "", None, ""]]),
        (part(b"; name=f; filename*=utf-8''caf%C3%A9") + LAST, [["f", "caf\u00e9", None, "31"]]),
        (part(b"; name=f; filename*=utf-8''b; filename=a") + LAST, [["f", "a", None, "31"]]),
        (part(b'; name="\xff"', b"\xff") + LAST, [["\ufffd", "\ufffd"]]),
        (part(b"; name=a", b"\xe9", b"content-type: text/plain; charset=latin1\r\n") + LAST, [["a", "\u00e9"]]),
        (part(b"; name=_charset_", b"latin1") + part(b"; name=a", b"\xc3\xa9") + LAST, None),
        (
            part(b"; name=a", b"--Y\r\n\r\n1\r\n--Y--", b"content-type: multipart/mixed; boundary=Y\r\n") + LAST,
            [["a", "--Y\r\n\r\n1\r\n--Y--"]],
        ),
        (part(b"; name=a", b"\r\n--\r\n-X\r\n --X") + LAST, [["a", "\r\n--\r\n-X\r\n --X"]]),
    ],
    ids=[
        "no part",
        "preamble and epilogue",
        "a quote that is not closed",
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
    if b"_charset_" in body:
        fields = [["_charset_", "latin1"], ["a", "\u00e9"]]
    with serve(handler_of(kind)).wire() as wire:
        for pieces in (None, 1):
            answer = post(wire, body, pieces=pieces)
            if fields is None:
                assert answer.status == 400
            else:
                assert answer.json() == fields


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


# ---- temporary files


def temporary_files(folder):
    """Descriptors of files that are in a folder and have no name there."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").startswith(f"{folder}/"):
                found.append(os.fstat(int(number)))
    return found


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


@linux
@pytest.mark.parametrize("where", ["form_folder", "TMPDIR"])
def test_large_files_are_in_one_temporary_file(serve, streaming, tmp_path, monkeypatch, where):
    seen = []

    def look(form):
        seen.append(([(file.st_mode, file.st_nlink) for file in temporary_files(tmp_path)], os.listdir(tmp_path)))
        return told(form)

    settings = {"form_folder": tmp_path} if where == "form_folder" else {}
    if where == "TMPDIR":
        monkeypatch.setenv("TMPDIR", str(tmp_path))
    contents = [random.Random(size).randbytes(size) for size in (900_000, 200_000, 10, 3_000_000, 0)]
    with serve(handler_of(streaming, look), **settings).wire() as wire:
        answer = post(wire, b"".join(map(file_part, contents)) + LAST)
        assert answer.json() == [["file", "x", None, content.hex()] for content in contents]
        assert seen == [([(stat.S_IFREG | 0o600, 0)], [])]
        wait_until(lambda: not temporary_files(tmp_path), "the temporary file to go")
        # What has room needs none.
        seen.clear()
        assert post(wire, file_part(contents[0]) + LAST).status == 200
        assert seen == [([], [])]


@linux
def test_a_form_of_many_files_takes_one_descriptor(serve, streaming, tmp_path):
    seen = []
    handler = handler_of(
        streaming, lambda form: seen.append(len(temporary_files(tmp_path))) or len(form.getlist("file"))
    )
    with serve(handler, form_folder=tmp_path, form_memory_bytes=0).wire() as wire:
        assert post(wire, file_part(b"1") * 999 + LAST).json() == 999
    assert seen == [1]


@linux
def test_nothing_is_left_where_the_client_leaves_or_the_form_is_malformed(serve, streaming, tmp_path):
    served = serve(handler_of(streaming), form_folder=tmp_path)
    begun = file_part(bytes(2_000_000))
    with served.wire() as wire:
        wire.send(f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {MULTIPART}\r\ncontent-length: 9999999\r\n\r\n")
        wire.send(begun)
        wait_until(lambda: temporary_files(tmp_path), "the temporary file")
    wait_until(lambda: not temporary_files(tmp_path), "the temporary file to go")
    with served.wire() as wire:
        assert post(wire, begun).status == 400
        wait_until(lambda: not temporary_files(tmp_path), "the temporary file to go")
    assert os.listdir(tmp_path) == []


@linux
def test_closing_a_form_closes_its_files(serve, streaming, tmp_path):
    kept = []

    def plain(request):
        with request.form() as form:
            kept.append(form["file"])
        return {"statusCode": 200}

    async def coroutine(request):
        async with request.form() as form:
            kept.append(form["file"])
        return {"statusCode": 200}

    handler = coroutine if streaming.endswith("async def") else plain
    handler.stream_body = True
    with serve(handler, form_folder=tmp_path).wire() as wire:
        assert post(wire, file_part(bytes(2_000_000)) + LAST).status == 200
    (file,) = kept
    assert file.closed
    assert temporary_files(tmp_path) == []
    for use in (file.read, file.tell, lambda: file.seek(0), lambda: file.save(tmp_path / "x")):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_a_folder_that_is_not_there():
    with pytest.raises(portico.ConfigError, match="setting form_folder: expected the path of a folder that is there"):
        portico.Server(form_folder="/no/such/folder")


# ---- a file of a form


@pytest.fixture(params=["memory", "disk"])
def upload(serve, request, tmp_path):
    """Gives the `FormFile` that comes of a file's content, as it is in memory or on the disk."""
    folder = tmp_path / "temporary"
    folder.mkdir()

    def upload(content, filename="x"):
        kept = []
        handler = handler_of("streaming def", lambda form: kept.append(form["file"]))
        memory = 10 * 2**20 if request.param == "memory" else 0
        with serve(handler, form_folder=folder, form_memory_bytes=memory).wire() as wire:
            assert post(wire, file_part(content, filename.encode()) + LAST).status == 200
        return kept[0]

    return upload


def test_a_file_is_a_file(upload):
    content = b"one\ntwo\n" + bytes(range(256)) * 1000
    file = upload(content)
    assert isinstance(file, portico.FormFile)
    assert (file.name, file.filename, file.content_type, file.size) == ("file", "x", None, len(content))
    assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
    assert (file.read(3), file.tell(), file.peek(1)[:1], file.read(1)) == (b"one", 3, b"\n", b"\n")
    assert (file.seek(-1, 2), file.read(), file.read(), file.read1()) == (len(content) - 1, b"\xff", b"", b"")
    assert (file.seek(2), file.seek(2, 1), file.read(3), len(file.read1())) == (2, 4, b"two", 65_536)
    assert (file.seek(10**9), file.read()) == (10**9, b"")
    for offset, whence in ((-1, 0), (0, 3)):
        with pytest.raises(ValueError, match=r"seek|whence"):
            file.seek(offset, whence)
    file.seek(0)
    assert list(file) == io.BytesIO(content).readlines()
    file.seek(0)
    buffer = bytearray(5)
    assert (file.readinto(buffer), bytes(buffer)) == (5, content[:5])
    file.close()
    file.close()
    assert file.closed


def test_libraries_read_it(upload):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("table.csv", "a,b\r\n1,2\r\n")
    with zipfile.ZipFile(upload(packed.getvalue())) as archive:
        table = archive.read("table.csv")
    assert list(csv.reader(io.TextIOWrapper(upload(table), newline=""))) == [["a", "b"], ["1", "2"]]


def test_it_is_saved_whole_and_where_it_is_told(upload, tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    content = random.Random(2).randbytes(1_000_000)
    file = upload(content, "../../evil")
    file.read(10)
    old_umask = os.umask(0o027)
    try:
        file.save(folder / "new")
    finally:
        os.umask(old_umask)
    assert (folder / "new").read_bytes() == content
    assert (folder / "new").stat().st_mode & 0o777 == 0o640
    # What is there goes; a link is not followed.
    (folder / "link").symlink_to(folder / "new")
    (folder / "new").write_bytes(b"new")
    file.save(str(folder / "link"))
    assert ((folder / "link").read_bytes(), (folder / "link").is_symlink()) == (content, False)
    assert (folder / "new").read_bytes() == b"new"
    os.mkfifo(folder / "pipe")
    for path, error in {
        folder: IsADirectoryError,
        folder / "pipe": FileExistsError,
        folder / "none" / "x": FileNotFoundError,
        folder / "new" / "x": NotADirectoryError,
    }.items():
        with pytest.raises(error) as caught:
            file.save(path)
        assert caught.value.filename == str(path)
    assert sorted(os.listdir(folder)) == ["link", "new", "pipe"]


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


# ---- in a process of its own


@contextlib.contextmanager
def apart(settings, largest=None, disk=None):
    arguments = [json.dumps(one) for one in (settings, largest, disk)]
    program = Program(TESTS / "form_server.py", *arguments, PYTHONPATH=":".join(filter(None, sys.path)))
    try:
        yield int(program.wait_for(r"port (\d+)")[1])
    finally:
        program.close()


def send_file(port, path, size):
    """Uploads so many bytes; the status, what is said, and the digest of what was sent."""
    import http.client

    piece = random.Random(3).randbytes(1 << 16)
    digest = hashlib.sha256()
    begin, end = file_part(b"")[:-2], b"\r\n" + LAST
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def body():
        yield begin
        for _ in range(size // len(piece)):
            digest.update(piece)
            yield piece
        yield end

    headers = {"content-type": MULTIPART, "content-length": str(len(begin) + size + len(end))}
    with contextlib.closing(client):
        with contextlib.suppress(ConnectionError):
            client.request("POST", path, body(), headers)
        answer = client.getresponse()
        return answer.status, answer.read(), digest.hexdigest()


def get_descriptors(port):
    return json.loads(curl(port, "/descriptors"))


@linux
@pytest.mark.parametrize("path", ["/def", "/async"])
def test_memory_is_flat_with_a_large_upload(path, tmp_path):
    with apart({"max_request_read_bytes": 1 << 30, "form_folder": str(tmp_path)}) as port:
        status, told, _ = send_file(port, path, 4 << 20)
        before = json.loads(told)["peak"]
        status, told, digest = send_file(port, path, 200 << 20)
        assert status == 200
        told = json.loads(told)
        assert (told["sizes"], told["sha256"]) == ([200 << 20], [digest])
        assert told["peak"] - before < 8 << 20
        wait_until(lambda: not any(str(tmp_path) in link for link in get_descriptors(port)), "the file to go")


@linux
@pytest.mark.parametrize("path", ["/def", "/async"])
@pytest.mark.parametrize("full", ["disk", "file"])
def test_a_full_disk_is_a_500_and_nothing_is_left(path, full, tmp_path):
    if full == "disk" and subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    limit = {"disk": 1 << 20} if full == "disk" else {"largest": 1 << 20}
    settings = {"form_folder": str(tmp_path), "max_request_read_bytes": 1 << 30, "form_memory_bytes": 1000}
    with apart(settings, **limit) as port:
        for _ in range(3):
            status, _, _ = send_file(port, path, 2 << 20)
            assert status == 500
            status, told, digest = send_file(port, path, 512 << 10)
            assert (status, json.loads(told)["sha256"]) == (200, [digest])
        wait_until(lambda: not any(str(tmp_path) in link for link in get_descriptors(port)), "the file to go")
        assert os.listdir(tmp_path) == []
