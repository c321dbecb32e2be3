"""Clients to drive portico with: raw sockets, `http.client`, httpx, curl, openssl."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass
from functools import cached_property

import httpx
import pytest

import portico

# Far longer than anything takes; only a test that fails waits for it.
GENEROUS = 30.0


def wait_until(condition, what="the condition", timeout=GENEROUS):
    """Waits until `condition()` is true and returns its value."""
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        pause.wait(0.01)
    return value


def refuses(port):
    """Whether nobody listens there any more."""
    try:
        socket.create_connection(("127.0.0.1", port), GENEROUS).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # It was in the queue of a listener that is being closed.
    return False


def ports_in_a_row(count):
    """The first of so many that follow each other and are free; below those that the kernel gives for 0."""
    while True:
        first = random.randrange(20_000, 32_000)
        with contextlib.ExitStack() as closing, contextlib.suppress(OSError):
            for port in range(first, first + count):
                closing.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def trusting(ca_pem, *, alpn=None, minimum=None, maximum=None, ciphers=None):
    """A client context that trusts those PEM certificates only."""
    context = ssl.create_default_context(cadata=ca_pem if isinstance(ca_pem, str) else ca_pem.decode())
    if alpn:
        context.set_alpn_protocols(alpn)
    if minimum:
        context.minimum_version = minimum
    if maximum:
        context.maximum_version = maximum
    if ciphers:
        context.set_ciphers(ciphers)
    return context


@dataclass
class Reply:
    """A response as it came over the wire; header names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    version: str = "HTTP/1.1"

    def all(self, name):
        return [value for known, value in self.headers if known == name]

    def header(self, name):
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        return json.loads(self.body)


class Wire:
    """One connection, with or without TLS, on which a test writes bytes and reads responses. `before` is sent before the
    handshake, as a proxy does."""

    def __init__(
        self, port, *, host="127.0.0.1", unix=None, context=None, sni="localhost", receive_buffer=None, before=b""
    ):
        self.sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            self.sock.settimeout(GENEROUS)
            if receive_buffer:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.sock.connect(unix or (host, port))
            if not unix:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if before:
                self.sock.sendall(before)
            if context:
                # Without suppression, so that an end without close_notify is noticed.
                self.sock = context.wrap_socket(self.sock, server_hostname=sni, suppress_ragged_eofs=False)
            self.file = self.sock.makefile("rb")
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def read(self, method="GET"):
        """The next response, interim ones too; None where the server has closed instead."""
        line = self.file.readline()
        if not line:
            return None
        version, status, _ = line.decode("latin-1").split(" ", 2)
        headers = []
        while (line := self.file.readline()) != b"\r\n":
            assert line.endswith(b"\r\n"), f"the head breaks off after {headers}"
            name, value = line.decode("latin-1").rstrip("\r\n").split(":", 1)
            headers.append((name.lower(), value.strip()))
        reply = Reply(int(status), headers, b"", version)
        if method != "HEAD" and reply.status >= 200 and reply.status not in (204, 304):
            length = int(reply.header("content-length"))
            reply.body = self.file.read(length)
            assert len(reply.body) == length, "the body breaks off"
        return reply

    def get(self, path="/", headers="", host="localhost"):
        """Asks and reads the answer; the connection stays open."""
        return self.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n").read()

    def rest(self):
        """Everything until the server closes. Being reset is an error: it destroys what was on its way."""
        return self.file.read()

    def cut(self):
        """Waits until the server ends the connection in whatever way; what came before that."""
        came = b""
        try:
            while data := self.file.read1():
                came += data
        except (ConnectionError, ssl.SSLError):
            pass
        return came


def request(port, method="GET", path="/", *, host="localhost", sni=None, context=None, address="127.0.0.1", **more):
    """One request by `http.client` on a connection of its own. `host` is asked for, `address` connected to."""
    connection = http.client.HTTPConnection(host, port, timeout=GENEROUS)
    connection.sock = socket.create_connection((address, port), GENEROUS)
    try:
        if context:
            connection.sock = context.wrap_socket(connection.sock, server_hostname=sni or host)
        connection.request(method, path, **more)
        answer = connection.getresponse()
        headers = [(name.lower(), value) for name, value in answer.getheaders()]
        return Reply(answer.status, headers, answer.read())
    finally:
        connection.close()


class Errors:
    """An `on_error` that keeps what it is given."""

    def __init__(self):
        self.given = queue.Queue()

    def __call__(self, exception, request):
        self.given.put((exception, request))

    def next(self, kind=Exception):
        """The next exception of that kind and its request; others before it are passed over."""
        deadline = time.monotonic() + GENEROUS
        while True:
            exception, about = self.given.get(timeout=max(0.01, deadline - time.monotonic()))
            if isinstance(exception, kind):
                return exception, about


class Served:
    """A server by `portico.testing` with what tests want to know of it."""

    def __init__(self, testing, errors):
        self.testing, self.server, self.port, self.errors = testing, testing.server, testing.port, errors

    @cached_property
    def clear(self):
        """The port of a listener without TLS."""
        return self.server.listen(0, tls=False).port

    def context(self, **tls):
        return trusting(self.testing.ca_pem, **tls)

    def get(self, path="/", host="localhost", **more):
        return self.ask("GET", path, host=host, **more)

    def ask(self, method, path="/", **more):
        return request(self.port, method, path, context=self.context(), **more)

    def wire(self, **more):
        return Wire(self.clear, **more)

    def tls_wire(self, sni="localhost", alpn=None, **more):
        return Wire(self.port, context=self.context(alpn=alpn), sni=sni, **more)

    def httpx(self, host="localhost", http2=True, clear=False, **more):
        """An httpx client for a host of this server. On cleartext `http2` means by prior knowledge."""

        def name_it(request):
            request.extensions["sni_hostname"] = host

        scheme, port = ("http", self.clear) if clear else ("https", self.port)
        return httpx.Client(
            base_url=f"{scheme}://127.0.0.1:{port}",
            headers={"host": f"{host}:{port}"},
            event_hooks={"request": [name_it]},
            verify=self.context(),
            http1=not (clear and http2),
            http2=http2,
            timeout=GENEROUS,
            trust_env=False,
            **more,
        )

    def check_wrong_response(self, expected, caplog):
        """What the handler gives is no response: a whole 500, a line in the log, and the connection goes on."""
        with self.wire() as wire:
            reply = wire.get("/wrong")
            assert (reply.status, reply.text) == (500, "500 Internal Server Error\n")
            assert wire.get("/again").status == 500, "the connection is as good as before"
        error, request = self.errors.next(portico.ResponseError)
        assert expected in str(error)
        assert request.path == "/wrong"
        assert expected in caplog.text

    def stat(self, name, label=None):
        value = self.server.stats()[name]
        return value if label is None else value[label]

    def wait_stat(self, name, label=None, value=1):
        wait_until(lambda: self.stat(name, label) == value, f"{name} {label or ''} to become {value}")


def run(*command, **more):
    """Runs a client program; skips the test where it is not installed."""
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


def openssl(port, *options, host="localhost"):
    """What `openssl s_client` prints about a handshake."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", host, *options]
    done = run(*command, input="")
    return done.stdout + done.stderr


def curl(port, path, *options, host="localhost", ca=None):
    """What curl prints for a URL of that host; an exit code other than 0 is an error."""
    scheme = "https" if ca else "http"
    options = ["--silent", "--show-error", "--max-time", "30", "--resolve", f"{host}:{port}:127.0.0.1", *options]
    done = run("curl", *options, *(["--cacert", str(ca)] if ca else []), f"{scheme}://{host}:{port}{path}")
    assert done.returncode == 0, done.stderr
    return done.stdout
