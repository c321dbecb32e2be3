"""A server that reads forms as they come, in a process of its own: its memory can be measured, and its disk be full.

As a program it takes, as JSON, its settings, how large a file may be that it writes, and the size of a disk that it is to
have in its `form_folder`; it prints its port and serves until it is killed. `/def` and `/async` say what was in the form and how much memory the process has taken at the most.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import sys
from pathlib import Path
from typing import Any

import portico


def told(form: portico.Form) -> dict[str, Any]:
    files = [value for name in form for value in form.getlist(name) if isinstance(value, portico.FormFile)]
    digests = []
    for file in files:
        digest = hashlib.sha256()
        while piece := file.read1():
            digest.update(piece)
        digests.append(digest.hexdigest())
    status = Path("/proc/self/status").read_text()
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    answer = {"sizes": [file.size for file in files], "sha256": digests, "peak": int(peak) * 1024}
    return {"statusCode": 200, "body": json.dumps(answer)}


def by_thread(request: portico.Request) -> Any:
    return told(request.form())


async def by_coroutine(request: portico.Request) -> Any:
    return told(await request.form())


def descriptors(request: portico.Request) -> Any:
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # That of the folder that is listed.
            continue
    return {"statusCode": 200, "body": json.dumps(links)}


def serve(settings: dict[str, Any]) -> None:
    router = portico.Router()
    for path, function in {"/def": by_thread, "/async": by_coroutine}.items():
        function.stream_body = True  # type: ignore[attr-defined]
        router.post(path)(function)
    router.get("/descriptors")(descriptors)
    with portico.Server(router, **settings) as server:
        print("port", server.listen(0, tls=False).port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    settings, largest, disk = map(json.loads, sys.argv[1:])
    if disk:
        # A disk of that size, which only this process and what it becomes can see.
        mount = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
        again = [sys.executable, "-W", "error", __file__, sys.argv[1], sys.argv[2], "null"]
        os.execvp("unshare", ["unshare", "-rm", "sh", "-c", mount, "sh", str(disk), settings["form_folder"], *again])
    if largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    serve(settings)
