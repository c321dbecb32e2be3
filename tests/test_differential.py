"""Each odd HTTP/1 request with an ordinary one right behind it, whole and in pieces: either the odd one gets its status and
the connection its end, or both are answered. h11 is asked for a second opinion, and docs/behaviour.md has to say the same."""

import contextlib
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import h11
import pytest

from clients import Wire
from odd_requests import LAST, LIMITS, MARKER, ODD, REFUSED, ROWS, SERVED
from recorder import Recorder

# What portico serves and h11 does not, or not as long, and why.
LAXER = {
    "empty line first": "RFC 9112 section 2.2: a server should ignore one",
    "HTTP/1.0 that stays": "h11 does not know keep-alive in HTTP/1.0 (RFC 9112 appendix C.2.2)",
    "keep-alive in HTTP/1.0 with a body": "the same",
}


@pytest.fixture(scope="module")
def recorder():
    recorder = Recorder(**LIMITS)
    yield recorder
    recorder.close()


def cuts(sent):
    """Ways to send it with its successor: whole, in two at each place where something ends, and in many pieces."""
    wire = (sent + MARKER).encode("latin-1")
    end, head = len(sent), wire.find(b"\r\n\r\n") + 4
    places = {1, end // 4, end // 2, 3 * end // 4, end - 2, end - 1, end, end + 1, len(wire) - 1}
    places |= {wire.find(b"\r\n") + 1, head - 3, head - 1, head, head + 1}
    yield [wire]
    for place in sorted(place for place in places if 0 < place < len(wire)):
        yield [wire[:place], wire[place:]]
    step = max(1, len(wire) // 20)
    yield [wire[at : at + step] for at in range(0, len(wire), step)]


def send(wire, pieces):
    # Where it is refused before the last piece, sending fails.
    with contextlib.suppress(ConnectionError):
        for n, piece in enumerate(pieces):
            if n:
                time.sleep(0.001)  # so that they are likely to be read one by one
            wire.send(piece)


def final(wire, method="GET"):
    """The next response that is no interim one."""
    while (reply := wire.read(method)) and reply.status == 100:
        pass
    return reply


def method_of(sent):
    return sent.lstrip().split(" ")[0]


@pytest.mark.parametrize("name", ODD)
def test_what_follows_is_never_read_from_the_rest_of_an_odd_request(recorder, name):
    sent, expected = ODD[name]
    outcomes = set()
    for pieces in cuts(sent):
        recorder.seen.clear()
        with Wire(recorder.port) as wire:
            send(wire, pieces)
            first = final(wire, method_of(sent))
            if expected == SERVED:
                second = final(wire)
                assert (second.status, second.text) == (200, "hello /marker")
            else:
                assert first.header("connection") == "close"
                assert wire.cut() == b"", "one answer, then the end"
        outcomes.add((first.status, tuple(recorder.seen)))
    assert len(outcomes) == 1, "how it is cut changes what it is"
    status, seen = outcomes.pop()
    if name in REFUSED:
        assert (status, seen) == (expected, ())
        return
    if sent.startswith("OPTIONS *"):
        assert status == 204
        asked = []
    else:
        assert status == 200
        asked = [(method_of(sent), seen[0][1], body_of(sent))]
    assert list(seen) == asked + ([("GET", "/marker", b"")] if expected == SERVED else [])


def body_of(sent):
    """What its body is: what stands behind the head, or what the first chunk holds, for no case has two."""
    head, body = sent.lstrip().split("\r\n\r\n", 1)
    if not body or not re.search(r"^Transfer-Encoding:", head, re.MULTILINE):
        return body.encode("latin-1")
    size, rest = body.split("\r\n", 1)
    return rest[: int(size.split(";")[0], 16)].encode("latin-1")


@pytest.mark.parametrize("name", ODD)
def test_h11_is_no_stricter_and_sees_the_same(recorder, name):
    sent, _ = ODD[name]
    recorder.seen.clear()
    with Wire(recorder.port) as wire:
        send(wire, [(sent + MARKER).encode("latin-1")])
        wire.half_close().cut()
    ours, theirs = recorder.seen, by_h11((sent + MARKER).encode("latin-1"))
    if sent.startswith("OPTIONS *"):
        theirs = theirs[1:]
    if name in LAXER:
        assert theirs == ours[: len(theirs)] != ours
    else:
        assert theirs[: len(ours)] == ours


def by_h11(wire):
    """The requests that h11 finds, up to the first that it refuses."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMITS["max_header_bytes"])
    connection.receive_data(wire)
    connection.receive_data(b"")
    found = []
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return found
        if isinstance(event, h11.Request):
            request, body = event, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            target = request.target.decode("latin-1")
            if not target.startswith(("/", "*")):
                url = urlsplit(target)
                target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            found.append((request.method.decode(), target, body))
            if request.method == b"CONNECT":
                return found
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return found
            connection.start_next_cycle()
        else:
            return found


def test_the_page_tells_of_every_odd_request():
    page = (Path(__file__).parent.parent / "docs" / "behaviour.md").read_text()
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", page.replace("\\|", "\0"), re.MULTILINE))
    for row, odd in ROWS.items():
        assert (told := rows.get(row.replace("\\|", "\0"))), f"docs/behaviour.md has no row {row!r}"
        for name, (_, expected) in odd.items():
            assert expected in (SERVED, LAST) or str(expected) in told, f"{name}: {row!r} does not tell of {expected}"
