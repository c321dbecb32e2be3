"""The server that `run.py` loads: three hosts, each with a certificate and a handler of its own.

Prints one line of JSON when it listens, another with its statistics when it has ended. It ends with its input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import portico
from portico import _core

HOSTS = ("localhost", "a.localhost", "b.localhost")
DOWNLOAD = bytes(range(256)) * 4096  # 1 MiB

Answer = dict[str, Any]


def text(body: str, status: int = 200) -> Answer:
    return {"statusCode": status, "headers": {"content-type": "text/plain; charset=utf-8"}, "body": body}


def site(name: str) -> Any:
    """The handler of one host. Each names its host, so that a client sees whom it got."""

    def handle(request: portico.Request) -> Answer:
        match request.method, request.path:
            case (("GET" | "HEAD"), "/"):
                return text(f"{name}\n")
            case "GET", "/search":
                found = request.queryStringParameters
                return text(f"{name}: {found['q']} ({found['page']})\n")
            case "POST", "/form":
                return text(f"{name}: {request.form()['message']}\n")
            case "POST", "/json":
                numbers = request.json()["numbers"]
                body = json.dumps({"host": name, "sum": sum(numbers)})
                return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": body}
            case "PUT", "/upload":
                return text(f"{name}: {len(request.body)}\n", 201)
            case "GET", "/download":
                return {"statusCode": 200, "body": DOWNLOAD}
        return text(f"{name} has no {request.path}\n", 404)

    return handle


async def handle_async(request: portico.Request) -> Answer:
    """The third host's handlers run on an event loop."""
    return site(HOSTS[2])(request)


def main() -> None:
    folder = Path(sys.argv[1])
    authority, authority_key = _core.make_authority("portico load test")
    (folder / "authority.pem").write_text(authority)
    with portico.Server(site(HOSTS[0])) as server:
        for name, handler in zip(HOSTS, (None, site(HOSTS[1]), handle_async), strict=True):
            chain, key = _core.issue_certificate(authority, authority_key, [name], 1)
            server.add_context(name, cert=chain.encode(), key=key.encode(), handler=handler)
        listener = server.listen(0)
        print(json.dumps({"port": listener.port}), flush=True)
        sys.stdin.read()
        server.close(grace=10)
        print(json.dumps(server.stats()), flush=True)


if __name__ == "__main__":
    main()
