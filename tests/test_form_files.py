"""Files of forms: in memory and in temporary files, what is left of them, and what an upload takes of memory and disk."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import http.client
import io
import json
import os
import random
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import portico
from clients import curl, wait_until
from forms import LAST, MULTIPART, file_part, handler_of, post, told
from programs import Program

TESTS = Path(__file__).parent


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
