"""What an idle TLS connection costs in memory: the server's resident size before, and with many of them open."""

from __future__ import annotations

import resource
import time
from typing import Any

import https
from process import Server, ServerFailed

# Served and closed beforehand, so that what is made once (code read in, caches, arenas) does not count.
EARLIER = 50
# Until what follows a last response, a freed buffer say, has happened.
SETTLE = 0.5
NAME = "idle"
TITLE = "Idle TLS connections"


def idle(server: Server, connections: int) -> dict[str, Any]:
    """Opens so many connections, makes one request on each, holds all, and looks."""
    # The client's own descriptors; servers inherit the limit, but were started before.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < connections + 256:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, connections + 1024), hard))
    https.close_all(https.open_many(server.port, EARLIER))
    time.sleep(SETTLE)
    before = server.resident()
    opened = https.open_many(server.port, connections)
    try:
        time.sleep(SETTLE)
        server.check()
        after = server.resident()
        if closed := sum(not connection.is_open() for connection in opened):
            raise ServerFailed(f"closed {closed} of {connections} connections that were to be held")
    finally:
        https.close_all(opened)
    return {
        "connections": connections,
        "before": before,
        "resident": after,
        "each": round((after - before) / connections),
        "errors": {},
    }
