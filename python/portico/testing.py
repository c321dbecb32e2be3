"""For tests of programs that use portico, and of portico itself. Needs nothing but portico.

>>> import urllib.request
>>> with server(lambda request: {"statusCode": 200, "body": "hi"}) as s:
...     urllib.request.urlopen(s.url, context=s.ssl_context).read()
b'hi'
"""

from __future__ import annotations

import contextlib
import functools
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from ._core import TraceRecord, issue_certificate, make_authority
from ._errors import ConfigError
from ._server import Handler, Listener, Server

T = TypeVar("T")


@dataclass(frozen=True)
class TestServer:
    """A server that runs, with what its clients need."""

    __test__ = False  # not a test, whatever pytest makes of its name

    server: Server
    """The server itself."""
    listener: Listener
    """Its TLS listener."""
    hosts: tuple[str, ...]
    """The host names it has certificates for."""
    ca_pem: str
    """The certificate of the authority that signed them."""

    @property
    def port(self) -> int:
        """The port, on 127.0.0.1."""
        port = self.listener.port
        assert port is not None
        return port

    @property
    def url(self) -> str:
        """`https://` and the first host and the port."""
        return self.urls[self.hosts[0]]

    @property
    def urls(self) -> Mapping[str, str]:
        """The URL of each host. Only those that resolve to 127.0.0.1, as `localhost` does, can be used as they are."""
        return {host: f"https://{host}:{self.port}" for host in self.hosts}

    @functools.cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """A client context that trusts this server and nobody else."""
        return ssl.create_default_context(cadata=self.ca_pem)


@functools.lru_cache(maxsize=1)
def _authority() -> tuple[str, str]:
    return make_authority("portico throw-away authority")


@contextlib.contextmanager
def server(
    handler: Handler | Mapping[str, Handler] | None, hosts: Sequence[str] | None = None, **settings: Any
) -> Iterator[TestServer]:
    """A server on a free port of 127.0.0.1 with a throw-away certificate for each host, closed at the end, also when
    the body raises.

    `handler` answers for all hosts; a mapping gives each host its own, and its keys are the
    default of `hosts`, which else is `localhost` alone. `settings` are those of `portico.Server`.
    """
    if hosts is None:
        hosts = tuple(handler) if isinstance(handler, Mapping) else ("localhost",)
    if isinstance(hosts, str):
        raise ConfigError(f"hosts: a list of host names, not the str {hosts!r}")
    ca_pem, ca_key = _authority()
    by_host = handler if isinstance(handler, Mapping) else {}
    fallback = None if isinstance(handler, Mapping) else handler
    with contextlib.ExitStack() as stack:
        running = Server(fallback, **settings)
        # A test that was interrupted should not wait half a minute for a client that it left behind.
        stack.callback(running.close, grace=5.0)
        for host in hosts:
            cert, key = issue_certificate(ca_pem, ca_key, [host], 1)
            running.add_context(host, cert=cert.encode(), key=key.encode(), handler=by_host.get(host))
        listener = running.listen(0)
        yield TestServer(running, listener, tuple(hosts), ca_pem)


def call_on_server(handler: Handler, client: Callable[[str], T], **settings: Any) -> T:
    """Runs `client(url)` on a thread of its own against a server with that handler; returns what it returns and raises
    what it raises. The URL is cleartext, so that any client will do.

    >>> import urllib.request
    >>> hi = lambda request: {"statusCode": 200, "body": "hi"}
    >>> call_on_server(hi, lambda url: urllib.request.urlopen(url).read())
    b'hi'
    """
    with contextlib.ExitStack() as stack:
        running = Server(handler, **settings)
        stack.callback(running.close, grace=5.0)
        url = running.listen(0, tls=False).url
        with ThreadPoolExecutor(1, "portico-test-client") as pool:
            return pool.submit(client, url).result()


class Trace:
    """Collects what `trace=` is called with, for tests to look at and to wait for.

    >>> import urllib.request
    >>> trace = Trace()
    >>> with server(lambda request: {"statusCode": 204}, trace=trace) as s:
    ...     urllib.request.urlopen(s.url, context=s.ssl_context).status
    ...     trace.wait("response").details["status"]
    204
    204
    """

    def __init__(self) -> None:
        self._records: list[TraceRecord] = []
        self._more = threading.Condition()

    def __call__(self, record: TraceRecord) -> None:
        with self._more:
            self._records.append(record)
            self._more.notify_all()

    @property
    def records(self) -> list[TraceRecord]:
        """Those that have come, in their order."""
        with self._more:
            return list(self._records)

    def find(
        self, event: str, *, connection: int | None = None, stream: int | None = None, **details: Any
    ) -> list[TraceRecord]:
        """Those of an event, and where that is given of one connection, of one request, or with certain details."""
        wanted = {"event": event, **details}
        if connection is not None:
            wanted["connection"] = connection
        if stream is not None:
            wanted["stream"] = stream
        return [record for record in self.records if wanted.items() <= record.as_dict().items()]

    def wait(
        self,
        event: str,
        *,
        count: int = 1,
        timeout: float = 10.0,
        connection: int | None = None,
        stream: int | None = None,
        **details: Any,
    ) -> TraceRecord:
        """Waits until so many of them have come, and returns the last of these.

        Raises `AssertionError` after `timeout` seconds, with what did come.
        """
        end = time.monotonic() + timeout
        while True:
            with self._more:
                known = len(self._records)
            found = self.find(event, connection=connection, stream=stream, **details)
            if len(found) >= count:
                return found[count - 1]
            with self._more:
                more = self._more.wait_for(lambda: len(self._records) > known, end - time.monotonic())  # noqa: B023
            if not more:
                raise AssertionError(
                    f"{len(found)} of {count} records of {event!r} came within {timeout} s; those that came:\n{self}"
                )

    def __str__(self) -> str:
        return "\n".join(map(str, self.records))
