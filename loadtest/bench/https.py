"""A small HTTPS client of the benchmark's own: it holds connections open, and measures single requests."""

from __future__ import annotations

import socket
import ssl

PATIENCE = 30.0
ADDRESS = "127.0.0.1"


def context() -> ssl.SSLContext:
    """Trusts anybody: who answers is not what is measured."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


CONTEXT = context()


class Connection:
    """One HTTP/1.1 connection over TLS. Everything that goes wrong is an `OSError`."""

    def __init__(self, port: int) -> None:
        raw = socket.create_connection((ADDRESS, port), PATIENCE)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket = CONTEXT.wrap_socket(raw, server_hostname="localhost")
        except BaseException:
            raw.close()
            raise

    def get(self, path: str) -> tuple[int, bytes]:
        """The status and body of a response that has a content-length."""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self.receive()
        head, body = received[:end].lower(), bytearray(received[end + 4 :])
        _, found, length = head.partition(b"\r\ncontent-length:")
        if not found:
            raise ConnectionError(f"a response without content-length: {head!r}")
        expected = int(length.split(b"\r\n")[0])
        while len(body) < expected:
            body += self.receive()
        return int(head.split()[1]), bytes(body)

    def is_open(self) -> bool:
        """Whether the server has not closed it: then there is nothing to read, not even an end."""
        self.socket.setblocking(False)
        try:
            return bool(self.socket.recv(1))
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False
        finally:
            self.socket.settimeout(PATIENCE)

    def receive(self) -> bytes:
        if not (data := self.socket.recv(1 << 18)):
            raise ConnectionError("closed by the server within a response")
        return data

    def close(self) -> None:
        self.socket.close()


def first_answer(port: int) -> str:
    """What a server answers on a connection of its own: the status, and the TLS version."""
    connection = Connection(port)
    try:
        return f"{connection.get('/')[0]} by {connection.socket.version()}"
    finally:
        connection.close()


def open_many(port: int, count: int, path: str = "/") -> list[Connection]:
    """So many connections, each with one request answered. Raises `OSError` where one fails, with none left open."""
    opened: list[Connection] = []
    try:
        for _ in range(count):
            opened.append(Connection(port))
            status, _ = opened[-1].get(path)
            if status != 200:
                raise ConnectionError(f"answered {status}")
    except BaseException:
        close_all(opened)
        raise
    return opened


def close_all(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()
