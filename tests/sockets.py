"""WebSocket frames made by hand, over HTTP/1.1 and over a stream of HTTP/2."""

from __future__ import annotations

import struct

import h2.events

from frames import H2

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ASKED = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN = 0x80


def frame(opcode, payload=b"", fin=True, mask=b"\x01\x02\x03\xf4", bits=0):
    """A frame as clients send it."""
    payload = payload.encode() if isinstance(payload, str) else payload
    first, masked = (FIN if fin else 0) | bits | opcode, 0x80 if mask else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, masked | len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, masked | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, masked | 127, len(payload))
    if mask:
        key = (mask * (len(payload) // 4 + 1))[: len(payload)]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")
    return head + (mask or b"") + payload


def close(code=None, reason=""):
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())


def echo(ws):
    for message in ws:
        ws.send(message)


async def echo_async(ws):
    async for message in ws:
        await ws.send(message)


class Frames:
    """Sends frames, and reads them: `(opcode, payload)`; None at the end."""

    def send(self, *frames):
        self.write(b"".join(frames))
        return self

    def read(self):
        head = self.exactly(2)
        if not head:
            return None
        first, length = head
        assert first & 0x70 == 0
        assert length & 0x80 == 0, "servers mask nothing"
        if length > 125:
            length = int.from_bytes(self.exactly(2 if length == 126 else 8), "big")
        payload = self.exactly(length)
        assert first & FIN, "a fragment"
        return first & 15, payload

    def read_close(self):
        """Code and reason of the next frame, which is a close frame; then nothing follows."""
        opcode, payload = self.read()
        assert opcode == CLOSE, (opcode, payload)
        return (int.from_bytes(payload[:2], "big"), payload[2:].decode()) if payload else (None, "")


class OverHTTP1(Frames):
    """A WebSocket on a `Wire`."""

    def __init__(self, wire, path="/", headers=""):
        self.wire = wire
        self.reply = wire.get(path, ASKED + headers) if headers is not None else None

    def write(self, data):
        self.wire.send(data)

    def exactly(self, length):
        data = self.wire.file.read(length)
        assert len(data) in (0, length), "the connection breaks off"
        return data


class OverHTTP2(Frames):
    """A WebSocket in a stream of an `H2` (RFC 8441)."""

    def __init__(self, client, path="/", *headers, version="13"):
        self.client, self.came = client, b""
        self.stream = client.open(
            (":protocol", "websocket"),
            ("sec-websocket-version", version),
            *headers,
            method="CONNECT",
            path=path,
            end=False,
        )
        answer = client.wait_for(h2.events.ResponseReceived, self.stream)
        self.headers = dict(answer.headers)
        self.status = int(self.headers[":status"])

    def write(self, data):
        self.client.data(self.stream, data)

    def exactly(self, length):
        while len(self.came) < length:
            event = self.client.wait_for(
                (h2.events.DataReceived, h2.events.StreamEnded, h2.events.StreamReset), self.stream
            )
            if not isinstance(event, h2.events.DataReceived):
                assert not self.came, "the stream breaks off"
                return b""
            self.came += event.data
        data, self.came = self.came[:length], self.came[length:]
        return data


class OnHTTP1:
    """A WebSocket that is opened on a connection of its own, and the answer to that."""

    version = "1.1"

    def __init__(self, served, path="/", *headers):
        self.wire = served.tls_wire()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self.socket = OverHTTP1(self.wire, path, lines)
        self.status = self.socket.reply.status
        self.accepted = self.status == 101
        self.body = None if self.accepted else self.socket.reply.body

    def header(self, name):
        return self.socket.reply.all(name)[-1]

    def leave(self):
        self.wire.close()


class OnHTTP2:
    """The same in a stream of HTTP/2."""

    version = "2"

    def __init__(self, served, path="/", *headers):
        self.wire = served.tls_wire(alpn=["h2"])
        self.client = H2(self.wire)
        self.socket = OverHTTP2(self.client, path, *headers)
        self.status = self.socket.status
        self.accepted = self.status == 200

    @property
    def body(self):
        body = b""
        while byte := self.socket.exactly(1):
            body += byte
        return body

    def header(self, name):
        return self.socket.headers.get(name)

    def leave(self):
        self.wire.close()
