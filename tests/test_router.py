"""`portico.Router`: which route answers, and what the server answers where there is none."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import portico
from clients import Wire


def told(name):
    """A handler that tells its name and what it got."""

    def handler(request):
        body = {"name": name, "method": request.method, "path": request.path, "parameters": request.pathParameters}
        return {"statusCode": 200, "body": json.dumps(body)}

    return handler


def router_of(*routes):
    """Routes as `GET /path`, each answered by `told` with that as its name."""
    router = portico.Router()
    for route in routes:
        method, path = route.split(" ", 1)
        router.add_route(method, path, told(route))
    return router


SHOP = router_of(
    "GET /",
    "GET /users",
    "POST /users",
    "GET /users/me",
    "GET /users/{id}",
    "DELETE /users/{id}/x",
    "GET /files/{*path}",
)


@pytest.mark.parametrize(
    ("path", "name", "parameters"),
    [
        ("/", "GET /", {}),
        ("/users?a=/b", "GET /users", {}),
        ("/users/me", "GET /users/me", {}),
        ("/users/me2", "GET /users/{id}", {"id": "me2"}),
        ("/users/a%2Fb", "GET /users/{id}", {"id": "a/b"}),
        ("/users/%C3%A9%20", "GET /users/{id}", {"id": "é "}),
        ("/users/%252F", "GET /users/{id}", {"id": "%2F"}),
        ("/users/%ff", "GET /users/{id}", {"id": "\ufffd"}),
        ("/x/../users/./me", "GET /users/me", {}),
        ("/%75sers/%6de", "GET /users/me", {}),
        ("/files/a/b%20c/", "GET /files/{*path}", {"path": "a/b c/"}),
        ("/files/../users/1", "GET /users/{id}", {"id": "1"}),
    ],
)
def test_the_closest_route_answers(serve, path, name, parameters):
    answer = serve(SHOP).get(path)
    assert answer.status == 200
    assert (answer.json()["name"], answer.json()["parameters"]) == (name, parameters)


@pytest.mark.parametrize(
    "path", ["/user", "/users/", "/users/1/", "/files", "/files/", "//", "/files/..%2F..%2Fetc", "/a"]
)
def test_what_has_no_route_is_404(serve, path):
    answer = serve(SHOP).get(path)
    assert (answer.status, answer.text, answer.header("allow")) == (404, "404 Not Found\n", None)


def test_another_method_is_405_with_what_is_allowed(serve):
    served = serve(SHOP)
    for method, path, allow in [
        ("PUT", "/users", "GET, HEAD, POST, OPTIONS"),
        ("GET", "/users/1/x", "DELETE, OPTIONS"),
        ("HEAD", "/users/1/x", "DELETE, OPTIONS"),
        ("BREW", "/users/me", "GET, HEAD, OPTIONS"),
        ("get", "/", "GET, HEAD, OPTIONS"),  # methods are case-sensitive (RFC 9110 section 9.1)
    ]:
        answer = served.ask(method, path)
        assert (answer.status, answer.header("allow")) == (405, allow), (method, path)
        assert answer.text == ("" if method == "HEAD" else "405 Method Not Allowed\n")
    assert served.stat("responses", "4xx") == 5
    assert sum(served.stat("requests_refused").values()) == 0


def test_head_is_answered_from_get_and_options_by_the_server(serve):
    router = router_of("GET /a", "GET /own", "HEAD /own", "OPTIONS /own")
    served = serve(router)
    head, get = served.ask("HEAD", "/a"), served.get("/a")
    assert (head.status, head.body) == (200, b"")
    assert int(head.header("content-length")) == len(get.body) + 1  # HEAD is a letter longer than GET
    options = served.ask("OPTIONS", "/a")
    assert (options.status, options.header("allow"), options.header("content-length")) == (
        204,
        "GET, HEAD, OPTIONS",
        None,
    )
    assert served.ask("OPTIONS", "/none").status == 404
    assert served.ask("OPTIONS", "/own").json()["name"] == "OPTIONS /own"
    assert len(served.ask("OPTIONS", "*").header("allow")) > 20


def test_http2_has_the_same_routes(serve):
    served = serve(SHOP)
    with served.httpx() as client:
        assert client.get("/users/a%2Fb").json()["parameters"] == {"id": "a/b"}
        assert client.get("/none").status_code == 404
        refused = client.put("/users")
        assert (refused.http_version, refused.status_code, refused.headers["allow"]) == (
            "HTTP/2",
            405,
            "GET, HEAD, POST, OPTIONS",
        )
        assert client.options("/users").status_code == 204
        assert client.head("/users/me").status_code == 200
        assert client.post("/users", content=b"a body").json()["name"] == "POST /users"
        assert client.put("/users", content=b"a body that nobody wants").status_code == 405


def test_a_connection_goes_on_after_404_and_405(serve):
    with serve(SHOP).wire() as wire:
        wire.send(
            "GET /no HTTP/1.1\r\nHost: localhost\r\n\r\nPUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
        )
        wire.send("HEAD /no HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        statuses = [wire.read().status, wire.read().status, wire.read("HEAD").status, wire.read().status]
    assert statuses == [404, 405, 404, 200]


def test_paths_are_written_decoded(serve):
    router = router_of("GET /café/{name}", "GET /a b/100%/{{x}}")
    served = serve(router)
    assert served.get("/caf%C3%A9/%E2%98%95").json()["parameters"] == {"name": "☕"}
    assert served.get("/a%20b/100%25/%7Bx%7D").status == 200
    assert served.get("/caf%E9/x").status == 404  # Latin-1 is not UTF-8


def test_async_handlers_keep_their_loop_and_def_handlers_their_threads(serve):
    router = portico.Router()

    @router.get("/async")
    async def on_loop(request):
        return {"statusCode": 200, "body": "async"}

    @router.get("/def")
    def on_thread(request):
        return {"statusCode": 200, "body": "def"}

    served = serve(router)
    assert (served.get("/async").text, served.get("/def").text) == ("async", "def")
    told = {name.rpartition(".")[2]: one["runs"] for name, one in served.server.stats()["handlers"].items()}
    assert told == {"on_loop": "asyncio", "on_thread": "threads"}


@pytest.mark.parametrize("dispatch", ["inline", "threads", "asyncio"])
def test_every_dispatch(serve, dispatch):
    served = serve(SHOP, dispatch=dispatch)
    assert served.get("/users/1").json()["parameters"] == {"id": "1"}
    assert {one["runs"] for one in served.server.stats()["handlers"].values()} == {dispatch}


# ---- adding routes


def test_decorators_give_the_function_back():
    router = portico.Router()

    def handler(request):
        return {"statusCode": 200}

    for method in ("get", "post", "put", "patch", "delete", "head", "options"):
        assert getattr(router, method)("/a")(handler) is handler
    assert router.route("/b", methods=["PURGE", "get"], name="b")(handler) is handler
    assert [(route.method, route.path) for route in router.routes] == [
        *((method, "/a") for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")),
        ("PURGE", "/b"),
        ("GET", "/b"),
    ]
    assert {route.handler for route in router.routes} == {handler}
    assert router.routes[-1].name == "b"
    assert router.url_for("b") == "/b"


def test_the_same_route_twice_names_both():
    router = portico.Router()
    router.add_route("GET", "/users/{id}", told("first"))
    router.add_route("POST", "/users/{name}", told("another method"))
    with pytest.raises(portico.ConfigError) as raised:
        router.add_route("GET", "/users/{name}", print)
    for part in ("GET /users/{name}", "builtins.print", "GET /users/{id}", "told.<locals>.handler"):
        assert part in str(raised.value)
    router.mount("/m", print)
    with pytest.raises(portico.ConfigError, match=r"mount /m/ .*mount /m "):
        router.mount("/m/", told("x"))
    assert len(router.routes) == 3


def test_names_of_parameters_may_differ_by_method(serve):
    router = router_of("GET /a/{x}", "PUT /a/{y}")
    served = serve(router)
    assert served.get("/a/1").json()["parameters"] == {"x": "1"}
    assert served.ask("PUT", "/a/1").json()["parameters"] == {"y": "1"}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "users", "begins with a slash"),
        ("GET", "/a?b", "query"),
        ("GET", "/{a}/{a}", "a stands twice"),
        ("GET", "/{*a}/b", "comes last"),
        ("GET", "/{id:int}", "letters, digits and _"),
        ("GET", "/{a}.json", "whole segment"),
        ("GET", "/a/../b", "resolved"),
        ("GET", "/" + "/".join(f"{{p{n}}}" for n in range(21)), "more than 20"),
        ("GET", b"/a", "a str"),
        ("G T", "/", "method"),
        ("CONNECT", "/", "method"),
        ("", "/", "method"),
    ],
)
def test_what_is_no_route_is_said_at_once(method, path, expected):
    router = portico.Router()
    with pytest.raises(portico.ConfigError, match=expected):
        router.add_route(method, path, print)
    assert router.routes == ()


def test_what_is_no_handler_is_said_at_once():
    router = portico.Router()
    for handler, expected in [
        (None, "not NoneType"),
        (portico.Router(), "which is mounted"),
        (lambda environ, start_response: [], "portico.wsgi"),
    ]:
        with pytest.raises(portico.ConfigError, match=expected):
            router.add_route("GET", "/", handler)
    with pytest.raises(portico.ConfigError, match="a list of methods"):
        router.route("/", methods="GET")
    with pytest.raises(portico.ConfigError, match="at least one"):
        router.route("/", methods=[])
    with pytest.raises(portico.ConfigError, match="a list of functions"):
        router.add_route("GET", "/", print, guards=print)
    assert repr(router) == "<portico router of 0 routes>"


# ---- url_for


def test_url_for_makes_what_the_route_takes_apart(serve):
    router = portico.Router()
    router.add_route("GET", "/päge/{id}/{*rest}", told("page"), name="page")
    url = router.url_for("page", id="a/b%?#é", rest="x y/z")
    assert url == "/p%C3%A4ge/a%2Fb%25%3F%23%C3%A9/x%20y/z"
    assert serve(router).get(url).json()["parameters"] == {"id": "a/b%?#é", "rest": "x y/z"}


def test_url_for_says_what_is_wrong():
    router = portico.Router()
    router.add_route("GET", "/{id}/{*rest}", print, name="page")
    for name, params, expected in [
        ("pages", {}, "did you mean 'page'"),
        ("page", {}, "needs id, rest"),
        ("page", {"id": None, "rest": 1}, "needs id"),
        ("page", {"id": 1, "rest": 2, "x": 3}, "no parameter 'x'; it has id, rest"),
        ("page", {"id": "", "rest": 1}, 'id is ""'),
        ("page", {"id": "..", "rest": 1}, "would be resolved"),
        ("page", {"id": 1, "rest": "a/../b"}, "would be resolved"),
    ]:
        with pytest.raises(portico.ConfigError, match=expected):
            router.url_for(name, **params)
    with pytest.raises(portico.ConfigError, match="the name of GET /"):
        router.add_route("GET", "/other", print, name="page")
    router.add_route("PUT", "/{id}/{*rest}", print, name="page")


# ---- guards


def test_guards_say_which_route_applies(serve):
    router = portico.Router()
    is_json = lambda request: "json" in request.headers.get("accept", "")  # noqa: E731
    router.add_route("GET", "/", told("any"))
    router.add_route("GET", "/", told("json"), guards=[is_json])
    router.add_route("GET", "/both", told("both"), guards=[is_json, lambda request: request.queryString == "yes"])
    router.add_route("POST", "/both", told("post"))
    served = serve(router)
    assert served.get("/").json()["name"] == "any"
    assert served.get("/", headers={"Accept": "text/json"}).json()["name"] == "json"
    assert served.get("/both", headers={"Accept": "json"}).status == 404
    assert served.get("/both?yes", headers={"Accept": "json"}).json()["name"] == "both"
    with pytest.raises(portico.ConfigError, match="the same route"):
        router.add_route("GET", "/", told("another"))


def test_a_guard_may_answer_and_may_fail(serve):
    router = portico.Router()

    def denies(request):
        return portico.error(401)

    async def denies_later(request):
        return portico.error(403)

    router.add_route("GET", "/denied", print, guards=[denies])
    router.add_route("GET", "/later", print, guards=[denies_later])
    router.add_route("GET", "/fails", print, guards=[lambda request: 1 / 0])
    served = serve(router)
    assert (served.get("/denied").status, served.get("/later").status) == (401, 403)
    assert served.get("/fails").status == 500
    served.errors.next(ZeroDivisionError)


def test_guards_and_handlers_of_both_kinds_at_one_path(serve):
    router = portico.Router()

    async def wants(request):
        return request.queryString == "async"

    async def on_loop(request):
        return {"statusCode": 200, "body": "async"}

    router.add_route("GET", "/", on_loop, guards=[wants])
    router.add_route("GET", "/", told("def"))
    served = serve(router)
    assert served.get("/?async").text == "async"
    assert served.get("/").json()["name"] == "def"


# ---- the matcher against a naive one

SEGMENTS = ["a", "b", "{x}", "{y}", ""]


@st.composite
def patterns(draw):
    segments = draw(
        st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=3, unique_by=lambda it: it if "{" in it else object())
    )
    return "/" + "/".join([*segments, "{*rest}"] if draw(st.booleans()) else segments)


def naive(routes, path):
    """The closest pattern, found by trying each."""
    segments = path.split("/")[1:]

    def match(pattern):
        rank, parameters, own = [], {}, pattern.split("/")[1:]
        for index, part in enumerate(own):
            if part == "{*rest}":
                rest = "/".join(segments[index:])
                return ([*rank, 2], {**parameters, "rest": rest}) if rest else None
            if index >= len(segments):
                return None
            if part.startswith("{"):
                if not segments[index]:
                    return None
                parameters[part[1:-1]] = segments[index]
                rank.append(1)
            elif part == segments[index]:
                rank.append(0)
            else:
                return None
        return (rank, parameters) if len(own) == len(segments) else None

    found = [(matched[0], pattern, matched[1]) for pattern in routes if (matched := match(pattern))]
    return min(found)[1:] if found else None


@settings(max_examples=40)
@given(
    routes=st.lists(patterns(), max_size=10),
    paths=st.lists(st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=4), min_size=1, max_size=10),
)
def test_any_routes_match_as_a_naive_matcher_says(routes, paths):
    router, kept = portico.Router(), []
    for pattern in routes:
        with contextlib.suppress(portico.ConfigError):  # the same as another one
            router.add_route("GET", pattern, told(pattern))
            kept.append(pattern)
    with (
        portico.Server(router, dispatch="inline", io_threads=1) as server,
        Wire(server.listen(0, tls=False).port) as wire,
    ):
        for segments in paths:
            path = "/" + "/".join(segments)
            answer, expected = wire.get(path), naive(kept, path)
            assert (answer.status == 200) == (expected is not None), path
            if expected:
                assert (answer.json()["name"], answer.json()["parameters"]) == expected


def test_the_types_are_for_users_too(tmp_path):
    """A program that uses routers checks under mypy --strict."""
    program = tmp_path / "program.py"
    program.write_text(
        "import portico\n"
        "router = portico.Router()\n"
        "@router.get('/users/{id}', name='user', guards=[lambda request: True])\n"
        "def user(request: portico.Request) -> portico.Response:\n"
        "    return {'statusCode': 200, 'body': request.pathParameters['id']}\n"
        "@router.post('/users')\n"
        "async def add(request: portico.Request) -> portico.Response:\n"
        "    return user(request)\n"
        "router.mount('/other', portico.Router())\n"
        "async def leave(request: portico.Request, response: portico.Response) -> None: ...\n"
        "router.add_middleware(enter=lambda request: None, leave=leave)\n"
        "reveal_type(router.url_for('user', id=1))\n"
        "server = portico.Server(router)\n"
        "def wrong(request: int) -> portico.Response: return {}\n"
        "router.mount('/wrong', wrong)\n"
    )
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = True\n")
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), str(program)]
    path = str(Path(portico.__file__).parents[1])
    told = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
        env={"MYPYPATH": path, "PATH": "/bin"},
    )
    assert 'Revealed type is "str"' in told.stdout or 'Revealed type is "builtins.str"' in told.stdout, (
        told.stdout + told.stderr
    )
    errors = [line for line in told.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, told.stdout
    assert "mount" in errors[0]
