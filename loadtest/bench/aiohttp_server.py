"""aiohttp as a contender, on uvloop: `python aiohttp_server.py PORT CERTIFICATE KEY`."""

from __future__ import annotations

import asyncio
import ssl
import sys

import uvloop
from aiohttp import web

import apps


def answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="text/plain")


async def hello(request: web.Request) -> web.Response:
    return web.Response(body=apps.HELLO, content_type="text/plain")


async def suspend(request: web.Request) -> web.Response:
    await asyncio.sleep(0)
    return answer(apps.HELLO)


async def large(request: web.Request) -> web.Response:
    return answer(apps.LARGE)


async def upload(request: web.Request) -> web.Response:
    return answer(b"%d\n" % len(await request.read()))


async def isolation(request: web.Request) -> web.Response:
    return answer(await apps.slow_async(request.path))


def main() -> None:
    port, certificate, key = sys.argv[1:]
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    app = web.Application()
    handlers = {"hello": hello, "suspend": suspend, "large": large, "upload": upload, "isolation": isolation}
    app.router.add_route("*", "/{anything:.*}", handlers[apps.NAME])
    loop = uvloop.new_event_loop()
    web.run_app(
        app, host="127.0.0.1", port=int(port), ssl_context=context, access_log=None, print=None, loop=loop, backlog=1024
    )


if __name__ == "__main__":
    main()
