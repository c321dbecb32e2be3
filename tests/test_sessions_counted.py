"""What becomes of sessions, in `stats()` and `/metrics`."""

import contextlib
import threading

import pytest

import portico
from clients import GENEROUS
from portico.sessions import MemoryStore, Sessions
from session_stores import SECRET, Clock, act
from test_metrics import OPENMETRICS, Page


def counted(server):
    """What there is of it, without what is 0."""
    stats = server.stats()
    names = ("sessions_in_memory", "sessions_made", "sessions_ended", "sessions_rejected", "session_failures")
    found = {}
    for name in names:
        value = stats[name]
        parts = {f"{name} {label}": number for label, number in value.items()} if isinstance(value, dict) else {}
        found |= parts or {name: value}
    return {name: number for name, number in found.items() if number}


@pytest.fixture
def served(stores, serve):
    return serve(act, sessions=stores.sessions(lock_timeout=0.2))


def ask(client, *paths):
    for path in paths:
        assert client.get(path).status_code == 200


def test_those_that_are_made_and_ended(stores, served):
    with served.httpx() as client, served.httpx() as other:
        ask(client, "/")
        assert counted(served.server) == {}, "whoever only looks has none"
        ask(client, "/set/a/1", "/set/a/2", "/renew")
        ask(other, "/set/a/1")
        in_memory = {"sessions_in_memory": 2} if stores.kind == "memory" else {}
        assert counted(served.server) == {"sessions_made": 2, **in_memory}
        ask(client, "/end", "/end", "/set/a/1", "/end-and-set/a/2")
        assert counted(served.server) == {"sessions_made": 4, "sessions_ended handler": 2, **in_memory}


def with_cookie(served, value):
    return served.httpx(cookies={"__Host-session": value})


def test_what_was_not_signed_here(stores, served):
    with served.httpx() as client:
        ask(client, "/set/a/1")
        (cookie,) = client.cookies.values()
    with with_cookie(served, cookie[:-4] + "AAAA") as client:
        ask(client, "/")
    # The keys of cookies and of records are derived apart.
    served.server._session_store._record_keys = Sessions(secret="another line of thirty-two bytes or more")._record_keys
    with with_cookie(served, cookie) as client:
        ask(client, "/")
    rejected = {name: number for name, number in counted(served.server).items() if "rejected" in name}
    assert rejected == {"sessions_rejected cookie": 1, "sessions_rejected record": 1}


def test_those_that_were_not_used_in_time(stores, served):
    with served.httpx() as client:
        ask(client, "/set/a/1")
        stores.clock.now += 1000
        ask(client, "/")
        # A file is cleared with every 64th change.
        ask(client, *["/count"] * 64)
    seen = counted(served.server)
    # Redis ends them by itself, and tells nobody.
    assert (seen["sessions_made"], seen.get("sessions_ended expired", 0)) == (2, 0 if stores.kind == "redis" else 1)


def test_memory_is_cleared_of_those_of_others_too(serve):
    sessions, clock = Sessions(secret=SECRET), Clock()
    sessions._clock = clock
    served = serve(act, sessions=sessions)
    for _ in range(3):
        with served.httpx() as client:
            ask(client, "/set/a/1")
    clock.now += 100
    with served.httpx() as client:
        ask(client, "/set/a/1")
        assert served.server.stats()["sessions_in_memory"] == 4
        clock.now += 100
        ask(client, "/")
    assert counted(served.server) == {"sessions_in_memory": 1, "sessions_made": 4, "sessions_ended expired": 3}


def test_those_that_have_to_make_room(serve):
    served = serve(act, sessions=Sessions(secret=SECRET, store=MemoryStore(max_sessions=2)))
    for _ in range(5):
        with served.httpx() as client:
            ask(client, "/set/a/1")
    assert counted(served.server) == {"sessions_in_memory": 2, "sessions_made": 5, "sessions_ended evicted": 3}


def test_one_that_two_requests_end_has_ended_once(stores, serve):
    entered, go_on = threading.Event(), threading.Event()

    def handler(request):
        if request.path == "/slow":
            request.session.get("a")
            entered.set()
            assert go_on.wait(GENEROUS)
            request.session.end()
            return {"statusCode": 200}
        return act(request)

    served = serve(handler, sessions=stores.sessions(), dispatch="threads")
    with served.httpx() as client:
        ask(client, "/set/a/1")
        with with_cookie(served, client.cookies["__Host-session"]) as other:
            answers = []
            thread = threading.Thread(target=lambda: answers.append(client.get("/slow").status_code))
            thread.start()
            assert entered.wait(GENEROUS)
            ask(other, "/end")
            go_on.set()
            thread.join(GENEROUS)
    assert answers == [200]
    assert counted(served.server) == {"sessions_made": 1, "sessions_ended handler": 1}


def test_one_that_ends_while_it_is_changed_is_in_memory_no_more(serve):
    sessions, clock = Sessions(secret=SECRET), Clock()
    sessions._clock = clock

    def handler(request):
        if request.path == "/late":
            request.session["a"] = request.session["a"] + "2"
            clock.now += 1000
            return {"statusCode": 200}
        return act(request)

    served = serve(handler, sessions=sessions)
    with served.httpx() as client:
        ask(client, "/set/a/1")
        assert client.get("/late").status_code == 503
    seen = counted(served.server)
    assert seen.pop("session_failures conflict") == 1
    assert seen == {"sessions_made": 1, "sessions_ended expired": 1}


def test_requests_in_each_others_way(stores, serve):
    entered, go_on = threading.Semaphore(0), threading.Event()

    def handler(request):
        if request.path == "/slow":
            request.session.get("n")
            entered.release()
            assert go_on.wait(GENEROUS)
            request.session["n"] = 1
            return {"statusCode": 200}
        return act(request)

    served = serve(handler, sessions=stores.sessions(lock_timeout=0.2), dispatch="threads")
    with served.httpx() as client, contextlib.ExitStack() as stack:
        ask(client, "/set/a/1")
        other, answers = stack.enter_context(with_cookie(served, client.cookies["__Host-session"])), []
        # Has read, and writes when another one has written: a conflict. Then its path has it alone: others are kept waiting.
        for _ in range(2):
            thread = threading.Thread(target=lambda: answers.append(client.get("/slow").status_code))
            thread.start()
            assert entered.acquire(timeout=GENEROUS)
            answers.append(other.post("/set/a/2").status_code)
            go_on.set()
            thread.join(GENEROUS)
            go_on.clear()
    assert answers == [200, 503, 503, 200]
    failures = {name: number for name, number in counted(served.server).items() if "failures" in name}
    assert failures == {"session_failures conflict": 1, "session_failures busy": 1}


class Absent(MemoryStore):
    """Out of reach, when told so."""

    fails = False

    def load(self, *arguments):
        if self.fails:
            raise portico.SessionError("out of reach")
        return super().load(*arguments)

    def commit(self, *arguments):
        if self.fails:
            raise portico.SessionError("out of reach")
        return super().commit(*arguments)


def test_a_store_that_is_out_of_reach(serve):
    store = Absent()
    served = serve(act, sessions=Sessions(secret=SECRET, store=store))
    with served.httpx() as client, served.httpx() as other:
        ask(client, "/set/a/1")
        store.fails = True
        assert client.get("/").status_code == 503
        assert other.get("/set/a/1").status_code == 503
        assert counted(served.server)["session_failures store"] == 2
        store.fails = False
        ask(client, "/")
    assert counted(served.server) == {"sessions_in_memory": 1, "sessions_made": 1, "session_failures store": 2}


def test_the_sessions_that_come_by_themselves(serve):
    served = serve(act)
    with served.httpx() as client:
        ask(client, "/set/a/1")
    assert counted(served.server) == {"sessions_in_memory": 1, "sessions_made": 1}


def test_servers_that_share_their_sessions_say_the_same(serve):
    with Sessions(secret=SECRET) as sessions:
        one, two = serve(act, sessions=sessions), serve(act, sessions=sessions)
        for served in (one, two):
            with served.httpx() as client:
                ask(client, "/set/a/1")
        assert counted(one.server) == counted(two.server) == {"sessions_in_memory": 2, "sessions_made": 2}


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
def test_prometheus_reads_them(serve, accept):
    served = serve(act)
    with served.httpx() as client:
        ask(client, "/set/a/1", "/end", "/set/a/1")
    page = Page(served.server.listen_admin(0), accept)
    assert page.value("portico_sessions_in_memory") == 1
    assert page.value("portico_sessions_made_total") == 2
    assert page.value("portico_sessions_ended_total", reason="handler") == 1
    assert page.value("portico_sessions_rejected_total", reason="cookie") == 0
    assert page.value("portico_session_failures_total", reason="conflict") == 0


def test_a_word_that_is_not_known_is_an_error():
    counts = portico._core.SessionCounts()
    for count in (counts.ended, counts.rejected, counts.failed):
        with pytest.raises(ValueError, match='nothing is counted as "whatever"'):
            count("whatever")
