"""`portico.Context`: a host name with its certificate."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from . import _core
from ._reports import certificate_logger

Source = str | os.PathLike[str] | bytes
"""Where a certificate or a key comes from: the path of a file, or the PEM or DER bytes themselves."""

Password = str | bytes
"""For what is encrypted; text is taken as UTF-8. Where nothing is encrypted it is not looked at."""


class Context:
    """A host name with its certificate, key and rules, made by `Server.add_context`. What it presents can be replaced
    while connections are open: those finish on the one they began with."""

    def __init__(self, context: _core.Context) -> None:
        self._context = context

    @property
    def host(self) -> str | None:
        """The host name in lower case, `*.` before it for a wildcard; None for the default."""
        return self._context.host

    @property
    def subject(self) -> str:
        """The subject of the certificate."""
        return self._context.describe()[0]

    @property
    def names(self) -> list[str]:
        """The host names and IP addresses that the certificate is for (its subjectAltName), in lower case."""
        return self._context.describe()[1]

    @property
    def not_before(self) -> datetime:
        """When the certificate begins, in UTC."""
        return datetime.fromtimestamp(self._context.describe()[2][0], timezone.utc)

    @property
    def not_after(self) -> datetime:
        """When the certificate ends, in UTC."""
        return datetime.fromtimestamp(self._context.describe()[2][1], timezone.utc)

    @property
    def serial(self) -> str:
        """The serial number of the certificate, in hexadecimal."""
        return self._context.describe()[4]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in hexadecimal: by which one renewed certificate is told from another."""
        return self._context.describe()[5]

    @property
    def warnings(self) -> list[str]:
        """What clients may mind about the certificate: a name that it does not cover, an incomplete chain, a near end
        and so on, each with what browsers say. They were logged by `portico.certificate` when it was loaded;
        docs/certificates.md lists them."""
        return self._context.describe()[3]

    def replace(
        self,
        *,
        cert: Source | None = None,
        key: Source | None = None,
        pfx: Source | None = None,
        password: Password | None = None,
        ocsp: Source | None = None,
        client_ca: Source | None = None,
        client_crl: Source | None = None,
        ticket_keys: Iterable[Source] | None = None,
    ) -> None:
        """Puts something else in place at once, for every handshake from now on: another certificate with its key, or
        what else `Server.add_context` takes by these names. What is not given stays, but an OCSP response goes with
        its certificate. Files are read anew.

        With another `client_ca`, `client_crl` or `ticket_keys` sessions that were begun before are not taken up again.

        Raises `CertificateError` where they are not usable; what was there stays.
        """
        self._context.replace(
            {
                "cert": cert,
                "key": key,
                "pfx": pfx,
                "password": password,
                "ocsp": ocsp,
                "client_ca": client_ca,
                "client_crl": client_crl,
                "ticket_keys": ticket_keys,
            }
        )
        self._log_warnings()

    def reload(self) -> None:
        """Reads the files again, as after a renewal.

        Raises `CertificateError` where they are not usable; what was there stays.
        """
        self._context.reload()
        self._log_warnings()

    def _log_warnings(self) -> None:
        """After every load."""
        whose = "the default host" if self.host is None else f"host {self.host}"
        for warning in self.warnings:
            certificate_logger.warning("for %s: %s", whose, warning)

    def _tell(self) -> dict[str, Any]:
        subject, not_after = self._context.end()
        return {"host": self.host, "subject": subject, "not_after": not_after}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self._context == other._context

    def __hash__(self) -> int:
        return hash(self.host)

    def __repr__(self) -> str:
        return f"<portico context for {self.host or 'any host'}: {self.subject}>"
