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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from ._core import issue_certificate, make_authority
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
