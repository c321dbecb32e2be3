"""Who is measured, and how each is started: one process that serves, on one core, with what its makers recommend."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import apps

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Above the time of any load, where a default is below it: otherwise servers would close what is held open.
KEEP_ALIVE = "75"

H1 = frozenset({"h1"})
BOTH = frozenset({"h1", "h2"})
BARE = frozenset({"hello", "large", "upload"})
STATIC = frozenset({"static"})
# Files that are served, in bytes.
FILES = {"1k.txt": 2**10, "100k.txt": 100 * 2**10, "10m.txt": 10 * 2**20}
BLOCKING = BARE | {"isolation"}
ASYNCHRONOUS = BLOCKING | {"suspend", "echo", "websocket"}
ASGI = ASYNCHRONOUS | {"starlette"}


@dataclass(frozen=True)
class Site:
    """What a server is to serve: an application on a port, with a certificate."""

    app: str
    port: int
    folder: Path
    """Has `certificate.pem` and `key.pem`, and takes what a server writes."""

    @property
    def certificate(self) -> str:
        return str(self.folder / "certificate.pem")

    @property
    def key(self) -> str:
        return str(self.folder / "key.pem")


def static_files(site: Site) -> Path:
    """A folder with the files that are served; its parent has them too, as `static/`."""
    folder = site.folder / "static"
    folder.mkdir(exist_ok=True)
    for name, size in FILES.items():
        if not (folder / name).exists():
            (folder / name).write_bytes((apps.LARGE * 10)[:size])
    return folder


@dataclass(frozen=True)
class Contender:
    name: str
    command: Callable[[Site], list[str]]
    version: Callable[[], str]
    protocols: frozenset[str] = BOTH
    apps: frozenset[str] = BLOCKING
    missing: Callable[[], str | None] = lambda: None
    """Why it is left out of a run, if it has to be."""


def limit_version() -> str:
    lock = (ROOT / "Cargo.lock").read_text()
    return ", ".join(" ".join(it) for it in re.findall(r'name = "(hyper|h2|rustls)"\nversion = "(.*)"', lock))


def example(name: str) -> Path:
    """A program of `rust/core/examples/`, as `make bench` builds it."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "examples" / name


def installed(package: str) -> Callable[[], str]:
    return lambda: importlib.metadata.version(package)


def needs(package: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        return None if importlib.util.find_spec(package) else f"{package} is not installed in this Python"

    return missing


def ours(kind: str, answers: frozenset[str] = BLOCKING) -> Contender:
    def missing() -> str | None:
        import portico

        wanted = kind in ("asgi", "wsgi") and not hasattr(portico, kind)
        return f"this portico has no portico.{kind}" if wanted else None

    def command(site: Site) -> list[str]:
        if kind == "static":
            static_files(site)
        return [sys.executable, str(HERE / "portico_server.py"), kind, str(site.port), site.certificate, site.key]

    return Contender(f"portico-{kind}", command, installed("portico"), apps=answers, missing=missing)


def limit(site: Site) -> list[str]:
    return [str(example("limit")), str(site.port), site.certificate, site.key]


def nginx(site: Site) -> list[str]:
    static_files(site)
    large = site.folder / "large"
    if not large.exists():
        large.write_bytes(apps.LARGE)
    filled = {"PORT": site.port, "FOLDER": site.folder, "CERTIFICATE": site.certificate, "KEY": site.key}
    config = (HERE / "nginx.conf").read_text().replace("@LARGE@", str(large))
    for name, value in filled.items():
        config = config.replace(f"@{name}@", str(value))
    path = site.folder / f"nginx-{site.port}.conf"
    path.write_text(config)
    return ["nginx", "-p", str(site.folder), "-e", "stderr", "-c", str(path)]


def nginx_version() -> str:
    said = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=False).stderr
    return " with ".join(re.findall(r"(?:version: nginx/|built with )(\S+(?: [\d.]+)?)", said))


def granian(interface: str) -> Contender:
    def command(site: Site) -> list[str]:
        # One thread of each kind is the fastest on one core: WSGI over HTTP/2 takes 8.4 µs with one blocking thread,
        # 14.3 with the default. Where handlers sleep, it keeps that.
        threads = [] if site.app == "isolation" else ["--blocking-threads", "1"]
        return [
            *(sys.executable, "-m", "granian", f"apps:{interface}", "--factory", "--working-dir", str(HERE)),
            *("--interface", interface, "--host", "127.0.0.1", "--port", str(site.port), "--workers", "1"),
            *("--runtime-threads", "1", "--runtime-mode", "st", "--loop", "uvloop"),
            *("--ssl-certificate", site.certificate, "--ssl-keyfile", site.key, "--log-level", "warning"),
            # As many connections it holds; at the default, 1024, the next one waits until another is closed.
            *("--backlog", "4096"),
            *(threads if interface == "wsgi" else ()),
        ]

    answers = {"wsgi": BLOCKING, "asgi": ASGI, "rsgi": BLOCKING | {"suspend"}}[interface]
    return Contender(f"granian-{interface}", command, installed("granian"), apps=answers, missing=needs("granian"))


def uvicorn(site: Site) -> list[str]:
    return [
        *(sys.executable, "-m", "uvicorn", "apps:asgi", "--factory", "--app-dir", str(HERE)),
        *("--host", "127.0.0.1", "--port", str(site.port), "--loop", "uvloop", "--http", "httptools"),
        *("--ssl-certfile", site.certificate, "--ssl-keyfile", site.key, "--lifespan", "off"),
        *("--log-level", "warning", "--no-access-log", "--timeout-keep-alive", KEEP_ALIVE),
    ]


def hypercorn(site: Site) -> list[str]:
    config = site.folder / "hypercorn.toml"
    # The default closes a connection after 1000 requests.
    config.write_text("keep_alive_max_requests = 1000000000\n")
    return [
        *(sys.executable, "-m", "hypercorn", "apps:asgi()", "--config", str(config), "--worker-class", "uvloop"),
        *("--bind", f"127.0.0.1:{site.port}", "--certfile", site.certificate, "--keyfile", site.key),
        *("--workers", "1", "--keep-alive", KEEP_ALIVE, "--log-level", "error", "--backlog", "1024"),
    ]


def script(name: str) -> Callable[[Site], list[str]]:
    return lambda site: [sys.executable, str(HERE / name), str(site.port), site.certificate, site.key]


CONTENDERS = (
    ours("auto", BLOCKING | {"echo", "websocket"}),
    ours("inline", BARE),
    ours("threads"),
    ours("async", ASYNCHRONOUS),
    ours("asgi", ASGI),
    ours("wsgi"),
    ours("static", STATIC),
    Contender("limit", limit, limit_version, apps=BARE),
    Contender("nginx", nginx, nginx_version, apps=BARE | STATIC),
    granian("wsgi"),
    granian("asgi"),
    granian("rsgi"),
    Contender("uvicorn", uvicorn, installed("uvicorn"), H1, ASGI, needs("uvicorn")),
    Contender("hypercorn", hypercorn, installed("hypercorn"), BOTH, ASGI, needs("hypercorn")),
    Contender(
        "aiohttp", script("aiohttp_server.py"), installed("aiohttp"), H1, BLOCKING | {"suspend"}, needs("aiohttp")
    ),
    Contender("cheroot", script("cheroot_server.py"), installed("cheroot"), H1, BLOCKING, needs("cheroot")),
)


def missing_tools(contenders: list[Contender]) -> dict[str, str]:
    """Programs that chosen contenders are, and that are not here: each with how to get it."""
    wanted = any(contender.name == "nginx" for contender in contenders)
    return {"nginx": "apt install nginx-light"} if wanted and not shutil.which("nginx") else {}
