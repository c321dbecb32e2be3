"""What `portico run` says when it serves."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from portico import _greeting, config


def welcome(
    configuration: config.Configuration, urls: Sequence[str], remark: str = "", admins: Sequence[str] = ()
) -> str:
    """Where it is to be found, and how it is asked."""
    names = [name for name, _ in configuration.hosts if name != "default" and not name.startswith("*")]
    own = not configuration.hosts
    lines = [f"Serving {what(configuration)}:"]
    for url in urls:
        port = urlsplit(url).port
        if url.startswith("https:") and (names or own):
            lines += [f"  https://{name}:{port}/" for name in dict.fromkeys(names or ["localhost"])]
        else:
            lines.append(f"  {url}/")
    if remark:
        lines.append(remark)
    if admins:
        lines.append(f"Metrics, probes and the dashboard: {' '.join(f'{url}/' for url in admins)}")
    secure = next((url for url in urls if url.startswith("https:")), None)
    if own and secure:
        parts = urlsplit(secure)
        authority = config.own_certificate().authority
        assert parts.hostname
        assert parts.port
        lines += [
            "",
            "Its certificate is for this machine alone. Try it:",
            f"  {_greeting.curl(authority.ca, 'localhost', (parts.hostname, parts.port))}",
        ]
    return "\n".join([*lines, "", "Ctrl-C stops the server."])


def what(configuration: config.Configuration) -> str:
    """What is served, in a word or two."""
    handler = configuration.handler
    if isinstance(handler, str):
        return handler
    if handler:
        return next((str(handler[key]) for key in ("call", "files", "pages") if key in handler), "several handlers")
    return ", ".join(dict.fromkeys(name for name, _ in configuration.hosts)) or "nothing"
