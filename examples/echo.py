"""A WebSocket echo without TLS: each message comes back as it came, text or binary.

`python echo.py [PORT]` serves, and prints how to ask. It is what a test suite for WebSocket servers asks for, such as
Autobahn's fuzzingclient. `python echo.py say PORT LINE...` is a client (it needs the package `websockets`).
"""

import sys

import portico


async def echo(ws):
    async for message in ws:
        await ws.send(message)


def say(port, lines):
    from websockets.sync.client import connect

    with connect(f"ws://localhost:{port}/", proxy=None) as ws:
        for line in lines:
            ws.send(line)
            print(ws.recv())


def serve(port):
    with portico.Server(portico.websocket(echo)) as server:
        port = server.listen(port, tls=False).port
        print(f"python {sys.argv[0]} say {port} hello again")
        print(f"curl http://localhost:{port}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:2] == ["say"]:
        say(int(sys.argv[2]), sys.argv[3:])
    else:
        serve(int(sys.argv[1]) if sys.argv[1:] else 0)
