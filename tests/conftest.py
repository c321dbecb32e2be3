"""Fixtures of all tests. Real sockets, real clients, port 0, and nothing that sleeps until a server is ready."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest
import trustme
from hypothesis import settings

import forms
import portico
import portico.testing
import session_stores
from clients import Errors, Served, Wire
from demos import Demo
from frames import H2
from running import Running
from sockets import OnHTTP1, OnHTTP2


def pytest_sessionfinish(session):
    """With PORTICO_NO_SKIPS, as in CI, a test that misses a program fails the run: there the programs are installed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    missing = [report for report in skipped if "not installed" in str(report.longrepr)]
    if missing and os.environ.get("PORTICO_NO_SKIPS") and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


settings.register_profile("portico", deadline=None, database=None, max_examples=60)
settings.load_profile("portico")


def hello(request):
    """Tells in its answer what was asked."""
    return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": f"hello {request.path}"}


@pytest.fixture(scope="session")
def ca():
    """A certificate authority."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_pem(ca):
    return ca.cert_pem.bytes()


@pytest.fixture(scope="session")
def issue(ca):
    """Makes `cert` and `key` for some host names, as keywords of `add_context`."""

    def issue(*names, **more):
        leaf = ca.issue_cert(*names, **more)
        return {"cert": b"".join(pem.bytes() for pem in leaf.cert_chain_pems), "key": leaf.private_key_pem.bytes()}

    return issue


@pytest.fixture
def serve():
    """Starts servers by `portico.testing`, closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def serve(handler=hello, hosts=("localhost",), **settings):
            errors = Errors()
            settings.setdefault("on_error", errors)
            testing = stack.enter_context(portico.testing.server(handler, hosts=hosts, **settings))
            return Served(testing, errors)

        yield serve


@pytest.fixture
def serve_asgi(serve):
    """Serves an ASGI application that is to see requests alone."""

    def serve_asgi(app, **settings):
        return serve(portico.asgi(app, lifespan="off"), **settings)

    return serve_asgi


@pytest.fixture
def make_server():
    """Makes servers that have no context and no listener yet, closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def make_server(handler=hello, **settings):
            server = portico.Server(handler, **settings)
            stack.callback(server.close, grace=0)
            return server

        yield make_server


@pytest.fixture
def run(tmp_path):
    """Starts `portico run` in the folder of the test; nothing of it is left."""
    started = []

    def run(*arguments, **environment):
        started.append(Running(tmp_path, *arguments, **environment))
        return started[-1]

    yield run
    for running in started:
        running.close()


@pytest.fixture
def h2_of():
    """HTTP/2 by hand on a server's TLS or cleartext port."""
    wires = []

    def h2_of(served, clear=False):
        wire = served.wire() if clear else served.tls_wire(alpn=["h2"])
        wires.append(wire)
        return H2(wire)

    yield h2_of
    for wire in wires:
        wire.close()


@pytest.fixture(params=[OnHTTP1, OnHTTP2], ids=["HTTP/1.1", "HTTP/2"])
def open_socket(request):
    """A function that opens a WebSocket on a server: over HTTP/1.1, and over HTTP/2."""
    opened = []

    def open_socket(served, path="/", *headers):
        opened.append(request.param(served, path, *headers))
        return opened[-1]

    open_socket.version = request.param.version
    yield open_socket
    for one in opened:
        one.wire.close()


@pytest.fixture
def stream(serve):
    """Starts a server whose listener gives its connections to a callback; a function that connects to it."""

    def stream(callback, *, tls=False, alpn=(), settings=None):
        served = serve(**(settings or {}))
        served.listener = served.server.listen(0, tls=tls, stream=callback, alpn=alpn)
        port = served.listener.port

        def connect(client_alpn=None, **more):
            context = served.context(alpn=client_alpn) if tls else None
            return Wire(port, context=context, **more)

        served.connect = connect
        return served

    return stream


@pytest.fixture(params=forms.KINDS[2:])
def streaming(request):
    """A kind of handlers that read forms as they come."""
    return request.param


class Gate:
    """A handler that counts who has come in and lets nobody out before it is opened."""

    def __init__(self):
        self.opened = threading.Event()
        self.entered = threading.Semaphore(0)

    def __call__(self, request):
        self.entered.release()
        assert self.opened.wait(60)
        return {"statusCode": 200, "body": f"through {request.path}"}

    def wait_for(self, number=1):
        """Waits until so many more have come in."""
        for _ in range(number):
            assert self.entered.acquire(timeout=30), "nobody came in"


@pytest.fixture
def gate(request):
    """A `Gate`, opened at the end of the test at the latest."""
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """A Redis for all tests that leave it as it is."""
    with session_stores.redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(params=session_stores.KINDS)
def stores(request, tmp_path):
    """Stores of sessions of each kind."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    with contextlib.closing(session_stores.Stores(request.param, tmp_path, url)) as stores:
        yield stores


@pytest.fixture
def traced(serve):
    """Starts a server whose connections are traced, in `served.trace`."""

    def traced(*handler, **settings):
        trace = portico.testing.Trace()
        served = serve(*handler, trace=trace, **settings)
        served.trace = trace
        return served

    return traced


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One demo for all tests of a module, which only look."""
    with contextlib.closing(Demo(tmp_path_factory.mktemp("home"), "--port", "0")) as demo:
        yield demo
