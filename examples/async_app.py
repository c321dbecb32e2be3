"""portico within an asyncio program: handlers run on the program's own event loop, beside its other tasks."""

import asyncio
import signal
import tempfile
from pathlib import Path

import portico
from portico.demo.certificates import keep

ticks = 0


async def tick():
    """Something else that this program does."""
    global ticks
    while True:
        await asyncio.sleep(0.1)
        ticks += 1


async def hello(request):
    await asyncio.sleep(0.01)  # a database, another service
    # No lock: everything here runs on one thread.
    return portico.response(200, f"hello {request.path} at tick {ticks}\n")


async def serve(folder):
    made = keep(folder, {"localhost": ["localhost"]})
    ticking = asyncio.create_task(tick())
    async with portico.Server(hello) as server:
        server.add_context("localhost", cert=made.pairs["localhost"], key=made.pairs["localhost"])
        listener = server.listen(0)
        # Called on the loop, close() returns at once; wait_closed() returns when all in flight is answered.
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, server.close)
        print(f"curl --cacert {made.ca} https://localhost:{listener.port}/async", flush=True)
        await server.wait_closed()
    ticking.cancel()


with tempfile.TemporaryDirectory() as made:
    asyncio.run(serve(Path(made)))
