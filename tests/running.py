"""`portico run` in a process of its own, with a program that it serves."""

from __future__ import annotations

import re
import textwrap

from programs import Program

APP = """
import asyncio, os, sys, time
import portico

def hello(request):
    return {"statusCode": 200, "body": f"hello {request.path}"}

def pid(request):
    return {"statusCode": 200, "body": str(os.getpid())}

def slow(request):
    time.sleep(float(request.queryString))
    return {"statusCode": 200, "body": "slow"}

def make():
    return hello

def wsgi_app(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"wsgi " + environ["PATH_INFO"].encode()]

async def asgi_app(scope, receive, send):
    assert scope["type"] == "http", "no lifespan"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"asgi " + scope["path"].encode()})

def lambda_app(event, context):
    return {"statusCode": 200, "body": "lambda " + event["path"]}

def ambiguous(*arguments):
    return {"statusCode": 200, "body": "any"}

class Nested:
    inner = hello

router = portico.Router()
router.add_route("GET", "/routed", hello)
"""


class Running(Program):
    """The command with those arguments in that folder, where `app.py` is."""

    def __init__(self, folder, *arguments, **environment):
        (folder / "app.py").exists() or (folder / "app.py").write_text(APP)
        # Not where other servers of this user are found.
        (folder / "run").mkdir(mode=0o700, exist_ok=True)
        environment.setdefault("RUNTIME_DIRECTORY", str(folder / "run"))
        # The folder is the current one of the process.
        start = f"import os, sys; os.chdir({str(folder)!r}); from portico.cli import main; sys.exit(main())"
        super().__init__("-c", start, "run", *arguments, HOME=str(folder / "home"), **environment)

    def ready(self):
        """Waits until it serves; the ports by which it is found."""
        try:
            self.wait_for("^Ctrl-C stops the server")
        except BaseException:
            self.close()
            raise
        return [int(port) for port in re.findall(r"^  https?://[^ ]+:(\d+)/$", self.output, re.MULTILINE)]


def write(path, text):
    """A file with a text that stands indented."""
    path.write_text(textwrap.dedent(text))
    return path
