"""The clients of `test_memory.py`, in a process of their own: quick, and as rude as the test wants them.

Commands come in on standard input, one JSON object a line: `{"load": name, "count": how many}`. Each is done by WORKERS
threads together and answered with one line.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator

WORKERS = 4
HOST = "localhost"
UPLOADS = "uploads.test"
CUT_OFF = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST
TIMEOUT = 60

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
POST = (
    b"POST /everything?a=1&b=%20x&a=3 HTTP/1.1\r\nHost: localhost\r\nCookie: a=1; b=2\r\nCookie: c=3\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 2004\r\n\r\na=b&" + b"x" * 2000
)
CHUNKED = (
    b"PUT /everything HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n4\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n"
)
UPGRADE = (
    b"GET /socket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Worker:
    """One thread's view of the server: how to get connections, and what to do with them."""

    def __init__(self, number: int, ports: dict[str, int], authority: str) -> None:
        # An address for each worker, so that ports in TIME_WAIT do not run out.
        self.source = (f"127.0.0.{2 + number}", 0)
        self.ports = ports
        self.context = ssl.create_default_context(cadata=authority)
        self.h2_context = ssl.create_default_context(cadata=authority)
        self.h2_context.set_alpn_protocols(["h2"])
        self.hello = self.client_hello(HOST)
        self.strange_hello = self.client_hello("unknown.test")

    def connect(self, kind: str = "tls") -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.ports[kind]), TIMEOUT, self.source)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def connect_tls(self, receive_buffer: int | None = None, kind: str = "tls", host: str = HOST) -> ssl.SSLSocket:
        sock = self.connect(kind)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        return self.context.wrap_socket(sock, server_hostname=host)

    def client_hello(self, host: str) -> bytes:
        out = ssl.MemoryBIO()
        try:
            self.context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=host).do_handshake()
        except ssl.SSLWantReadError:
            return out.read()
        raise AssertionError("a handshake without a server")

    # The loads. Each takes the number of operations to do.

    def plain(self, count: int) -> None:
        """Requests of several kinds on one cleartext connection."""
        kinds = (GET, POST, CHUNKED)
        with self.connect("plain") as sock:
            for number in range(count):
                expect(sock, kinds[number % 3], 200)

    def keep_alive(self, count: int) -> None:
        with self.connect_tls() as sock:
            for _ in range(count):
                expect(sock, GET, 200)

    def connections(self, count: int) -> None:
        """One handshake for each request; the client and the server end the connection in turn."""
        for number in range(count):
            with self.connect_tls() as sock:
                expect(sock, LAST_GET if number % 2 else GET, 200)

    def streams(self, count: int) -> None:
        """Connections in the hands of a callback: an echo, two requests by hand, one that raises, clients that leave."""
        for number in range(count):
            with self.connect_tls(kind="streams") as sock:
                match number % 5:
                    case 0:
                        sock.sendall(b"echo\n")
                        if more(sock) != b"echo\n":
                            raise AssertionError("no echo")
                        drain(sock)
                    case 1:
                        expect(sock, b"h" + POST, 200)
                        expect(sock, CHUNKED, 200)
                    case 2:
                        sock.sendall(b"x")
                        drain(sock)
                    case 3:
                        sock.sendall(b"e")
                    case 4:
                        sock.sendall(b"hGET / HT")
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT_OFF)

    def websockets(self, count: int) -> None:
        """WebSockets: closed by the client and by the server, broken rules, handlers that raise, clients that leave."""
        for number in range(count):
            with self.connect_tls() as sock:
                sock.sendall(UPGRADE)
                data = b""
                while not data.endswith(b"\r\n\r\n"):
                    data += more(sock)
                if not data.startswith(b"HTTP/1.1 101 "):
                    raise AssertionError(f"no WebSocket: {data!r}")
                sock.sendall(masked(0x81, b"hello"))
                if more(sock) != b"\x81\x05hello":
                    raise AssertionError("no echo")
                match number % 6:
                    case 0:
                        sock.sendall(masked(0x88, b"\x03\xe8bye"))
                        drain(sock)
                    case 1:
                        sock.sendall(masked(0x81, b"close"))
                        more(sock)
                        sock.sendall(masked(0x88, b""))
                        drain(sock)
                    case 2:
                        sock.sendall(masked(0x81, b"raise"))
                        more(sock)
                        sock.sendall(masked(0x88, b""))
                        drain(sock)
                    case 3:
                        sock.sendall(masked(0x01, b"\xff"))
                        more(sock)
                        drain(sock)
                    case 4:
                        sock.sendall(masked(0x01, b"half of a mess"))
                    case 5:
                        sock.sendall(masked(0x89, b"?") + masked(0x82, bytes(1000))[:500])
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT_OFF)

    def handshakes(self, count: int) -> None:
        """Handshakes that come to nothing, in six ways."""
        for number in range(count):
            with self.connect() as sock:
                match number % 6:
                    case 0:
                        pass
                    case 1:
                        sock.sendall(self.hello[: len(self.hello) // 2])
                    case 2:
                        sock.sendall(self.hello)
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT_OFF)
                    case 3:
                        sock.sendall(self.hello)
                        sock.recv(1024)  # The server's part: the client leaves after it.
                    case 4:
                        sock.sendall(GET)
                        drain(sock)
                    case 5:
                        sock.sendall(self.strange_hello)
                        drain(sock)

    def leave_in_body(self, count: int) -> None:
        """Begins a body that the server asks for, and leaves within it: cut off, by closing, within a chunk."""
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        length, chunked = head + b"Content-Length: 100000\r\n\r\n", head + b"Transfer-Encoding: chunked\r\n\r\n"
        for number in range(count):
            with self.connect_tls() as sock:
                sock.sendall(chunked if number % 3 == 2 else length)
                if not more(sock).startswith(b"HTTP/1.1 100 "):
                    raise AssertionError("the server did not ask for the body")
                sock.sendall((b"ffff\r\n" if number % 3 == 2 else b"") + bytes(20_000))
                if number % 3 == 0:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT_OFF)

    def uploads(self, count: int) -> None:
        """Bodies that are read as they come: whole, in part, not at all, up to an error; every fifth breaks off."""
        paths = (b"/all", b"/piece", b"/nothing", b"/raise")
        for number in range(count):
            with self.connect_tls(host=UPLOADS) as sock:
                path, whole = paths[number % 4], number % 5 > 0
                sock.sendall(
                    b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Length: 50000\r\n\r\n" % (path, UPLOADS.encode())
                )
                sock.sendall(bytes(50_000 if whole else 30_000))
                if whole:
                    more(sock)
                else:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT_OFF)

    def leave_in_response(self, count: int) -> None:
        """Asks for much, takes little of it or none, and leaves."""
        for number in range(count):
            with self.connect_tls(receive_buffer=4096) as sock:
                sock.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if number % 2:
                    sock.recv(1000)

    def pieces(self, count: int) -> None:
        """Asks for a body that is made while it is sent; every third client leaves after its beginning."""
        request = LAST_GET.replace(b"/ ", b"/pieces ", 1)
        for number in range(count):
            with self.connect_tls() as sock:
                sock.sendall(request)
                if number % 3:
                    drain(sock)
                else:
                    sock.recv(1000)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT_OFF)

    def http2(self, count: int) -> None:
        """Streams on one connection, a tenth of them reset by the client within their body."""
        with self.connect() as plain, self.h2_context.wrap_socket(plain, server_hostname=HOST) as sock:
            sock.sendall(
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(8, 0, 0, b"\x3f\xff\xff\xff")
            )
            frames = read_frames(sock)
            stream, left = 1, count
            while left:
                batch = min(left, 50)
                left -= batch
                out, open_streams = [], set()
                for number in range(batch):
                    reset = number % 10 == 9
                    # End of headers, and but for those to be reset, of the stream.
                    out.append(frame(1, 4 if reset else 5, stream, POST_HEADERS if reset else GET_HEADERS))
                    if reset:
                        out.append(frame(0, 0, stream, bytes(1000)) + frame(3, 0, stream, b"\0\0\0\x08"))
                    else:
                        open_streams.add(stream)
                    stream += 2
                sock.sendall(b"".join(out))
                while open_streams:
                    kind, flags, number, payload = next(frames)
                    if kind == 7:
                        raise AssertionError(f"GOAWAY {payload!r}")
                    if kind == 4 and not flags & 1:
                        sock.sendall(frame(4, 1, 0, b""))
                    if kind in (0, 1) and flags & 1:
                        open_streams.remove(number)

    def path(self, path: str, status: int) -> Callable[[int], None]:
        """Keep-alive requests for one path."""

        def load(count: int) -> None:
            request = GET.replace(b"/ ", path.encode() + b" ", 1)
            with self.connect_tls() as sock:
                for _ in range(count):
                    expect(sock, request, status)

        return load

    def load(self, name: str) -> Callable[[int], None]:
        if name.startswith("/"):
            return self.path(name, 200 if name.startswith(("/leak/", "/session")) else 500)
        return getattr(self, name)


def expect(sock: socket.socket, request: bytes, status: int) -> None:
    """Sends a request and reads its response, to the byte."""
    sock.sendall(request)
    data = sock.recv(65536)
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += more(sock)
    head = data[:end].lower()
    at = head.index(b"content-length: ") + 16
    length = int(head[at:].split(b"\r", 1)[0])
    while len(data) < end + 4 + length:
        data += more(sock)
    if not head.startswith(b"http/1.1 %d " % status):
        raise AssertionError(f"answered with {data!r} instead of {status}")


def more(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise ConnectionError("the server ended the connection within a response")
    return data


def drain(sock: socket.socket) -> None:
    """Reads to the end, however it comes."""
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113 section 4.1)."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def masked(first: int, payload: bytes) -> bytes:
    """A WebSocket's frame of up to 64 KiB (RFC 6455 section 5.2), with a mask that changes nothing."""
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([first]) + length + bytes(4) + payload


def literal(index: int, value: bytes) -> bytes:
    """A header of a name from HPACK's static table with a new value, not indexed (RFC 7541 section 6.2.2)."""
    return bytes([index, len(value)]) + value


# :method GET and POST, :scheme https and :path / are in the static table.
GET_HEADERS = b"\x82\x87\x84" + literal(1, HOST.encode())
POST_HEADERS = b"\x83\x87\x84" + literal(1, HOST.encode())


def read_frames(sock: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    data = b""
    while True:
        while len(data) < 9 or len(data) < 9 + int.from_bytes(data[:3], "big"):
            data += more(sock)
        length = int.from_bytes(data[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", data[3:9])
        yield kind, flags, stream, data[9 : 9 + length]
        data = data[9 + length :]


def run(workers: list[Worker], name: str, count: int) -> None:
    failures: list[BaseException] = []

    def work(worker: Worker) -> None:
        try:
            worker.load(name)(count // WORKERS)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def main() -> None:
    target = json.loads(sys.stdin.readline())
    workers = [Worker(number, target["ports"], target["authority"]) for number in range(WORKERS)]
    for line in sys.stdin:
        command = json.loads(line)
        run(workers, command["load"], command["count"])
        print("{}", flush=True)


if __name__ == "__main__":
    main()
