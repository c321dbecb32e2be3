"""Everything that `portico.toml` may say. The checks, the JSON Schema and the tables of docs/configuration.md are made
from this."""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import _core
from .._errors import ConfigError
from .._logs import LEVELS
from ._kinds import (
    _ABSENT,
    Choice,
    Key,
    Kind,
    Named,
    OneOf,
    PathTo,
    Seconds,
    Setting,
    Several,
    Switch,
    Table,
    Text,
    Whole,
    _called,
    located,
)
from ._nodes import Node, Problems
from ._places import FORMS, Place

KINDS = ("auto", "request", "asgi", "wsgi", "lambda")


class Address(Kind):
    """An address in one line, or its port alone."""

    expected = f"an address: {FORMS}"

    def check(self, node: Node, path: tuple[str, ...], problems: Problems) -> Any:
        value = node.value
        text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
        try:
            place = Place.parse(text)
            if place.unix is None:
                return place
            return dataclasses.replace(place, unix=str(located(place.unix, node.folder)))
        except ConfigError as error:
            told = f"{_called(path)}: {error}" if text else f"{_called(path)}: expected {self.expected}, not {value!r}"
            problems.add(node, path, told)
            return None

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0, "maximum": 65_535}]}


class ForAdmin(Address):
    """The same for the admin listener, in the clear unless `https://` stands before it."""

    expected = "an address: PORT, ADDRESS:PORT or unix:PATH, with https:// before it for TLS"

    def check(self, node: Node, path: tuple[str, ...], problems: Problems) -> Any:
        place = super().check(node, path, problems)
        if place is None:
            return None
        if place.fd is not None or place.systemd is not None:
            problems.add(node, path, f"admin: expected {self.expected}")
            return None
        return dataclasses.replace(place, tls=str(node.value).startswith("https://"))


class Listening(Table):
    """A table that becomes a `Place`."""

    def check(self, node: Node, path: tuple[str, ...], problems: Problems) -> Any:
        values = super().check(node, path, problems)
        given = [name for name in ("port", "unix", "fd", "systemd") if name in values]
        if len(given) != 1:
            which = f"both {given[0]} and {given[1]}" if given else "none of these"
            problems.add(node, (*path, ""), f"listen: one of port, unix, fd and systemd says where; here is {which}")
        if "host" in values and "port" not in values:
            problems.add(node, (*path, ""), "listen: host goes with port")
        if values.get("unix") is not None:
            values["unix"] = str(values["unix"])
        return Place(**values)


class Reference(Text):
    """`module:name`, or the name of one of `[handlers]`."""

    expected = "a handler: module:name, or the name of one of [handlers]"

    def take(self, node: Node) -> Any:
        return node.value if isinstance(node.value, str) and node.value.strip(": ") else _ABSENT


HANDLER_KEYS = [
    Key("call", Text(), "A function or an application, as `module:name`; `module:make()` calls what makes one."),
    Key(
        "kind",
        Choice(KINDS),
        "What it is: `request` for a function of a request and everything else of portico's, `asgi`, `wsgi`, `lambda`; "
        "`auto` finds out where that is possible.",
        "auto",
    ),
    Key("factory", Switch(), "Whether `call` is what makes the handler, and is to be called without arguments.", False),
    Key("files", PathTo("folder"), "A folder whose files are served (`portico.StaticFiles`)."),
    Key("index", Text(), "What answers for a folder.", "index.html"),
    Key("listing", Switch(), "Whether a folder without an index is shown as a list.", False),
    Key("dotfiles", Switch(), "Whether names that begin with a dot are served.", False),
    Key("precompressed", Switch(), "Whether `.br`, `.zst` and `.gz` beside a file are sent to who takes them.", True),
    Key("cache_control", Text(), "The `Cache-Control` of every file."),
    Key("pages", PathTo("folder"), "A folder of server pages (`portico.Pages`)."),
    Key("site", PathTo("folder"), "A folder with both, as `portico serve` has it."),
    Key(
        "mounts",
        Named(Reference()),
        'Handlers by the prefix of the path: `{ "/static" = "files", "/" = "app:app" }`, where `files` is one of '
        "`[handlers]`. The longest prefix answers.",
    ),
]
HANDLER = Table(tuple(HANDLER_KEYS))

LISTEN_KEYS = (
    Key("port", Whole(0, 65_535), "The port; 0 for any free one."),
    Key("host", Text(), "The address, with `port`.", "127.0.0.1"),
    Key("unix", PathTo("Unix socket"), "The path of a Unix socket, instead of a port."),
    Key("fd", Whole(0, 65_535), "The descriptor of a socket that listens already."),
    Key("systemd", Text(), "The name of a socket that systemd hands over (`FileDescriptorName=`)."),
    Key("tls", Switch(), "Whether TLS is spoken.", True),
    Key("backlog", Whole(1, 65_535), "How many connections the kernel queues.", "the setting `backlog`"),
    Key("proxy_protocol", Switch(), "Whether one of `trusted_proxies` says on each connection whose it is.", False),
)

HOST_KEYS = (
    Key("cert", PathTo(), "The certificate, with its chain."),
    Key("key", PathTo(), "Its key.", "the file of `cert`"),
    Key("pfx", PathTo(), "Both in one file of PKCS#12, instead."),
    Key("password_file", PathTo(), "A file whose first line opens what is encrypted."),
    Key("handler", OneOf(Reference(), HANDLER), "Who answers for this host.", "that of the whole"),
    Key("min_version", Choice(("1.2", "1.3")), "The lowest version of TLS.", "1.2"),
    Key("max_version", Choice(("1.2", "1.3")), "The highest version of TLS.", "1.3"),
    Key("alpn", Several(Text()), "The protocols that are offered.", ["h2", "http/1.1"]),
    Key(
        "client_auth", Choice(("none", "optional", "required")), "Whether clients are asked for a certificate.", "none"
    ),
    Key("client_ca", PathTo(), "The authorities that sign those."),
    Key("client_crl", PathTo(), "The lists of those that are revoked."),
    Key("ocsp", PathTo(), "An OCSP response to send with the certificate."),
    Key(
        "ticket_keys",
        Several(PathTo()),
        "Files of secrets by which several servers share TLS sessions, the newest first.",
    ),
    Key("watch", Switch(), "Whether these files are read again when they change.", True),
)

SESSION_KEYS = (
    Key("secret_file", PathTo(), "A file with the secrets that sign cookies, one a line, the newest first."),
    Key("store", Text(), "`memory:`, `sqlite:PATH` or the URL of a Redis.", "memory:"),
    Key("timeout", Seconds(0.01, 10 * 366 * 86_400.0), "How long a session may be idle.", 120.0),
    Key("lifetime", Seconds(0.01, 10 * 366 * 86_400.0), "How long one lives at the most.", 28_800.0),
    Key("cookie", Text(), "The name of the cookie.", "session"),
    Key("same_site", Choice(("Lax", "Strict", "None")), "To which requests it is added.", "Lax"),
    Key("secure", Switch(), "Whether the cookie is for TLS alone.", "as the listener is"),
    Key("lease", Seconds(0.01), "How long a request may have a session to itself.", 60.0),
    Key("lock_timeout", Seconds(0.01), "How long another request waits for it.", 5.0),
    Key("max_bytes", Whole(1, 2**40), "How large a session may be.", 2**20),
)

ADMIN_KEYS = (
    Key(
        "listen",
        ForAdmin(),
        "Where metrics, probes and the dashboard are found; several workers have their dashboards at the next ports.",
    ),
    Key(
        "token_file",
        PathTo(),
        "A file whose first line is the token that clients show; without, only this machine asks.",
    ),
)

SETTING_KEYS = tuple(
    Key(one["name"], Setting(one["name"], one["accepts"]), one["doc"], one["default"]) for one in _core.settings()
)

SESSIONS = Table(SESSION_KEYS)
ADMIN = Table(ADMIN_KEYS)
SETTINGS = Table(SETTING_KEYS)
HOST = Table(HOST_KEYS)
LISTEN = Listening(LISTEN_KEYS)

ROOT = Table(
    (
        Key("handler", OneOf(Reference(), HANDLER), "Who answers where a host has no handler of its own."),
        Key("app_dir", PathTo("folder"), "Where modules are looked for first.", "the folder of portico.toml"),
        Key(
            "listen",
            Several(OneOf(Address(), LISTEN)),
            "Where to listen.",
            "127.0.0.1:8443, or what systemd hands over",
        ),
        Key("workers", Whole(0, 1_000), "How many processes; 0 serves without a supervisor, and cannot reload.", 1),
        Key("grace", Seconds(), "How long what is in flight may take at the end, and at a reload.", 30.0),
        Key("ready_timeout", Seconds(0.01), "How long a worker may take until it listens.", 60.0),
        Key("log_level", Choice(LEVELS), "What is logged to standard error.", "info"),
        Key("control", PathTo("Unix socket"), "Where `portico reload` is listened to.", "one in the runtime folder"),
        Key("pid_file", PathTo(), "A file for the number of the process."),
        Key("trace", Switch(), "Whether every step of every connection is printed to standard error.", False),
        Key("admin", OneOf(ForAdmin(), ADMIN), "The listener for who runs the server: metrics, probes, the dashboard."),
        Key(
            "hosts",
            Named(Several(HOST)),
            "Certificates by host name; `default` is every other name. A list of tables "
            "gives a host several, ECDSA beside RSA.",
        ),
        Key("handlers", Named(HANDLER), "Handlers with names, to be used in more than one place, and for mounts."),
        Key("sessions", SESSIONS, "How `request.session` is kept."),
        Key("settings", SETTINGS, "Limits, time-outs and all else that `portico.Server` takes."),
    )
)


def json_schema() -> dict[str, Any]:
    """For editors, and for whoever checks the file elsewhere."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "portico.toml",
        "description": "The configuration of portico run.",
        **ROOT.schema(),
    }
