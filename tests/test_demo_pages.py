"""The server pages of `portico demo`, `pages.localhost`: cart, ways out, sources, clock, chat, files."""

from __future__ import annotations

import html
import json
import re
import socket
import time
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

import portico.demo
from clients import GENEROUS, Wire, trusting
from demos import Demo, DemoWithoutPages
from portico.demo.highlight import highlight
from portico.demo.live import MAX_LINE
from portico.demo.templates import Markup
from secure_websocket import connect

pytest.importorskip("pydantic_monty", reason="pydantic-monty is not installed")

HOST = "pages.localhost"
SOURCES = {path.name: path.read_text() for path in (Path(portico.demo.__file__).parent / "pages").glob("*.psp")}
SHOWN = ["/", "/shop.psp", "/cart.psp", "/breakout.psp", "/clock.psp", "/chat.psp", "/files.psp"]


@pytest.fixture
def visitor(demo):
    return demo.visitor()


def text(markup):
    return html.unescape(re.sub(r"<[^>]*>", "", markup))


# ---- pages


@pytest.mark.parametrize("path", SHOWN)
def test_a_page_has_the_frame_of_the_demo_and_its_source_beside_it(visitor, path):
    page = visitor.get(path)
    assert (page.status, page.header("content-type")) == (200, "text/html; charset=utf-8")
    policy = page.header("content-security-policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.header("cache-control") == "no-store"
    assert not re.search(r"<[^>]* (?:style|on\w+)=", page.text), "the policy would keep these from working"
    assert "Answered by <b>pages.localhost</b>" in page.text
    assert page.text.count(' aria-current="page"') == 2
    shown = dict(
        re.findall(r"<summary><code>(.*?)</code></summary>\s*<pre[^>]*><code>(.*?)</code></pre>", page.text, re.S)
    )
    name = path[1:] or "index.psp"
    assert set(shown) >= {name, "_site.psp"}
    for name, markup in shown.items():
        assert text(markup) == SOURCES[name]


def test_pages_count_visits_by_visitor(demo, visitor):
    seen = [re.search(r'id="visits">(\d+)', visitor.get("/").text)[1] for _ in range(3)]
    assert seen == ["1", "2", "3"]
    assert 'id="visits">1<' in demo.visitor().get("/").text


@pytest.mark.parametrize(
    "path", ["/_site.psp", "/_cart.psp", "/nothing.psp", "/lobby.py", "/pages.js/", "/%2e%2e/lobby.py"]
)
def test_parts_of_pages_and_other_files_are_not_found(visitor, path):
    reply = visitor.get(path)
    assert reply.status == 404
    assert "style.css" in reply.text


def test_who_wants_no_html_is_told_of_the_pages(demo):
    answer = demo.ask(HOST).text
    assert answer.startswith("pages.localhost: pages of the portico demo\n")
    assert "\n  /breakout.psp\n" in answer


# ---- the cart


def test_cart_is_kept_from_page_to_page_and_for_each_visitor(demo, visitor):
    assert 'id="empty"' in visitor.get("/cart.psp").text
    for slug in ("lantern", "lantern", "pediment", "pediment", "key", "elephant"):
        reply = visitor.post("/cart.psp", {"slug": slug, "do": "more"})
        assert (reply.status, reply.header("location")) == (303, "/cart.psp")
    # Of pediments there is one, of keys none.
    assert '<b id="count">3</b> things' in visitor.get("/shop.psp").text
    assert 'id="total">€ 4,068.00<' in visitor.get("/cart.psp").text
    assert '<b id="count">0</b> things' in demo.visitor().get("/shop.psp").text
    visitor.post("/cart.psp", {"slug": "pediment", "do": "less"})
    assert 'id="total">€ 178.00<' in visitor.get("/cart.psp").text
    visitor.post("/cart.psp", {"do": "empty"})
    assert 'id="empty"' in visitor.get("/cart.psp").text


def test_forms_of_other_sites_and_other_methods_are_refused(demo, visitor):
    assert visitor.post("/cart.psp", {"slug": "mat", "do": "more"}, **{"sec-fetch-site": "cross-site"}).status == 403
    assert visitor.post("/breakout.psp", {"code": "1"}, **{"sec-fetch-site": "same-site"}).status == 403
    assert 'id="empty"' in visitor.get("/cart.psp").text
    refused = visitor.post("/shop.psp", {})
    assert (refused.status, refused.header("allow")) == (405, "GET, HEAD")
    assert demo.ask(HOST, "/cart.psp", "DELETE").header("allow") == "GET, HEAD, POST"


# ---- ways out


def test_every_way_out_fails_and_is_shown_as_it_was_written(visitor):
    page = visitor.get("/breakout.psp").text
    ways = re.findall(r'<b>(.*?)</b>\s*<code>(.*?)</code>\s*<span class="(\w+)">(.*?)</span>', page)
    assert len(ways) == 16
    assert {kind for _, _, kind, _ in ways} == {"held"}
    assert '<b id="held">16</b> of 16 failed' in page
    got = {name: (html.unescape(code), html.unescape(error)) for name, code, _, error in ways}
    assert got["Read a file"] == (
        'return open("/etc/passwd").read()',
        "PermissionError: Permission denied: '/etc/passwd'",
    )
    assert got["Open a socket"] == ("import socket", "ModuleNotFoundError: No module named 'socket'")
    assert got["Recurse for ever"][1].startswith("RecursionError: ")
    assert not Path("/tmp/portico-was-here").exists()
    assert "root:" not in text(page)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("print(6 * 7)", "42"),
        ("for i in range(3):\r\n    print(i)", "0\n1\n2"),
        ("print('<script>alert(1)</script>')", "<script>alert(1)</script>"),
        ("x = 1", "It ran, and printed nothing."),
        ("import socket", "ModuleNotFoundError: No module named 'socket'"),
        ("open('/etc/passwd')", "PermissionError: Permission denied: '/etc/passwd'"),
        ("exit(302, 'https://elsewhere.test/')", "NameError: name 'exit' is not defined"),
        ("1 +", "SyntaxError: "),
    ],
)
def test_ways_of_ones_own(visitor, code, outcome):
    page = visitor.post("/breakout.psp", {"code": code})
    assert page.status == 200
    assert "<script>alert" not in page.text
    said = html.unescape(re.search(r'<pre id="outcome">(.*?)</pre>', page.text, re.S)[1])
    assert said.startswith(outcome) if outcome.endswith(" ") else said == outcome


@pytest.mark.parametrize(
    ("path", "words"), [("/spin.psp", "0.5 seconds"), ("/hoard.psp", "memory"), ("/flood.psp", "printed")]
)
def test_pages_that_take_too_much_are_stopped_and_the_cart_is_as_it_was(visitor, path, words):
    visitor.post("/cart.psp", {"slug": "mat", "do": "more"})
    plain = visitor.get(path, accept="text/plain")
    assert plain.status == 500
    assert words in plain.text
    page = visitor.get(path)
    assert (page.status, "style.css" in page.text) == (500, True)
    assert 'id="total">€ 29.00<' in visitor.get("/cart.psp").text


# ---- the clock, the chat


def test_clock_ticks_by_the_second(demo):
    with Wire(demo.port, context=demo.context, sni=HOST) as wire:
        wire.send(f"GET /clock HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
        ticks = []
        while len(ticks) < 3:
            line = wire.file.readline()
            if line.startswith(b"data: "):
                ticks.append(json.loads(line[6:]))
            elif line.lower().startswith(b"content-type"):
                assert line.split()[1] == b"text/event-stream"
    assert abs(ticks[0]["now"] - time.time()) < 60
    seconds = [int(tick["now"]) for tick in ticks]
    assert seconds == sorted(set(seconds))
    assert ticks[0]["watchers"] >= 1


def guest(demo, origin=None):
    url, context = f"wss://{HOST}:{demo.port}/chat", trusting(demo.ca.read_bytes())
    sock = socket.create_connection(("127.0.0.1", demo.port), GENEROUS)
    return connect(url, sock=sock, ssl=context, server_hostname=HOST, origin=origin, proxy=None)


def heard(ws, key):
    """The next line that tells of `key`."""
    while True:
        line = json.loads(ws.recv(GENEROUS))
        if key in line:
            return line


def test_what_one_guest_says_all_hear(demo):
    with guest(demo, f"https://{HOST}:{demo.port}") as ada:
        me = heard(ada, "you")["you"]
        with guest(demo) as eve:
            other = heard(eve, "you")["you"]
            ada.send("  <b>hello</b>\n there ")
            for ws in (ada, eve):
                line = heard(ws, "says")
                assert (line["who"], line["says"]) == (me, "<b>hello</b> there")
            eve.send(" \n ")
            eve.send(b"bytes are no line")
            eve.send("é" * MAX_LINE + "more")
            assert heard(ada, "says")["says"] == "é" * MAX_LINE
        while (line := heard(ada, "does")) and line["does"] != "left":
            pass
        assert line == {"who": other, "does": "left", "here": line["here"]}
        with guest(demo) as late:
            assert heard(late, "says")["says"] == "<b>hello</b> there", "the newest lines are kept"


def test_chat_is_for_its_own_pages(demo):
    for origin in ("https://elsewhere.test", f"https://a.localhost:{demo.port}", "null"):
        with pytest.raises(InvalidStatus) as refused:
            guest(demo, origin)
        assert refused.value.response.status_code == 403
    assert demo.ask(HOST, "/chat").status == 426


# ---- files


def test_files_are_listed_and_the_video_comes_in_ranges(demo):
    listing = demo.browse(HOST, "/files/").text
    for name in ("orders.txt", "portico.webm", "temple.svg"):
        assert f'href="{name}"' in listing or f'href="./{name}"' in listing
    whole = demo.ask(HOST, "/files/portico.webm")
    assert whole.header("content-type") == "video/webm"
    assert len(whole.body) < 200_000
    part = demo.ask(HOST, "/files/portico.webm", headers={"range": "bytes=-1000"})
    assert (part.status, part.body) == (206, whole.body[-1000:])
    assert demo.ask(HOST, "/files/../lobby.py").status == 404


# ---- around it


def test_demo_ends_at_once_with_a_clock_and_a_chat_open(tmp_path):
    demo = Demo(tmp_path, "--port", "0")
    try:
        with Wire(demo.port, context=demo.context, sni=HOST) as wire, guest(demo) as ws:
            wire.send(f"GET /clock HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
            assert heard(ws, "you")
            while not wire.file.readline().startswith(b"data"):
                pass
            started = time.monotonic()
            assert demo.signal().end() == 0
            assert time.monotonic() - started < 10
    finally:
        demo.close()


def test_without_the_interpreter_everything_else_works_and_says_what_is_missing(tmp_path):
    demo = DemoWithoutPages(tmp_path, "--port", "0")
    try:
        for path in SHOWN:
            page = demo.browse(HOST, path)
            assert page.status == 501
            assert "pip install &#x27;portico[pages]&#x27;" in page.text
            assert "style.css" in page.text
        assert "pip install 'portico[pages]'" in demo.ask(HOST).text
        assert demo.ask(HOST, "/files/orders.txt").status == 200
        assert demo.browse("a.localhost").status == 200
        assert demo.signal().end() == 0
    finally:
        demo.close()


@pytest.mark.parametrize(
    "source",
    [
        *SOURCES.values(),
        "<%= '%>",
        "<%%= no %%> <%# a < b %> <% x -%>\n<%-y%>",
        "<a href=\"<%= '&' %>\">",
        '<% """<b>',
        "",
    ],
)
def test_highlighted_source_reads_as_it_was(source):
    marked = highlight(source)
    assert isinstance(marked, Markup)
    assert text(marked) == source
    assert set(re.findall(r"<(\w+)", marked)) <= {"span"}
