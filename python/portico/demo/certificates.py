"""The certificates of the demo, kept from start to start: an authority of its own, and for each host `HOST.pem`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from portico import _authority
from portico._core import certificate_info, issue_certificate

# Short, as public authorities have it: what is trusted by mistake is not trusted for long.
VALID_DAYS = 90
# All that a demo serves, so that its authority, stolen, is nobody else.
_PERMITTED = ["localhost", "test", "127.0.0.0/8", "::1/128"]


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
    less than a week left, is issued anew by the same authority; the authority is made anew only where
    it cannot be used or would expire before what it signs. Two processes may do this at once.

    Raises OSError where the folder cannot be used, or holds files of these names that are of others' making."""
    folder = Path(os.path.abspath(folder))
    with _authority.locked(folder, *(f"{host}.pem" for host in hosts)):
        authority = _authority.keep_authority(folder, "portico demo", VALID_DAYS, _PERMITTED)
        pairs = {host: folder / f"{host}.pem" for host in hosts}
        for host, path in pairs.items():
            if not _authority.is_good(path, path, hosts[host], authority.pair):
                signer = authority.pair
                issued = issue_certificate(signer.cert, signer.key, list(hosts[host]), VALID_DAYS)
                _authority.write(path, _authority.title(hosts[host]) + "".join(issued))
        subjects = {host: certificate_info(path.read_bytes())[0] for host, path in pairs.items()}
    return Certificates(authority.ca, pairs, subjects, authority.new)
