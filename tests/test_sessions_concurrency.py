"""Requests of one session at once: none loses what another has written, in one process or several."""

import asyncio
import contextlib
import functools
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import portico
from clients import GENEROUS, wait_until
from portico.sessions import Lock, Sessions
from session_stores import SECRET, act, act_async

THREADS = 8


def counting(clients, method, each):
    """How many requests of the clients, each on a thread of its own, were answered 200, and what else there was."""

    def count(client):
        return [client.request(method, "/count") for _ in range(each)]

    with ThreadPoolExecutor(len(clients)) as pool:
        answers = [answer for answers in pool.map(count, clients) for answer in answers]
    others = [answer for answer in answers if answer.status_code != 200]
    return answers, others


def same_session(served, stack, count, cookie=None):
    """Clients that have one session between them."""
    if cookie is None:
        with served.httpx() as first:
            assert first.get("/count").text == "1"
            cookie = first.cookies["__Host-session"]
    return [stack.enter_context(served.httpx(cookies={"__Host-session": cookie})) for _ in range(count)]


@pytest.mark.parametrize("handler", [act, act_async], ids=["def", "async"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_update_is_lost_among_threads(stores, serve, handler, method):
    served = serve(handler, sessions=stores.sessions(lock_timeout=GENEROUS))
    with contextlib.ExitStack() as stack:
        clients = same_session(served, stack, THREADS)
        answers, others = counting(clients, method, 25)
        assert not others
        numbers = sorted(int(answer.text) for answer in answers)
        assert numbers == list(range(2, 2 + THREADS * 25)), "each saw what the one before it had left"


def test_no_update_is_lost_among_processes(stores, tmp_path):
    if stores.kind == "memory":
        pytest.skip("memory is that of one process")
    program = f"""
import sys, portico
from portico.sessions import Sessions
sys.path.insert(0, {str(__file__.rpartition("/")[0])!r})
from session_stores import act
with portico.Server(act, sessions=Sessions(secret={SECRET!r}, store={stores.url()!r}, lock_timeout=30)) as server:
    print(server.listen(0, tls=False).url, flush=True)
    sys.stdin.read()
"""
    with contextlib.ExitStack() as stack:
        urls = []
        for _ in range(2):
            command = [sys.executable, "-c", program]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.stdin.close)
            urls.append(process.stdout.readline().strip())
        with httpx.Client(base_url=urls[0]) as first:
            assert first.get("/count").text == "1"
            cookies = {"session": first.cookies["session"]}
        clients = [
            stack.enter_context(httpx.Client(base_url=urls[number % 2], cookies=cookies, timeout=GENEROUS))
            for number in range(THREADS)
        ]
        # The second process does not know yet that this path writes.
        first = clients[1].get("/count")
        assert first.text == "2"
        answers, others = counting(clients, "GET", 25)
        assert not others
        assert sorted(int(answer.text) for answer in answers) == list(range(3, 3 + THREADS * 25))


def test_a_get_that_turns_out_to_write_is_503_where_it_would_lose_something(stores, serve):
    """Nobody knows yet that this path writes; the next time it waits."""
    both_have_read, may_write = threading.Barrier(2, timeout=GENEROUS), threading.Event()

    def handler(request):
        if request.path != "/slow":
            return act(request)
        n = request.session.get("n", 0)
        if not may_write.is_set():
            both_have_read.wait()
        request.session["n"] = n + 1
        return {"statusCode": 200, "body": str(n + 1)}

    served = serve(handler, sessions=stores.sessions(lock_timeout=GENEROUS), dispatch="threads")
    with contextlib.ExitStack() as stack:
        one, other = same_session(served, stack, 2)
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda client: client.get("/slow"), [one, other]))
        good, bad = sorted(answers, key=lambda answer: answer.status_code)
        assert (good.status_code, good.text) == (200, "2")
        assert (bad.status_code, bad.headers["retry-after"]) == (503, "1")
        error, _ = served.errors.next(portico.SessionError)
        assert "changed by another request" in str(error)
        may_write.set()
        assert one.get("/slow").text == "3"


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async"])
def test_who_locks_before_reading_waits_from_the_start(stores, serve, is_async):
    together = threading.Barrier(THREADS, timeout=GENEROUS)

    def count(request):
        together.wait()
        request.session.lock()
        return act(request)

    async def count_async(request):
        await request.session.load(lock=True)
        return act(request)

    # Each at a path of its own, of which nobody knows that it writes.
    router = portico.Router()
    router.add_route("GET", "/count", act)
    router.add_route("GET", "/count/{n}", count_async if is_async else count)
    served = serve(router, sessions=stores.sessions(lock_timeout=GENEROUS), dispatch="threads")
    with contextlib.ExitStack() as stack:
        clients = same_session(served, stack, THREADS)
        with ThreadPoolExecutor(THREADS) as pool:
            answers = pool.map(lambda one: one[1].get(f"/count/{one[0]}"), enumerate(clients))
            assert sorted(answer.text for answer in answers) == [str(number) for number in range(2, 2 + THREADS)]


@pytest.mark.parametrize("is_changed", [False, True])
def test_a_lock_after_reading_sees_whether_that_still_holds(stores, serve, is_changed):
    has_read, may_go = threading.Event(), threading.Event()

    def handler(request):
        if request.path != "/slow":
            return act(request)
        n = request.session["n"]
        has_read.set()
        assert may_go.wait(GENEROUS)
        request.session.lock()
        request.session["n"] = n + 10
        return {"statusCode": 200, "body": str(request.session["n"])}

    served = serve(handler, sessions=stores.sessions(), dispatch="threads")
    with contextlib.ExitStack() as stack:
        one, other = same_session(served, stack, 2)
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(one.get, "/slow")
            assert has_read.wait(GENEROUS)
            if is_changed:
                assert other.post("/count").text == "2"
            may_go.set()
            assert slow.result(GENEROUS).status_code == (503 if is_changed else 200)
        assert other.post("/count").text == ("3" if is_changed else "12")


def test_readers_do_not_wait_for_each_other(stores, serve):
    together = threading.Barrier(3, timeout=GENEROUS)

    def handler(request):
        if request.path == "/read":
            name = request.session["n"]
            together.wait()
            return {"statusCode": 200, "body": str(name)}
        return act(request)

    served = serve(handler, sessions=stores.sessions(), dispatch="threads")
    with contextlib.ExitStack() as stack:
        clients = same_session(served, stack, 3)
        with ThreadPoolExecutor(3) as pool:
            assert [a.text for a in pool.map(lambda client: client.get("/read"), clients)] == ["1"] * 3


def test_a_reader_does_not_wait_for_a_writer_and_sees_what_was_kept(stores, serve):
    writing, may_end = threading.Event(), threading.Event()

    def handler(request):
        if request.method == "POST":
            request.session["n"] = 99
            writing.set()
            assert may_end.wait(GENEROUS)
            return {"statusCode": 200}
        return {"statusCode": 200, "body": str(request.session.get("n"))}

    served = serve(handler, sessions=stores.sessions(), dispatch="threads")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(served.httpx())
        may_end.set()
        first.post("/")
        writing.clear()
        may_end.clear()
        cookies = {"__Host-session": first.cookies["__Host-session"]}
        other = stack.enter_context(served.httpx(cookies=cookies))
        with ThreadPoolExecutor(1) as pool:
            posted = pool.submit(first.post, "/")
            assert writing.wait(GENEROUS)
            assert other.get("/").text == "99"
            may_end.set()
            assert posted.result(GENEROUS).status_code == 200


def test_who_waits_too_long_is_answered_503(stores, serve):
    sessions = stores.sessions(lock_timeout=0.2)
    served = serve(act, sessions=sessions)
    with contextlib.ExitStack() as stack:
        (client,) = same_session(served, stack, 1)
        key = only_key(stores, client, sessions)
        assert sessions.store.load(key, stores.clock.now, 120, Lock("somebody", 60))
        began = time.monotonic()
        answer = client.post("/count")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert time.monotonic() - began >= 0.2
        assert client.get("/").status_code == 200, "reading goes on"
        # Whoever had it has died: its lease is over after a minute.
        stores.clock.now += 61
        assert client.post("/count").text == "2"


def only_key(stores, client, sessions):
    from portico.sessions import _signing

    value = client.cookies["__Host-session"]
    session_id, _ = _signing.read_cookie(sessions._cookie_keys, value, "localhost")
    return _signing.store_key(session_id, "localhost")


def test_the_lease_is_longer_than_any_handler_may_take(stores, serve):
    lease = []

    def handler(request):
        lease.append(request.session._visit.lease)
        return {"statusCode": 200}

    served = serve(handler, sessions=stores.sessions(lease=5), handler_timeout=20.0)
    served.get()
    assert lease == [30.0]


def slow_writer():
    """A handler that writes at `/slow`, then says that it has entered and waits until it may go; else `act`."""
    entered, may_go = threading.Event(), threading.Event()

    def handler(request):
        if request.path == "/slow":
            request.session["n"] = -1
            entered.set()
            assert may_go.wait(GENEROUS)
            return {"statusCode": 200}
        return act(request)

    return handler, entered, may_go


def test_one_whose_lease_ended_loses_to_the_other(stores, serve):
    handler, entered, may_go = slow_writer()
    served = serve(handler, sessions=stores.sessions(lock_timeout=GENEROUS), dispatch="threads")
    with contextlib.ExitStack() as stack:
        one, other = same_session(served, stack, 2)
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(one.get, "/slow")
            assert entered.wait(GENEROUS)
            stores.clock.now += 61
            assert other.post("/count").text == "2"
            may_go.set()
            assert slow.result(GENEROUS).status_code == 503
        assert other.post("/count").text == "3"


def test_an_end_is_not_undone_by_a_request_that_was_under_way(stores, serve):
    handler, entered, may_go = slow_writer()
    served = serve(handler, sessions=stores.sessions(lock_timeout=0.2), dispatch="threads")
    with contextlib.ExitStack() as stack:
        one, other, third = same_session(served, stack, 3)
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(one.get, "/slow")
            assert entered.wait(GENEROUS)
            assert other.post("/end").status_code == 200
            may_go.set()
            assert slow.result(GENEROUS).status_code == 503
        assert third.get("/").text == "({}, None)"


def test_many_that_wait_for_one_session_are_bounded(serve):
    entered, may_go = threading.Semaphore(0), threading.Event()
    sessions = Sessions(secret=SECRET, lock_timeout=GENEROUS)

    def handler(request):
        if request.path == "/slow":
            request.session.lock()
            entered.release()
            assert may_go.wait(GENEROUS)
            return {"statusCode": 200}
        return act(request)

    served = serve(handler, sessions=sessions, dispatch="threads", threads=(1, 60))
    with contextlib.ExitStack() as stack:
        clients = same_session(served, stack, 40)
        with ThreadPoolExecutor(40) as pool:
            slow = pool.submit(clients[0].get, "/slow")
            assert entered.acquire(timeout=GENEROUS)
            waiting = [pool.submit(client.post, "/count") for client in clients[1:]]
            wait_until(lambda: sum(one.done() for one in waiting) == 7, "those that are too many")
            may_go.set()
            statuses = sorted(one.result(GENEROUS).status_code for one in waiting)
        assert statuses == [200] * 32 + [503] * 7
        assert slow.result().status_code == 200
        assert clients[0].get("/count").text == "34"


def test_waiting_for_a_session_does_not_hold_up_the_event_loop(stores, serve):
    async def handler(request):
        if request.path == "/other":
            return {"statusCode": 200, "body": "here"}
        if request.path == "/hold":
            await request.session.load(lock=True)
            entered.set()
            await asyncio.to_thread(may_go.wait, GENEROUS)
            return {"statusCode": 200}
        return await act_async(request)

    entered, may_go = threading.Event(), threading.Event()
    served = serve(handler, sessions=stores.sessions(lock_timeout=GENEROUS))
    with contextlib.ExitStack() as stack:
        one, two, three = same_session(served, stack, 3)
        with ThreadPoolExecutor(2) as pool:
            hold = pool.submit(one.get, "/hold")
            assert entered.wait(GENEROUS)
            waits = pool.submit(two.post, "/count")
            assert [three.get("/other").text for _ in range(20)] == ["here"] * 20
            assert not waits.done()
            may_go.set()
            assert (hold.result(GENEROUS).status_code, waits.result(GENEROUS).text) == (200, "2")


def main_of_workers(worker, sessions):
    with portico.Server(act, sessions=sessions) as server:
        worker.listen(server)
        server.serve_forever()


def test_workers_share_a_file(tmp_path):
    sessions = {"secret": SECRET, "store": f"sqlite:{tmp_path / 's.db'}", "lock_timeout": GENEROUS}
    main = functools.partial(main_of_workers, sessions=sessions)
    with portico.Workers(main, workers=2, listen={"port": 0, "tls": False}) as workers:
        (url,) = workers.urls
        answers, cookies = [], {}
        for _ in range(30):
            # A connection each, so that both workers have some.
            with httpx.Client(base_url=url, cookies=cookies) as client:
                answers.append(client.post("/count").text)
                cookies = {"session": client.cookies["session"]}
    assert answers == [str(number) for number in range(1, 31)]


@pytest.mark.parametrize("given", ["nothing", "memory"])
def test_processes_that_share_nothing_are_warned_of(given, caplog):
    sessions = None if given == "nothing" else Sessions(secret=SECRET)
    with portico.Server(act, sessions=sessions) as server:
        server._serves_with_others()
        url = server.listen(0, tls=False).url
        with httpx.Client(base_url=url) as client:
            assert client.get("/count").text == "1"
    assert caplog.text.count("one of several processes") == 1
