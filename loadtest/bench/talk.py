"""A client for what no load generator does: `python talk.py KIND PORT SECONDS CONNECTIONS`; prints a line of JSON.

`websocket` sends a message of 64 bytes on each of its connections, and the next when it has come back. `echo` uploads
10 MiB and reads as much while it sends, on a new connection each time.
"""

from __future__ import annotations

import json
import selectors
import ssl
import sys
import time
from collections.abc import Iterator

import https

MESSAGE = 64
UPLOAD = 10 << 20
PIECE = bytes(range(256)) * 256

# What a connection waits for, as selectors name it, is what its generator yields.
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
Talk = Iterator[int]


class Counted:
    requests = 0
    errors = 0


def websocket(connection: https.Connection, counted: Counted) -> Talk:
    """Message after message (RFC 6455). The mask is zero, so that a frame is made once."""
    sock = connection.socket
    sock.sendall(
        b"GET /socket HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.receive()
    if b" 101 " not in head[:16]:
        raise ConnectionError(f"no WebSocket: {head!r}")
    frame = bytes([0x82, 0x80 | MESSAGE]) + bytes(4) + bytes(MESSAGE)
    sock.setblocking(False)
    while True:
        sock.send(frame)
        missing = 2 + MESSAGE
        while missing:
            try:
                missing -= len(connection.receive())
            except ssl.SSLWantReadError:
                yield READ
        counted.requests += 1


def echo(connection: https.Connection, counted: Counted) -> Talk:
    """One upload that comes back while it goes."""
    sock = connection.socket
    head = f"POST /echo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {UPLOAD}\r\n\r\n"
    sock.sendall(head.encode())
    sock.setblocking(False)
    left, received = UPLOAD, 0
    while True:
        waits = READ
        try:
            while left:
                left -= sock.send(PIECE[: min(left, len(PIECE))])
        except ssl.SSLWantWriteError:
            waits |= WRITE
        try:
            while data := sock.recv(1 << 18):
                received += len(data)
            break
        except ssl.SSLWantReadError:
            yield waits
    if received < UPLOAD:
        raise ConnectionError(f"{received} bytes came back")
    counted.requests += 1


def main() -> None:
    kind, port, seconds, connections = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    talk, again = {"websocket": (websocket, False), "echo": (echo, True)}[kind]
    counted, waiting = Counted(), selectors.DefaultSelector()
    began = time.monotonic()

    def go_on(connection: https.Connection, talking: Talk) -> None:
        try:
            waiting.register(connection.socket, next(talking), (connection, talking))
            return
        except StopIteration:
            pass
        except OSError as error:
            counted.errors += 1
            print(error, file=sys.stderr)
        connection.close()
        if again and time.monotonic() - began < seconds:
            begin()

    def begin() -> None:
        connection = https.Connection(port)
        go_on(connection, talk(connection, counted))

    for _ in range(connections):
        begin()
    while waiting.get_map() and (again or time.monotonic() - began < seconds):
        for key, _ in waiting.select(https.PATIENCE):
            waiting.unregister(key.fileobj)
            go_on(*key.data)
    took = time.monotonic() - began
    print(json.dumps({"requests": counted.requests, "seconds": took, "errors": counted.errors}))


if __name__ == "__main__":
    main()
