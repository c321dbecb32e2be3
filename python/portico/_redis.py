"""The client for Redis and Valkey, as sessions and ticket keys use it."""

from __future__ import annotations

from typing import Any

from ._errors import ConfigError

# How long to wait for the server, in seconds, and how often to try again: it may have been started anew, and then each
# connection finds out by a failure.
_TIMEOUT = 2.0
_RETRIES = 1


def connect(url: str, what: str, thing: str) -> tuple[Any, str, tuple[type[Exception], ...]]:
    """A client that connects when it is used, what to call its server in messages, and what it raises.

    `what` and `thing` are for messages: whose it is, and for what.

    Raises `ConfigError` for a URL that is none, and without the package."""
    try:
        import redis
        from redis.backoff import ExponentialBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise ConfigError(
            f"{what}: {thing} in Redis needs the package redis ({error}): pip install 'portico[redis]'"
        ) from error
    try:
        client: Any = redis.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), _RETRIES),
            retry_on_error=[redis.ConnectionError, redis.TimeoutError],
        )
    except ValueError as error:
        # The message does not have the URL in it, which may hold a password.
        raise ConfigError(f"{what}: not the URL of a Redis: {error}") from error
    options = client.connection_pool.connection_kwargs
    name = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return client, name, (redis.RedisError, OSError)
