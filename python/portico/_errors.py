"""The exceptions of portico. The binding raises these very classes (`rust/python/src/errors.rs`).

Error
├── ConfigError (ValueError)            a setting, host name or argument is wrong
│   └── CertificateError                a certificate or its key cannot be used
├── ListenError (OSError)               an address cannot be listened on
├── ClosedError (RuntimeError)          the server is closed, or belongs to another process
├── WorkerError (RuntimeError)          a worker process did not come to serve
├── HandshakeError (ConnectionError)    a TLS handshake failed (given to `on_error`)
├── RequestError (ValueError)           a request was refused (given to `on_error`)
│   ├── IncompleteRequest               more bytes are needed
│   └── LimitError                      a limit or time-out was passed
├── ResponseError (ValueError)          a handler returned what cannot be sent
├── SessionError (RuntimeError)         a session cannot be had, or not be kept
├── PageError (RuntimeError)            a server page cannot be run, or failed
└── WebSocketError (ConnectionError)    a WebSocket has ended, and not in order
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._core import ConnectionInfo


class Error(Exception):
    """The base of every error of portico. Its message says what was being done, to which server, host or
    peer, and why it failed."""


class ConfigError(Error, ValueError):
    """A setting, a host name or an argument is wrong."""


class CertificateError(ConfigError):
    """A certificate or its key cannot be used: unreadable, expired, not matching, or a wrong password. `on_error` gets
    one when `watch=True` finds that what was changed cannot be used."""


class ListenError(Error, OSError):
    """An address cannot be listened on. `errno` is the operating system's number, where it gave one."""

    # An ASGI app failed to start, and no address is to blame.
    _of_app: bool = False


class ClosedError(Error, RuntimeError):
    """The server is closed, or was started by another process (before a fork)."""


class WorkerError(Error, RuntimeError):
    """A worker process ended before it listened, or did not listen in time. The message ends with its traceback, where
    it had one."""


class HandshakeError(Error, ConnectionError):
    """A TLS handshake failed. It is counted in `stats()`, logged, and given to `on_error`; nobody has to catch it.

    `reason` is the label under which it is counted. `connection`, a `ConnectionInfo`, says whose it was: `peername`,
    `sockname`, and the name that was asked for, `sni`."""

    reason: str = ""
    connection: ConnectionInfo | None = None


class RequestError(Error, ValueError):
    """A request was refused (RFC 9110, RFC 9112). `status` is what its client was answered, `reason` the label
    under which it is counted, `connection` whose it was, where that is known. `end` is where the request ends, for
    `parse_request` and the reason `"longer"`."""

    status: int = 400
    reason: str = ""
    connection: ConnectionInfo | None = None
    end: int | None = None


class IncompleteRequest(RequestError):
    """The bytes so far are the beginning of a request: more are needed."""


class LimitError(RequestError):
    """A limit or a time-out of the settings was passed."""


class ResponseError(Error, ValueError):
    """A handler returned what cannot be sent as a response. Its client got a 500."""


class SessionError(Error, RuntimeError):
    """A session cannot be had or kept just now: its store cannot be reached, another request has it for too long, or
    has changed it meanwhile. Nothing of it is lost silently: a handler that lets this pass answers `status`, 503, with
    `Retry-After`. `reason` is `"store"`, `"busy"` or `"conflict"`, in the order of these three."""

    status: int = 503
    reason: str = "store"


class WebSocketError(Error, ConnectionError):
    """A WebSocket has ended: its client was lost or broke the rules, or something was to be sent after it was closed.

    `code` and `reason` are how it ended (RFC 6455 section 7.4); 1006 where its connection was lost. A handler that lets
    it pass is not taken for one that failed."""

    code: int = 1006
    reason: str = ""


class PageError(Error, RuntimeError):
    """A server page cannot be run, or failed. Its client got `status`, and its session is what it was before.

    `page` is the page, as `/folder/page.psp`, and `line` the line of it that failed, from 1 on; 0 where none is to
    blame, as with a limit. `reason` is `"syntax"`, `"error"`, or the limit that was passed: `"time"`, `"memory"`,
    `"output"`, `"recursion"`, `"calls"`, `"state"`; `"worker"` where the process that ran it died. `status` is 500, and
    503 with the reason `"busy"`, where no worker was free."""

    page: str = ""
    line: int = 0
    reason: str = "error"
    status: int = 500


# What a traceback prints is what can be imported.
for _error in [Error, *Error.__subclasses__(), CertificateError, IncompleteRequest, LimitError]:
    _error.__module__ = "portico"
