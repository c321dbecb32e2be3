"""What the workers of `test_reload.py` run. A module of its own, because other interpreters import it."""

import asyncio
import functools
import logging
import os
import pathlib
import time

import portico


def chat(ws, count):
    for message in ws:
        count()
        ws.send(message)


def serve(worker, cert, key, counter, **settings):
    """Answers each request and each message with the number of the process, and adds a byte to a file for it."""
    taken = os.open(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def count():
        os.write(taken, b".")

    def answer(request):
        count()
        return {"statusCode": 200, "body": str(os.getpid())}

    with portico.Server(handler(answer, count), **settings) as server:
        server.add_context("localhost", cert=cert, key=key)
        worker.listen(server)
        server.serve_forever()


def serve_async(worker, cert, key, counter):
    """The same on an event loop that does the server's I/O too."""

    async def main():
        taken = os.open(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

        async def answer(request):
            os.write(taken, b".")
            await asyncio.sleep(0.001)
            return {"statusCode": 200, "body": str(os.getpid())}

        async def chat(ws):
            async for message in ws:
                os.write(taken, b".")
                await ws.send(message)

        router = portico.Router()
        router.add_route("GET", "/chat", portico.websocket(chat))
        router.add_route("GET", "/", answer)
        router.add_route("POST", "/upload", answer)
        async with portico.Server(router) as server:
            server.add_context("localhost", cert=cert, key=key)
            worker.listen(server)
            await server.wait_closed()

    loop = portico.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def handler(answer, count):
    """`answer` for every path, but for a WebSocket at `/chat`."""
    router = portico.Router()
    router.add_route("GET", "/chat", portico.websocket(lambda ws: chat(ws, count)))
    router.add_route("GET", "/", answer)
    router.add_route("POST", "/upload", answer)
    return router


def program(folder):
    """A whole program: tells its process, its ports and its workers, and serves until a signal ends it. `folder` has the
    certificate, and a file `broken` while the program shall not come to serve."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.INFO)
    folder = pathlib.Path(folder)
    if (folder / "broken").exists():
        raise SystemExit("broken: no program to serve")
    main = functools.partial(serve_from, cert=folder / "cert.pem", key=folder / "key.pem", counter=folder / "taken")
    made = portico.Workers(main, workers=2, listen=[0, {"port": 0, "tls": False}])
    made.start()
    print("serves", os.getpid(), *made.ports, *made.pids, flush=True)
    made.run_forever()
    print("ended", os.getpid(), made.restarts, flush=True)


def serve_from(worker, cert, key, counter):
    """The same, for workers that fail while there is a file `broken` beside the counter, and come no further while there is a
    file `held`."""
    if (counter.parent / "broken").exists():
        raise LookupError("the new code is broken")
    while (counter.parent / "held").exists():
        time.sleep(0.01)
    serve(worker, cert, key, counter)
