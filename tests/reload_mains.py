"""What the workers of `test_reload.py` run. A module of its own, because other interpreters import it."""

import os

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


def handler(answer, count):
    """`answer` for every path, but for a WebSocket at `/chat`."""
    router = portico.Router()
    router.add_route("GET", "/chat", portico.websocket(lambda ws: chat(ws, count)))
    router.add_route("GET", "/", answer)
    router.add_route("POST", "/upload", answer)
    return router
