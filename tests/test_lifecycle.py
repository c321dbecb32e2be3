"""A server's beginning and end, in any thread, any number of times, whatever is going on."""

import gc
import os
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

import portico
from clients import GENEROUS, Wire, refuses, request, trusting, wait_until


def hello(request):
    return {"statusCode": 200, "body": "hello"}


def test_start_and_stop_a_hundred_times_in_threads(issue, ca_pem):
    identity, context = issue("localhost"), trusting(ca_pem)

    def once(number):
        with portico.Server(hello) as server:
            server.add_context("localhost", **identity)
            port = server.listen(0).port
            return request(port, context=context).status

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(once, range(100))) == [200] * 100


def what_is_held():
    gc.collect()
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.mark.parametrize("kind", ["def", "async def", "never asked"])
def test_threads_and_descriptors_are_given_back(issue, ca_pem, kind):
    identity, context = issue("localhost"), trusting(ca_pem)

    async def asynchronous(request):
        return hello(request)

    def once():
        with portico.Server(asynchronous if kind == "async def" else hello) as server:
            server.add_context("localhost", **identity)
            port, clear = server.listen(0).port, server.listen(0, tls=False).port
            if kind != "never asked":
                assert request(port, context=context).status == 200
                with Wire(clear) as wire:
                    assert wire.get().status == 200

    once()
    before = what_is_held()
    for _ in range(20):
        once()
    # Threads leave the kernel's list a moment after they were joined.
    wait_until(lambda: all(now <= was for now, was in zip(what_is_held(), before, strict=True)), f"{before}")


def test_a_refused_start_gives_everything_back(make_server):
    port = make_server().listen(0, tls=False).port
    before = what_is_held()
    for _ in range(20):
        server = portico.Server(hello)
        with pytest.raises(portico.ListenError):
            server.listen(port, tls=False)
        server.close()
        del server
    wait_until(lambda: all(now <= was for now, was in zip(what_is_held(), before, strict=True)), f"{before}")


def test_closed_server_says_so(make_server, issue):
    server = make_server()
    context = server.add_context("localhost", **issue("localhost"))
    listener = server.listen(0)
    server.close()
    for call in (
        lambda: server.add_context("b.test", **issue("b.test")),
        lambda: server.remove_context("localhost"),
        lambda: server.listen(0),
        lambda: server.listen(0, tls=False),
        server.serve_forever,
    ):
        with pytest.raises(portico.ClosedError, match="closed server"):
            call()
    assert server.stats()["connections_open"] == 0
    assert "closed" in repr(server)
    assert context.host == "localhost"
    listener.close()


def test_entering_a_closed_server(make_server):
    server = make_server()
    server.close()
    with pytest.raises(portico.ClosedError), server:
        pytest.fail("it was entered")


def test_context_manager_closes_also_when_its_body_raises():
    ports = []

    def body():
        with portico.Server(hello) as server:
            ports.append(server.listen(0, tls=False).port)
            assert request(ports[0]).status == 200
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert refuses(ports[0])


def test_no_signal_handler_is_installed(serve):
    numbers = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    before = {number: signal.getsignal(number) for number in numbers}
    served = serve()
    assert served.get().status == 200
    assert {number: signal.getsignal(number) for number in numbers} == before
    served.server.close()
    assert {number: signal.getsignal(number) for number in numbers} == before


def test_serve_forever_in_a_thread_ends_with_the_server(serve):
    served = serve()
    serving = threading.Thread(target=served.server.serve_forever)
    serving.start()
    assert served.get().status == 200
    served.server.close()
    serving.join(GENEROUS)
    assert not serving.is_alive()


def start_and_forget(known):
    server = portico.Server(hello)
    known.append(server.listen(0, tls=False).port)
    assert request(known[0]).status == 200


def start_and_forget_with_a_handler_that_knows_the_server(known):
    def handler(request):
        return {"statusCode": 200, "body": repr(server)}

    server = portico.Server(handler)
    known.append(server.listen(0, tls=False).port)
    assert request(known[0]).status == 200


@pytest.mark.parametrize("start", [start_and_forget, start_and_forget_with_a_handler_that_knows_the_server])
def test_forgotten_server_is_closed_with_a_warning(start):
    known = []

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start(known)

        def gone():
            gc.collect()
            return refuses(known[0])

        wait_until(gone, "the port to be free", timeout=10)
    assert any(issubclass(each.category, ResourceWarning) and "never closed" in str(each.message) for each in caught)
