"""What `portico run` and `portico serve` say when they serve."""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from portico import _certs, _greeting, config


def welcome(
    configuration: config.Configuration,
    urls: Sequence[str],
    made: _certs.Made | None,
    remark: str = "",
    admin: str | None = None,
    dashboards: Sequence[str] = (),
) -> str:
    """Where it is to be found, and how it is asked. `made` is the certificate that was made where none was given;
    `dashboards` are those of the workers, where these are several."""
    lines = [f"Serving {what(configuration)}:"]
    for url in urls:
        lines += [f"  {one}/" for one in by_name(configuration, url, made)]
    if remark:
        lines.append(remark)
    if admin is not None and len(dashboards) > 1:
        lines.append(f"Metrics and probes of all workers: {admin}/metrics")
        lines.append(f"The dashboard of each: {' '.join(f'{url}/' for url in dashboards)}")
    elif admin is not None:
        lines.append(f"Metrics, probes and the dashboard: {admin}/")
    if made and (secure := next((url for url in urls if url.startswith("https:")), None)):
        lines += _how_to_trust(made, secure)
    return "\n".join([*lines, "", "Ctrl-C stops the server."])


def by_name(configuration: config.Configuration, url: str, made: _certs.Made | None) -> list[str]:
    """Where clients find a listener by the names of its certificates, which seldom cover its address."""
    names = [name for name, _ in configuration.hosts if name != "default" and not name.startswith("*")]
    names = list(dict.fromkeys(names)) or (["localhost"] if made else [])
    if not url.startswith("https:") or not names:
        return [url]
    return [f"https://{name}:{urlsplit(url).port}" for name in names]


def status(configuration: config.Configuration, urls: Sequence[str], made: _certs.Made | None) -> str:
    """What is served, and one address for each listener."""
    return f"{what(configuration)} at {', '.join(by_name(configuration, url, made)[0] for url in urls)}"


def _how_to_trust(made: _certs.Made, url: str) -> list[str]:
    found = urlsplit(url)
    assert found.hostname, "no Unix socket"
    assert found.port
    just_now = " just now" if made.authority.new else ""
    return [
        "",
        "Try it:",
        f"  {_greeting.curl(made.authority.ca, 'localhost', (found.hostname, found.port))}",
        "",
        f"Browsers warn until they trust the authority that was made{just_now} for this machine alone:",
        *(f"  {line}" for line in _greeting.trusting(made.authority.ca, "portico-serve")),
    ]


def what(configuration: config.Configuration) -> str:
    """What is served, in a word or two."""
    handler = configuration.handler
    if isinstance(handler, str):
        return handler
    if handler:
        found = next((str(handler[key]) for key in ("call", "files", "site", "pages") if key in handler), None)
        return "several handlers" if found is None else found if "call" in handler else os.path.abspath(found)
    return ", ".join(dict.fromkeys(name for name, _ in configuration.hosts)) or "nothing"
