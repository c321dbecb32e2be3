"""Certificate authorities for development that are kept in a folder, and how people are told to trust them.

The folder holds `ca.crt`, which clients may trust, and `authority.pem`, which signs. Where certificate and key are used
by portico alone they stand in one file, so that one rename puts both in place and no crash can part them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import re
import shlex
import socket
import ssl
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ._core import certificate_info, make_authority
from ._errors import CertificateError

# Nothing that is made here comes near it; what is longer is not ours.
_MAX_BYTES = 2**20

# Issued anew this long before the end, so that none expires while a program runs.
RENEW_DAYS = 30

_SECTION = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----\n?", re.DOTALL)


@dataclass(frozen=True)
class Pair:
    """A certificate chain and its key, both as PEM, and what stands before the certificate in its file."""

    cert: str
    key: str
    title: str = ""


@dataclass(frozen=True)
class Authority:
    """An authority that is kept."""

    ca: Path
    """Its certificate, for clients to trust."""
    pair: Pair
    new: bool
    """Whether it was made just now, so that nobody trusts it yet."""


def keep_authority(folder: Path, name: str, days: int, permitted: Sequence[str] | None = None) -> Authority:
    """The authority of a folder that the caller has locked. It is made anew where it cannot be used or would expire
    before what it signs for `days`; `permitted` are the domains and networks that a new one may sign for, by default
    every one."""
    pair = read_pair(folder / "authority.pem", days)
    new = pair is None
    if pair is not None:
        narrow(folder / "authority.pem")
    else:
        only = None if permitted is None else list(permitted)
        pair = Pair(*make_authority(f"{name} on {socket.gethostname()}"[:64], only))
        write(folder / "authority.pem", pair.cert + pair.key)
    write(folder / "ca.crt", pair.cert, mode=0o644)
    return Authority(folder / "ca.crt", pair, new)


def title(names: Sequence[str]) -> str:
    """The first line of a certificate's file, which readers of PEM skip: what it is good for."""
    return f"For {', '.join(names)}\n"


def is_good(cert: Path, key: Path, names: Sequence[str], authority: Pair) -> bool:
    """Whether a host can go on using those files: the same names, signed by that authority, and time left. A key that
    others may read is closed to them, once it is known that both files were made here."""
    pair = read_pair(cert, RENEW_DAYS, key)
    if pair is None or pair.title != title(names) or authority.cert not in pair.cert:
        return False
    narrow(key)
    return True


def read_pair(cert: Path, days: int, key: Path | None = None) -> Pair | None:
    """The pair in a file, or in two; None where there is none that can be used for that many days."""
    key = key or cert
    try:
        text, secret = read(cert), read(key)
        _, not_after = certificate_info(text.encode())
        belong_together(cert, key)
    except (OSError, UnicodeDecodeError, CertificateError):
        return None
    if not_after - time.time() < days * 86400:
        return None
    certs = "".join(pem for label, pem in _sections(text) if label == "CERTIFICATE")
    keys = "".join(pem for label, pem in _sections(secret) if label.endswith("PRIVATE KEY"))
    return Pair(certs, keys, text.partition("-----BEGIN ")[0])


def belong_together(cert: Path, key: Path) -> None:
    """Raises OSError where a certificate, expired or not, and a key are unreadable or of different pairs."""
    # Ours have no password. Where none is given OpenSSL would ask for it on the terminal.
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")


def read(path: Path) -> str:
    """The text of a file of the user's own. Raises OSError, before anything is read, for links, for what other users or
    other folders have too, and for what is no file: a FIFO would keep us waiting."""
    with open(_own(path), encoding="ascii") as file:
        return file.read(_MAX_BYTES)


def narrow(path: Path) -> None:
    """Closes a file that was made here to everybody else: whoever widened it did not mean to."""
    descriptor = _own(path)
    try:
        if os.fstat(descriptor).st_mode & 0o777 != 0o600:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _own(path: Path) -> int:
    """Opens a file that is the user's alone. What is looked at is what was opened, whatever the name leads to since."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise PermissionError(errno.EPERM, "not a file of this user's alone", str(path))


def _sections(text: str) -> list[tuple[str, str]]:
    return [(match[1], match[0]) for match in _SECTION.finditer(text)]


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Puts a file in place whole or not at all, with those permissions from its first byte on."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if read(path) == text and path.stat().st_mode & 0o777 == mode:
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
def locked(folder: Path, *signed: str) -> Iterator[None]:
    """Makes a folder, open to its owner alone, where there is none, and holds it against other processes that do the
    same. An authority in it, and the files `signed`, are ours to replace from then on.

    Raises OSError for a folder with such files that was not made here."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = folder / ".lock"
    for name in ("ca.crt", "authority.pem", *signed):
        if os.path.lexists(folder / name) and not os.path.lexists(lock):
            raise FileExistsError(errno.EEXIST, f"{name} there is not of portico's making", str(folder))
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    with _held(descriptor):
        yield


def alone_in(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Holds a folder of others against other processes that do the same, and leaves nothing in it."""
    return _held(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


@contextlib.contextmanager
def _held(descriptor: int) -> Iterator[None]:
    try:
        # Some network file systems know no locks. There, of two first starts at once, one may fail.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def user_folder(*parts: str) -> Path:
    """Where the XDG base directory specification puts the data of a user; it has relative paths ignored."""
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not data.is_absolute():
        home = Path(os.environ.get("HOME", ""))
        if not home.is_absolute():
            with contextlib.suppress(KeyError):  # Containers run as users that have no name.
                home = Path(pwd.getpwuid(os.getuid()).pw_dir)
        data = home / ".local" / "share"
    return data.joinpath("portico", *parts)


def how_to_trust(ca: Path, nickname: str) -> dict[str, str]:
    """For each system and each program that has a list of its own: how it is told to trust an authority."""
    file = shlex.quote(str(ca))
    return {
        "Debian, Ubuntu": f"sudo install -m 644 {file} /usr/local/share/ca-certificates/{nickname}.crt"
        " && sudo update-ca-certificates",
        "Fedora, Arch": f"sudo trust anchor {file}",
        "macOS": f"security add-trusted-cert -r trustRoot -k ~/Library/Keychains/login.keychain-db {file}",
        "Windows": f"certutil -user -addstore Root {ca.name}",
        "Firefox": f"Settings, Certificates, View Certificates, Authorities, Import: {file}",
        "Chrome, Chromium": f"certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n {nickname} -i {file}",
    }
