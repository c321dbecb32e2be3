"""Parts of files (RFC 9110 section 14): by `portico.StaticFiles` and by a path as a body, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import email
import os
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import portico
from clients import run

CONTENT = bytes(range(256)) * 4000
SIZE = len(CONTENT)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(CONTENT)
    # Long enough ago for a date to tell that nothing has changed.
    os.utime(path, (1e9, 1e9))
    return path


@pytest.fixture(params=["static", "path"])
def served(serve, file, request):
    if request.param == "static":
        return serve(portico.StaticFiles(file.parent))
    return serve(lambda request: {"statusCode": 200, "body": file})


@pytest.fixture(params=[False, True], ids=["http1", "http2"])
def client(served, request):
    with served.httpx(http2=request.param) as client:
        # What is compressed on its way has no ranges.
        client.headers["accept-encoding"] = "identity"
        yield client


def ranged(client, value, **headers):
    return client.get("/a.txt", headers={"range": value, **headers})


@pytest.mark.parametrize(
    ("value", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, SIZE - 1),
        ("bytes=100-200000", 100, 200_000),
        ("bytes=-1", SIZE - 1, SIZE - 1),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1),
        (f"bytes=5-{SIZE * 2}", 5, SIZE - 1),
        (f"bytes=-{SIZE * 2}", 0, SIZE - 1),
        ("Bytes=1-2", 1, 2),
        ("bytes=1-2,3-4,2-9", 1, 9),
        ("bytes=7-8, 99999999999-", 7, 8),
    ],
)
def test_one_part(client, value, first, last):
    answer = ranged(client, value)
    assert (answer.status_code, answer.content) == (206, CONTENT[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.headers["content-length"] == str(last + 1 - first)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["etag"]


def parts_of(answer):
    kind = answer.headers["content-type"]
    assert re.fullmatch(r"multipart/byteranges; boundary=[0-9a-f]{32}", kind)
    head = f"content-type: {kind}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + answer.content).get_payload()
    assert all(part["content-type"] == "text/plain; charset=utf-8" for part in parts)
    # The module takes line ends for its own; the body is cut by hand instead.
    boundary = kind.rpartition("=")[2].encode()
    pieces = answer.content.split(b"--" + boundary)
    assert (pieces[0], pieces[-1]) == (b"", b"--\r\n")
    bodies = [piece.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for piece in pieces[1:-1]]
    return list(zip([part["content-range"] for part in parts], bodies, strict=True))


def test_several_parts_in_the_order_asked(client):
    answer = ranged(client, "bytes=500000-500009,0-4, -3")
    assert answer.status_code == 206
    assert "content-range" not in answer.headers
    assert answer.headers["content-length"] == str(len(answer.content))
    assert parts_of(answer) == [
        (f"bytes 500000-500009/{SIZE}", CONTENT[500_000:500_010]),
        (f"bytes 0-4/{SIZE}", CONTENT[:5]),
        (f"bytes {SIZE - 3}-{SIZE - 1}/{SIZE}", CONTENT[-3:]),
    ]


def test_large_parts(client):
    answer = ranged(client, "bytes=0-400000,600000-1000000")
    assert [body for _, body in parts_of(answer)] == [CONTENT[:400_001], CONTENT[600_000:1_000_001]]


@pytest.mark.parametrize("value", ["bytes=1024000-", "bytes=2000000-3000000", "bytes=-0", "bytes=9999999-,-0"])
def test_no_part_is_there(client, value):
    answer = ranged(client, value)
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")
    assert answer.text == "416 Range Not Satisfiable\n"


@pytest.mark.parametrize(
    "value",
    [
        "bytes=5-1",
        "bytes=",
        "bytes=a-b",
        "lines=0-1",
        "bytes",
        "bytes=1-2;3-4",
        "bytes=--1",
        "bytes=0x1-2",
        "bytes=0-1,x",
    ],
)
def test_what_is_malformed_is_ignored(client, value):
    answer = ranged(client, value)
    assert (answer.status_code, answer.content) == (200, CONTENT)


def test_a_flood_of_parts_is_ignored(client):
    many = "bytes=" + ",".join(f"{at * 1000}-{at * 1000 + 1}" for at in range(65))
    assert ranged(client, many).status_code == 200
    answer = ranged(client, many.rpartition(",")[0])
    assert (answer.status_code, len(parts_of(answer))) == (206, 64)
    overlapping = ranged(client, "bytes=" + ",".join(["0-"] * 64))
    assert (overlapping.status_code, len(overlapping.content)) == (206, SIZE), "no more than there is"


def test_two_lines_are_ignored(client):
    answer = client.get("/a.txt", headers=[("range", "bytes=0-1"), ("range", "bytes=2-3")])
    assert answer.status_code == 200


def test_only_get_has_ranges(client):
    answer = client.head("/a.txt", headers={"range": "bytes=0-1"})
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(SIZE))


def test_if_range(client):
    whole = client.head("/a.txt").headers
    etag, modified = whole["etag"], whole["last-modified"]
    for value, status in (
        (etag, 206),
        (f"W/{etag}", 200),
        ('"other"', 200),
        (modified, 206),
        ("Sun, 09 Sep 2001 01:46:41 GMT", 200),
        ("Sun, 09 Sep 2001 01:46:39 GMT", 200),
        ("nonsense", 200),
    ):
        answer = ranged(client, "bytes=0-1", **{"if-range": value})
        assert answer.status_code == status, value
        assert answer.content == (CONTENT[:2] if status == 206 else CONTENT)


def test_conditions_go_before_ranges(client):
    etag = client.head("/a.txt").headers["etag"]
    assert ranged(client, "bytes=0-1", **{"if-none-match": etag}).status_code == 304
    assert ranged(client, "bytes=0-1", **{"if-match": '"x"'}).status_code == 412
    assert ranged(client, "bytes=0-1", **{"if-match": etag}).status_code == 206
    assert ranged(client, "bytes=9999999-", **{"if-none-match": etag}).status_code == 304


def test_a_date_of_this_very_second_does_not_do(serve, file):
    served = serve(portico.StaticFiles(file.parent))
    os.utime(file, (4e9, 4e9))
    modified = served.ask("HEAD", "/a.txt").header("last-modified")
    assert served.get("/a.txt", headers={"range": "bytes=0-1", "if-range": modified}).status == 200


def test_parts_of_an_empty_file(serve, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    served = serve(portico.StaticFiles(tmp_path))
    assert served.get("/a.txt", headers={"range": "bytes=0-"}).status == 416
    answer = served.get("/a.txt", headers={"range": "bytes=-5"})
    assert (answer.status, answer.body) == (200, b"")


def test_curl_gets_parts(served):
    url = f"http://127.0.0.1:{served.clear}/a.txt"
    done = run("curl", "--silent", "--range", "65-70", url)
    assert done.stdout == "ABCDEF"


@pytest.fixture
def odd(serve, file):
    with serve(portico.StaticFiles(file.parent)).httpx() as client:
        yield client


NUMBERS = st.one_of(st.just(""), st.integers(0, SIZE + 10).map(str), st.text("0123456789a+ ", max_size=25))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(specs=st.lists(st.tuples(NUMBERS, NUMBERS).map("-".join), min_size=1, max_size=5))
def test_any_parts(odd, specs):
    answer = ranged(odd, "bytes=" + ",".join(specs))
    assert answer.status_code in (200, 206, 416)
    if answer.status_code == 200:
        assert answer.content == CONTENT
    elif answer.status_code == 206 and "content-range" in answer.headers:
        first, last = map(int, re.fullmatch(r"bytes (\d+)-(\d+)/\d+", answer.headers["content-range"]).groups())
        assert answer.content == CONTENT[first : last + 1]
    elif answer.status_code == 206:
        assert all(body for _, body in parts_of(answer))
