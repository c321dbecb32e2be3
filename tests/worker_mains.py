"""What the workers of `test_workers.py` run. A module of its own, because other interpreters import it.

Requests tell them what to do: `/pid`, `/slow?SECONDS`, `/exit?CODE`, `/raise`, `/close`, `/number`. With a folder, a
request leaves a file `NAME.PID` there when it has come in, for `/slow/NAME`, and is over sooner when there is a file `go`.
"""

import asyncio
import contextlib
import functools
import multiprocessing
import os
import pathlib
import signal
import threading
import time

import portico


def answer(worker, folder, request):
    what, argument = request.path.split("/")[1], request.queryString
    if what == "slow":
        (pathlib.Path(folder) / f"{request.path.split('/')[2]}.{os.getpid()}").touch()
        end = time.monotonic() + float(argument)
        while time.monotonic() < end and not (pathlib.Path(folder) / "go").exists():
            time.sleep(0.01)
    elif what == "exit":
        os._exit(int(argument))
    elif what == "close":
        threading.Thread(target=request.server.close).start()
    elif what == "kill":
        os.kill(os.getpid(), int(argument))
    elif what == "child":
        # A copy of this process that lives on, with every descriptor it has.
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        return {"statusCode": 200, "body": str(child.pid)}
    elif what == "descriptors":
        return {"statusCode": 200, "body": str(sorted(map(int, os.listdir("/proc/self/fd"))))}
    return {"statusCode": 200, "body": str(worker.number if what == "number" else os.getpid())}


def serve(worker, folder=None, **settings):
    settings.setdefault("dispatch", "threads")
    with portico.Server(functools.partial(answer, worker, folder), **settings) as server:
        worker.listen(server)
        server.serve_forever()


def serve_first_alone(worker, admins):
    """The others fail as soon as there are so many sockets of admin listeners."""
    if worker.number:
        while len(os.listdir(admins)) < 3:
            time.sleep(0.01)
        raise RuntimeError(f"worker {worker.number} is not to serve")
    serve(worker)


def serve_tls(worker, cert, key):
    with portico.Server(functools.partial(answer, worker, None)) as server:
        server.add_context("localhost", cert=cert, key=key)
        worker.listen(server)
        server.serve_forever()


async def serve_async(worker):
    async def hello(request):
        return {"statusCode": 200, "body": str(os.getpid())}

    async with portico.Server(hello) as server:
        worker.listen(server)
        await server.wait_closed()


def serve_while_told(worker, flag):
    """Serves as long as that file is there; otherwise fails before it listens."""
    if not os.path.exists(flag):
        raise LookupError("no flag to serve under")
    serve(worker)


def raise_after_listening(worker, flag):
    """Serves, and raises when that file comes."""
    with portico.Server(functools.partial(answer, worker, None)) as server:
        worker.listen(server)
        while not os.path.exists(flag):
            time.sleep(0.01)
        os.unlink(flag)
        raise LookupError("lost the way")


def return_at_once(worker):
    pass


def fail(worker):
    raise LookupError("the way was not found")


def fail_in_one(worker):
    if worker.number == 1:
        raise LookupError("not this one")
    serve(worker)


def never_listen(worker):
    time.sleep(600)


def die_in_c(worker):
    os.kill(os.getpid(), signal.SIGSEGV)


def never_return(worker):
    """Listens, and does not notice that its server is closed."""
    with portico.Server(functools.partial(answer, worker, None)) as server:
        worker.listen(server)
        time.sleep(600)


def two_servers(worker):
    with portico.Server(functools.partial(answer, worker, None)) as one, portico.Server(fail) as two:
        worker.listen(one)
        assert [listener.url for listener in worker.listen(two)]
        one.serve_forever()


def run_async(worker):
    asyncio.run(serve_async(worker))


def serve_starlette(worker, cert, key):
    """Tells the process, and what its lifespan has left there."""
    # Here, because the others would have to wait for it too.
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield {"told": "begun"}

    async def tell(request):
        return JSONResponse([str(os.getpid()), request.state.told])

    app = Starlette(routes=[Route("/", tell)], lifespan=lifespan)
    with portico.Server(portico.asgi(app)) as server:
        server.add_context("localhost", cert=cert, key=key)
        worker.listen(server)
        server.serve_forever()
