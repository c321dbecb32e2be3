"""A server in a process of its own, so that its memory, its CPU time and its answers can be measured from outside.

As a program it takes how many descriptors it may have and its settings as JSON, prints its ports, and serves until it is killed.
"""

from __future__ import annotations

import json
import sys
import time

import psutil

from clients import Wire, trusting
from programs import Program

LARGE = bytes(10_000_000)


def answer(request):
    """What the server in the other process says."""
    if request.path == "/stats":
        return {"statusCode": 200, "body": json.dumps(server.stats())}
    if request.path == "/slow":
        time.sleep(0.005)
    if request.path == "/large":
        return {"statusCode": 200, "body": LARGE}
    return {"statusCode": 200, "body": f"hello {request.path}"}


class Apart:
    """That process, seen from a test."""

    def __init__(self, descriptors=None, admin=False, **settings):
        """`descriptors` is the most that it may have; with `admin` it has an admin listener."""
        self.program = Program(
            __file__, json.dumps([descriptors, admin, settings]), PYTHONPATH=":".join(filter(None, sys.path))
        )
        ports = self.program.wait_for(r"ports (\d+) (\d+)")
        self.port, self.clear = int(ports[1]), int(ports[2])
        self.admin = int(self.program.wait_for(r"admin (\d+)")[1]) if admin else None
        self.process = psutil.Process(self.program.process.pid)
        self.ca_pem = json.loads(self.program.wait_for(r"ca (.*)")[1])

    def wire(self, **more):
        return Wire(self.clear, **more)

    def tls_wire(self, alpn=None, **more):
        return Wire(self.port, context=trusting(self.ca_pem, alpn=alpn), **more)

    def stats(self):
        with self.wire() as wire:
            return wire.get("/stats").json()

    def resident(self):
        """Its memory, in bytes."""
        return self.process.memory_info().rss

    def cpu(self):
        """Its CPU time so far, in seconds."""
        times = self.process.cpu_times()
        return times.user + times.system

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.program.close()


class Neighbour:
    """A good client, and how long each of its requests took, in seconds."""

    def __init__(self, apart):
        self.wire, self.took = apart.tls_wire(), []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wire.close()

    def ask(self):
        began = time.monotonic()
        assert self.wire.get("/neighbour").text == "hello /neighbour"
        self.took.append(time.monotonic() - began)

    def p99(self):
        return sorted(self.took)[int(len(self.took) * 0.99)]


if __name__ == "__main__":
    import resource

    import portico.testing

    descriptors, admin, settings = json.loads(sys.argv[1])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors or min(hard, 4096), hard))
    with portico.testing.server(answer, **settings) as served:
        server = served.server
        print("ports", served.port, server.listen(0, tls=False).port)
        if admin:
            print("admin", server.listen_admin(0).port)
        print("ca", json.dumps(served.ca_pem), flush=True)
        while True:
            time.sleep(60)
