"""The clients of `test_swap_under_load.py`, in a process of their own: PORT AUTHORITY_FILE KEEP_ALIVE RECONNECTING.

Each asks as fast as it is answered until a line comes on standard input, and says what it saw in one line of JSON: how
many requests it sent, what was answered, which certificates it was shown, and every error."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import sys
import threading
from collections import Counter

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Clients:
    def __init__(self, port, authority):
        self.port = port
        self.context = ssl.create_default_context(cafile=authority)
        self.stop = threading.Event()
        self.sent, self.answered, self.shown, self.errors = Counter(), Counter(), Counter(), []

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.port), 30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secure = self.context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
        self.shown[hashlib.sha256(secure.getpeercert(binary_form=True)).hexdigest()] += 1
        return secure

    def ask(self, secure, kind, request):
        self.sent[kind] += 1
        secure.sendall(request)
        answer = b""
        while b"\r\n\r\nhello" not in answer:
            data = secure.recv(4096)
            if not data:
                raise EOFError(f"closed after {answer!r}")
            answer += data
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise ValueError(f"answered with {answer!r}")
        self.answered[kind] += 1

    def keep_alive(self, kind):
        with self.connect() as secure:
            while not self.stop.is_set():
                self.ask(secure, kind, REQUEST)

    def reconnect(self, kind):
        while not self.stop.is_set():
            with self.connect() as secure:
                self.ask(secure, kind, LAST)

    def run(self, work, kind):
        try:
            work(kind)
        except Exception as error:
            self.errors.append(f"{kind}: {error!r}")

    def all(self, keep_alive, reconnecting):
        work = [(self.keep_alive, f"keep-alive {n}") for n in range(keep_alive)]
        work += [(self.reconnect, f"reconnecting {n}") for n in range(reconnecting)]
        threads = [threading.Thread(target=self.run, args=each) for each in work]
        for thread in threads:
            thread.start()
        sys.stdin.readline()
        self.stop.set()
        for thread in threads:
            thread.join()
        told = {"sent": self.sent, "answered": self.answered, "shown": self.shown, "errors": self.errors}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    Clients(int(sys.argv[1]), sys.argv[2]).all(int(sys.argv[3]), int(sys.argv[4]))
