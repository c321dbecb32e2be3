"""Pages keep their visitors in `request.session`: beside other handlers, in every store, in several processes, and where
something fails."""

import contextlib
import datetime
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pydantic_monty
import pytest

import portico
from clients import GENEROUS, wait_until
from page_sites import Site
from portico.pages import _engine
from portico.sessions import Sessions
from session_stores import SECRET, redis_server

COUNT = "<% n = n + 1 if 'n' in session else 1\nsession['n'] = n %><%= n %>"
SOAK = Path(__file__).parents[1] / "loadtest" / "pages_soak.py"


@pytest.fixture
def make_site(tmp_path, serve):
    with contextlib.ExitStack() as stack:

        def make_site(**options):
            return stack.enter_context(contextlib.closing(Site(tmp_path / "site", serve, **options)))

        yield make_site


@pytest.fixture
def site(make_site, stores):
    return make_site(sessions=stores.sessions(lock_timeout=GENEROUS))


def status_and_text(reply):
    return reply.status_code, reply.text


def test_pages_may_say_for_how_long_a_session_is_idle(tmp_path, serve):
    (tmp_path / "n.psp").write_text(COUNT)
    with contextlib.closing(portico.Pages(tmp_path, timeout=2)) as pages, serve(pages).httpx() as client:
        assert [client.get("/n.psp").text for _ in range(2)] == ["1", "2"]
        time.sleep(2.5)
        assert client.get("/n.psp").text == "1"
    with pytest.raises(portico.ConfigError, match="timeout: a positive number"):
        portico.Pages(tmp_path, timeout=0)


# ---- one session for pages and handlers


def test_pages_and_handlers_have_one_session(tmp_path, serve, stores):
    def visit(request):
        request.session["by"] = [*request.session.get("by", []), "handler"]
        return {"statusCode": 200, "body": repr(sorted(request.session.items()))}

    (tmp_path / "page.psp").write_text("<% session['by'].append('page')\nsession['n'] = 1 %><%= session['by'] %>")
    pages = portico.Pages(tmp_path)
    router = portico.Router()
    router.get("/handler")(visit)
    router.mount("/pages", pages)
    with contextlib.closing(pages), serve(router, sessions=stores.sessions()).httpx() as client:
        assert client.get("/handler").text == "[('by', ['handler'])]"
        assert client.get("/pages/page.psp").text == "[&#39;handler&#39;, &#39;page&#39;]"
        assert client.get("/handler").text == "[('by', ['handler', 'page', 'handler']), ('n', 1)]"


def test_a_page_that_has_not_looked_at_the_session_leaves_it(site):
    client = site.write("set.psp", "<% session['n'] = 1 %>").write("other.psp", "<% m = 2 %>").client()
    client.get("/set.psp")
    client.get("/other.psp")
    site.write("show.psp", "<%= session %> <%= m %>")
    assert client.get("/show.psp").text == "{&#39;n&#39;: 1} 2"


def test_variables_functions_and_values_are_in_the_store(site):
    site.write("page.psp", "<% def f(x): return x + n\nn = 1\nsession['s'] = [1, {'a': None}] %>")
    site.write("show.psp", "<%= f(1) %> <%= session['s'] %>")
    client = site.client()
    client.get("/page.psp")
    # Other processes that run pages know nothing of it.
    site.pages.close()
    assert client.get("/show.psp").text == "2 [1, {&#39;a&#39;: None}]"


class Bag:
    def __init__(self, values):
        self._values = values

    def add(self, item):
        self._values.setdefault("items", []).append(item)

    def items(self):
        return self._values.get("items", [])


@pytest.mark.parametrize("debug", [False, True])
def test_a_page_that_fails_writes_nothing(make_site, stores, debug):
    site = make_site(session=Bag, debug=debug, sessions=stores.sessions())
    site.write("add.psp", "<% n = 1\nsession.add(1) %>").write("show.psp", "<%= n %> <%= session.items() %>")
    site.write("fail.psp", "<% n = 2\nsession.add(2)\n1/0 %>").write(
        "exit.psp", "<% n = 2\nsession.add(2)\nexit('x') %>"
    )
    client = site.client()
    client.get("/add.psp")
    for path in ("/fail.psp", "/exit.psp"):
        assert client.get(path).status_code == 500
        assert client.get("/show.psp").text == "1 [1]"


@pytest.mark.parametrize("wrong", ["1/0", "exit('x')", "session.add({1})"])
def test_nothing_is_written_where_somebody_answers_for_a_page_that_failed(tmp_path, serve, wrong):
    """The server does not see that it failed, and keeps the session."""
    (tmp_path / "add.psp").write_text("<% session.add(1) %>")
    (tmp_path / "fail.psp").write_text(f"<% session.add(2)\n{wrong} %>")
    (tmp_path / "show.psp").write_text("<%= session.items() %>")
    pages = portico.Pages(tmp_path, session=Bag)

    def handler(request):
        try:
            return pages(request)
        except portico.PageError:
            return {"statusCode": 200, "body": "never mind"}

    with contextlib.closing(pages), serve(handler).httpx() as client:
        client.get("/add.psp")
        assert client.get("/fail.psp").text == "never mind"
        assert client.get("/show.psp").text == "[1]"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("session['x'] = b'bytes'", "session['x']: a session holds None, bool"),
        ("session['x'] = {1, 2}", "not set"),
        ("session['x'] = [(1, 2)]", "session['x'][0]: a session holds"),
        ("session['x'] = {1: 2}", "keys of a dict in a session are str"),
        ("session[1] = 2", "keys of a dict in a session are str"),
        ("session['x'] = float('nan')", "is no number that JSON has"),
        ("session['x'] = 2 ** 5000", "a number of more than 4096 bits"),
        ("x = []\nfor i in range(80): x = [x]\nsession['x'] = x", "lists and dicts in each other"),
        ("session = 5", "it stays a dict, and is a int now"),
    ],
)
def test_pages_may_keep_what_sessions_may_hold(make_site, code, message):
    site = make_site()
    client = site.write("page.psp", "<% session['n'] = 1 %>").client()
    client.get("/page.psp")
    site.write("wrong.psp", f"<% {code} %>").write("show.psp", "<%= session %>")
    assert client.get("/wrong.psp").status_code == 500
    assert message in str(site.failure())
    assert client.get("/show.psp").text == "{&#39;n&#39;: 1}"


def test_objects_of_the_session_class_keep_what_sessions_may_hold(make_site):
    class Diary:
        def __init__(self, values):
            self._values = values

        def write(self):
            self._values["day"] = datetime.date(2026, 1, 1)

    site = make_site(session=Diary)
    assert site.get("<% session.write() %>").status_code == 500
    assert "not date" in str(site.failure())


def test_after_an_upgrade_of_the_interpreter_visitors_begin_anew_and_keep_their_values(make_site, stores, monkeypatch):
    """Stores outlive versions, of which one cannot load the dumps of another."""
    site = make_site(sessions=stores.sessions())
    client = site.write("page.psp", "<% n = session['n'] = 1 %>").client()
    client.get("/page.psp")
    monkeypatch.setattr(site.pages, "_engine", _engine.Engine(portico.PageLimits(), 1))
    try:
        site.write("show.psp", "<%= session['n'] %> <% try: %><%= n %><% except NameError: %>new<% end %>")
        assert client.get("/show.psp").text == "1 1"
        site.pages._engine._key = site.pages._engine._key.replace(pydantic_monty.__version__, "1.999.0")
        site.pages._engine._fresh = None
        assert client.get("/show.psp").text == "1 new"
    finally:
        site.pages.close()


@pytest.mark.parametrize("end", ["", "exit()"])
@pytest.mark.parametrize("levels", [18, 40])
def test_a_small_value_that_is_large_outside_of_the_interpreter_stays_there(make_site, levels, end):
    site = make_site()
    client = site.write("page.psp", "<% session['n'] = 1 %>").write("show.psp", "<%= session %>").client()
    client.get("/page.psp")
    site.write("wrong.psp", f"<% x = []\nfor i in range({levels}): x = [x, x]\nsession['x'] = x\n{end} %>")
    assert client.get("/wrong.psp").status_code == 500
    assert site.failure().reason in ("state", "memory", "time")
    assert client.get("/show.psp").text == "{&#39;n&#39;: 1}"


# ---- one at a time


def test_no_update_of_pages_at_once_is_lost(site):
    client = site.write("page.psp", COUNT).client()
    assert client.get("/page.psp").text == "1"
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: client.get("/page.psp"), range(60)))
    assert [reply.status_code for reply in told] == [200] * 60
    assert sorted(int(reply.text) for reply in told) == list(range(2, 62))


def test_a_visitor_who_waits_too_long_is_told_to_come_again(make_site, stores):
    entered, opened = threading.Semaphore(0), threading.Event()

    def wait():
        entered.release()
        assert opened.wait(GENEROUS)

    site = make_site(functions={"wait": wait}, workers=2, sessions=stores.sessions(lock_timeout=0.1))
    client = site.write("page.psp", COUNT).write("wait.psp", COUNT + "<% wait() %>").client()
    client.get("/page.psp")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.get, "/wait.psp")
        assert entered.acquire(timeout=GENEROUS)
        reply = client.get("/page.psp")
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert site.client().get("/page.psp").text == "1", "others are served meanwhile"
        opened.set()
        assert first.result(GENEROUS).text == "2"
    assert client.get("/page.psp").text == "3"


def test_where_no_worker_is_free_it_is_a_503(make_site, monkeypatch):
    monkeypatch.setattr(_engine, "_FREE_WITHIN", 0.2)
    entered, opened = threading.Semaphore(0), threading.Event()

    def wait():
        entered.release()
        assert opened.wait(GENEROUS)

    site = make_site(functions={"wait": wait}, workers=1, debug=True)
    site.write("page.psp", COUNT).write("wait.psp", "<% wait() %>through")
    client = site.client()
    assert client.get("/page.psp").text == "1"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(site.client().get, "/wait.psp")
        assert entered.acquire(timeout=GENEROUS)
        reply = client.get("/page.psp")
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert "Pages" not in reply.text
        error = site.failure()
        assert (error.reason, error.status) == ("busy", 503)
        assert "give `Pages` more `workers`" in str(error)
        opened.set()
        assert first.result(GENEROUS).text == "through"
    assert client.get("/page.psp").text == "2", "it was as it had been"


def leases_noted(store):
    """The store, and a list of the leases with which it is asked for sessions."""
    leases, load = [], store.load

    def noted(key, now, idle, lock=None):
        leases.append(lock and lock.lease)
        return load(key, now, idle, lock)

    store.load = noted
    return store, leases


def test_the_lock_outlives_the_page(make_site, stores):
    """However short the lease of the sessions is, that of a page is as long as it may take."""
    store, leases = leases_noted(stores.store())
    sessions = Sessions(secret=SECRET, store=store, lease=0.5)
    site = make_site(sessions=sessions, limits=portico.PageLimits(seconds=7))
    client = site.write("page.psp", COUNT).client()
    assert [client.get("/page.psp").text for _ in range(2)] == ["1", "2"]
    assert leases == [_engine._FREE_WITHIN + 7 + 3 * _engine._GRACE]


def test_a_session_that_was_locked_before_the_page_gets_the_longer_lease(tmp_path, serve, stores):
    store, leases = leases_noted(stores.store())
    (tmp_path / "page.psp").write_text("<%= session['by'] %>")
    pages = portico.Pages(tmp_path)

    def handler(request):
        request.session["by"] = "handler"
        return pages(request)

    served = serve(handler, sessions=Sessions(secret=SECRET, store=store, lease=0.5))
    with contextlib.closing(pages), served.httpx() as client:
        assert [client.get("/page.psp").text for _ in range(2)] == ["handler"] * 2
    # What the handler has (`handler_timeout` may be longer), and then what the page may take.
    assert len(leases) == 2
    assert leases[0] < leases[1] == pages._engine.lasts


# ---- stores that others can write to


def stored(stores, change=None):
    """The value of the only session there is; with `change` it is made another one."""
    if stores.kind == "sqlite":
        with contextlib.closing(sqlite3.connect(stores.folder / "sessions.db")) as file, file:
            ((value,),) = file.execute("SELECT value FROM sessions").fetchall()
            if change is not None:
                file.execute("UPDATE sessions SET value = ?", (change(value),))
        return value
    redis = pytest.importorskip("redis")
    with redis.Redis.from_url(stores.redis_url) as client:
        (key,) = client.keys("portico:session:*")
        value = client.hget(key, "b")
        if change is not None:
            client.hset(key, "b", change(value))
    return value


def is_locked(stores):
    """Whether somebody has the only session there is."""
    if stores.kind == "sqlite":
        with contextlib.closing(sqlite3.connect(stores.folder / "sessions.db")) as file:
            return file.execute("SELECT owner, until FROM sessions").fetchone()[0] != ""
    redis = pytest.importorskip("redis")
    with redis.Redis.from_url(stores.redis_url) as client:
        (key,) = client.keys("portico:session:*")
        return client.hget(key, "o") is not None


def end_lease(stores):
    """Lets the time pass after which a lock is nobody's."""
    if stores.kind == "sqlite":
        with contextlib.closing(sqlite3.connect(stores.folder / "sessions.db")) as file, file:
            file.execute("UPDATE sessions SET until = 1")
        return
    redis = pytest.importorskip("redis")
    with redis.Redis.from_url(stores.redis_url) as client:
        (key,) = client.keys("portico:session:*")
        client.hset(key, "u", 1)


@pytest.fixture
def shared(stores):
    """Stores that others can write to, with nothing in them."""
    if stores.kind == "memory":
        pytest.skip("nobody else can write to the memory")
    if stores.kind == "redis":
        redis = pytest.importorskip("redis")
        with redis.Redis.from_url(stores.redis_url) as client:
            client.flushdb()
    return stores


def test_a_state_that_was_tampered_with_is_a_new_session(shared, make_site, caplog):
    site = make_site(sessions=shared.sessions())
    site.write("page.psp", "<% marked = 'a-mark-in-the-state' %>").write(
        "show.psp", "<% try: %><%= marked %><% except NameError: %>new<% end %>"
    )
    client = site.client()
    cookie = client.get("/page.psp").headers["set-cookie"]
    assert client.get("/show.psp").text == "a-mark-in-the-state"
    assert b"a-mark-in-the-state" in stored(shared)
    stored(shared, lambda value: value.replace(b"a-mark-in", b"B-mark-in"))
    reply = client.get("/show.psp")
    assert reply.text == "new"
    assert "was not signed with a secret that is known here" in caplog.text
    assert reply.headers["set-cookie"].split(".")[0] != cookie.split(".")[0]


def test_a_state_with_a_signature_of_another_secret_is_a_new_session(shared, make_site):
    """Whoever can write to the store and knows all of this code."""
    site = make_site(sessions=shared.sessions())
    site.write("page.psp", COUNT)
    client = site.client()
    assert [client.get("/page.psp").text for _ in range(2)] == ["1", "2"]
    stored(shared, lambda value: bytes(32) + value[32:])
    assert client.get("/page.psp").text == "1"


# ---- several processes


PROGRAM = """
import sys, portico
from portico.sessions import Sessions
folder, secret, store = sys.argv[1:]
pages = portico.Pages(folder, workers=2)
sessions = Sessions(secret=secret, store=store, lock_timeout=30)
with portico.Server(pages, sessions=sessions) as server:
    print(server.listen(0, tls=False).url, flush=True)
    sys.stdin.read()
pages.close()
"""


@pytest.fixture
def processes(shared, tmp_path):
    """Two servers with one store, in processes of their own: their folder, their URLs, and the processes."""
    folder = tmp_path / "site"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(2):
            command = [sys.executable, "-c", PROGRAM, str(folder), SECRET, shared.url()]
            pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            started.append(stack.enter_context(subprocess.Popen(command, text=True, **pipe)))
            stack.callback(started[-1].stdin.close)
        yield folder, [process.stdout.readline().strip() for process in started], started


def asking(stack, urls, cookies=None):
    return [
        stack.enter_context(httpx.Client(base_url=url, cookies=cookies, timeout=GENEROUS, trust_env=False))
        for url in urls
    ]


def test_what_a_page_made_in_one_process_is_there_in_the_other(processes):
    folder, urls, _ = processes
    (folder / "make.psp").write_text("<% a = [1]\ndef f(x): return x + len(a)\nsession['s'] = 's' %>")
    (folder / "more.psp").write_text("<% a.append(2) %><%= f(0) %>")
    (folder / "show.psp").write_text("<%= a %> <%= f(1) %> <%= session['s'] %>")
    with contextlib.ExitStack() as stack:
        one, _ = asking(stack, urls)
        assert one.get("/make.psp").status_code == 200
        one, other = asking(stack, urls, dict(one.cookies))
        assert other.get("/show.psp").text == "[1] 2 s"
        assert other.get("/more.psp").text == "2"
        assert one.get("/show.psp").text == "[1, 2] 3 s"


def test_no_update_is_lost_among_processes(processes):
    folder, urls, _ = processes
    (folder / "page.psp").write_text(COUNT)
    with contextlib.ExitStack() as stack:
        one, _ = asking(stack, urls)
        assert one.get("/page.psp").text == "1"
        clients = asking(stack, urls * 3, dict(one.cookies))
        with ThreadPoolExecutor(len(clients)) as pool:
            told = list(pool.map(lambda client: [client.get("/page.psp") for _ in range(10)], clients))
        replies = [reply for some in told for reply in some]
        assert {reply.status_code for reply in replies} == {200}
        assert sorted(int(reply.text) for reply in replies) == list(range(2, 62))


def test_a_server_that_dies_in_the_middle_of_a_page_leaves_the_session(processes, shared):
    folder, urls, started = processes
    (folder / "page.psp").write_text(COUNT)
    (folder / "spin.psp").write_text("<% n = n + 1\nsession['n'] = n\nwhile True: pass %>")
    with contextlib.ExitStack() as stack:
        one, _ = asking(stack, urls)
        assert one.get("/page.psp").text == "1"
        one, other = asking(stack, urls, dict(one.cookies))
        with ThreadPoolExecutor(1) as pool:
            spinning = pool.submit(one.get, "/spin.psp")
            wait_until(lambda: is_locked(shared), "the page to have the session")
            started[0].kill()
            with pytest.raises(httpx.HTTPError):
                spinning.result(GENEROUS)
        assert is_locked(shared)
        end_lease(shared)
        assert other.get("/page.psp").text == "2"


# ---- stores that fail


def test_a_redis_that_starts_again_has_all_and_locks_nobody_out(tmp_path, make_site):
    with redis_server(tmp_path / "redis") as redis:
        sessions = Sessions(secret=SECRET, store=redis.url, lock_timeout=0.2)
        site = make_site(sessions=sessions, functions={"lose_it": redis.kill})
        site.write("page.psp", COUNT).write("lose.psp", COUNT + "<% lose_it() %>")
        client = site.client()
        assert client.get("/page.psp").text == "1"
        lost = client.get("/lose.psp")
        assert (lost.status_code, lost.headers["retry-after"]) == (503, "1")
        assert client.get("/page.psp").status_code == 503
        assert site.client().get("/page.psp").status_code == 503, "a new visitor cannot be kept either"
        redis.start()
        # The lock of the request that could not give it back is on the Redis's disk, and is given back now.
        assert status_and_text(client.get("/page.psp")) == (200, "2")
        sessions.close()


@pytest.mark.slow
def test_no_acknowledged_update_is_lost_while_workers_and_the_store_are_killed(tmp_path):
    with redis_server(tmp_path / "unused"):
        pass  # Skipped where there is none.
    counts = ["--requests", "2000", "--sessions", "50", "--kills", "3", "--restarts", "2"]
    command = [sys.executable, str(SOAK), *counts]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2000 requests of 50 visitors" in done.stdout
    assert "3 workers and 2 times the Redis killed" in done.stdout


# ---- a page says what becomes of it


def test_a_page_renews_its_session(site):
    site.write("n.psp", COUNT).write("login.psp", "<% renew_session() %><%= n %>")
    visitor = site.client()
    visitor.get("/n.psp")
    old = dict(visitor.cookies)
    assert visitor.get("/login.psp").text == "1"
    assert dict(visitor.cookies) != old
    assert visitor.get("/n.psp").text == "2"
    # Who knew the old id, before the login, has nothing.
    assert site.client(cookies=old).get("/n.psp").text == "1"


def test_a_page_ends_its_session(site):
    site.write("n.psp", COUNT).write("logout.psp", "<% end_session() %>bye <%= n %>")
    visitor = site.client()
    visitor.get("/n.psp")
    old = dict(visitor.cookies)
    assert visitor.get("/logout.psp").text == "bye 1"
    assert not visitor.cookies
    assert [one.get("/n.psp").text for one in (visitor, site.client(cookies=old))] == ["1", "1"]


def test_a_page_that_fails_neither_renews_nor_ends_its_session(site):
    site.write("n.psp", COUNT).write("fail.psp", "<% renew_session()\nend_session()\n1 / 0 %>")
    visitor = site.client()
    visitor.get("/n.psp")
    assert visitor.get("/fail.psp").status_code == 500
    site.failure()
    assert visitor.get("/n.psp").text == "2"
