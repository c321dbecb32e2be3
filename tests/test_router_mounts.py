"""What is mounted in a router sees the rest of the path: functions, routers, WSGI and ASGI applications."""

from __future__ import annotations

import json

import flask
import h2.events
import pytest
import starlette.applications
import starlette.responses
import starlette.routing
from starlette.requests import Request as StarletteRequest

import portico
from frames import H2


def seen(request):
    keys = ("path", "rawPath", "url", "pathParameters")
    return {
        "statusCode": 200,
        "body": json.dumps({key: request[key] for key in keys} | {"root_path": request.root_path}),
    }


@pytest.mark.parametrize(
    ("asked", "root_path", "path"),
    [
        ("/app", "/app", "/"),
        ("/app/", "/app", "/"),
        ("/app/a/%62?q", "/app", "/a/b"),
        ("/app//a", "/app", "//a"),
        ("/app/a%2Fb", "/app", "/a/b"),
        ("/%61pp/..%2Fapp/x", "/app", "/x"),
        ("/app/../app/c", "/app", "/c"),
    ],
)
def test_a_function_sees_the_rest(serve, asked, root_path, path):
    router = portico.Router()
    router.mount("/app", seen)
    served = serve(router)
    answer = served.ask("PATCH", asked).json()
    assert (answer["root_path"], answer["path"]) == (root_path, path)
    assert answer["rawPath"] == asked.partition("?")[0]
    assert answer["url"].endswith(asked)
    assert served.get("/apple").status == 404
    assert served.get("/ap").status == 404


def test_routes_go_before_mounts_at_the_same_path(serve):
    router = portico.Router()
    router.mount("/", lambda request: {"statusCode": 200, "body": f"mounted {request.root_path}{request.path}"})
    router.add_route("GET", "/", lambda request: {"statusCode": 200, "body": "route"})
    router.add_route("GET", "/a/b", lambda request: {"statusCode": 200, "body": "route"})
    served = serve(router)
    assert served.get("/").text == served.get("/a/b").text == "route"
    assert served.ask("POST", "/").text == "mounted /"
    assert served.get("/a").text == "mounted /a"
    assert served.get("/a/b/c").text == "mounted /a/b/c"
    assert served.ask("POST", "/a/b").status == 405


def test_prefixes_may_have_parameters(serve):
    router, inner = portico.Router(), portico.Router()
    inner.add_route("GET", "/users/{id}", seen, name="user")
    router.mount("/{tenant}/api/", inner)
    answer = serve(router).get("/a%2Fb/api/users/7").json()
    assert answer["pathParameters"] == {"tenant": "a/b", "id": "7"}
    assert (answer["root_path"], answer["path"]) == ("/a/b/api", "/users/7")
    assert router.url_for("user", tenant="a/b", id=7) == "/a%2Fb/api/users/7"
    assert inner.url_for("user", id=7) == "/users/7"
    with pytest.raises(portico.ConfigError, match="needs tenant"):
        router.url_for("user", id=7)


def test_routers_in_routers(serve):
    outer, middle, inner = portico.Router(), portico.Router(), portico.Router()
    outer.mount("/a", middle)
    middle.mount("/b", inner)
    inner.add_route("GET", "/", seen)
    inner.add_route("GET", "/{*path}", seen)
    served = serve(outer)
    for asked, root_path, path in [
        ("/a/b", "/a/b", "/"),
        ("/a/b/", "/a/b", "/"),
        ("/a/b/c/d", "/a/b", "/c/d"),
    ]:
        answer = served.get(asked).json()
        assert (answer["root_path"], answer["path"]) == (root_path, path)
    assert served.ask("PUT", "/a/b").header("allow") == "GET, HEAD, OPTIONS"
    assert served.get("/a/c").status == 404
    with served.httpx() as client:
        assert client.get("/a/b/c").json()["root_path"] == "/a/b"
    with pytest.raises(portico.ConfigError, match="in itself"):
        inner.mount("/c", outer)
    with pytest.raises(portico.ConfigError, match="in itself"):
        outer.mount("/c", outer)


def test_what_cannot_be_mounted():
    router = portico.Router()
    for prefix, handler, expected in [
        ("a", print, "begins with a slash"),
        ("", print, "begins with a slash"),
        ("/{*a}", print, "has no {\\*name}"),
        ("/a", None, "not NoneType"),
        (1, print, "a str"),
    ]:
        with pytest.raises(portico.ConfigError, match=expected):
            router.mount(prefix, handler)
    router.mount("/{{*a}}", print)  # doubled braces are braces
    (mount,) = router.routes
    assert isinstance(mount, portico.Mount)
    assert (mount.path, mount.handler) == ("/{{*a}}", print)


def test_too_many_routers_one_in_another(make_server):
    outer = router = portico.Router()
    for _ in range(32):
        inner = portico.Router()
        router.mount("/", inner)
        router = inner
    with pytest.raises(portico.ConfigError, match="more than 32"):
        make_server(outer)


def test_wsgi_gets_script_name(serve):
    """PEP 3333: SCRIPT_NAME and PATH_INFO together are the path."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return [json.dumps([environ["SCRIPT_NAME"], environ["PATH_INFO"]]).encode()]

    router = portico.Router()
    router.mount("/ä/app", portico.wsgi(app))
    router.mount("/", portico.wsgi(app))
    served = serve(router)
    for asked, script_name, path_info in [
        ("/%C3%A4/app", "/Ã¤/app", ""),
        ("/%C3%A4/app/", "/Ã¤/app", "/"),
        ("/%C3%A4/app/x%20y", "/Ã¤/app", "/x y"),
        ("/other", "", "/other"),
        ("/", "", "/"),
    ]:
        assert served.get(asked).json() == [script_name, path_info], asked


def test_asgi_gets_root_path(serve):
    """ASGI HTTP: `path` is whole and begins with `root_path`."""

    async def app(scope, receive, send):
        body = json.dumps([scope["root_path"], scope["path"], scope["raw_path"].decode()]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    router = portico.Router()
    router.mount("/app", portico.asgi(app, lifespan="off"))
    served = serve(router)
    assert served.get("/app").json() == ["/app", "/app", "/app"]
    assert served.get("/app/%78").json() == ["/app", "/app/x", "/app/%78"]


def test_frameworks_below_a_prefix(serve):
    shop = flask.Flask("shop")

    @shop.get("/cart/<int:number>")
    def cart(number):
        return flask.url_for("cart", number=number + 1)

    async def item(request: StarletteRequest):
        return starlette.responses.PlainTextResponse(str(request.url_for("item", name="next").path))

    news = starlette.applications.Starlette(routes=[starlette.routing.Route("/items/{name}", item, name="item")])
    router = portico.Router()
    router.mount("/shop", portico.wsgi(shop))
    router.mount("/news", portico.asgi(news))
    served = serve(router)
    assert served.get("/shop/cart/3").text == "/shop/cart/4"
    assert served.get("/news/items/first").text == "/news/items/next"
    assert served.get("/shop/none").status == served.get("/news/none").status == 404


def test_a_mounted_app_has_its_lifespan():
    log = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            for _ in range(2):
                kind = (await receive())["type"]
                log.append(kind)
                await send({"type": f"{kind}.complete"})
            return
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"app"})

    inner, outer, handler = portico.Router(), portico.Router(), portico.asgi(app, lifespan="on")
    inner.mount("/x", handler)
    inner.mount("/y", handler)
    outer.mount("/in", inner)
    outer.mount("/direct", handler)
    with portico.testing.server(outer) as s:
        assert log == ["lifespan.startup"], "one for each server, before the first request"
        # Added while serving, another app starts too.
        late = portico.asgi(app, lifespan="on")
        outer.mount("/late", late)
        from clients import request, trusting

        for path in ("/in/x", "/in/y", "/direct", "/late"):
            assert request(s.port, path=path, context=trusting(s.ca_pem)).text == "app"
        assert log == ["lifespan.startup"] * 2
    assert log[2:] == ["lifespan.shutdown"] * 2


def test_a_router_for_one_host_of_several(serve):
    router, other = portico.Router(), portico.Router()
    router.add_route("GET", "/a", seen)
    other.add_route("GET", "/b", seen)
    hosts = {"one.test": router, "two.test": other, "three.test": router}
    served = serve(hosts, hosts=tuple(hosts))
    statuses = {
        (host, path): served.get(path, host=host).status for host in served.testing.hosts for path in ("/a", "/b")
    }
    assert [key for key, status in statuses.items() if status == 200] == [
        ("one.test", "/a"),
        ("two.test", "/b"),
        ("three.test", "/a"),
    ]
    names = [name for name in served.server.stats()["handlers"] if ".seen" in name]
    assert len(names) == 2, "two hosts share one router's routes"


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("http2", [False, True])
def test_what_was_found_by_the_head_holds_when_the_body_has_come(serve, streams, http2):
    def handler(request):
        body = b"".join(request.stream()).decode()
        return {"statusCode": 200, "body": f"{request.root_path} {request.path} {request.pathParameters} {body}"}

    handler.stream_body = streams
    inner, router = portico.Router(), portico.Router()
    inner.add_route("POST", "/at/{name}", handler)
    router.mount("/app", inner)
    # The server has looked for who answers when it says `100 Continue`.
    with serve(router).wire() as wire:
        if http2:
            client = H2(wire)
            stream = client.open(("expect", "100-continue"), method="POST", path="/app/at/x", end=False)
            assert client.wait_for(h2.events.InformationalResponseReceived, stream)
            client.data(stream, b"late", end=True)
            reply = client.reply(stream)
        else:
            wire.send("POST /app/at/x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            assert wire.read().status == 100
            reply = wire.send("late").read()
    assert reply.text == "/app /at/x {'name': 'x'} late"
