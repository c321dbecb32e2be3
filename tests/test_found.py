"""What people found who tried to break it, each kept as a test."""

import asyncio
import contextlib
import gc
import socket
import subprocess
import sys
import threading
import weakref

import pytest

import portico
import portico.testing


def hello(request):
    return {"statusCode": 200, "body": "hello"}


def test_listening_while_it_is_closed_comes_back():
    for _ in range(50):
        server = portico.Server(hello)
        listening = threading.Thread(target=lambda server=server: listen_quietly(server))
        listening.start()
        server.close(0)
        listening.join(30)
        assert not listening.is_alive()
        server.close(0)


def listen_quietly(server):
    with contextlib.suppress(portico.Error):  # where the other was faster
        server.listen(0, tls=False)


@pytest.mark.parametrize("dispatch", ["threads", "inline", "auto"])
def test_a_handler_that_polls_does_not_abort_the_interpreters_end(dispatch):
    program = f"""
import portico, socket, threading, time
begun = threading.Event()
def poll(request):
    begun.set()
    while True:
        time.sleep(0.0005)
server = portico.Server(poll, dispatch="{dispatch}")
listener = server.listen(0, tls=False)
client = socket.create_connection(("127.0.0.1", listener.port))
client.sendall(b"GET / HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")
begun.wait(30)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_odd_answer_does_not_cost_the_others_theirs(serve):
    class Gone:
        pass

    def handler(request):
        return weakref.proxy(Gone()) if request.path == "/odd" else hello(request)

    served = serve(handler, dispatch="asyncio")
    with served.wire() as odd, served.wire() as good:
        odd.send("GET /odd HTTP/1.1\r\nHost: h\r\n\r\n")
        good.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 5)
        assert odd.read().status == 500
        assert [good.read().status for _ in range(5)] == [200] * 5


def test_an_async_handler_for_a_closed_server_starts_no_thread(issue):
    async def handler(request):
        return hello(request)

    server = portico.Server(hello)
    server.listen(0, tls=False)
    server.close()
    before = set(threading.enumerate())
    with pytest.raises(portico.ClosedError):
        server.add_context("a.test", handler=handler, **issue("a.test"))
    assert set(threading.enumerate()) <= before


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("precious")
    with portico.Server(hello) as server, pytest.raises(portico.ListenError):
        server.listen(unix=path, tls=False)
    assert path.read_text() == "precious"


def test_a_successors_unix_socket_is_left_alone(tmp_path):
    path = tmp_path / "socket"
    with portico.Server(hello) as successor:
        with portico.Server(hello) as server:
            server.listen(unix=path, tls=False)
            path.unlink()
            successor.listen(unix=path, tls=False)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_chain_with_garbage_in_it_is_refused(issue):
    good = issue("a.test")
    garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    with portico.Server(hello) as server:
        with pytest.raises(portico.CertificateError, match="number"):
            server.add_context("a.test", cert=good["cert"] + garbage, key=good["key"])
        with pytest.raises(portico.CertificateError, match="swapped"):
            server.add_context("a.test", cert=good["key"], key=good["cert"])


def test_handlers_are_freed_with_their_context(issue):
    class Handler:
        def __call__(self, request):
            return hello(request)

    with portico.Server(hello) as server:
        handler = Handler()
        gone = weakref.ref(handler)
        server.add_context("a.test", handler=handler, **issue("a.test"))
        server.remove_context("a.test")
        del handler
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: portico.Server(hello).add_context("a.test", "a.crt", "a.key"),
        lambda: portico.Server(hello).listen(nonsense=1),
    ],
)
def test_a_wrong_call_on_a_server_that_is_freed_by_it_says_what_is_wrong(call):
    with pytest.raises(TypeError):
        call()


def test_serve_forever_on_the_loop_of_the_handlers_is_refused():
    async def main():
        async with portico.Server(hello) as server:
            server.listen(0, tls=False)
            with pytest.raises(portico.ConfigError, match="wait_closed"):
                server.serve_forever()

    asyncio.run(main())


def test_a_mapping_of_handlers_names_the_hosts():
    with portico.testing.server({"a.localhost": hello, "b.localhost": hello}) as served:
        assert set(served.urls) == {"a.localhost", "b.localhost"}
    with pytest.raises(portico.ConfigError), portico.testing.server(hello, "localhost"):
        pass


def test_too_many_headers_of_a_response_are_refused(serve):
    served = serve(lambda request: {"statusCode": 200, "headers": {f"x-{n}": "" for n in range(30_000)}})
    assert served.get().status == 500
    with served.httpx() as client:
        assert client.get("/").status_code == 500


def test_an_unknown_or_slow_charset_costs_nothing(serve):
    served = serve(lambda request: {"statusCode": 200, "body": request.text[:5]})
    with served.httpx() as client:
        for charset in ("punycode", "no-such-charset"):
            reply = client.post(
                "/", content=b"hello" * 100_000, headers={"content-type": f"text/plain; charset={charset}"}
            )
            assert reply.text == "hello"


def test_tls_that_ends_without_close_notify_after_a_request_is_answered(serve, gate):
    served = serve(gate)
    with served.tls_wire() as wire:
        wire.send("GET /late HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        gate.wait_for()
        # FIN below TLS, without its farewell.
        socket.socket.shutdown(wire.sock, socket.SHUT_WR)
        gate.opened.set()
        assert wire.read().status == 200
