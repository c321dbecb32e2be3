"""Clients that count what they send and what is answered, and never try again: what a server loses shows.

Each is a thread that asks until it is told to stop. A request is `sent` right before its first byte, and `answered` when
its response is here whole. A connection is left only where the server has said so before: `Connection: close`, GOAWAY, a
close frame.
"""

from __future__ import annotations

import contextlib
import random
import ssl
import threading
import time

import h2.events

from clients import GENEROUS, Wire
from frames import H2
from sockets import CLOSE, TEXT, OverHTTP1, OverHTTP2, close, frame


class Client:
    """One thread that asks. `connect` makes a `Wire`, by ALPN where protocols are named."""

    # The longest pause between two requests, in seconds.
    PAUSE = 0.02

    def __init__(self, connect, stopped, seed):
        self.connect, self.stopped, self.random = connect, stopped, random.Random(seed)
        self.sent = self.answered = self.connections = 0
        self.connects = threading.Event()
        self.connects.set()
        self.lost = []
        self.who = set()
        self.thread = threading.Thread(target=self._run, name=f"{type(self).__name__} {seed}")

    def _run(self):
        while not self.stopped.is_set() and self.connects.is_set():
            before = self.sent - self.answered
            try:
                with contextlib.closing(self.connect(*self.alpn())) as wire:
                    self.connections += 1
                    self.converse(wire)
            except Exception as error:
                self.lost.append(f"{type(self).__name__} at {time.monotonic():.3f}, sent {self.sent}: {error!r}")
                if self.sent - self.answered == before:
                    # Not even a connection: that counts as well.
                    self.sent += 1

    def alpn(self):
        return ()

    def pause(self):
        self.stopped.wait(self.random.uniform(0, self.PAUSE))

    def got(self, body):
        self.answered += 1
        self.who.add(body)


class KeepAlive(Client):
    """Asks on one connection until it is told to close it."""

    def converse(self, wire):
        while not self.stopped.is_set():
            self.sent += 1
            reply = wire.get("/")
            assert reply is not None, "closed without an answer"
            assert reply.status == 200, reply
            self.got(reply.text)
            if reply.header("connection") == "close":
                return
            self.pause()


class Slow(KeepAlive):
    """The same, so slowly that the connection is between two requests nearly always. An end waits a second for the next one
    (`drain_idle_timeout`): what is left of it is for a machine that is busy."""

    PAUSE = 0.4


class Uploads(KeepAlive):
    """Sends a body in pieces, so that a reload comes in the middle of many."""

    def converse(self, wire):
        while not self.stopped.is_set():
            self.sent += 1
            wire.send("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n")
            for _ in range(10):
                wire.send(b"x" * 20_000)
                self.pause()
            reply = wire.read()
            assert reply is not None, "closed without an answer"
            assert reply.status == 200, reply
            self.got(reply.text)
            if reply.header("connection") == "close":
                return


class Reconnecting(Client):
    """Asks once on each connection."""

    def converse(self, wire):
        self.sent += 1
        reply = wire.get("/", "Connection: close\r\n")
        assert reply is not None, "closed without an answer"
        assert reply.status == 200, reply
        self.got(reply.text)
        self.pause()


class Multiplexing(Client):
    """Has several streams of HTTP/2 under way, and goes when GOAWAY has come."""

    def alpn(self):
        return (["h2"],)

    def converse(self, wire):
        client = H2(wire)
        while not self.stopped.is_set():
            streams = []
            for _ in range(self.random.randint(1, 5)):
                if self._goes(client):
                    break
                self.sent += 1
                streams.append(client.open())
            for stream in streams:
                reply = client.reply(stream)
                assert reply.status == 200, reply
                self.got(reply.text)
            if self._goes(client):
                return
            self.pause()

    @staticmethod
    def _goes(client):
        return any(isinstance(event, h2.events.ConnectionTerminated) for event in client.events)


class Chatting(Client):
    """Sends a message and waits for its echo, on a WebSocket, and goes when it is told goodbye."""

    def converse(self, wire):
        self.talk(OverHTTP1(wire, "/chat"))

    def talk(self, socket):
        while not self.stopped.is_set():
            self.sent += 1
            socket.send(frame(TEXT, b"hello"))
            came = socket.read()
            assert came is not None, "the connection ended without an echo"
            assert came[0] == TEXT, came
            self.got(came[1].decode())
            if self.random.random() < 0.5:
                self.pause()
            if self.has_more(socket):
                opcode, payload = socket.read()
                assert (opcode, payload[:2]) == (CLOSE, (1001).to_bytes(2, "big")), (opcode, payload)
                socket.send(close(1001))
                assert socket.read() is None
                return

    @staticmethod
    def has_more(socket):
        """Whether a goodbye has come with the answer, or since."""
        wire = socket.wire
        wire.sock.settimeout(0)
        try:
            return bool(wire.file.peek(1))
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        finally:
            wire.sock.settimeout(GENEROUS)


class ChattingOverHTTP2(Chatting):
    """The same in a stream of HTTP/2."""

    def alpn(self):
        return (["h2"],)

    def converse(self, wire):
        self.talk(OverHTTP2(H2(wire), "/chat"))

    @staticmethod
    def has_more(socket):
        return bool(socket.came)


class Crowd:
    """Clients that run while `with` lasts."""

    def __init__(self, connect, **numbers):
        self.stopped = threading.Event()
        kinds = {
            kind.__name__: kind
            for kind in (KeepAlive, Slow, Uploads, Reconnecting, Multiplexing, Chatting, ChattingOverHTTP2)
        }
        self.clients = [
            kinds[name](connect(number), self.stopped, seed * 100 + number)
            for seed, (name, count) in enumerate(numbers.items())
            for number in range(count)
        ]

    def __enter__(self):
        for client in self.clients:
            client.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for client in self.clients:
            client.thread.join(GENEROUS)
            assert not client.thread.is_alive(), client.thread

    def stop_connecting(self):
        """Every client goes on asking where it is connected, and does not connect again."""
        for client in self.clients:
            client.connects.clear()

    @property
    def sent(self):
        return sum(client.sent for client in self.clients)

    @property
    def answered(self):
        return sum(client.answered for client in self.clients)

    @property
    def lost(self):
        return [line for client in self.clients for line in client.lost]


def either(port, clear, context):
    """How the clients connect: those with an even number over TLS, and who names a protocol; the others in the clear."""

    def of(number):
        def connect(alpn=None):
            if alpn or number % 2 == 0:
                return Wire(port, context=context(alpn))
            return Wire(clear)

        return connect

    return of
