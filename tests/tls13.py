"""A TLS client made by hand (RFC 8446), that can say what no library says: ClientHellos of any shape, records of any
size, and after the handshake whatever the test encrypts."""

from __future__ import annotations

import hashlib
import hmac
import socket

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from clients import GENEROUS

ALERT, HANDSHAKE, DATA = 21, 22, 23
SERVER_NAME, GROUPS, SIGNATURES, ALPN, EARLY_DATA, VERSIONS, KEY_SHARE = 0, 10, 13, 16, 42, 43, 51
FINISHED, KEY_UPDATE = 20, 24
X25519 = 29


def sized(data, width=2):
    """With its length before it."""
    return len(data).to_bytes(width, "big") + data


def numbers(*values):
    return b"".join(value.to_bytes(2, "big") for value in values)


def extension(kind, body):
    return numbers(kind) + sized(body)


def server_name(*names, kind=0):
    """The server_name extension (RFC 6066 section 3); a str is encoded as UTF-8."""
    listed = (name.encode() if isinstance(name, str) else name for name in names)
    return extension(SERVER_NAME, sized(b"".join(bytes([kind]) + sized(name) for name in listed)))


def usual_extensions(*, versions=(0x0304, 0x0303), share=bytes(range(32))):
    """What a hello needs besides a name."""
    return [
        extension(GROUPS, sized(numbers(X25519, 23))),
        extension(SIGNATURES, sized(numbers(0x0403, 0x0804, 0x0401))),
        extension(VERSIONS, sized(numbers(*versions), 1)),
        extension(KEY_SHARE, sized(numbers(X25519) + sized(share))),
    ]


def client_hello(*extensions, version=0x0303, ciphers=(0x1301, 0xC02B, 0xC02F), compression=b"\0", session=b""):
    """The message (RFC 8446 section 4.1.2); without extensions the usual ones, for localhost."""
    extensions = extensions or (server_name("localhost"), *usual_extensions())
    body = numbers(version) + bytes(32) + sized(session, 1) + sized(numbers(*ciphers))
    body += sized(compression, 1) + sized(b"".join(extensions))
    return b"\1" + sized(body, 3)


def records(message, size=1 << 14, kind=HANDSHAKE):
    """In records of so many bytes each."""
    pieces = (message[at : at + size] for at in range(0, len(message), size))
    return b"".join(record(kind, piece) for piece in pieces)


def record(kind, body=b"", version=0x0301):
    return bytes([kind]) + numbers(version) + sized(body)


def alert(description, level=1):
    return record(ALERT, bytes([level, description]))


def _expand(secret, label, context=b"", length=32):
    """HKDF-Expand-Label (section 7.1), for lengths of one hash."""
    info = length.to_bytes(2, "big") + sized(b"tls13 " + label, 1) + sized(context, 1)
    return hmac.digest(secret, info + b"\1", "sha256")[:length]


def _next(secret, material):
    """From one secret of the key schedule to the next."""
    return hmac.digest(_expand(secret, b"derived", hashlib.sha256().digest()), material, "sha256")


class _Keys:
    """One direction of a connection."""

    def __init__(self, secret):
        self.secret, self.number = secret, 0
        self.cipher, self.iv = AESGCM(_expand(secret, b"key", length=16)), _expand(secret, b"iv", length=12)

    def next(self):
        """Those that follow a KeyUpdate (section 7.2)."""
        return _Keys(_expand(self.secret, b"traffic upd"))

    def nonce(self):
        number, self.number = self.number, self.number + 1
        return bytes(a ^ b for a, b in zip(self.iv, number.to_bytes(12, "big"), strict=True))

    def seal(self, kind, body):
        """A record with that content, of that true type."""
        head = bytes([DATA, 3, 3]) + (len(body) + 17).to_bytes(2, "big")
        return head + self.cipher.encrypt(self.nonce(), body + bytes([kind]), head)

    def open(self, head, body):
        plain = self.cipher.decrypt(self.nonce(), body, head).rstrip(b"\0")
        return plain[-1], plain[:-1]


class Client:
    """A connection; `shake_hands` brings it so far that `send` and `receive` are encrypted."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), GENEROUS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")
        self.messages = b""
        self.sending = self.receiving = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.sock.close()

    def send(self, kind, body):
        self.sock.sendall(self.sending.seal(kind, body))

    def receive(self):
        """The next record: its true type and content."""
        head = self.file.read(5)
        if len(head) < 5:
            raise EOFError("the server has closed")
        body = self.file.read(int.from_bytes(head[3:], "big"))
        if self.receiving and head[0] == DATA:
            kind, body = self.receiving.open(head, body)
            if kind == HANDSHAKE and body[0] == KEY_UPDATE:
                self.receiving = self.receiving.next()
            return kind, body
        return head[0], body

    def _message(self):
        """The next handshake message, noted for the transcript."""
        while len(self.messages) < 4 or len(self.messages) < 4 + int.from_bytes(self.messages[1:4], "big"):
            kind, body = self.receive()
            if kind == HANDSHAKE:
                self.messages += body
            elif kind == ALERT:
                raise ConnectionError(f"alert {body[1]}")
        length = 4 + int.from_bytes(self.messages[1:4], "big")
        message, self.messages = self.messages[:length], self.messages[length:]
        self.transcript += message
        return message

    def shake_hands(self, name="localhost"):
        """All of a handshake with TLS_AES_128_GCM_SHA256 and X25519, but for looking at the certificate."""
        private = X25519PrivateKey.generate()
        share = private.public_key().public_bytes_raw()
        # One of the suites only, as there is but one here.
        hello = client_hello(server_name(name), *usual_extensions(versions=(0x0304,), share=share), ciphers=(0x1301,))
        self.transcript = hello
        self.sock.sendall(records(hello))
        answer = self._message()
        at = answer.index(numbers(KEY_SHARE, 36, X25519, 32)) + 8
        shared = private.exchange(X25519PublicKey.from_public_bytes(answer[at : at + 32]))
        secret = _next(hmac.digest(bytes(32), bytes(32), "sha256"), shared)
        ours, theirs = self._traffic(secret, b"hs")
        self.receiving = _Keys(theirs)
        while self._message()[0] != FINISHED:
            pass
        self.sending = _Keys(ours)
        application = self._traffic(_next(secret, bytes(32)), b"ap")
        proof = hmac.digest(_expand(ours, b"finished"), hashlib.sha256(self.transcript).digest(), "sha256")
        self.finish = lambda: self._finish(proof, application)
        return self

    def _traffic(self, secret, stage):
        transcript = hashlib.sha256(self.transcript).digest()
        return [_expand(secret, side + stage + b" traffic", transcript) for side in (b"c ", b"s ")]

    def _finish(self, proof, application):
        """Sends the last message of the handshake."""
        self.send(HANDSHAKE, bytes([FINISHED]) + sized(proof, 3))
        self.sending, self.receiving = map(_Keys, application)
        return self

    def update_keys(self, ask=True):
        """A KeyUpdate (section 4.6.3) that asks for another in return."""
        self.send(HANDSHAKE, bytes([KEY_UPDATE, 0, 0, 1, ask]))
        self.sending = self.sending.next()
