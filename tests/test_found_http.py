"""Mistakes that attacks on bodies, files and WebSockets have found, each in what a client sees."""

from __future__ import annotations

import queue
import threading

import portico
from clients import GENEROUS
from measures import resident
from sockets import ASKED, PING, PONG, TEXT, OverHTTP1, frame


def test_tiny_chunks_of_a_body_that_nobody_reads_take_little_memory(serve):
    called, opened = threading.Event(), threading.Event()

    def handler(request):
        called.set()
        opened.wait(GENEROUS)
        return {"statusCode": 200, "body": str(len(b"".join(request.stream())))}

    handler.stream_body = True
    count = 60_000
    # So many extensions would be refused by default.
    with serve(handler, max_header_bytes=2**24).wire() as wire:
        wire.send("POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        assert called.wait(GENEROUS)
        before = resident()
        for _ in range(0, count, 1_000):
            wire.send((b"1;" + b"x" * 200 + b"\r\na\r\n") * 1_000)
        # Most of it has been read by now, for what fits in between is less than what was sent. It took 16 MB.
        assert resident() - before < 6_000_000
        opened.set()
        assert wire.send("0\r\n\r\n").read().text == str(count)


def test_threads_that_read_one_body_all_hear_of_its_end(serve):
    pieces = queue.Queue()

    def handler(request):
        def read():
            for piece in request.stream():
                pieces.put(piece)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"statusCode": 200}

    handler.stream_body = True
    with serve(handler).wire() as wire:
        wire.send("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 20\r\n\r\n")
        for number in range(20):
            wire.send(chr(65 + number))
            assert pieces.get(timeout=GENEROUS) == bytes([65 + number])
        assert wire.read().status == 200


def test_a_body_that_was_not_read_is_never_taken_for_frames(serve):
    messages = []
    websocket = portico.websocket(lambda ws: messages.extend(ws))

    def handler(request):
        return websocket(request)

    handler.stream_body = True
    served = serve(handler)
    body = frame(TEXT, "from the body")
    for framing in (f"content-length: {len(body) + 1}\r\n", "transfer-encoding: chunked\r\n"):
        with served.wire() as wire:
            reply = wire.send(f"GET / HTTP/1.1\r\nhost: localhost\r\n{ASKED}{framing}\r\n").send(body).read()
            assert reply.status == 400
            assert reply.header("upgrade") is None
            assert wire.read() is None
    assert messages == []


def test_pings_of_the_server_are_no_messages_that_keep_a_socket(serve):
    served = serve(portico.websocket(lambda ws: list(ws), idle_timeout=1.5, ping_interval=0.2))
    with served.wire() as wire:
        socket, pings = OverHTTP1(wire), 0
        while (came := socket.read())[0] == PING:
            pings += 1
            assert pings < 30, "it goes on for ever"
            socket.send(frame(PONG, came[1]))
        assert pings
        assert int.from_bytes(came[1][:2], "big") == 1001
