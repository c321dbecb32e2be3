"""`portico certs`: a certificate for names of one's own, signed by an authority that this machine alone has."""

from __future__ import annotations

import ipaddress
import os
import shlex
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import _authority
from ._core import certificate_info, issue_certificate, make_authority
from ._errors import CertificateError, ConfigError

DEFAULT_DAYS = 365
# Apple's systems take no certificate that is valid for more than 825 days, and ours begin a day early.
MAX_DAYS = 824
# File systems take 255 bytes, and a draft of the file has a longer name.
_MAX_STEM_BYTES = 200

# Names and networks that nobody on the internet can own: an authority for these alone, stolen, is no bank and no mail
# server to those who trust it. RFC 2606, 6761, 6762, 8375, 1918, 3927, 4193, 4291, 6598; .internal is ICANN's.
LOCAL = (
    *("localhost", "test", "example", "invalid", "example.com", "example.net", "example.org"),
    *("local", "internal", "home.arpa"),
    *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"),
    *("::1/128", "fc00::/7", "fe80::/10"),
)


class CertsError(ConfigError):
    """What can be mended by a flag of `portico certs`, for who has typed that."""

    def __init__(self, why: str, advice: str) -> None:
        super().__init__(f"{why}; {advice}")
        self.why = why


@dataclass(frozen=True)
class Wanted:
    """What the command was asked for."""

    names: tuple[str, ...]
    out: Path
    """The folder for certificate and key."""
    stem: str | None
    """What they are called; None is after the first host name."""
    ca: Path | None
    """The folder of the authority; None is one of the user's."""
    days: int
    force: bool
    """Whether to make them anew, and overwrite what is there."""
    any_name: bool
    """Whether the authority may sign for every name."""


@dataclass(frozen=True)
class Made:
    """What a call of `make` has left on the disk."""

    names: tuple[str, ...]
    cert: Path
    key: Path
    not_after: int
    kept: bool
    """Whether the files were there already and are good."""
    authority: _authority.Authority


def run(wanted: Wanted) -> int:
    """Makes the files, says where they are and how to use and trust them, and returns the exit code 0.

    Raises `ConfigError` for names, folders and files that cannot be used."""
    print(_report(make(wanted)))
    return 0


def make(wanted: Wanted) -> Made:
    """Makes a certificate and its key, or takes those that are there, as `run` has it."""
    for given in (*wanted.names, wanted.stem, wanted.out, wanted.ca):
        _refuse_what_is_no_text("" if given is None else str(given))
    names = tuple(dict.fromkeys(_plain(name) for name in wanted.names))
    cert, key = _files(wanted, names)
    folder = wanted.ca or _authority.user_folder("authority-for-any-name" if wanted.any_name else "authority")
    folder = Path(os.path.abspath(folder))
    permitted = None if wanted.any_name else LOCAL
    _refuse_before_anything_is_made(wanted, names, cert, key, folder, permitted)
    try:
        with _authority.locked(folder):
            authority = _authority.keep_authority(folder, "portico development", MAX_DAYS, permitted)
    except OSError as error:
        raise CertsError(f"cannot keep the authority in {folder}: {error.strerror}", "--ca names another") from error
    try:
        cert.parent.mkdir(parents=True, exist_ok=True)
        with _authority.alone_in(cert.parent):
            kept = _keep(wanted, names, cert, key, authority)
        _, not_after = certificate_info(cert.read_bytes())
    except OSError as error:
        raise CertsError(f"cannot write to {cert.parent}: {error.strerror}", "--out names another folder") from error
    return Made(names, cert, key, not_after, kept, authority)


def _refuse_before_anything_is_made(
    wanted: Wanted, names: Sequence[str], cert: Path, key: Path, folder: Path, permitted: Sequence[str] | None
) -> None:
    """Tries it in memory, so that what is refused leaves neither an authority nor folders behind."""
    pair = _authority.read_pair(folder / "authority.pem", MAX_DAYS)
    good = pair is not None and not wanted.force and _authority.is_good(cert, key, names, pair)
    if good:
        return
    if pair is None:
        pair = _authority.Pair(*make_authority("portico trial", None if permitted is None else list(permitted)))
    _issue(_authority.Authority(folder / "ca.crt", pair, new=True), names, wanted)
    if not wanted.force:
        _refuse_to_overwrite(cert, key, names)


def _keep(wanted: Wanted, names: Sequence[str], cert: Path, key: Path, authority: _authority.Authority) -> bool:
    """Makes both files where they are not there and good already, and says whether they were."""
    if not wanted.force and _authority.is_good(cert, key, names, authority.pair):
        return True
    chain, secret = _issue(authority, names, wanted)
    if not wanted.force:
        _refuse_to_overwrite(cert, key, names)
    for path in (cert, key):
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode) and not path.is_symlink():
            raise CertsError(f"not overwriting {path}, which is no file", "--name gives both another name")
    _authority.write(key, secret)
    _authority.write(cert, _authority.title(names) + chain, mode=0o644)
    return False


def _files(wanted: Wanted, names: Sequence[str]) -> tuple[Path, Path]:
    """Where the certificate and its key go."""
    stem = _stem(names) if wanted.stem is None else wanted.stem
    if len(stem.encode()) > _MAX_STEM_BYTES:
        raise ConfigError(f"{stem[:32]}... is too long for the name of a file; --name gives a shorter one")
    if stem in ("", ".", "..") or Path(stem).name != stem or "\0" in stem:
        raise ConfigError(f"--name {stem!r} is not the name of a file; --out says where it goes")
    out = Path(os.path.abspath(wanted.out))
    return out / f"{stem}.crt", out / f"{stem}.key"


def _refuse_what_is_no_text(given: str) -> None:
    """Arguments that are not UTF-8 come with surrogates, which can neither be certified nor printed."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{os.fsencode(given)!r} is not UTF-8") from None


def _plain(name: str) -> str:
    """The form in which a name stands in a certificate; the core checks what is no address."""
    if not name:
        raise ConfigError("an empty name")
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name.lower().rstrip(".") or name


def _stem(names: Sequence[str]) -> str:
    """What the files are called: a name that every file system and shell takes."""
    name = next((name for name in names if not _is_address(name)), names[0])
    return name.replace("*", "_wildcard").replace(":", "-").lstrip("-").replace("/", "_") or "certificate"


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _issue(authority: _authority.Authority, names: Sequence[str], wanted: Wanted) -> tuple[str, str]:
    try:
        return issue_certificate(authority.pair.cert, authority.pair.key, list(names), wanted.days)
    except CertificateError as error:
        if wanted.any_name or "may not sign for" not in str(error):
            raise
        raise ConfigError(
            f"{', '.join(names)}: the authority in {authority.ca.parent} signs only for what is nobody's on the "
            "internet (localhost, *.test, *.example, *.internal, private networks and the like), so that its key is of "
            "no use to a thief; --any-name takes, or makes, one that signs for every name"
        ) from error


def _refuse_to_overwrite(cert: Path, key: Path, names: Sequence[str]) -> None:
    """What is there may go where it is an older pair for the same names, and where there is nothing."""
    there = [path for path in (cert, key) if os.path.lexists(path)]
    if not there:
        return
    try:
        ours = _authority.read(cert).startswith(_authority.title(names)) and bool(_authority.read(key))
        _authority.belong_together(cert, key)  # A key says nothing of who made it, but for its certificate.
    except (OSError, UnicodeDecodeError):
        ours = False
    if not ours:
        files = " and ".join(map(str, there))
        raise CertsError(f"not overwriting {files}, which portico did not make for these names", "--force does")


def _report(made: Made) -> str:
    ca = made.authority.ca
    trust = _authority.how_to_trust(ca, "portico-development")
    file = shlex.quote(str(ca))
    days = round((made.not_after - time.time()) / 86400)
    lines = [
        f"{'Kept' if made.kept else 'Made'} a certificate for {', '.join(made.names)}; {days} days are left.",
        f"  certificate  {made.cert}",
        f"  key          {made.key}",
        f"  authority    {ca}{' (made just now: nobody trusts it yet)' if made.authority.new else ''}",
        "",
        "Serve with it:",
        *(f"  {line}" for line in _python(made)),
        "",
        "Or by the command line, MODULE:NAME being what answers:",
        f"  {_command(made)}",
        "",
        "Trust the authority once, and all that it signs is trusted:",
        *(f"  {where:<18}{how}" for where, how in trust.items()),
        "",
        "Or in one client alone:",
        f"  {'curl':<18}curl --cacert {file} {_target(made.names[0].replace('*', 'any'))}",
        f"  {'ssl, urllib':<18}ssl.create_default_context(cafile={str(ca)!r})",
        f"  {'httpx':<18}httpx.get(url, verify=ssl.create_default_context(cafile={str(ca)!r}))",
        f"  {'requests':<18}requests.get(url, verify={str(ca)!r})",
        f"  {'all of these':<18}SSL_CERT_FILE={file} (requests: REQUESTS_CA_BUNDLE)",
        f"  {'Node.js':<18}NODE_EXTRA_CA_CERTS={file}",
        "",
        f"Keep {ca.parent / 'authority.pem'} to yourself: who has it is any of these names to those who trust it.",
    ]
    return "\n".join(lines)


def _python(made: Made) -> list[str]:
    """The two lines that serve: a context for each name, the default for addresses, since clients send none."""
    hosts = list(dict.fromkeys(None if _is_address(name) else name for name in made.names))
    files = f"cert={str(made.cert)!r}, key={str(made.key)!r}"
    one = f"server.add_context({hosts[0]!r}, {files})"
    several = f"for name in {hosts!r}: server.add_context(name, {files})"
    return [one if len(hosts) == 1 else several, "listener = server.listen(8443)"]


def _command(made: Made) -> str:
    """The same by `portico run`."""
    hosts = dict.fromkeys("default" if _is_address(name) else name for name in made.names)
    told = [shlex.quote(f"{host}={made.cert},{made.key}") for host in hosts]
    return f"portico run MODULE:NAME {' '.join(f'--host {one}' for one in told)}"


def _target(name: str) -> str:
    """The URL, as arguments of curl, which may not find the name by itself."""
    if _is_address(name):
        return f"https://[{name}]:8443/" if ":" in name else f"https://{name}:8443/"
    return f"--resolve {name}:8443:127.0.0.1 https://{name}:8443/"
