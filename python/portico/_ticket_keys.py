"""Keys of session tickets that several machines share by a Redis, and that change by themselves."""

from __future__ import annotations

import hmac
import os
import threading
import time
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._errors import ConfigError
from ._redis import connect
from ._reports import certificate_logger as _logger

if TYPE_CHECKING:
    from ._server import Server

# How long a ticket is good: rust/core/src/tls/tickets.rs.
_LIFETIME = 12 * 3600.0
# What clocks and pauses may add to that.
_SLACK = 3600.0
_LENGTH = 32
# More keys than that are not looked at; half a day each makes three.
_MOST = 32

# One sorted set, of keys by when they were made, in milliseconds by the clock of the Redis, so that those of the
# machines do not matter. One step for everybody else: who finds the newest too old adds the next, and there is only one
# that does (https://redis.io/docs/latest/develop/programmability/eval-intro/).
_TURN = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rotate, keep = tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - keep))
-- Of the future, as after its clock was wrong.
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not newest[1] or tonumber(newest[2]) + rotate <= now then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', keep))
end
return {string.format('%.0f', now), redis.call('ZREVRANGE', KEYS[1], 0, tonumber(ARGV[4]) - 1, 'WITHSCORES')}
"""


class RedisTicketKeys:
    """Keys of session tickets (RFC 5077) in the Redis or Valkey at `url`, for `Server.add_context(ticket_keys=)`:
    machines and processes that share it take up each other's TLS sessions, also when one of them has died.

    A new key is made every `rotate_every` seconds, by whoever first finds that it is time, and each one looks every
    `poll_interval` seconds. A new key seals once all have had the time to see it, and old ones open tickets for as long
    as those are good. `name` is the key in the Redis. One object may be given to any number of contexts and servers.

    With `secret`, 32 random bytes or more that all of them have from elsewhere, what is in the Redis is worth nothing
    to who reads it: the keys are made from both (HMAC-SHA256). Without it they are there in the clear: whoever can read
    the Redis can then read recorded TLS 1.2 sessions, and whoever can write to it can make sessions up.

    A Redis that is out of reach stops nobody: the keys that were there stay, or random ones are used until it is there,
    and `portico.certificate` logs a warning. Needs the package `redis` (`pip install portico[redis]`), and a server of
    version 5 or newer.

    Raises `ConfigError` for what is no such URL, secret or time, and without the package.

    >>> keys = RedisTicketKeys("redis://localhost:6379/0", secret=os.urandom(32))
    """

    def __init__(
        self,
        url: str,
        *,
        secret: bytes | None = None,
        name: str = "portico:ticket-keys",
        rotate_every: float = 12 * 3600.0,
        poll_interval: float = 2.0,
    ) -> None:
        if secret is not None and (not isinstance(secret, bytes) or len(secret) < _LENGTH):
            raise ConfigError(f"ticket keys: secret: {_LENGTH} random bytes or more, as of os.urandom({_LENGTH})")
        if not 0.05 <= poll_interval <= 3600:
            raise ConfigError(
                f"ticket keys: poll_interval: a number of seconds from 0.05 to 3600, not {poll_interval!r}"
            )
        # Until a key seals, all have to have seen it, also who had to wait for the Redis.
        self._settle = 3 * poll_interval
        if not 2 * self._settle <= rotate_every <= 30 * 86_400:
            raise ConfigError(
                f"ticket keys: rotate_every: a number of seconds from {2 * self._settle:g} (6 times poll_interval) to "
                f"2592000, not {rotate_every!r}"
            )
        self._secret = secret
        self._name = name
        self._rotate_every = rotate_every
        self._poll_interval = poll_interval
        self._keep = rotate_every + self._settle + _LIFETIME + _SLACK
        self._client, self._where, errors = connect(url, "ticket keys", "keys")
        self._errors: tuple[type[Exception], ...] = (*errors, ValueError)
        self._turn = self._client.register_script(_TURN)
        self._lock = threading.Lock()
        self._servers: weakref.WeakSet[Server] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        # What seals, first, and what opens; and when each was last seen in the Redis.
        self._keys: list[bytes] = []
        self._seen: dict[bytes, float] = {}
        self._failing = False

    def close(self) -> None:
        """Stops looking, and closes the connections to the Redis. Contexts go on with the keys that they have."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._client.close()

    def __enter__(self) -> RedisTicketKeys:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RedisTicketKeys {self._where}>"

    def current(self) -> list[bytes]:
        """The secrets as they are now: the first one seals, each opens. Asks the Redis where it was not asked yet."""
        with self._lock:
            if not self._keys:
                self._refresh()
            return list(self._keys)

    def follow(self, server: Server, context: Any) -> None:
        """From now on a context of that server gets what changes."""
        with self._lock:
            server._rotating.append((self, context))
            self._servers.add(server)
            # They may have changed since they were asked for.
            context.replace_ticket_keys(self._keys)
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._look, name="portico-ticket-keys", daemon=True)
                self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(self._poll_interval):
            with self._lock:
                servers = [server for server in self._servers if server._core.is_open()]
                if not servers:
                    self._thread = None
                    return
                before = list(self._keys)
                self._refresh()
                if self._keys == before:
                    continue
                for server in servers:
                    self._hand_on(server)

    def _hand_on(self, server: Server) -> None:
        there = server._core.contexts()
        server._rotating[:] = [(keys, context) for keys, context in server._rotating if context in there]
        for keys, context in list(server._rotating):
            if keys is self:
                context.replace_ticket_keys(self._keys)

    def _refresh(self) -> None:
        now = time.monotonic()
        arguments = [os.urandom(_LENGTH), _ms(self._rotate_every), _ms(self._keep), _MOST]
        try:
            clock, pairs = _read(self._turn([self._name], arguments))
        except self._errors as error:
            if not self._failing:
                _logger.warning(
                    "ticket keys: the Redis at %s cannot be used: %s; those that are there stay", self._where, error
                )
            self._failing = True
            self._make_do(now)
            return
        if self._failing:
            _logger.info("ticket keys: the Redis at %s is there again", self._where)
        self._failing = False
        # The newest first. Who writes something else there is not let in.
        pairs = [(self._derive(key), made) for key, made in pairs if len(key) == _LENGTH]
        if not pairs:
            self._make_do(now)
            return
        settled = [key for key, made in pairs if made + _ms(self._settle) <= clock]
        sealing = settled[0] if settled else pairs[-1][0]
        self._seen.update((key, now) for key, _ in pairs)
        # One that is gone from there, as when the Redis has lost all, may have sealed tickets that are still good.
        self._seen = {key: seen for key, seen in self._seen.items() if now - seen < self._keep}
        others = sorted((key for key in self._seen if key != sealing), key=lambda key: -self._seen[key])
        self._keys = [sealing, *others[: _MOST - 1]]
        # What does not open any more is forgotten too, however many keys somebody writes there.
        self._seen = {key: self._seen[key] for key in self._keys}

    def _make_do(self, now: float) -> None:
        if not self._keys:
            self._keys = [os.urandom(_LENGTH)]
            self._seen[self._keys[0]] = now

    def _derive(self, key: bytes) -> bytes:
        return key if self._secret is None else hmac.digest(self._secret, key, "sha256")


def _read(answer: Any) -> tuple[int, list[tuple[bytes, float]]]:
    """The clock of the Redis, and keys with when they were made. Raises ValueError where it answers something else, as
    what only looks like a Redis may."""
    try:
        clock, found = answer
        pairs = list(zip(found[::2], map(float, found[1::2]), strict=True))
        if not all(isinstance(key, bytes) for key, _ in pairs):
            raise ValueError("keys that are no bytes")
        return int(clock), pairs
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"its answer is none to what it was asked ({error})") from error


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
