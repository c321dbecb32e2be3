"""Who visits: users of three HTTPS hosts, most of whom keep their connection, and some who come anew for each request.

Everything goes to 127.0.0.1. The host names are in TLS (SNI), where each host's own certificate is verified, and in the
Host header; no name is looked up. `run.py` starts a server and this against it. By hand:

    PORTICO_LOAD_AUTHORITY=authority.pem locust -f loadtest/locustfile.py --host https://127.0.0.1:8443
"""

from __future__ import annotations

import itertools
import os
import socket
import ssl
import time
from typing import Any

import gevent
from geventhttpclient.client import HTTPClientPool
from geventhttpclient.connectionpool import ConnectionPool
from locust import FastHttpUser, between, events, task
from locust.env import Environment

from memory import resident

HOSTS = itertools.cycle(("localhost", "a.localhost", "b.localhost"))
UPLOAD = bytes(256 << 10)
DOWNLOAD = bytes(range(256)) * 4096
PROGRESS = float(os.environ.get("PORTICO_LOAD_PROGRESS", "5"))


def send_at_once(_: ConnectionPool, sock: socket.socket) -> None:
    """Turns Nagle's algorithm off, as browsers do: it holds this client's uploads back by 40 ms."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


ConnectionPool.after_connect = send_at_once


def trusting() -> ssl.SSLContext:
    """A client context that trusts the load test's own authority and nobody else."""
    return ssl.create_default_context(cafile=os.environ["PORTICO_LOAD_AUTHORITY"])


class Visitor(FastHttpUser):
    abstract = True
    wait_time = between(0, 0.02)
    network_timeout = 30.0
    connection: str | None = None

    def __init__(self, environment: Environment) -> None:
        self.site = next(HOSTS)
        self.default_headers = {"Host": self.site}
        if self.connection:
            self.default_headers["Connection"] = self.connection
        # Connects to the address in --host, and asks there for this user's host.
        self.client_pool = HTTPClientPool(
            ssl_context_factory=lambda **_: trusting(),
            ssl_options={"server_hostname": self.site},
            network_timeout=self.network_timeout,
        )
        super().__init__(environment)

    def on_stop(self) -> None:
        self.client_pool.close()

    def exchange(self, method: str, path: str, status: int, body: str | bytes | None, **options: Any) -> None:
        """One request. Another status or body than expected is a failure."""
        options.setdefault("name", path)
        with self.client.request(method, path, catch_response=True, **options) as response:
            if response.status_code != status:
                response.failure(f"status {response.status_code} instead of {status}: {response.error or ''}")
            elif isinstance(body, str) and response.text != body:
                response.failure(f"body {response.text!r} instead of {body!r}")
            elif isinstance(body, bytes) and response.content != body:
                response.failure(f"a body of {len(response.content or b'')} bytes is not what was expected")
            else:
                response.success()

    @task(10)
    def home(self) -> None:
        self.exchange("GET", "/", 200, f"{self.site}\n")

    @task(4)
    def search(self) -> None:
        body = f'{self.site}: {{a}} "b" (2)\n'
        self.exchange("GET", "/search?q=%7Ba%7D+%22b%22&page=2", 200, body, name="/search")

    @task(4)
    def form(self) -> None:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self.exchange("POST", "/form", 200, f"{self.site}: a b\n", data="message=a+b&x=y", headers=headers)

    @task(4)
    def json(self) -> None:
        body = f'{{"host": "{self.site}", "sum": 6}}'
        self.exchange("POST", "/json", 200, body, json={"numbers": [1, 2, 3]})

    @task(1)
    def upload(self) -> None:
        self.exchange("PUT", "/upload", 201, f"{self.site}: {len(UPLOAD)}\n", data=UPLOAD)

    @task(1)
    def download(self) -> None:
        self.exchange("GET", "/download", 200, DOWNLOAD)

    @task(2)
    def head(self) -> None:
        self.exchange("HEAD", "/", 200, b"")

    @task(2)
    def missing(self) -> None:
        self.exchange("GET", "/missing", 404, f"{self.site} has no /missing\n")


class Regular(Visitor):
    """Keeps its connection."""

    weight = 4


class Newcomer(Visitor):
    """A new connection and handshake for each request."""

    weight = 1
    connection = "close"


@events.test_start.add_listener
def show_progress(environment: Environment, **_: Any) -> None:
    """A line every few seconds, with the server's resident size where `run.py` says which process it is."""
    server = os.environ.get("PORTICO_LOAD_SERVER")

    def show() -> None:
        started, before = time.monotonic(), 0
        while True:
            gevent.sleep(PROGRESS)
            total = environment.stats.total
            rate, before = (total.num_requests - before) / PROGRESS, total.num_requests
            line = f"{time.monotonic() - started:4.0f} s: {total.num_requests} requests, {rate:.0f} a second, "
            line += f"{total.num_failures} failed, 95 % within {total.get_response_time_percentile(0.95)} ms"
            if server:
                line += f", server {resident(int(server)) / 2**20:.1f} MiB"
            print(line, flush=True)

    gevent.spawn(show)
