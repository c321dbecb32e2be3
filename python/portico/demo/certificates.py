"""Development certificates that are kept: an authority of this machine's own, and what it signs.

A folder holds `ca.crt`, which clients may trust, `authority.pem`, which signs, and for each host `HOST.pem`.
Certificate and key stand in one file, so that one rename puts both in place and no crash can part them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from portico import CertificateError, Server
from portico._core import certificate_info, issue_certificate, make_authority

# Short, as public authorities have it: what is trusted by mistake is not trusted for long.
VALID_DAYS = 90
# Issued anew this long before the end, so that none expires while a demo runs.
RENEW_DAYS = 7

_SECTION = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----\n?", re.DOTALL)


@dataclass(frozen=True)
class Pair:
    """A certificate chain and its key, both as PEM, and what stands before them in their file."""

    cert: str
    key: str
    title: str = ""


@dataclass(frozen=True)
class Certificates:
    """What a folder holds once `keep` is done with it."""

    ca: Path
    """The authority's certificate, for clients to trust. An absolute path."""
    pairs: Mapping[str, Path]
    """The file with certificate and key of each host. Absolute paths."""
    subjects: Mapping[str, str]
    """The subject of each host's certificate."""
    new_authority: bool
    """Whether the authority was made just now, so that nobody trusts it yet."""


def keep(folder: Path, hosts: Mapping[str, Sequence[str]]) -> Certificates:
    """Makes certificates for some hosts, or takes those that the folder holds.

    `hosts` gives for each host the names and IP addresses in its certificate. A folder made here is open to
    its owner alone (0700), and so are the files with keys (0600). A certificate that is unreadable, or has
    less than `RENEW_DAYS` left, is issued anew by the same authority; the authority is made anew only where
    it cannot be used or would expire before what it signs. Two processes may do this at once.

    Raises OSError where the folder cannot be used."""
    folder = Path(os.path.abspath(folder))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder):
        authority = _read(folder / "authority.pem", VALID_DAYS)
        new = authority is None
        if authority is None:
            authority = Pair(*make_authority(f"portico demo on {socket.gethostname()}"[:64]))
            _write(folder / "authority.pem", authority.cert + authority.key)
        _write(folder / "ca.crt", authority.cert, mode=0o644)
        pairs = {host: folder / f"{host}.pem" for host in hosts}
        for host, path in pairs.items():
            if not _is_good(path, hosts[host], authority):
                issued = issue_certificate(authority.cert, authority.key, list(hosts[host]), VALID_DAYS)
                _write(path, _title(hosts[host]) + "".join(issued))
        subjects = {host: certificate_info(path.read_bytes())[0] for host, path in pairs.items()}
    return Certificates(folder / "ca.crt", pairs, subjects, new)


def _is_good(path: Path, names: Sequence[str], authority: Pair) -> bool:
    """Whether a host can go on using that file."""
    pair = _read(path, RENEW_DAYS)
    return pair is not None and pair.title == _title(names) and authority.cert in pair.cert


def _read(path: Path, days: int) -> Pair | None:
    """The pair in a file; None where there is none that can be used for that many days."""
    try:
        path.chmod(0o600)  # Whoever widened it did not mean to.
        text = path.read_text("ascii")
        _, not_after = certificate_info(text.encode())
        # A server that never listens knows best whether certificate and key are readable and belong together.
        with Server() as server:
            server.add_context(None, cert=path, key=path)
    except (OSError, UnicodeDecodeError, CertificateError):
        return None
    if not_after - time.time() < days * 86400:
        return None
    sections = [(match[1], match[0]) for match in _SECTION.finditer(text)]
    cert = "".join(pem for label, pem in sections if label == "CERTIFICATE")
    key = "".join(pem for label, pem in sections if label.endswith("PRIVATE KEY"))
    return Pair(cert, key, text.partition("-----BEGIN ")[0])


def _title(names: Sequence[str]) -> str:
    """The first line of a host's file, which readers of PEM skip: what the certificate is good for."""
    return f"For {', '.join(names)}\n"


def _write(path: Path, text: str, mode: int = 0o600) -> None:
    """Puts a file in place whole or not at all, with those permissions from its first byte on."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.read_text("ascii") == text and path.stat().st_mode & 0o777 == mode:
            return
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder against other processes that do the same."""
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Some network file systems know no locks. There, of two first starts at once, one may fail.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
