"""`request.session`, in every kind of handler and every store."""

import asyncio
import threading

import pytest

import portico
from clients import curl
from portico.sessions import MemoryStore, Sessions
from secure_websocket import connect
from session_stores import SECRET, act, act_async


@pytest.fixture(params=[act, act_async], ids=["def", "async"])
def visitor(request, stores, serve):
    """A client with a cookie jar, of a server with sessions in each store."""
    served = serve(request.param, sessions=stores.sessions())
    with served.httpx() as client:
        client.served = served
        yield client


def holds(client, path="/"):
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


# ---- what is kept


def test_it_is_made_at_the_first_write(visitor):
    assert holds(visitor) == "({}, None)"
    assert not visitor.cookies
    assert holds(visitor, "/set/name/Ada") == "({'name': 'Ada'}, None)"
    assert list(visitor.cookies) == ["__Host-session"]
    assert holds(visitor) == "({'name': 'Ada'}, None)"


def test_it_goes_on_from_request_to_request(visitor):
    assert [holds(visitor, "/count") for _ in range(5)] == ["1", "2", "3", "4", "5"]
    assert holds(visitor, "/set/a/1") == "({'n': 5, 'a': '1'}, None)"
    assert holds(visitor, "/del/n") == "({'a': '1'}, None)"
    assert holds(visitor, "/clear") == "({}, None)"
    assert holds(visitor) == "({}, None)"


def test_what_is_changed_inside_of_a_list_is_kept(visitor):
    holds(visitor, "/append/a")
    holds(visitor, "/append-inside/b")
    assert holds(visitor) == "({'list': ['a', 'b']}, None)"


def test_the_bytes_of_pages_are_kept_with_it(visitor):
    holds(visitor, "/set/a/1")
    holds(visitor, "/state/xyz")
    assert holds(visitor) == "({'a': '1'}, b'xyz')"


def test_another_client_has_another_one(visitor):
    holds(visitor, "/set/a/1")
    with visitor.served.httpx() as other:
        assert holds(other) == "({}, None)"
        assert holds(other, "/set/b/2") == "({'b': '2'}, None)"
    assert holds(visitor) == "({'a': '1'}, None)"


@pytest.mark.parametrize("path", ["/raise", "/no-response"])
def test_nothing_is_kept_for_a_handler_that_fails(visitor, path):
    holds(visitor, "/set/a/1")
    answer = visitor.get(path)
    assert (answer.status_code, answer.headers.get("set-cookie")) == (500, None)
    # Nor does it keep others from it.
    assert visitor.post("/set/b/2").text == "({'a': '1', 'b': '2'}, None)"


def test_only_a_response_that_sets_it_has_a_cookie(visitor):
    first, second, third = visitor.get("/"), visitor.get("/set/a/1"), visitor.get("/set/a/2")
    assert [("set-cookie" in answer.headers) for answer in (first, second, third)] == [False, True, False]
    assert {answer.headers["vary"] for answer in (first, second, third)} == {"cookie"}


# ---- its end


def test_end_forgets_everything(visitor):
    holds(visitor, "/set/a/1")
    cookie = visitor.cookies["__Host-session"]
    assert holds(visitor, "/end") == "({}, None)"
    assert not visitor.cookies
    # Whoever has kept the cookie has nothing by it.
    visitor.cookies.set("__Host-session", cookie)
    assert holds(visitor) == "({}, None)"


def test_a_write_after_the_end_begins_another_one(visitor):
    holds(visitor, "/set/a/1")
    before = visitor.cookies["__Host-session"]
    assert holds(visitor, "/end-and-set/b/2") == "({'b': '2'}, None)"
    assert visitor.cookies["__Host-session"] != before
    assert holds(visitor) == "({'b': '2'}, None)"


def test_it_ends_when_it_is_not_used(visitor, stores):
    holds(visitor, "/set/a/1")
    for _ in range(3):
        stores.clock.now += 119
        assert holds(visitor) == "({'a': '1'}, None)", "reading it counts as use"
    stores.clock.now += 121
    assert holds(visitor) == "({}, None)"


def test_it_ends_however_much_it_is_used(stores, serve):
    with serve(act, sessions=stores.sessions(lifetime=300)).httpx() as visitor:
        holds(visitor, "/set/a/1")
        for _ in range(2):
            stores.clock.now += 110
            holds(visitor, "/count")
        stores.clock.now += 81
        assert holds(visitor) == "({}, None)"


def test_a_renewed_one_has_its_whole_life_before_it(stores, serve):
    with serve(act, sessions=stores.sessions(lifetime=200)).httpx() as visitor:
        holds(visitor, "/set/a/1")
        stores.clock.now += 110
        holds(visitor, "/renew")
        stores.clock.now += 110
        assert holds(visitor) == "({'a': '1'}, None)"


def test_what_is_kept_survives_the_server(stores, serve):
    if stores.kind == "memory":
        pytest.skip("memory ends with its process")
    with serve(act, sessions=stores.sessions()).httpx() as visitor:
        holds(visitor, "/set/a/1")
        cookie = visitor.cookies["__Host-session"]
    with serve(act, sessions=stores.sessions()).httpx(cookies={"__Host-session": cookie}) as visitor:
        assert holds(visitor) == "({'a': '1'}, None)"


# ---- where it can be used


def test_in_a_router_with_guards_and_middleware(stores, serve):
    router = portico.Router()

    def enter(request):
        request.session["entered"] = request.session.get("entered", 0) + 1

    def leave(request, response):
        request.session["left"] = request.session.get("left", 0) + 1

    router.add_middleware(enter, leave)
    router.add_route("GET", "/", act, guards=[lambda request: "user" not in request.session])
    with serve(router, sessions=stores.sessions()).httpx() as visitor:
        holds(visitor)
        assert holds(visitor) == "({'entered': 2, 'left': 1}, None)"


def test_nothing_is_kept_where_a_middleware_answers_for_a_handler_that_raised(stores, serve):
    router = portico.Router()
    router.add_middleware(leave=lambda request, response: portico.response(500, "sorry"))
    router.add_route("GET", "/{*rest}", act)
    with serve(router, sessions=stores.sessions()).httpx() as visitor:
        assert visitor.get("/raise").text == "sorry"
        assert not visitor.cookies


def test_around_an_asgi_application(stores, serve):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"app"})

    async def enter(request):
        session = await request.session.load(lock=True)
        session["visits"] = session.get("visits", 0) + 1
        return None

    router = portico.Router()
    router.add_middleware(enter)
    router.mount("/app", portico.asgi(app))
    router.add_route("GET", "/", act_async)
    with serve(router, sessions=stores.sessions()).httpx() as visitor:
        assert [holds(visitor, "/app/") for _ in range(2)] == ["app", "app"]
        assert holds(visitor) == "({'visits': 3}, None)"


@pytest.mark.parametrize("dispatch", ["auto", "inline", "threads", "asyncio"])
def test_however_handlers_run(serve, dispatch):
    with serve(act, sessions={"secret": SECRET}, dispatch=dispatch).httpx() as visitor:
        assert [holds(visitor, "/count") for _ in range(40)] == [str(n) for n in range(1, 41)]


def test_over_http_1_and_a_streamed_response(stores, serve):
    def handler(request):
        request.session["n"] = request.session.get("n", 0) + 1
        return {"statusCode": 200, "body": (piece for piece in [b"n is ", str(request.session["n"]).encode()])}

    with serve(handler, sessions=stores.sessions()).httpx(http2=False) as visitor:
        assert [holds(visitor) for _ in range(3)] == ["n is 1", "n is 2", "n is 3"]


def test_a_stream_of_an_async_handler(stores, serve):
    async def handler(request):
        session = await request.session.load(lock=True)
        session["n"] = session.get("n", 0) + 1

        async def pieces():
            yield b"n is "
            yield str(session["n"])

        return {"statusCode": 200, "body": pieces()}

    with serve(handler, sessions=stores.sessions()).httpx() as visitor:
        assert [holds(visitor) for _ in range(3)] == ["n is 1", "n is 2", "n is 3"]


def test_without_any_setting_it_is_in_memory(serve, caplog):
    caplog.set_level("INFO", "portico.session")
    with serve(act).httpx() as visitor:
        assert [holds(visitor, "/count") for _ in range(2)] == ["1", "2"]
    (line,) = [record.getMessage() for record in caplog.records if record.name == "portico.session"]
    assert "no secret was given" in line


def test_servers_may_share_one(serve):
    shared = Sessions(secret=SECRET)
    one, other = serve(act, sessions=shared), serve(act, sessions=shared)
    with one.httpx() as visitor:
        holds(visitor, "/set/a/1")
        cookie = visitor.cookies["__Host-session"]
    with other.httpx(cookies={"__Host-session": cookie}) as visitor:
        assert holds(visitor) == "({'a': '1'}, None)"


class Counting(MemoryStore):
    """A store that notes what it is asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def load(self, key, now, idle, lock=None):
        self.asked.append("load and lock" if lock else "load")
        return super().load(key, now, idle, lock)

    def commit(self, *arguments):
        self.asked.append("commit")
        return super().commit(*arguments)

    def unlock(self, key, owner):
        self.asked.append("unlock")
        super().unlock(key, owner)


def test_the_store_is_asked_no_more_than_needed(serve):
    store = Counting()

    def handler(request):
        return act(request) if request.path != "/untouched" else {"statusCode": 200}

    with serve(handler, sessions={"secret": SECRET, "store": store}).httpx() as visitor:

        def asked(method, path):
            store.asked.clear()
            answer = visitor.request(method, path)
            assert answer.status_code == 200
            assert ("vary" in answer.headers) == (path != "/untouched")
            return store.asked

        assert asked("GET", "/") == [], "it has no session yet"
        assert asked("GET", "/set/a/1") == ["commit"]
        assert asked("POST", "/untouched") == []
        assert asked("GET", "/") == ["load"]
        assert asked("POST", "/") == ["load and lock", "unlock"]
        assert asked("GET", "/set/a/2") == ["load and lock", "commit"]
        assert asked("GET", "/count") == ["load", "commit"], "nobody knew that this one writes"
        assert asked("GET", "/count") == ["load and lock", "commit"]


def test_a_websocket_can_read_it(stores, serve):
    @portico.websocket
    def talk(ws):
        for _ in ws:
            ws.send(repr(dict(ws.request.session)))

    router = portico.Router()
    router.add_route("GET", "/socket", talk)
    router.add_route("GET", "/{*rest}", act)
    served = serve(router, sessions=stores.sessions())
    with served.httpx() as visitor:
        holds(visitor, "/set/a/1")
        cookie = visitor.cookies["__Host-session"]
    url, context = f"wss://localhost:{served.port}/socket", served.context()
    headers = {"cookie": f"__Host-session={cookie}"}
    with connect(url, ssl=context, additional_headers=headers, proxy=None) as socket:
        socket.send("?")
        assert socket.recv(30) == "{'a': '1'}"


def test_parts_of_a_handler_may_load_it_at_once(stores, serve):
    async def handler(request):
        await asyncio.gather(*(request.session.load(lock=number != 3) for number in range(5)))
        return act(request)

    with serve(handler, sessions=stores.sessions()).httpx() as visitor:
        assert [holds(visitor, "/count") for _ in range(5)] == ["1", "2", "3", "4", "5"]


# ---- where it cannot


def test_a_write_after_the_response_is_refused(serve):
    raised, seen = [], threading.Event()

    def pieces(request):
        yield b"x"
        try:
            request.session["late"] = 1
        except RuntimeError as error:
            raised.append(str(error))
        seen.set()

    def late(request):
        return {"statusCode": 200, "body": pieces(request)}

    def used(request):
        request.session["early"] = 1
        return late(request)

    for handler in (late, used):
        seen.clear()
        with serve(handler).httpx() as visitor:
            assert visitor.get("/").text == "x"
            assert seen.wait(30)
    assert len(raised) == 2
    assert all("once its response is on its way" in text for text in raised)


def test_bytes_alone_have_none():
    request = portico.parse_request(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")
    with pytest.raises(portico.ClosedError, match="there is no session"):
        _ = request.session


def test_an_async_handler_loads_it_first(stores, serve):
    async def handler(request):
        return {"statusCode": 200, "body": repr(dict(request.session))}

    async def write(request):
        request.session["a"] = 1
        return {"statusCode": 200}

    router = portico.Router()
    router.add_route("GET", "/", handler)
    router.add_route("GET", "/write", write)
    served = serve(router, sessions=stores.sessions())
    with served.httpx() as visitor:
        # A client that has none has nothing to load.
        assert holds(visitor) == "{}"
        holds(visitor, "/write")
        if stores.kind == "memory":
            assert holds(visitor) == "{'a': 1}"
        else:
            assert visitor.get("/").status_code == 500
            error, _ = served.errors.next(RuntimeError)
            assert "await request.session.load()" in str(error)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (object(), "not object"),
        (b"bytes", "not bytes"),
        ((1, 2), "not tuple"),
        ({1: 2}, "are str, not int"),
        ([{"a": {1, 2}}], r"session\['x'\]\[0\]\['a'\]: .* not set"),
        (float("nan"), "nan"),
        (1 << 5000, "bits"),
    ],
)
def test_what_is_no_plain_data_is_refused(serve, value, expected):
    def handler(request):
        with pytest.raises((TypeError, ValueError), match=expected):
            request.session["x"] = value
        return {"statusCode": 200, "body": repr(dict(request.session))}

    with serve(handler).httpx() as visitor:
        assert holds(visitor) == "{}"


def test_plain_data_comes_back_as_it_went_in(stores, serve):
    data = {"n": None, "t": True, "i": 1 << 200, "f": 0.1, "s": "ß\ud800\0", "l": [[], {}], "d": {"": {"x": [1]}}}

    def handler(request):
        if request.path == "/write":
            request.session.update(data)
        return {"statusCode": 200, "body": str(dict(request.session) == data)}

    with serve(handler, sessions=stores.sessions()).httpx() as visitor:
        holds(visitor, "/write")
        assert holds(visitor) == "True"


def test_one_that_is_too_large_is_refused(serve):
    def handler(request):
        request.session["x"] = "x" * int(request.path[1:])
        return {"statusCode": 200}

    served = serve(handler, sessions={"secret": SECRET, "max_bytes": 1000})
    with served.httpx() as visitor:
        assert visitor.get("/900").status_code == 200
        assert visitor.get("/1000").status_code == 500
        error, _ = served.errors.next(ValueError)
        assert "1000" in str(error)


def test_one_that_was_cancelled_leaves_no_lock(stores, serve):
    entered, left = threading.Event(), threading.Event()

    async def handler(request):
        if request.path != "/wait":
            return await act_async(request)
        await request.session.load(lock=True)
        entered.set()
        try:
            await asyncio.sleep(600)
        finally:
            left.set()

    served = serve(handler, sessions=stores.sessions(lock_timeout=20))
    with served.httpx() as visitor:
        holds(visitor, "/set/a/1")
        with served.tls_wire() as wire:
            cookie = visitor.cookies["__Host-session"]
            wire.send(f"GET /wait HTTP/1.1\r\nhost: localhost\r\ncookie: __Host-session={cookie}\r\n\r\n".encode())
            assert entered.wait(30)
        assert left.wait(30)
        assert visitor.post("/count").text == "1"


def test_one_that_leaves_while_it_waits_gets_no_lock(stores, serve):
    waiting, may_end = threading.Event(), threading.Event()

    async def handler(request):
        if request.path == "/hold":
            await request.session.load(lock=True)
            waiting.set()
            await asyncio.to_thread(may_end.wait, 30)
            return {"statusCode": 200}
        if request.path == "/wait":
            waiting.set()
            try:
                await request.session.load(lock=True)
            finally:
                waiting.set()
        return await act_async(request)

    served = serve(handler, sessions=stores.sessions(lock_timeout=20))
    with served.httpx() as visitor:
        holds(visitor, "/set/a/1")
        cookie = visitor.cookies["__Host-session"]

        def ask(path):
            wire = served.tls_wire()
            waiting.clear()
            wire.send(f"GET {path} HTTP/1.1\r\nhost: localhost\r\ncookie: __Host-session={cookie}\r\n\r\n".encode())
            assert waiting.wait(30)
            return wire

        with ask("/hold") as hold:
            for _ in range(5):
                with ask("/wait"):
                    waiting.clear()
                assert waiting.wait(30), "it was cancelled"
            may_end.set()
            assert hold.read().status == 200
        assert visitor.post("/count").text == "1"


class Gated(MemoryStore):
    """A store that takes its time to lock."""

    waits = True

    def __init__(self):
        super().__init__()
        self.asked, self.opened, self.unlocked = threading.Event(), threading.Event(), threading.Event()

    def load(self, key, now, idle, lock=None):
        if lock is not None and not self.opened.is_set():
            self.asked.set()
            assert self.opened.wait(30)
        return super().load(key, now, idle, lock)

    def unlock(self, key, owner):
        super().unlock(key, owner)
        self.unlocked.set()


def test_a_lock_that_comes_after_its_request_was_given_up_is_given_back(serve):
    store, left = Gated(), threading.Event()

    async def handler(request):
        if request.path == "/wait":
            try:
                await request.session.load(lock=True)
            finally:
                left.set()
        return await act_async(request)

    served = serve(handler, sessions={"secret": SECRET, "store": store, "lock_timeout": 20})
    with served.httpx() as visitor:
        holds(visitor, "/set/a/1")
        cookie = visitor.cookies["__Host-session"]
        with served.tls_wire() as wire:
            wire.send(f"GET /wait HTTP/1.1\r\nhost: localhost\r\ncookie: __Host-session={cookie}\r\n\r\n".encode())
            assert store.asked.wait(30)
        assert left.wait(30)
        # Its loop has been told by now, as it answers.
        assert holds(visitor) == "({'a': '1'}, None)"
        store.opened.set()
        assert store.unlocked.wait(30)
        assert visitor.post("/count").text == "1"


def test_it_works_with_curl(stores, serve, tmp_path):
    served = serve(act, sessions=stores.sessions())
    jar = ["--cookie", tmp_path / "jar", "--cookie-jar", tmp_path / "jar"]
    assert [curl(served.clear, "/count", *jar) for _ in range(2)] == ["1", "2"]
