"""`portico.StaticFiles`: a folder that the core serves, without Python for each request."""

from __future__ import annotations

import email.utils
import gzip
import os
import re
import urllib.parse

import pytest

import portico
from clients import curl, run, wait_until


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "index.html").write_text("<p>home")
    (folder / "sub" / "index.html").write_text("<p>sub")
    (folder / "a.txt").write_text("hello\n")
    (folder / "empty.json").write_text("")
    (folder / "large.bin").write_bytes(os.urandom(3_000_001))
    (folder / "h\u00e9 llo%20.css").write_text("p {}")
    return folder


@pytest.fixture(params=[False, True], ids=["http1", "http2"])
def client(serve, root, request):
    with serve(portico.StaticFiles(root)).httpx(http2=request.param) as client:
        yield client


def test_files_are_sent_as_they_are(client, root):
    for name in ("a.txt", "large.bin", "empty.json", "index.html", "sub/index.html"):
        answer = client.get("/" + name)
        assert (answer.status_code, answer.content) == (200, (root / name).read_bytes())
        assert answer.headers["content-length"] == str((root / name).stat().st_size)
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["x-content-type-options"] == "nosniff"
        modified = email.utils.parsedate_to_datetime(answer.headers["last-modified"]).timestamp()
        assert modified == int((root / name).stat().st_mtime)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.JS", "text/javascript; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.png", "image/png"),
        ("a.webp", "image/webp"),
        ("a.wasm", "application/wasm"),
        ("a.pdf", "application/pdf"),
        ("LICENSE", "application/octet-stream"),
    ],
)
def test_content_types_by_ending(serve, root, name, kind):
    (root / name).write_text("x")
    assert serve(portico.StaticFiles(root)).get("/" + name).header("content-type") == kind


def test_names_are_decoded_once(client):
    assert client.get("/h%C3%A9%20llo%2520.css").text == "p {}"
    assert client.get("/%61.txt?query").text == "hello\n"
    assert client.get("/%2561.txt").status_code == 404
    assert client.get("/A.txt").status_code == 404


def test_head_has_the_headers_of_get_and_no_body(client):
    for path in ("/a.txt", "/large.bin", "/empty.json", "/"):
        get, head = client.get(path), client.head(path)
        assert head.content == b""
        without = {"date"}
        assert {k: v for k, v in head.headers.items() if k not in without} == {
            k: v for k, v in get.headers.items() if k not in without
        }


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW"])
def test_other_methods_are_refused(client, method):
    for path in ("/a.txt", "/none"):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_options_tells_the_methods(client):
    answer = client.options("/a.txt")
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


def test_a_folder_is_its_index(client):
    assert client.get("/").text == "<p>home"
    assert client.get("/sub/").text == "<p>sub"


@pytest.mark.parametrize("path", ["/a.txt/", "/none/", "/sub/none", "/a.txt/b"])
def test_what_is_not_there(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.text) == (404, "404 Not Found\n")


@pytest.mark.parametrize(
    ("asked", "leads"),
    [
        ("/sub", "/sub/"),
        ("/sub?a=1&b", "/sub/?a=1&b"),
        ("/%73ub", "/sub/"),
        ("/sub/../sub", "/sub/"),
        ("/evil:80", "/evil:80/"),
    ],
)
def test_a_folder_without_its_slash_redirects(serve, root, asked, leads):
    (root / "evil:80").mkdir()
    answer = serve(portico.StaticFiles(root)).get(asked)
    assert answer.status == 301
    assert urllib.parse.unquote(urllib.parse.urljoin("https://h/" + asked[1:], answer.header("location"))) == (
        "https://h" + leads
    )


@pytest.mark.parametrize(
    "asked", ["//sub", "//evil.example/..%2fsub", "/%5Csub", "/%2Fsub", "///sub", "//evil.example"]
)
def test_no_redirect_leads_to_another_host(serve, root, asked):
    with serve(portico.StaticFiles(root)).wire() as wire:
        answer = wire.get(asked)
        location = answer.header("location") or ""
        assert answer.status in (400, 404) or re.fullmatch(r"\./\w+/", location), (answer, location)


def test_without_an_index_there_is_none(serve, root):
    served = serve(portico.StaticFiles(root, index=None))
    assert served.get("/").status == 404
    assert served.get("/index.html").text == "<p>home"
    assert serve(portico.StaticFiles(root, index="a.txt")).get("/").text == "hello\n"


# ---- where it goes


def test_mounted_in_a_router(serve, root):
    router, inner = portico.Router(), portico.Router()
    router.mount("/static", portico.StaticFiles(root))
    router.mount("/in", inner)
    inner.mount("/{tenant}/files", portico.StaticFiles(root))
    router.add_route("GET", "/static/special", lambda request: {"statusCode": 200, "body": "route"})
    served = serve(router)
    assert served.get("/static/a.txt").text == served.get("/in/x%2Fy/files/a.txt").text == "hello\n"
    assert served.get("/static/special").text == "route"
    assert served.get("/static/").text == "<p>home"
    answer = served.get("/static")
    assert (answer.status, answer.header("location")) == (301, "./static/")
    assert served.get("/static/sub").header("location") == "./sub/"
    assert served.get("/a.txt").status == 404
    assert served.ask("POST", "/static/a.txt").status == 405


def test_of_one_host(serve, root):
    hosts = {"a.test": portico.StaticFiles(root), "b.test": lambda request: {"statusCode": 200, "body": "b"}}
    served = serve(hosts, hosts=tuple(hosts))
    assert served.get("/a.txt", host="a.test").text == "hello\n"
    assert served.get("/a.txt", host="b.test").text == "b"


def test_middleware_is_called_around_it(serve, root):
    router = portico.Router()

    def leave(request, response):
        portico.add_header(response, "x-left", request.path)

    router.add_middleware(lambda request: portico.error(403) if request.path.endswith("secret.txt") else None, leave)
    router.mount("/static", portico.StaticFiles(root))
    (root / "secret.txt").write_text("secret")
    served = serve(router)
    for name in ("a.txt", "large.bin"):
        answer = served.get("/static/" + name)
        assert (answer.status, answer.header("x-left"), answer.body) == (200, "/" + name, (root / name).read_bytes())
        again = served.get("/static/" + name, headers={"if-none-match": answer.header("etag")})
        assert (again.status, again.body) == (304, b"")
    assert (
        served.get("/static/large.bin", headers={"range": "bytes=5-9"}).body == (root / "large.bin").read_bytes()[5:10]
    )
    assert served.ask("HEAD", "/static/large.bin").header("content-length") == "3000001"
    assert served.get("/static/secret.txt").status == 403


def test_called_by_a_handler(serve, root):
    files = portico.StaticFiles(root)

    async def handler(request):
        return files(request) if request.queryStringParameters.get("key") == "1" else portico.error(401)

    served = serve(handler)
    assert served.get("/large.bin").status == 401
    assert served.get("/large.bin?key=1").body == (root / "large.bin").read_bytes()
    assert served.get("/sub?key=1").header("location") == "./sub/?key=1"


def test_its_body_is_sent_once(serve, root):
    kept = []
    files = portico.StaticFiles(root)

    def handler(request):
        kept.append(kept[0] if kept else files(request))
        return kept[0]

    served = serve(handler)
    assert served.get("/large.bin").status == 200
    assert served.get("/large.bin").status == 500
    assert "sent already" in str(served.errors.next(portico.ResponseError)[0])


def test_no_thread_of_handlers_is_needed(serve, root):
    served = serve(portico.StaticFiles(root), dispatch="threads", threads=(1, 1))
    assert served.get("/a.txt").text == "hello\n"
    assert served.server.stats()["handlers"] == {}


# ---- conditions


def test_conditions(client, root):
    first = client.get("/a.txt")
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    assert re.fullmatch(r'"[0-9a-f-]+"', etag)
    for headers, status in (
        ({"if-none-match": etag}, 304),
        ({"if-none-match": f'"x", W/{etag}'}, 304),
        ({"if-none-match": '"x"'}, 200),
        ({"if-modified-since": modified}, 304),
        ({"if-modified-since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200),
        ({"if-none-match": '"x"', "if-modified-since": modified}, 200),
        ({"if-match": etag}, 200),
        ({"if-match": f"W/{etag}"}, 412),
        ({"if-match": '"x"'}, 412),
        ({"if-unmodified-since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 412),
        ({"if-unmodified-since": modified}, 200),
        ({"if-match": etag, "if-none-match": etag}, 304),
    ):
        for method in ("GET", "HEAD"):
            answer = client.request(method, "/a.txt", headers=headers)
            assert answer.status_code == status, headers
            if status == 304:
                assert (answer.content, answer.headers["etag"]) == (b"", etag)
                assert not answer.headers.keys() & {"content-type", "content-length", "content-encoding"}
    assert client.get("/none", headers={"if-match": "*"}).status_code == 404


def test_a_change_changes_the_tag(client, root):
    before = client.get("/a.txt").headers["etag"]
    assert client.get("/a.txt").headers["etag"] == before
    os.utime(root / "a.txt", ns=(1, 1))
    changed = client.get("/a.txt").headers["etag"]
    (root / "new").write_text("hallo\n")
    os.utime(root / "new", ns=(1, 1))
    os.rename(root / "new", root / "a.txt")
    replaced = client.get("/a.txt")
    assert replaced.text == "hallo\n"
    assert len({before, changed, replaced.headers["etag"]}) == 3


def test_no_file_is_of_the_future(client, root):
    os.utime(root / "a.txt", (4e9, 4e9))
    answer = client.get("/a.txt")
    modified, date = (email.utils.parsedate_to_datetime(answer.headers[it]) for it in ("last-modified", "date"))
    assert modified <= date
    os.utime(root / "a.txt", (-4e9, -4e9))
    assert client.get("/a.txt").headers["last-modified"] == "Thu, 01 Jan 1970 00:00:00 GMT"


# ---- what is compressed


@pytest.fixture
def compressed(root):
    plain = b"plain " * 1000
    (root / "c.css").write_bytes(plain)
    os.utime(root / "c.css", (1e9, 1e9))
    for suffix in (".br", ".zst"):
        (root / f"c.css{suffix}").write_text(suffix)
    (root / "c.css.gz").write_bytes(gzip.compress(plain))
    return root


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, zstd", "zstd"),
        ("gzip", "gzip"),
        ("br;q=0.1, gzip;q=0.9", "gzip"),
        ("br;q=0, *", "zstd"),
        ("identity, br;q=0.9", None),
        ("deflate", None),
        (None, None),
    ],
)
def test_precompressed_files_by_what_the_client_takes(serve, compressed, accept, coding):
    served = serve(portico.StaticFiles(compressed))
    answer = served.get("/c.css", headers={"accept-encoding": accept} if accept else {"x": "y"})
    assert answer.header("content-encoding") == coding
    assert answer.header("vary") == "accept-encoding"
    assert answer.header("content-type") == "text/css; charset=utf-8"
    suffix = {"br": ".br", "zstd": ".zst", "gzip": ".gz", None: ""}[coding]
    assert answer.body == (compressed / f"c.css{suffix}").read_bytes()


def test_each_coding_has_its_own_tag_and_ranges(serve, compressed):
    served = serve(portico.StaticFiles(compressed))
    tags = {served.get("/c.css", headers={"accept-encoding": it}).header("etag") for it in ("br", "zstd", "gzip", "x")}
    assert len(tags) == 4
    plain = served.get("/c.css").header("etag")
    answer = served.get("/c.css", headers={"accept-encoding": "gzip", "if-none-match": plain})
    assert (answer.status, answer.header("content-encoding")) == (200, "gzip")
    answer = served.get("/c.css", headers={"accept-encoding": "br", "range": "bytes=1-2"})
    assert (answer.status, answer.header("content-encoding"), answer.body) == (206, "br", b"br")
    again = served.get("/c.css", headers={"if-none-match": plain})
    assert (again.status, again.header("vary")) == (304, "accept-encoding")


def test_curl_unpacks_what_is_compressed(serve, compressed):
    served = serve(portico.StaticFiles(compressed))
    assert curl(served.clear, "/c.css", "-H", "accept-encoding: gzip", "--compressed") == "plain " * 1000


def test_a_compressed_file_of_an_older_version_is_not_sent(serve, compressed):
    os.utime(compressed / "c.css")
    for suffix in (".br", ".zst", ".gz"):
        os.utime(compressed / f"c.css{suffix}", (1e9, 1e9))
    served = serve(portico.StaticFiles(compressed), compression=())
    answer = served.get("/c.css", headers={"accept-encoding": "br, gzip"})
    assert (answer.header("content-encoding"), answer.body) == (None, (compressed / "c.css").read_bytes())


def test_without_its_plain_file_a_compressed_one_is_none(serve, compressed):
    (compressed / "c.css").unlink()
    served = serve(portico.StaticFiles(compressed))
    assert served.get("/c.css", headers={"accept-encoding": "br"}).status == 404
    answer = served.get("/c.css.gz")
    assert (answer.header("content-type"), answer.header("content-encoding")) == ("application/gzip", None)


def test_precompressed_files_can_be_left_alone(serve, compressed):
    served = serve(portico.StaticFiles(compressed, precompressed=False), compression=())
    answer = served.get("/c.css", headers={"accept-encoding": "br"})
    assert (answer.header("content-encoding"), answer.header("vary")) == (None, None)


# ---- caching


def test_cache_control(serve, root):
    (root / "a.css").write_text("x")
    served = serve(portico.StaticFiles(root, cache_control="max-age=60"))
    assert served.get("/a.txt").header("cache-control") == served.get("/").header("cache-control") == "max-age=60"
    etag = served.get("/a.txt").header("etag")
    assert served.get("/a.txt", headers={"if-none-match": etag}).header("cache-control") == "max-age=60"
    assert served.get("/none").header("cache-control") is None
    by_suffix = {".CSS": "max-age=31536000, immutable", "*": "no-cache"}
    served = serve(portico.StaticFiles(root, cache_control=by_suffix))
    assert served.get("/a.css").header("cache-control") == "max-age=31536000, immutable"
    assert served.get("/a.txt").header("cache-control") == "no-cache"
    served = serve(portico.StaticFiles(root, cache_control={".css": "no-store"}))
    assert served.get("/a.txt").header("cache-control") is None


# ---- listings


def test_a_listing_shows_what_can_be_reached(serve, root):
    (root / "index.html").unlink()
    (root / "<b>&\"'.txt").write_text("odd")
    (root / "a:b").write_text("colon")
    (root / ".hidden").write_text("hidden")
    (root / "leads-out").symlink_to("/etc/passwd")
    (root / "leads-in").symlink_to("a.txt")
    (root / "folder-link").symlink_to("sub")
    os.mkfifo(root / "pipe")
    served = serve(portico.StaticFiles(root, listing=True))
    answer = served.get("/")
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.header("content-security-policy")
    links = re.findall(r'href="(.*?)"', answer.text)
    names = [urllib.parse.unquote(link) for link in links]
    folders, files = ["./folder-link/", "./sub/"], ["a.txt", "a:b", "empty.json", "h\u00e9 llo%20.css", "large.bin"]
    assert names == folders + sorted("./" + name for name in [*files, "<b>&\"'.txt", "leads-in"])
    assert "<b>" not in answer.text
    for link in links:
        assert served.get(urllib.parse.urljoin("/", link)).status == 200, link
    assert served.get("/sub/").text == "<p>sub", "an index goes before"
    assert served.ask("HEAD", "/").body == b""


def test_a_listing_is_bounded_and_holds_nobody_up(serve, root):
    many = root / "many"
    many.mkdir()
    for number in range(100_000):
        os.close(os.open(many / f"{number:06}.txt", os.O_CREAT))
    served = serve(portico.StaticFiles(root, listing=True), io_threads=1)
    with served.wire() as slow, served.wire() as quick:
        slow.send("GET /many/ HTTP/1.1\r\nHost: h\r\n\r\n")
        assert quick.get("/many/099999.txt").status == 200, "any of them is found by its name"
        page = slow.read().text
    names = re.findall(r'href="\./(\d+)\.txt"', page)
    assert names == [f"{number:06}" for number in range(10_000)], "the first by their names"
    assert "more than these 10000" in page


def test_no_listing_unless_asked(serve, root):
    (root / "index.html").unlink()
    assert serve(portico.StaticFiles(root)).get("/").status == 404


# ---- files that change


def test_a_file_that_shrinks_while_it_is_sent_breaks_off(serve, root):
    size = 64 * 2**20
    path = root / "shrinks.bin"
    path.write_bytes(b"old " * (size // 4))
    served = serve(portico.StaticFiles(root))
    with served.wire(receive_buffer=4096) as wire:
        wire.send("GET /shrinks.bin HTTP/1.1\r\nHost: h\r\n\r\n")
        assert wire.file.read(1000).startswith(b"HTTP/1.1 200 OK")
        os.truncate(path, 1000)
        came = wire.cut()
    assert len(came) < size
    assert came.rpartition(b"\r\n\r\n")[2].strip(b"old ") == b"", "nothing but what was there"
    assert served.get("/shrinks.bin").body == path.read_bytes(), "and the next one is whole"


def test_a_file_that_vanishes_while_it_is_sent_is_sent_whole(serve, root):
    content = (root / "large.bin").read_bytes()
    with serve(portico.StaticFiles(root)).wire(receive_buffer=4096) as wire:
        wire.send("GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n")
        wire.file.peek(1)
        (root / "large.bin").unlink()
        assert wire.read().body == content
        assert wire.get("/large.bin").status == 404


def test_a_file_that_grows_is_sent_as_long_as_it_was(serve, root):
    content = (root / "large.bin").read_bytes()
    with serve(portico.StaticFiles(root)).wire(receive_buffer=4096) as wire:
        wire.send("GET /large.bin HTTP/1.1\r\nHost: h\r\n\r\n")
        wire.file.peek(1)
        with (root / "large.bin").open("ab") as file:
            file.write(b"more" * 1000)
        assert wire.read().body == content
        assert len(wire.get("/large.bin").body) == len(content) + 4000


def test_a_folder_that_takes_the_roots_place_is_served(serve, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    (tmp_path / "current").symlink_to("one")
    served = serve(portico.StaticFiles(tmp_path / "current"))
    assert served.get("/a.txt").text == "one"
    (tmp_path / "next").symlink_to("two")
    os.rename(tmp_path / "next", tmp_path / "current")
    wait_until(lambda: served.get("/a.txt").text == "two", "the other folder")


# ---- clients and errors


def test_a_client_that_reads_nothing_holds_little(serve, root):
    with (root / "huge.bin").open("wb") as file:
        file.truncate(2**32)
    served = serve(portico.StaticFiles(root), write_timeout=1)
    with served.wire(receive_buffer=4096) as wire, served.wire() as other:
        wire.send("GET /huge.bin HTTP/1.1\r\nHost: h\r\n\r\n")
        assert other.get("/a.txt").text == "hello\n"
        served.wait_stat("connections_closed", "write_timeout")


def test_curl_goes_on_where_it_was_cut(serve, root, tmp_path):
    served, whole = serve(portico.StaticFiles(root)), (root / "large.bin").read_bytes()
    part = tmp_path / "part"
    part.write_bytes(whole[:1_000_000])
    url = f"http://127.0.0.1:{served.clear}/large.bin"
    done = run("curl", "--silent", "--show-error", "--continue-at", "-", "--output", str(part), url)
    assert done.returncode == 0, done.stderr
    assert part.read_bytes() == whole


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(serve, root):
    (root / "a.txt").chmod(0)
    assert serve(portico.StaticFiles(root)).get("/a.txt").status == 403


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"root": "/nonexistent/folder"}, "/nonexistent/folder.*No such file"),
        ({"root": __file__}, "Not a directory"),
        ({"root": 3}, "root: the path of a folder, not int"),
        ({"root": ""}, "root: the path"),
        ({"root": "a\0b"}, "root: the path"),
        ({"index": "../a"}, "index"),
        ({"index": ""}, "index"),
        ({"index": 3}, "index"),
        ({"cache_control": "a\r\nb: c"}, "cannot stand in a header"),
        ({"cache_control": {"css": "x"}}, "a suffix"),
        ({"cache_control": {".css": 3}}, "for .css a str"),
        ({"cache_control": 3}, "a mapping"),
        ({"listing": "yes"}, "listing: True or False"),
        ({"precompressed": 1}, "precompressed"),
    ],
)
def test_what_cannot_be(root, arguments, expected):
    with pytest.raises(portico.ConfigError, match=expected):
        portico.StaticFiles(**{"root": root, **arguments})


def test_a_relative_root_stays_where_it_was(serve, root, monkeypatch):
    monkeypatch.chdir(root.parent)
    served = serve(portico.StaticFiles("root"))
    monkeypatch.chdir("/")
    assert served.get("/a.txt").text == "hello\n"


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system forgets no files on demand")
def test_a_file_that_the_machine_has_to_read_first(serve, tmp_path):
    content = os.urandom(8 << 20)
    path = tmp_path / "cold.bin"
    path.write_bytes(content)
    with path.open("rb") as file:

        def forget():
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

        forget()
        try:
            os.preadv(file.fileno(), [bytearray(4096)], 4 << 20, os.RWF_NOWAIT)
            pytest.skip("this file system keeps its files in memory")
        except BlockingIOError:
            pass
        with serve(portico.StaticFiles(tmp_path)).httpx() as client:
            for asked, expected in [(None, content), ("bytes=5000000-5999999", content[5_000_000:6_000_000])]:
                forget()
                answer = client.get("/cold.bin", headers={"range": asked} if asked else {})
                assert answer.content == expected
