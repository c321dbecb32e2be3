"""Sessions in Redis or Valkey, for several processes and machines."""

from __future__ import annotations

from typing import Any, cast

from .._errors import SessionError
from .._redis import connect
from ._store import Lock, Locked, Record, Store

# A session is one hash: v(ersion), b(ytes), e(nds), x (expires), and o(wner) and u(ntil) of its lock. Times are
# milliseconds since 1970 of whoever calls, so that all stores go by the same clock; the server's own only removes what
# has ended. Each script is one step for everybody else
# (https://redis.io/docs/latest/develop/programmability/eval-intro/).
_LOAD = """
local h = redis.call('HMGET', KEYS[1], 'v', 'b', 'e', 'x', 'o', 'u')
local now = tonumber(ARGV[1])
if not h[1] or tonumber(h[4]) <= now then return false end
if ARGV[3] ~= '' then
  if h[5] and h[5] ~= ARGV[3] and tonumber(h[6]) > now then return 'locked' end
  redis.call('HSET', KEYS[1], 'o', ARGV[3], 'u', string.format('%.0f', now + tonumber(ARGV[4])))
end
local expires = math.min(now + tonumber(ARGV[2]), tonumber(h[3]))
redis.call('HSET', KEYS[1], 'x', string.format('%.0f', expires))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', expires - now))
return {h[1], h[2], h[3]}
"""
_COMMIT = """
local new, old = KEYS[1], KEYS[2]
local now, owner, expected, version = tonumber(ARGV[1]), ARGV[3], ARGV[4], ARGV[5]
-- A try whose answer was lost on its way.
if redis.call('HGET', new, 'v') == version then return 'kept' end
local h = redis.call('HMGET', old, 'v', 'x', 'o', 'u')
local there = ''
if h[1] and tonumber(h[2]) > now then there = h[1] end
if there ~= expected then return 'changed' end
if there ~= '' and h[3] and h[3] ~= owner and tonumber(h[4]) > now then return 'locked' end
redis.call('DEL', old)
local expires = math.min(now + tonumber(ARGV[2]), tonumber(ARGV[6]))
redis.call('HSET', new, 'v', version, 'b', ARGV[7], 'e', ARGV[6], 'x', string.format('%.0f', expires))
redis.call('PEXPIRE', new, string.format('%.0f', math.max(1, expires - now)))
return 'kept'
"""
_UNLOCK = """
if redis.call('HGET', KEYS[1], 'o') == ARGV[1] then redis.call('HDEL', KEYS[1], 'o', 'u') end
"""


class RedisStore(Store):
    """Sessions in the Redis or Valkey at `url`: `redis://:password@host:6379/0`, `rediss://` with TLS, `unix://path`.
    Its keys begin with `prefix`. Needs the package `redis` (`pip install portico[redis]`), and a server of version 5 or
    newer; not a cluster.

    A server that does not answer within 2 seconds is tried again once; then requests that use their session are
    answered 503, until it is there again. What it keeps over its restarts, and what it does when its memory is full, is
    its own matter (`appendonly`, `maxmemory-policy volatile-lru`).

    Raises `ConfigError` for a URL that is none, and without the package."""

    def __init__(self, url: str, *, prefix: str = "portico:session:") -> None:
        self._prefix = prefix
        self._client, self._name, self._errors = connect(url, "sessions", "a store")
        self._load = self._client.register_script(_LOAD)
        self._commit = self._client.register_script(_COMMIT)
        self._unlock = self._client.register_script(_UNLOCK)

    def load(self, key: str, now: float, idle: float, lock: Lock | None = None) -> Record | None:
        arguments = [_ms(now), _ms(idle), lock.owner if lock else "", _ms(lock.lease) if lock else 0]
        found = self._call(self._load, [self._prefix + key], arguments)
        if found is None:
            return None
        if found == b"locked":
            raise Locked
        version, value, ends = found
        return Record(version.decode(errors="replace"), value, int(ends) // 1000)

    def commit(
        self, key: str, record: Record, replaces: tuple[str, str] | None, now: float, idle: float, owner: str
    ) -> bool:
        old, expected = replaces or (key, "")
        arguments = [_ms(now), _ms(idle), owner, expected, record.version, record.ends * 1000, record.value]
        kept = self._call(self._commit, [self._prefix + key, self._prefix + old], arguments)
        if kept == b"locked":
            raise Locked
        return cast(bool, kept == b"kept")

    def unlock(self, key: str, owner: str) -> None:
        self._call(self._unlock, [self._prefix + key], [owner])

    def delete(self, key: str) -> bool:
        return bool(self._call(self._client.delete, self._prefix + key))

    def close(self) -> None:
        self._client.close()

    def __repr__(self) -> str:
        return f"<RedisStore {self._name}>"

    def _call(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except self._errors as error:
            raise SessionError(f"sessions: the Redis at {self._name} cannot be used: {error}") from error


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
