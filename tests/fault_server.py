"""A server in a process of its own, for faults that are put into it from outside: `fault_server.py FOLDER [NAME=VALUE]`.
Settings are JSON. Prints its port, ends with SIGTERM."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import portico
from portico.sessions import Sessions

router = portico.Router()
never = threading.Event()


@router.get("/")
def hello(request):
    return {"statusCode": 200, "body": "hello"}


@router.get("/stats")
def stats(request):
    return {"statusCode": 200, "body": json.dumps(request.server.stats())}


@router.get("/time")
def now(request):
    return {"statusCode": 200, "body": str(time.time())}


@router.get("/count")
def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return {"statusCode": 200, "body": str(request.session["count"])}


@router.post("/form")
def form(request):
    return {"statusCode": 200, "body": str(sum(len(file.read()) for file in request.form().values()))}


form.stream_body = True  # files go to the disk while they come


@router.get("/never")
def stay(request):
    never.wait()


@router.get("/exit")
def leave(request):
    sys.exit(3)


@router.get("/deep")
def deep(request):
    return deep(request)


@router.get("/deepest")
def deepest(request):
    # Through C as well, which has a stack of its own to overflow.
    value = []
    for _ in range(100_000):
        value = [value]
    return {"statusCode": 200, "body": repr(value)}


def main(folder: str, *settings: str) -> None:
    files = Path(folder, "files")
    files.mkdir(exist_ok=True)
    (files / "file.txt").write_text("file")
    router.mount("/files", portico.StaticFiles(files))
    sessions = Sessions(secret="0123456789" * 4, store=f"sqlite:{folder}/sessions.db")
    options = {name: json.loads(value) for name, value in (one.split("=", 1) for one in settings)}
    with portico.Server(router, sessions=sessions, **options) as server:
        print("port", server.listen(0, tls=False).port, flush=True)
        server.serve_forever(grace=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
