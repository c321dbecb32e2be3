"""Small functions that build response dicts. A handler may as well write the dict by hand."""

from __future__ import annotations

import email.utils
import http
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

from ._errors import ResponseError

Response = dict[str, Any]

Event = str | dict[str, Any]

_EVENT = {"event": None, "id": None, "retry": None, "data": None}.keys()
_NEWLINE = re.compile(r"\r\n|\r|\n")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# What RFC 6265 section 4.1.1 calls a cookie-octet.
_COOKIE_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
_ATTRIBUTE = re.compile(r"[\x20-\x3a\x3c-\x7e]*")
# What clients keep: RFC 6265bis sections 5.5 and 5.6. Longer cookies and attributes they drop without a word.
_LONGEST_AGE = timedelta(days=400)
_LONGEST_COOKIE = 4096
_LONGEST_ATTRIBUTE = 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def response(status: int = 200, body: str | bytes | None = None, content_type: str | None = None) -> Response:
    """A response with a body. `content_type` defaults to `text/plain; charset=utf-8` for `str` and to
    `application/octet-stream` for bytes.

    >>> response(200, "hi")["headers"]
    {'content-type': 'text/plain; charset=utf-8'}
    """
    headers = {}
    if body is not None:
        if content_type is None:
            content_type = "text/plain; charset=utf-8" if isinstance(body, str) else "application/octet-stream"
        headers["content-type"] = content_type
    return {"statusCode": status, "headers": headers, "body": body}


def event_stream(events: Iterable[Event] | AsyncIterable[Event], status: int = 200) -> Response:
    """Server-sent events (WHATWG HTML section 9.2), sent as they come. Each is a str, its data, or a dict with `data`
    and maybe `event`, `id` and `retry` (milliseconds). An async iterable needs an `async def` handler.

    While the client is there the iterable is asked for more; when it has left, a generator is closed, an async one
    cancelled. Raises `ResponseError` for what is no event.

    >>> list(event_stream([{"event": "tick", "data": "1"}])["body"])
    ['event: tick\\ndata: 1\\n\\n']
    """
    headers = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
    if isinstance(events, AsyncIterable):
        body: Any = _written_later(events)
    else:
        body = map(_write_event, events)
    return {"statusCode": status, "headers": headers, "body": body}


async def _written_later(events: AsyncIterable[Event]) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield _write_event(event)
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


def _write_event(event: Event) -> str:
    if isinstance(event, str):
        event = {"data": event}
    if not isinstance(event, dict) or not event.keys() <= _EVENT or "data" not in event:
        raise ResponseError(f"event_stream: an event is a str, or a dict of {', '.join(_EVENT)}, not {event!r}")
    lines = []
    for name in _EVENT:
        if name not in event:
            continue
        # Every line of the data is a line of its own; the others have one, and an id no NUL.
        values = _NEWLINE.split(str(event[name]))
        if name != "data" and (len(values) > 1 or "\0" in values[0]):
            raise ResponseError(f"event_stream: {name}: {event[name]!r} is not one line")
        lines += [f"{name}: {value}\n" for value in values]
    return "".join(lines) + "\n"


def redirect(url: str, status: int = 302) -> Response:
    """Sends the client to another URL (RFC 9110 section 15.4). What may not stand in one is percent-encoded.

    Raises `ResponseError` where `status` is no redirection.

    >>> redirect("/a b")["headers"]["location"]
    '/a%20b'
    """
    if status not in (301, 302, 303, 307, 308):
        raise ResponseError(f"redirect: status 301, 302, 303, 307 or 308, not {status}")
    return {"statusCode": status, "headers": {"location": quote(url, safe="!#$%&'()*+,/:;=?@[]~")}, "body": None}


def error(status: int) -> Response:
    """A line of plain text that says what a status means.

    >>> error(404)["body"]
    '404 Not Found\\n'
    """
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    return response(status, f"{status} {phrase}\n")


def add_header(response: Response, name: str, value: str) -> Response:
    """Adds a header beside those of the same name, in place; returns the response.

    >>> add_header({"statusCode": 200}, "vary", "cookie")["multiValueHeaders"]
    {'vary': ['cookie']}
    """
    response.setdefault("multiValueHeaders", {}).setdefault(name, []).append(value)
    return response


def set_cookie(
    response: Response,
    name: str,
    value: str,
    *,
    max_age: int | None = None,
    expires: datetime | None = None,
    path: str | None = "/",
    domain: str | None = None,
    secure: bool = True,
    http_only: bool = True,
    same_site: str | None = "Lax",
    partitioned: bool = False,
) -> Response:
    """Adds a `Set-Cookie` header (RFC 6265bis) in place; returns the response.

    The defaults are the safe ones: over HTTPS only (`secure`), out of scripts' reach (`http_only`), not sent from
    other sites but by links (`same_site="Lax"`; `"Strict"`, `"None"` or None). `max_age` is in seconds. It and
    `expires`, UTC where it has no zone, are no more than 400 days, as clients have it.

    Raises `ResponseError` for what clients would drop: characters that cannot stand in a cookie (percent-encode such
    values with `urllib.parse.quote`), more than 4096 bytes of name and value or 1024 of an attribute,
    `same_site="None"` or `partitioned` without `secure`, a name with `__Secure-` without it, one with `__Host-` with a
    `domain` or another path than `/` too.

    >>> set_cookie({"statusCode": 200}, "a", "1", max_age=60)["multiValueHeaders"]["set-cookie"]
    ['a=1; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax']
    """
    if not _TOKEN.fullmatch(name):
        raise ResponseError(f"cookie {name!r}: not a cookie name (RFC 6265 section 4.1.1)")
    if not _COOKIE_VALUE.fullmatch(value):
        raise ResponseError(f"cookie {name}: the value has characters that need quoting (urllib.parse.quote)")
    if same_site not in ("Lax", "Strict", "None", None):
        raise ResponseError(f"cookie {name}: same_site is 'Lax', 'Strict', 'None' or None, not {same_site!r}")
    _check_cookie(name, value, path, domain, secure, same_site, partitioned)
    parts = [f"{name}={value}"]
    if expires is not None:
        parts.append("Expires=" + _written_date(name, expires))
    if max_age is not None:
        parts.append(f"Max-Age={_bounded_age(name, max_age)}")
    parts += [f"{attribute}={text}" for attribute, text in (("Domain", domain), ("Path", path)) if text is not None]
    parts += ["Secure"] * secure + ["HttpOnly"] * http_only
    if same_site is not None:
        parts.append(f"SameSite={same_site}")
    parts += ["Partitioned"] * partitioned
    return add_header(response, "set-cookie", "; ".join(parts))


def _check_cookie(
    name: str, value: str, path: str | None, domain: str | None, secure: bool, same_site: str | None, partitioned: bool
) -> None:
    """What RFC 6265bis sections 5.6 and 5.7 have clients drop; `Partitioned` is of CHIPS."""
    if len(name) + len(value) > _LONGEST_COOKIE:
        raise ResponseError(f"cookie {name[:40]}: name and value are over {_LONGEST_COOKIE} bytes")
    for attribute, text in (("Domain", domain), ("Path", path)):
        if text is not None:
            if not _ATTRIBUTE.fullmatch(text):
                raise ResponseError(f"cookie {name}: {attribute} has characters that cannot stand in it")
            if len(text) > _LONGEST_ATTRIBUTE:
                raise ResponseError(f"cookie {name}: {attribute} is over {_LONGEST_ATTRIBUTE} bytes")
    if path is not None and not path.startswith("/"):
        raise ResponseError(f"cookie {name}: the path begins with a slash, unlike {path!r}")
    # Clients compare the prefixes without regard to case.
    is_host, is_secure = name.lower().startswith("__host-"), name.lower().startswith("__secure-")
    if is_host and (path != "/" or domain is not None):
        raise ResponseError(f"cookie {name}: with __Host- the path is / and there is no domain")
    needs = {
        "__Host-": is_host,
        "__Secure-": is_secure,
        "same_site None": same_site == "None",
        "partitioned": partitioned,
    }
    for what, needed in needs.items():
        if needed and not secure:
            raise ResponseError(f"cookie {name}: {what} needs secure")


def _written_date(name: str, moment: datetime) -> str:
    if not isinstance(moment, datetime):
        raise ResponseError(f"cookie {name}: expires is a datetime, not {type(moment).__name__}")
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    latest = datetime.now(timezone.utc) + _LONGEST_AGE
    # What is long past is the same to clients as the epoch, but not to the calendars of all of them.
    return email.utils.format_datetime(max(_EPOCH, min(moment, latest)).astimezone(timezone.utc), usegmt=True)


def _bounded_age(name: str, seconds: float) -> int:
    if not isinstance(seconds, (int, float)) or seconds != seconds:
        raise ResponseError(f"cookie {name}: max_age is a number of seconds, not {seconds!r}")
    return int(max(0, min(seconds, _LONGEST_AGE.total_seconds())))


def delete_cookie(
    response: Response,
    name: str,
    *,
    path: str | None = "/",
    domain: str | None = None,
    secure: bool = True,
    same_site: str | None = "Lax",
    partitioned: bool = False,
) -> Response:
    """Tells the client to forget a cookie, in place; returns the response. `path`, `domain` and `partitioned` must be
    those it was set with; `secure=False` is for cookies without TLS, `same_site="None"` for those in pages of other
    sites.

    Raises `ResponseError` as `set_cookie` does.

    >>> delete_cookie({"statusCode": 200}, "a")["multiValueHeaders"]["set-cookie"][0][:17]
    'a=; Expires=Thu, '
    """
    attributes: dict[str, Any] = {"path": path, "domain": domain, "secure": secure, "same_site": same_site}
    return set_cookie(response, name, "", max_age=0, expires=_EPOCH, partitioned=partitioned, **attributes)
