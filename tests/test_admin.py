"""The admin listener: who may look, what it bears, how it ends."""

import contextlib
import logging
import os
import socket
import stat
import threading

import httpx
import pytest

import portico
from clients import GENEROUS, Wire, curl, refuses, request, trusting, wait_until

TOKEN = "a-token-of-the-tests_2.0"


@pytest.fixture
def admin(make_server):
    """Makes an admin listener of a server that listens."""

    def admin(**options):
        server = make_server()
        server.listen(0, tls=False)
        return server.listen_admin(0, **options)

    return admin


def metrics(listener, host="127.0.0.1", headers=None, **more):
    return request(listener.port, path="/metrics", host=host, headers=headers or {}, **more)


def test_tells_where_it_is(make_server):
    server = make_server()
    listener = server.listen_admin()
    assert listener.address == ("127.0.0.1", listener.port)
    assert listener.url == f"http://127.0.0.1:{listener.port}"
    other = server.listen_admin(0)
    assert metrics(other).status == 200
    listener.close()
    listener.close()
    assert refuses(listener.port)
    assert metrics(other).status == 200
    with pytest.raises(portico.ListenError):
        server.listen_admin(other.port)
    server.close()
    assert refuses(other.port)
    with pytest.raises(portico.ClosedError):
        server.listen_admin(0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", socket.gethostname()])
def test_others_can_reach_it_with_a_token_alone(make_server, host):
    server = make_server()
    try:
        with contextlib.closing(server.listen_admin(0, host, token=TOKEN)) as listener:
            assert listener.port
    except portico.ListenError:
        pytest.skip(f"{host} cannot be listened on here")
    if listener.address[0].startswith("127.") or listener.address[0] == "::1":
        pytest.skip(f"{host} is this machine's own")
    with pytest.raises(portico.ConfigError, match="other machines can reach it, so it needs a token"):
        server.listen_admin(0, host)


def test_a_socket_that_is_handed_over_needs_one_too(make_server):
    server = make_server()
    with socket.create_server(("0.0.0.0", 0)) as everywhere, socket.create_server(("127.0.0.1", 0)) as here:
        with pytest.raises(portico.ConfigError, match="token"):
            server.listen_admin(fd=everywhere.fileno())
        assert metrics(server.listen_admin(fd=everywhere.fileno(), token=TOKEN)).status == 401
        assert metrics(server.listen_admin(fd=here.fileno())).status == 200


@pytest.mark.parametrize(
    "token", ["", "short", "with a space in it", "with\nbreaks in it here", "ünicode-ünicode-ü", 17]
)
def test_tokens_that_cannot_be_used(make_server, token):
    with pytest.raises(portico.ConfigError, match="token") as caught:
        make_server().listen_admin(0, token=token)
    assert not token or str(token) not in str(caught.value)


def test_a_token_is_shown_in_a_header(admin):
    listener = admin(token=TOKEN)
    assert metrics(listener, headers={"authorization": f"Bearer {TOKEN}"}).status == 200
    assert metrics(listener, headers={"Authorization": f"bearer  {TOKEN} "}).status == 200
    assert metrics(listener, host="anything.test", headers={"authorization": f"Bearer {TOKEN}"}).status == 200
    for wrong in [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "é" * 9,
    ]:
        reply = metrics(listener, headers={"authorization": wrong.encode()})
        assert (reply.status, reply.header("www-authenticate")) == (401, 'Bearer realm="portico admin"')
        assert TOKEN not in reply.text
    # Whoever restarts a container has none.
    assert request(listener.port, path="/probe/liveness").status == 200
    # What is not there is no secret's business either.
    assert request(listener.port, path="/nothing").status == 401


def test_a_browser_gets_a_cookie_for_it(admin):
    listener = admin(token=TOKEN)
    reply = request(listener.port, path=f"/metrics?a=b&token={TOKEN}")
    assert (reply.status, reply.header("location"), reply.header("referrer-policy")) == (303, "/metrics", "no-referrer")
    cookie, *attributes = reply.header("set-cookie").split("; ")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict"]
    assert TOKEN not in cookie
    assert metrics(listener, headers={"cookie": f"other=1; {cookie}"}).status == 200
    name, value = cookie.split("=")
    for wrong in ["", value[:-1], value[:-1] + "x", TOKEN]:
        assert metrics(listener, headers={"cookie": f"{name}={wrong}"}).status == 401
    assert request(listener.port, path="/metrics?token=wrong").status == 401
    # The way back stays here, whatever the path may look like.
    reply = request(listener.port, path=f"//evil.test/metrics?token={TOKEN}")
    assert (reply.status, reply.header("location")) == (303, "/evil.test/metrics")
    # It opens no other listener.
    assert metrics(admin(token=TOKEN + "2"), headers={"cookie": cookie}).status == 401


def test_a_token_is_told_to_nobody(make_server, caplog):
    caplog.set_level(logging.DEBUG)
    told = []
    server = make_server(on_error=lambda error, request: told.append((str(error), repr(request))))
    listener = server.listen_admin(0, token=TOKEN)
    for text in (
        f"GET /metrics?token={TOKEN} HTTP/1.1\r\nHost: a\r\n\r\n",
        f"GET /metrics?token={TOKEN} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nbroken\r\n\r\n",
        f"GET /metrics?token={TOKEN}\u00ff HTTP/1.1\r\nHost: a\r\n\r\n",
        f"GET /metrics?token={TOKEN} HTTP/3.1\r\nHost: a\r\n\r\n",
        f"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 5\r\n\r\nabcde",
        f"BREW http://{TOKEN}@a/?token={TOKEN} HTTP/1.1\r\nHost: a\r\n\r\n",
    ):
        with Wire(listener.port) as wire:
            wire.send(text).half_close()
            wire.cut()
    server.close()
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(told)
    assert TOKEN not in repr(listener) + repr(server)


@pytest.mark.parametrize("host", ["127.0.0.1:9", "[::1]", "192.0.2.1", "localhost", "LOCALHOST.:80", "app.localhost"])
def test_names_of_this_machine_are_answered(admin, host):
    with Wire(admin().port) as wire:
        assert wire.get("/metrics", host=host).status == 200


@pytest.mark.parametrize("host", ["evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "notlocalhost", "a@b"])
def test_a_strangers_name_that_leads_here_reads_nothing(admin, host):
    with Wire(admin().port) as wire:
        reply = wire.get("/metrics", host=host)
        assert reply.status == (400 if "@" in host else 421)
        assert "portico_" not in reply.text


def test_only_looking_is_allowed(admin):
    listener = admin()
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
        reply = request(listener.port, method, "/metrics")
        assert (reply.status, reply.header("allow")) == (405, "GET, HEAD")
    with Wire(listener.port) as wire:
        reply = wire.send("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").read("HEAD")
        assert (reply.status, reply.header("x-content-type-options")) == (200, "nosniff")
        # Not a byte of a body was sent: the next answer follows at once.
        assert wire.get("/nothing").status == 404
    assert request(listener.port, "GET", "/metrics", body=b"x" * 100_000).status == 413


def test_a_unix_socket(make_server, tmp_path):
    path = tmp_path / "admin.sock"
    server = make_server()
    listener = server.listen_admin(unix=path)
    assert (listener.address, listener.port) == (str(path), None)
    with Wire(0, unix=str(path)) as wire:
        assert wire.get("/metrics", host="any.name.test").status == 200
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    server.close()
    assert not path.exists()


def test_tls_with_the_certificates_of_the_server(make_server, issue, ca_pem):
    server = make_server()
    with pytest.raises(portico.ConfigError, match="TLS needs a certificate"):
        server.listen_admin(0, tls=True)
    context = server.add_context("localhost", **issue("localhost"), handler=lambda request: {"statusCode": 418})
    listener = server.listen_admin(0, tls=True, token=TOKEN)
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert listener.url.startswith("https://")
    reply = metrics(listener, host="localhost", context=trusting(ca_pem), headers=bearer)
    assert reply.status == 200
    assert 'timestamp_seconds{host="localhost"} ' in reply.text
    cookie = request(listener.port, path=f"/?token={TOKEN}", context=trusting(ca_pem)).header("set-cookie")
    assert "; Secure" in cookie
    # The certificates are those of now.
    context.replace(**issue("localhost", "more.test"))
    server.add_context("more.test", **issue("more.test"))
    assert metrics(listener, host="more.test", context=trusting(ca_pem), headers=bearer).status == 200
    with httpx.Client(verify=trusting(ca_pem), http2=True, trust_env=False) as client:
        reply = client.get(f"https://localhost:{listener.port}/metrics", headers=bearer)
        assert (reply.http_version, reply.status_code) == ("HTTP/2", 200)
    stats = server.stats()
    assert (stats["handshakes"], stats["connections_accepted"]) == (0, 0)


def test_slow_and_greedy_clients_are_cut(admin):
    listener = admin()
    with Wire(listener.port) as slow, Wire(listener.port) as large:
        slow.send("GET /metrics HT")
        large.send("GET / HTTP/1.1\r\nHost: localhost\r\nX: " + "x" * 20_000 + "\r\n\r\n")
        assert large.read().status == 431
        assert slow.read().status == 408


def test_a_probe_is_answered_however_many_others_stay(make_server):
    """Dashboards that are left open, scrapers that keep their connections: all from this machine, as probes are."""
    server = make_server()
    listener = server.listen_admin(0)
    with contextlib.ExitStack() as stack:
        kept = 0
        for _ in range(600):
            wire = stack.enter_context(Wire(listener.port))
            reply = wire.get("/probe/liveness")
            assert reply.status == 200
            if reply.header("connection") == "close":
                wire.close()
            else:
                kept += 1
        assert kept == 64, "the rest is closed behind its answer, so that there is room"
        for _ in range(100):
            stack.enter_context(Wire(listener.port))
        assert request(listener.port, path="/probe/readiness").status == 503, "it does not listen"
        assert metrics(listener).status == 200


def test_a_server_with_nothing_else_ends(make_server):
    for _ in range(20):
        server = make_server()
        listener = server.listen_admin(0)
        assert metrics(listener).status == 200
        server.close()
        assert refuses(listener.port)
    assert not [thread for thread in threading.enumerate() if thread.name == "portico-admin"]


def test_it_ends_with_a_server_under_async_with():
    import asyncio

    async def main():
        async with portico.Server(lambda request: {"statusCode": 200}) as server:
            listener = server.listen_admin(0)
            server.listen(0, tls=False)
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(f"{listener.url}/probe/readiness")).text == "ready\n"
        return listener.port

    assert refuses(asyncio.run(main()))


def test_it_answers_whoever_keeps_asking_until_the_end(make_server):
    """Readiness is asked for while a server drains: the answer is never a connection that is cut."""
    gate = threading.Event()

    def handler(request):
        gate.wait(GENEROUS)
        return {"statusCode": 200}

    server = make_server(handler)
    listener, admin = server.listen(0, tls=False), server.listen_admin(0)
    with Wire(listener.port) as wire, Wire(admin.port) as probe:
        wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: server.stats()["requests_in_flight"] == 1, "the request")
        closing = threading.Thread(target=server.close)
        closing.start()
        wait_until(lambda: probe.get("/probe/readiness").status == 503, "the drain")
        for _ in range(100):
            assert probe.get("/probe/liveness").status == 200
        gate.set()
        closing.join(GENEROUS)
        assert wire.read().status == 200


def test_curl_reads_it(admin):
    assert "portico_up 1" in curl(admin().port, "/metrics", "--compressed")
