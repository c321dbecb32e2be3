"""Certificates that are looked for in a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import _core
from ._contexts import Password

_logger = logging.getLogger("portico")


@dataclass(frozen=True)
class FoundCertificate(Mapping[str, Any]):
    """A certificate with its key that `find_certificate` has found: the keywords that `Server.add_context` and
    `Context.replace` want for it, as in `server.add_context(host, **found)`."""

    subject: str
    """The subject of the certificate."""
    names: tuple[str, ...]
    """The host names and IP addresses that it is for (its subjectAltName), in lower case."""
    not_after: datetime
    """When it ends, in UTC."""
    files: tuple[Path, ...]
    """The files that it was found in: one with both, or certificate and key."""
    # Not shown: the password is among them.
    _keywords: Mapping[str, Any] = field(repr=False)

    def __getitem__(self, keyword: str) -> Any:
        return self._keywords[keyword]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keywords)

    def __len__(self) -> int:
        return len(self._keywords)


def find_certificate(
    store: str | os.PathLike[str],
    subject: str | None = None,
    *,
    password: Password | None = None,
    host: str | None = None,
) -> FoundCertificate:
    """Looks through a folder, and the folders in it, for a certificate with its key: of several the
    one that is valid longest, a self-signed one only where no other will do.

    The files may be PFX, or PEM or DER with both in one file or in two; names do not matter, what belongs together is
    seen by the keys. `subject` is a part of the subject or of a name in the certificate, in any case; without it any
    will do. `host` is a name that it must cover, and `password` opens what is encrypted. What is expired or cannot be
    read is passed over, and so are hidden files. Which one was taken, which others would have done, and what was passed
    over is logged by `portico`, at INFO.

    Raises `CertificateError`, saying what was looked at and why nothing will do; also for a folder of more than 1 000
    files. Files of more than 1 MiB are passed over.
    """
    keywords = {"subject": subject, "password": password, "host": host}
    sources, about, others, passed_over = _core.find_certificate(os.fspath(store), keywords)
    files = tuple(path for _, path in sources)
    found, names = about[:2]
    ends = datetime.fromtimestamp(about[2][1], timezone.utc)
    also = _some("others that would do", others) + _some("passed over", passed_over)
    _logger.info("certificate %s, valid until %s, taken from %s%s", found, ends, ", ".join(map(str, files)), also)
    given = dict(sources) if password is None else {**dict(sources), "password": password}
    return FoundCertificate(found, tuple(names), ends, files, given)


def _some(what: str, found: list[str]) -> str:
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    return f"; {what}: {'; '.join(found[:5])}{more}" if found else ""
