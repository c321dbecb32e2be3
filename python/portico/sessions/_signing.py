"""Signatures of cookies and records: HMAC-SHA256 (RFC 2104) by keys that can be changed without ending sessions."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

# 192 bits: far past the 128 that nobody guesses, and a multiple of what base64 takes.
_ID_BYTES = 24
_COOKIE = re.compile(r"([A-Za-z0-9_-]{32})\.([A-Za-z0-9_-]{43})")
_MAC_BYTES = 32


class Keys:
    """Keys for one purpose, made of the secrets: the first signs, each verifies."""

    def __init__(self, secret: Sequence[bytes], purpose: str) -> None:
        # One key for each purpose, so that nothing signed for one can be shown for another.
        self._keys = [hmac.digest(one, f"portico.sessions {purpose}".encode(), "sha256") for one in secret]

    def sign(self, data: bytes) -> bytes:
        return hmac.digest(self._keys[0], data, "sha256")

    def signer(self, mac: bytes, data: bytes) -> int | None:
        """The index of the key that has signed; None where none has."""
        for index, key in enumerate(self._keys):
            if hmac.compare_digest(hmac.digest(key, data, "sha256"), mac):
                return index
        return None


def new_id() -> str:
    return secrets.token_urlsafe(_ID_BYTES)


def store_key(session_id: str, host: str) -> str:
    """What the store sees of an id: nothing that would make a cookie. A session is that of one host name, as its cookie
    is: a client cannot take it from one site of a server to another."""
    return hashlib.sha256(f"{session_id} {host}".encode()).hexdigest()


def write_cookie(keys: Keys, session_id: str, host: str) -> str:
    return f"{session_id}.{_text(keys.sign(f'{session_id} {host}'.encode()))}"


def read_cookie(keys: Keys, cookie: str, host: str) -> tuple[str, int] | None:
    """The id in a cookie, and the index of the key that has signed it; None for what no key here has."""
    parts = _COOKIE.fullmatch(cookie)
    if parts is None:
        return None
    session_id, text = parts.groups()
    signer = keys.signer(base64.urlsafe_b64decode(text + "="), f"{session_id} {host}".encode())
    return None if signer is None else (session_id, signer)


def seal(keys: Keys, key: str, version: str, ends: int, contents: bytes) -> bytes:
    """Signed contents of a record, bound to its place: they cannot be moved to another session, nor made to last."""
    return keys.sign(_place(key, version, ends) + contents) + contents


def unseal(keys: Keys, key: str, version: str, ends: int, value: bytes) -> bytes | None:
    """The contents; None for what no key here has signed for this place."""
    mac, contents = value[:_MAC_BYTES], value[_MAC_BYTES:]
    return None if keys.signer(mac, _place(key, version, ends) + contents) is None else contents


def _place(key: str, version: str, ends: int) -> bytes:
    return f"{key} {version} {ends} ".encode()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
