"""A chat: a page, and the WebSockets by which it talks. Open it in several windows.

Run without arguments it serves, and prints how to ask. `python chat.py PORT CA LINE...` is a client without a browser:
it says the lines and shows what it hears (it needs the package `websockets`).
"""

import asyncio
import sys
import tempfile

import portico
from portico.demo.certificates import keep

PAGE = """<!doctype html>
<title>chat</title>
<ul id="said"></ul>
<form><input name="line" autofocus autocomplete="off" maxlength="1000"><button>say</button></form>
<script>
const socket = new WebSocket(location.origin.replace("http", "ws") + "/chat"), form = document.forms[0];
const show = text => document.querySelector("#said").appendChild(document.createElement("li")).textContent = text;
socket.onmessage = event => show(event.data);
socket.onclose = event => show(`The end (${event.code} ${event.reason})`);
form.onsubmit = event => { event.preventDefault(); socket.send(form.line.value); form.reset(); };
</script>
"""

here = set()


async def tell(text):
    # Who has left raises a portico.WebSocketError, to which its own handler sees.
    await asyncio.gather(*(other.send(text) for other in here), return_exceptions=True)


async def chat(ws):
    """What one says all hear. No lock: everything here runs on the event loop."""
    name = f"guest {ws.id}"
    here.add(ws)
    try:
        await tell(f"{name} is here, with {len(here) - 1} others")
        async for line in ws:
            await tell(f"{name}: {line}")
    finally:
        here.discard(ws)
        await tell(f"{name} has left")


async def page(request):
    return portico.response(200, PAGE, "text/html; charset=utf-8")


async def client(port, ca, lines):
    import ssl

    # Not its client for threads: over TLS that one now and then does not send what it is given.
    from websockets.asyncio.client import connect

    async with connect(f"wss://localhost:{port}/chat", ssl=ssl.create_default_context(cafile=ca), proxy=None) as ws:
        print(await ws.recv())
        for line in lines:
            await ws.send(line)
            print(await ws.recv())


def serve():
    with tempfile.TemporaryDirectory() as made:
        certificates = keep(made, {"localhost": ["localhost"]})
        pair = certificates.pairs["localhost"]
        router = portico.Router()
        router.add_route("GET", "/", page)
        with portico.Server(router) as server:
            server.add_context("localhost", cert=pair, key=pair)
            listener = server.listen(0)
            # Pages of other sites, which a visitor has open too, are not let in.
            origin = f"https://localhost:{listener.port}"
            router.add_route("GET", "/chat", portico.websocket(chat, max_message_bytes=4000, origins=[origin, None]))
            print(f"Open {origin}/ in a browser, twice; it has to trust {certificates.ca}")
            print(f"python {sys.argv[0]} {listener.port} {certificates.ca} hello 'anybody there?'")
            print(f"curl --cacert {certificates.ca} {origin}/", flush=True)
            server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) > 3:
        asyncio.run(client(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
    else:
        serve()
