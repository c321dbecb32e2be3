"""A Starlette application: routes, a form with a file, events that are sent as they happen, state that lasts.

Needs `pip install starlette python-multipart`. Ctrl-C stops it.
"""

import asyncio
import contextlib
import hashlib

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

import portico.testing


@contextlib.asynccontextmanager
async def lifespan(app):
    # Runs when the server starts and ends, on the event loop of the requests: the place for pools and clients.
    yield {"greeting": "hello"}


async def greet(request):
    return PlainTextResponse(f"{request.state.greeting} {request.path_params['name']}\n")


async def upload(request):
    async with request.form() as form:
        content = await form["file"].read()
        digest = hashlib.sha256(content).hexdigest()
        return JSONResponse({"name": form["file"].filename, "size": len(content), "sha256": digest})


async def ticks(request):
    async def events():
        for number in range(3):
            yield f"data: tick {number}\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(events(), media_type="text/event-stream")


app = Starlette(
    routes=[
        Route("/greet/{name}", greet),
        Route("/upload", upload, methods=["POST"]),
        Route("/ticks", ticks),
    ],
    lifespan=lifespan,
)

if __name__ == "__main__":
    with portico.testing.server(portico.asgi(app)) as running:  # for your certificates: portico.Server, see readme.py
        print(f"curl --insecure {running.url}/greet/world")
        print(f"curl --insecure --write-out '\\n' --form 'file=some text;filename=note.txt' {running.url}/upload")
        print(f"curl --insecure --no-buffer {running.url}/ticks", flush=True)
        running.server.serve_forever()
