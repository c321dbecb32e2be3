"""The dashboard without a browser: the page, its events, its snapshot."""

import base64
import contextlib
import hashlib
import json
import re
import threading
import time
from pathlib import Path

import pytest

import portico
from apart import Apart
from clients import Wire, request, wait_until

DOCS = Path(__file__).parents[1] / "docs"


@contextlib.contextmanager
def events(port):
    """The events of a dashboard as they come: pairs of a kind and what it holds."""

    def read(lines):
        kind = None
        for line in lines:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, json.loads(value)
            else:
                assert name in ("", "retry"), line

    with Wire(port) as wire:
        assert look(wire) == 200
        for line in iter(wire.file.readline, b"\r\n"):
            assert not line.lower().startswith(b"content-type:") or b"text/event-stream" in line
        yield read(wire.file)


def look(wire):
    """Asks for events; the status of the answer."""
    wire.send(b"GET /events HTTP/1.0\r\n\r\n")
    return int(wire.file.readline().split()[1])


def first(events, kind, wanted=lambda event: True):
    """The first event of a kind that is as wanted."""
    return next(event for known, event in events if known == kind and wanted(event))


def snapshot(admin):
    return request(admin.port, path="/snapshot.json", host="127.0.0.1").json()


@pytest.fixture
def admin(make_server):
    def admin(*handler, **settings):
        server = make_server(*handler, **settings)
        return server.listen(0, tls=False), server.listen_admin(0), server

    return admin


def test_the_page_brings_everything_and_may_do_nothing_else(admin):
    _, admin, _ = admin()
    page = request(admin.port, host="127.0.0.1")
    assert page.status == 200
    assert page.header("content-type") == "text/html; charset=utf-8"
    html = page.text
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    policy = page.header("content-security-policy")
    for kind, text in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "connect-src 'self';" in policy
    assert "unsafe" not in policy
    # Links lead to the same listener, and what is namespaced is not fetched.
    addresses = re.findall(r"""(?:src|href)=["']?([^"'\s>]+)""", html)
    assert {address.partition(":")[0] for address in addresses} == {"data", "#traffic", "metrics", "snapshot.json"}
    # What would make HTML of a string stands nowhere in it.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_every_field_of_a_snapshot_is_documented_and_no_other(admin):
    _, admin, _ = admin()
    documented = re.findall(r"^\| `([^`]+)` \|", (DOCS / "dashboard.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(snapshot(admin))


def test_the_page_knows_the_counters_by_their_names(admin):
    _, admin, _ = admin()
    counters = snapshot(admin)["counters"]
    script = request(admin.port, host="127.0.0.1").text
    (errors,) = re.findall(r"const ERRORS = (.*?);", script, re.DOTALL)
    used = set(re.findall(r"\bcounters\??\.(\w+)", script)) | set(re.findall(r'model\.grown\("(\w+)"', script))
    used |= set(re.findall(r'"([a-z]+_[a-z_]+)"', re.sub(r", \[[^\[\]]*\]\]", "", errors)))
    assert len(used) > 12
    assert used - set(counters) == set()


def test_a_snapshot_says_what_stats_say(serve):
    router = portico.Router()
    router.get("/users/{id}")(lambda request: portico.response(200, "hi"))
    served = serve(router, hosts=("a.test", "b.test"))
    admin = served.server.listen_admin(0)
    for number in range(3):
        assert served.get(f"/users/{number}", host="a.test").status == 200
    assert served.get("/nowhere", host="b.test").status == 404
    told = snapshot(admin)
    stats = served.server.stats()
    assert told["counters"]["requests"] == stats["requests"]
    assert told["counters"]["responses"] == stats["responses"]
    assert told["counters"]["handshakes"] == stats["handshakes"]
    assert {host["name"]: host["not_after"] for host in told["hosts"]} == {
        one["host"]: one["not_after"] for one in stats["certificates"]
    }
    assert told["state"] == "serving"
    assert told["listeners"] == [f"https://127.0.0.1:{served.port}"]
    assert told["handlers_total"] == len(told["handlers"]) == 1
    (handler,) = told["handlers"]
    assert {handler.pop("name"): handler} == stats["handlers"]
    assert handler["runs"] == "threads"
    assert abs(told["time"] - time.time()) < 10
    assert 0 < told["uptime"] < 60
    assert told["process"]["resident_bytes"] > 2**20
    assert told["process"]["cpu_seconds"] > 0


def test_requests_are_told_by_host_and_route(serve):
    router = portico.Router()
    router.get("/users/{id}")(lambda request: portico.response(500 if request.path.endswith("9") else 200, "hi"))
    served = serve(router, hosts=("a.test", "b.test"))
    admin = served.server.listen_admin(0)
    for number in (1, 2, 9):
        served.get(f"/users/{number}", host="a.test")
    served.get("/nowhere", host="b.test")
    # A request is told when its response has been written: its client may know a moment before.
    wait_until(lambda: sum(snapshot(admin)["latency"]["counts"]) == 4, "four requests")
    told = snapshot(admin)
    rows = {(row["host"], row["route"]): row for row in told["routes"]}
    assert set(rows) == {("a.test", "/users/{id}"), ("b.test", None)}
    assert told["routes_total"] == 2
    users = rows["a.test", "/users/{id}"]
    assert (users["requests"], users["failed"], sum(users["counts"])) == (3, 1, 3)
    assert users["seconds"] > 0
    assert len(told["latency"]["bounds"]) + 1 == len(users["counts"])


def test_websockets_do_not_count_as_slow_requests(open_socket, serve):
    served = serve(portico.websocket(lambda ws: list(ws)))
    admin = served.server.listen_admin(0)
    opened = open_socket(served)
    wait_until(lambda: snapshot(admin)["counters"]["websockets_open"] == 1)
    opened.wire.close()
    wait_until(lambda: sum(snapshot(admin)["counters"]["requests_ended"].values()) == 1)
    assert sum(snapshot(admin)["latency"]["counts"]) == 0


def test_an_event_comes_every_second_and_a_line_of_the_log_once(admin):
    def fails(request):
        raise ValueError("no\nsuch thing")

    listener, admin, _ = admin(fails)
    with events(admin.port) as one, events(admin.port) as other:
        before = first(one, "snapshot")
        assert "log" not in before
        began = time.monotonic()
        assert request(listener.port, path="/%0A%0D").status == 500
        for stream in (one, other):
            (line,) = first(stream, "log")
            assert (line["number"], line["level"]) == (1, "error")
            assert "/%0A%0D raised ValueError: no" in line["message"]
            assert "test_dashboard.py:" in line["message"]
        after = first(one, "snapshot", lambda event: event["counters"]["handler_failures"] == 1)
        assert after["counters"]["responses"]["5xx"] == 1
        assert 0.5 < after["uptime"] - before["uptime"] < time.monotonic() - began + 3
        assert first(one, "snapshot")["uptime"] > after["uptime"]
        # The next line is the next number, and nothing is told again.
        assert request(listener.port).status == 500
        assert [line["number"] for line in first(one, "log")] == [2]
    assert [line["number"] for line in snapshot(admin)["log"]] == [1, 2]


def test_callbacks_of_streams_that_raise_are_in_the_log(stream):
    raised = iter([ValueError("no such thing"), portico.ResponseError("no response")])

    def fails(connection):
        raise next(raised)

    served = stream(fails)
    admin = served.server.listen_admin(0)
    for number in (1, 2):
        with served.connect() as wire:
            wire.cut()
        wait_until(lambda number=number: len(snapshot(admin)["log"]) == number)
    one, other = snapshot(admin)["log"]
    assert "fails for " in one["message"]
    assert "raised ValueError: no such thing (" in one["message"]
    assert other["message"].endswith(": no response")


def test_what_peers_do_wrong_is_in_the_log_and_bounded(serve):
    served = serve()
    admin = served.server.listen_admin(0)
    for number in range(120):
        with served.wire() as wire:
            wire.send(b"GET /%d HTTP/1.1\r\n\r\n" % number)
            assert wire.read().status == 400
    with Wire(served.port) as wire:
        wire.send(b"<script>alert(1)</script>\r\n\r\n").cut()
    wait_until(lambda: served.server.stats()["handshakes_failed"]["not_tls"] == 1)
    wait_until(lambda: "handshake" in snapshot(admin)["log"][-1]["message"])
    lines = snapshot(admin)["log"]
    assert len(lines) == 100
    assert lines[-1]["number"] == 121
    assert lines[0]["number"] == 22
    assert "Host" in lines[0]["message"]
    assert lines[0]["level"] == "info"
    assert all(len(line["message"]) <= 501 for line in lines)


def test_events_go_on_while_handlers_are_stuck_and_while_it_drains(admin, gate):
    listener, admin, server = admin(gate, threads=(1, 1))
    with events(admin.port) as stream, Wire(listener.port) as one, Wire(listener.port) as other:
        for wire in (one, other):
            wire.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        gate.wait_for()

        def are_stuck(event):
            counters = event["counters"]
            return counters["pool_queue"]["handlers"] == 1 and counters["requests_in_flight"] == 2

        assert first(stream, "snapshot", are_stuck)["state"] == "serving"
        closing = threading.Thread(target=server.close, args=(50.0,))
        closing.start()
        draining = first(stream, "snapshot", lambda event: event["state"] == "draining")
        assert 30 < draining["drain_seconds_left"] <= 50
        assert draining["listeners"] == []
        gate.opened.set()
        closing.join()
        for _ in stream:  # It ends with the server.
            pass


def test_some_may_look_and_no_more(admin):
    _, admin, _ = admin()
    with contextlib.ExitStack() as stack:
        for _ in range(32):
            first(stack.enter_context(events(admin.port)), "snapshot")
        refused = request(admin.port, path="/events", host="127.0.0.1")
        assert (refused.status, refused.header("retry-after")) == (503, "10")
        assert snapshot(admin)["state"] == "serving"

    def there_is_room():
        with Wire(admin.port) as wire:
            return look(wire) == 200

    wait_until(there_is_room, "a place for one more")


def test_who_has_no_token_sees_none_of_it(make_server):
    server = make_server()
    server.listen(0, tls=False)
    token = "dashboards-are-for-us-alone"
    admin = server.listen_admin(0, token=token)
    for path in ("/", "/events", "/snapshot.json"):
        assert request(admin.port, path=path, host="127.0.0.1").status == 401
        with Wire(admin.port) as wire:
            wire.send(f"GET {path} HTTP/1.0\r\nauthorization: Bearer {token}\r\n\r\n".encode())
            assert b" 200 " in wire.file.readline()


def test_the_tables_have_an_end(make_server):
    router = portico.Router()
    for number in range(60):
        router.add_route("GET", f"/{number}", (lambda number: lambda request: portico.response(200, ""))(number))
    server = make_server(router)
    server.listen(0, tls=False)
    told = snapshot(server.listen_admin(0))
    assert (len(told["handlers"]), told["handlers_total"]) == (50, 60)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_that_look_for_minutes_cost_no_memory():
    with Apart(admin=True) as apart:
        with events(apart.admin) as one, events(apart.admin) as other:

            def go_on(seconds):
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    with apart.wire() as wire:
                        assert wire.get("/").status == 200
                    first(one, "snapshot"), first(other, "snapshot")

            go_on(15)
            before = apart.resident()
            go_on(40)
            grown = apart.resident() - before
        # 80 snapshots of some 4 KB each were made: a quarter of them kept would show.
        assert grown < 72 * 1024, f"{grown} bytes more"
