"""Draws the pictures of the dashboard in `docs/images`: a shop with four hosts, and its clients.

    python docs/draw_dashboard.py [SECONDS]

It takes as long as the charts are to show, five minutes by default. Needs what the tests of browsers need: playwright
with a Chromium of the system's, PyAV, and `cryptography` for certificates that end soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import logging
import math
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import av.filter
import httpx
from playwright.sync_api import Browser, sync_playwright

import portico

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from certificates import DAY, pair

IMAGES = Path(__file__).parent / "images"
DAYS = {"chat.example": 4, "shop.example": 21, "api.example": 63, "static.example": 81}


class Load:
    """What clients do: more and less, and for half a minute too much."""

    def __init__(self, seconds: float) -> None:
        self.began, self.seconds = time.monotonic(), seconds
        self.ended = threading.Event()

    def part(self) -> float:
        return (time.monotonic() - self.began) / self.seconds

    def is_rush(self) -> bool:
        return 0.55 < self.part() < 0.66

    def pause(self) -> float:
        wave = 1 + 0.35 * math.sin(self.part() * 9) + 0.15 * math.sin(self.part() * 31)
        return 0.03 / wave / (2.2 if self.is_rush() else 1) * random.uniform(0.4, 1.6)


def handlers(load: Load) -> dict[str, portico.Router]:
    api, shop, chat, static = (portico.Router() for _ in range(4))

    def crowded() -> float:
        return 2.5 if load.is_rush() else 1

    @api.get("/users/{id}")
    def user(request: portico.Request) -> dict:
        return portico.response(200, '{"name": "Ada"}', "application/json")

    @api.get("/search")
    def search(request: portico.Request) -> dict:
        if not request.queryString:
            raise ValueError("a search for nothing")
        time.sleep(random.lognormvariate(-4, 0.5) * crowded())
        return portico.response(200, "[]", "application/json")

    @api.post("/orders")
    async def order(request: portico.Request) -> dict:
        await asyncio.sleep(random.lognormvariate(-3.6, 0.6) * crowded())
        return portico.response(201, "{}", "application/json")

    @shop.get("/")
    def front(request: portico.Request) -> dict:
        return portico.response(200, "<h1>Lanterns</h1>" * 200, "text/html")

    @shop.get("/goods/{name}")
    def goods(request: portico.Request) -> dict:
        return portico.response(200, "<h1>A lantern</h1>" * 80, "text/html")

    @static.get("/{*path}")
    def file(request: portico.Request) -> dict:
        return portico.response(200, b"." * 9000, "image/png")

    @chat.get("/rooms/{room}/messages")
    async def messages(request: portico.Request) -> dict:
        await asyncio.sleep(random.uniform(0.1, 0.6))
        return portico.response(200, "[]", "application/json")

    async def talk(ws: portico.AsyncWebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    chat.get("/rooms/{room}")(portico.websocket(talk))
    for function in (user, search, order, front, goods, file, messages, talk):
        function.__module__, function.__qualname__ = "shop", function.__name__
    return {"api.example": api, "shop.example": shop, "chat.example": chat, "static.example": static}


# Who is asked for what, and how often beside the others.
ASKED = [
    (20, "api.example", "GET", "/users/{}"),
    (6, "api.example", "GET", "/search?q=lantern"),
    (4, "api.example", "POST", "/orders"),
    (12, "shop.example", "GET", "/"),
    (14, "shop.example", "GET", "/goods/{}"),
    (40, "static.example", "GET", "/pictures/{}.png"),
    (2, "chat.example", "GET", "/rooms/{}/messages"),
    (0.5, "shop.example", "GET", "/wp-login.php"),
    (0.05, "api.example", "GET", "/search"),
]


def visit(load: Load, url: str, http2: bool) -> None:
    """One client, until the end."""
    rounds = 0
    while not load.ended.is_set():
        with contextlib.ExitStack() as stack, contextlib.suppress(httpx.HTTPError):
            # A connection for each host, since a certificate is good for one.
            clients = {host: stack.enter_context(httpx.Client(verify=False, http2=http2)) for host in DAYS}
            for _ in range(random.randint(20, 300)):
                ((_, host, method, path),) = random.choices(ASKED, [weight for weight, *_ in ASKED])
                target = url + path.format(random.randint(1, 99))
                clients[host].request(method, target, headers={"host": host}, extensions={"sni_hostname": host})
                if load.ended.wait(load.pause()):
                    return
        rounds += 1
        if rounds % 3 == 0:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(url.replace("https", "http"))  # HTTP where TLS is spoken
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(url, verify=False, headers={"x-long": "a" * 70_000})


@contextlib.contextmanager
def shop(load: Load) -> Iterator[str]:
    """The address of the shop's admin listener, with its clients."""
    with portico.Server() as server:
        for name, handler in handlers(load).items():
            cert, key = pair(name, ends=DAY * (DAYS[name] + 0.5))
            server.add_context(name, cert=cert, key=key, handler=handler)
        url = server.listen(0).url
        clients = [threading.Thread(target=visit, args=(load, url, number % 2 == 0)) for number in range(6)]
        for client in clients:
            client.start()
        yield server.listen_admin(0).url
        load.ended.set()
        for client in clients:
            client.join()


def main(seconds: float) -> None:
    logging.disable()
    load = Load(seconds)
    with shop(load) as url, sync_playwright() as driver:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        pages = {name: open_page(browser, url, **look) for name, look in LOOKS.items()}
        for page in pages.values():
            page.wait_for_timeout(1000 * max(0, seconds - (time.monotonic() - load.began)))
        for name, page in pages.items():
            file = IMAGES / f"{name}.png"
            # Not through the middle of a table.
            box = page.locator("section", has=page.locator("#hosts")).bounding_box()
            size = page.viewport_size
            height = min(size["height"], box["y"] + box["height"] + 16)
            page.screenshot(path=file, clip={"x": 0, "y": 0, "width": size["width"], "height": height})
            reduce_colours(file)
            print(f"{file}: {file.stat().st_size} bytes")
        browser.close()


LOOKS = {
    "dashboard": {"width": 1120, "height": 1500},
    "dashboard-dark": {"width": 1120, "color_scheme": "dark"},
    "dashboard-phone": {"width": 390, "height": 844},
}


def open_page(browser: Browser, url: str, width: int, height: int = 760, **more):
    page = browser.new_page(viewport={"width": width, "height": height}, **more)
    page.goto(url)
    return page


def reduce_colours(file: Path) -> None:
    """Has a PNG make do with 128 colours, which takes a third of the space and is not seen."""
    with av.open(file) as picture:
        frame = next(picture.decode(video=0))
    frame.pts, frame.time_base = 0, fractions.Fraction(1)
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    both, sink = graph.add("split"), graph.add("buffersink")
    palette, drawn = graph.add("palettegen", "max_colors=128"), graph.add("paletteuse", "dither=none")
    source.link_to(both)
    both.link_to(palette, 0)
    both.link_to(drawn, 1, 0)
    palette.link_to(drawn, 0, 1)
    drawn.link_to(sink)
    graph.configure()
    graph.push(frame)
    source.push(None)
    reduced = graph.pull()
    with av.open(file, "w", format="image2") as picture:
        stream = picture.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = reduced.width, reduced.height, "pal8"
        stream.options = {"compression_level": "9", "pred": "none"}
        picture.mux(stream.encode(reduced))
        picture.mux(stream.encode(None))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 300)
