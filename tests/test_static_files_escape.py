"""Nothing outside of the root of `portico.StaticFiles` can be reached, whatever is asked for and whatever lies inside."""

from __future__ import annotations

import os
import socket
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import portico

SECRET = "the secret outside"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A root with everything in it that may lead out, beside a secret."""
    place = tmp_path_factory.mktemp("place")
    root = place / "root"
    (root / "sub" / "deep").mkdir(parents=True)
    (place / "root-beside").mkdir()
    for secret in (place / "secret.txt", place / "root-beside" / "secret.txt", place / ".secret"):
        secret.write_text(SECRET)
    (root / "a.txt").write_text("inside")
    (root / "sub" / "b.txt").write_text("inside")
    (root / ".git").mkdir()
    for hidden in (root / ".env", root / ".git" / "config", root / "sub" / ".htaccess"):
        hidden.write_text(SECRET)
    (root / ".well-known").mkdir()
    (root / ".well-known" / "security.txt").write_text("inside")
    (root / "back\\slash").write_text(SECRET)
    (root / "in").symlink_to("sub/b.txt")
    (root / "sub" / "up").symlink_to("../a.txt")
    (root / "out").symlink_to("../secret.txt")
    (root / "absolute").symlink_to(place / "secret.txt")
    (root / "absolute-in").symlink_to(root / "a.txt")
    (root / "parent").symlink_to("..")
    (root / "sub" / "far").symlink_to("../../root-beside")
    (root / "proc").symlink_to("/proc/self/root")
    (root / "circle").symlink_to("circle")
    (root / "two").symlink_to("out")
    (root / "null").symlink_to("/dev/null")
    (root / "void").symlink_to("nothing")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(root)
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
    return place


@pytest.fixture(params=["server", "mount", "middleware"])
def served(serve, place, request):
    """The same folder as a server's handler, mounted in a router, and behind Python."""
    files = portico.StaticFiles(place / "root")
    if request.param == "server":
        return serve(files), ""
    router = portico.Router()
    if request.param == "middleware":
        router.add_middleware(leave=lambda request, response: None)
    router.mount("/files", files)
    return serve(router), "/files"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/../../../../../../etc/passwd",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/.%2E/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%2fsecret.txt",
        "/..%2Fsecret.txt",
        "/sub%2f..%2f..%2fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/sub/..\\..\\secret.txt",
        "/%252e%252e/secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/%c0%af../secret.txt",
        "/%e0%80%ae/secret.txt",
        "/\uff0e\uff0e/secret.txt".encode().decode("latin-1"),
        "/..;/secret.txt",
        "/.../secret.txt",
        "/.. /secret.txt".replace(" ", "%20"),
        "/..%00/secret.txt",
        "/a.txt%00.html",
        "/a.txt%00/../../secret.txt",
        "/%00",
        "//etc/passwd",
        "/%2Fetc%2Fpasswd",
        "/%2f%2fetc/passwd",
        "/sub//b.txt",
        "/sub%2Fb.txt",
        "/sub%5Cb.txt",
        "/../root-beside/secret.txt",
        "/-beside/secret.txt",
        "/out",
        "/absolute",
        "/absolute-in",
        "/parent/secret.txt",
        "/parent/root/a.txt",
        "/sub/far/secret.txt",
        "/proc/etc/passwd",
        "/circle",
        "/two",
        "/null",
        "/void",
        "/pipe",
        "/socket",
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/.git/",
        "/.git",
        "/sub/.htaccess",
        "/sub/../.env",
        "/back%5Cslash",
        "/" + "a" * 300,
        "/" + "a/" * 2500,
        "/" + "../" * 3000 + "secret.txt",
    ],
)
def test_no_way_out(served, path):
    server, prefix = served
    with server.wire() as wire:
        answer = wire.get(prefix + path)
        assert SECRET not in answer.body.decode("latin-1"), path
        assert b"root:" not in answer.body, path
        assert answer.status in (400, 404), path
        if answer.status == 404:
            assert wire.get(prefix + "/a.txt").text == "inside", "and the connection is as good as before"


@pytest.mark.parametrize(
    "path", ["/a.txt", "/sub/b.txt", "/in", "/sub/up", "/.well-known/security.txt", "/sub/../a.txt"]
)
def test_what_is_inside_can_be_reached(served, path):
    server, prefix = served
    assert server.get(prefix + path).text == "inside"


@pytest.mark.parametrize("target", ["http://h/../secret.txt", "http://h/%2e%2e%2fsecret.txt", "http://h/out"])
def test_absolute_targets(serve, place, target):
    with serve(portico.StaticFiles(place / "root")).wire() as wire:
        assert wire.send(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").read().status == 404
        assert wire.send("GET http://h/a.txt HTTP/1.1\r\nHost: h\r\n\r\n").read().text == "inside"


def test_a_mount_does_not_reach_what_begins_with_the_same_name(serve, place):
    router = portico.Router()
    router.mount("/files", portico.StaticFiles(place / "root"))
    served = serve(router)
    for path in ("/files-beside/secret.txt", "/files/../root-beside/secret.txt", "/files%2F..%2Fsecret.txt"):
        assert served.get(path).status == 404


def test_an_encoded_slash_does_not_pass_a_guard(serve, place):
    router = portico.Router()
    router.add_route("GET", "/sub/{*rest}", lambda request: portico.error(403))
    router.mount("/", portico.StaticFiles(place / "root"))
    served = serve(router)
    assert served.get("/a.txt").text == "inside"
    assert served.get("/sub/b.txt").status == 403
    for path in ("/sub%2Fb.txt", "/sub%2fb.txt", "//sub/b.txt", "/./sub/b.txt", "/x/..%2Fsub/b.txt", "/%73ub/b.txt"):
        assert served.get(path).status in (403, 404), path


def test_no_link_is_followed_where_that_is_not_wanted(serve, place):
    served = serve(portico.StaticFiles(place / "root", follow_symlinks=False))
    assert served.get("/a.txt").text == "inside"
    for path in ("/in", "/sub/up", "/out"):
        assert served.get(path).status == 404


def test_dotfiles_where_they_are_wanted(serve, place):
    served = serve(portico.StaticFiles(place / "root", dotfiles=True))
    assert served.get("/.env").text == SECRET
    assert served.get("/../.secret").status == 404


def test_a_link_that_is_swapped_all_the_time_never_leads_out(serve, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text(SECRET)
    (root / "inside").write_text("inside")
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            for leads in ("inside", "../secret"):
                (root / "new").symlink_to(leads)
                os.rename(root / "new", root / "link")

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        with serve(portico.StaticFiles(root)).wire() as wire:
            answers = [wire.get("/link") for _ in range(3000)]
    finally:
        stop.set()
        swapping.join()
    assert {answer.text for answer in answers if answer.status == 200} == {"inside"}
    assert {answer.status for answer in answers} <= {200, 404}


SEGMENTS = st.sampled_from(
    [
        "a.txt",
        "sub",
        "b.txt",
        "out",
        "parent",
        "secret.txt",
        "..",
        ".",
        "%2e%2e",
        ".%2e",
        "%2f",
        "..%2f",
        "%5c",
        "%00",
        "root",
        "root-beside",
        "%c0%ae",
        ".env",
        ".git",
        "config",
        "far",
        "in",
        "up",
        "absolute",
        "%252e",
        "",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(path=st.lists(SEGMENTS, max_size=8).map("/".join))
def test_any_path(odd, path):
    answer = odd.get("/" + path)
    assert SECRET not in answer.body.decode("latin-1")
    assert answer.status in (200, 301, 404)
    if answer.status == 200:
        assert answer.text == "inside"


@pytest.fixture
def odd(serve, place):
    with serve(portico.StaticFiles(place / "root")).wire() as wire:
        yield wire
