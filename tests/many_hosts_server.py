"""A server with some hosts, for `test_many_hosts.py`, in a process of its own: FOLDER HOSTS CERTIFICATES.

Adds so many hosts, with that many different certificates in turn, read from files; says what that took, and then for each
line of its input how much processor time it has used."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

import portico
from measures import resident

HELLO = {"statusCode": 200, "body": "hello"}


def main(folder, hosts, certificates):
    with portico.Server(lambda request: HELLO, dispatch="inline", io_threads=1) as server:
        # What is loaded once for all, and the first growth of the heap, belong to no host.
        for _ in range(10):
            server.add_context("warm-up.test", cert=folder / "0.pem", key=folder / "0.pem")
        server.remove_context("warm-up.test")
        gc.collect()
        size, cpu, wall = resident(), time.process_time(), time.monotonic()
        for number in range(hosts):
            file = folder / f"{number % certificates}.pem"
            server.add_context(f"host-{number}.test", cert=file, key=file)
        cpu, wall, size = time.process_time() - cpu, time.monotonic() - wall, resident() - size
        print(json.dumps({"port": server.listen(0).port, "cpu": cpu, "wall": wall, "size": size}), flush=True)
        # Without stats(), which lists every certificate and so would cost more the more there are.
        for _ in sys.stdin:
            print(json.dumps({"cpu": time.process_time()}), flush=True)
        print(json.dumps({"handshakes": server.stats()["handshakes"]}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
