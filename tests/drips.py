"""A program that keeps slow clients going: each sends what its kind sends, a byte a second, and comes again when it is cut.

Takes how many there are, and kinds as JSON: `[port, bytes in hexadecimal]`. Prints `all here` once all are connected, then how often
one was cut, each second.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import time

MANY, KINDS = int(sys.argv[1]), [(port, bytes.fromhex(sent)) for port, sent in json.loads(sys.argv[2])]


class Client:
    def __init__(self, port, sent):
        self.port, self.sent, self.cut = port, sent, 0
        self.connect()

    def connect(self):
        self.sock = socket.create_connection(("127.0.0.1", self.port))
        self.drops = (self.sent[at : at + 1] for at in range(len(self.sent)))

    def drip(self):
        try:
            self.sock.sendall(next(self.drops, b""))
            # What is there already is left in peace; only an end is looked for.
            if self.sock.recv(4096, socket.MSG_DONTWAIT) == b"":
                raise ConnectionError
        except BlockingIOError:
            pass
        except ConnectionError:
            self.sock.close()
            self.cut += 1
            self.connect()


clients = [Client(*kind) for kind, _ in zip(itertools.cycle(KINDS), range(MANY), strict=False)]
print("all here", flush=True)
while True:
    began = time.monotonic()
    for n, client in enumerate(clients):
        client.drip()
        if n % 20 == 0:
            # Spread over the second, so that they do not come in a burst.
            time.sleep(max(0, began + n / MANY - time.monotonic()))
    print("cut", sum(client.cut for client in clients), flush=True)
