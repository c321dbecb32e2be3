"""`a.localhost`: a little shop. An `async def` handler that asks its warehouse about everything at once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import portico
from portico.demo.site import Response, Site, wants_html
from portico.demo.templates import Markup, asset, join, render


@dataclass(frozen=True)
class Item:
    """Something for sale. `slug` names its page and its picture."""

    slug: str
    name: str
    cents: int
    words: str
    stock: int

    @property
    def price(self) -> str:
        """In euros."""
        return f"€ {self.cents // 100:,}.{self.cents % 100:02}"


ITEMS = {
    item.slug: item
    for item in (
        Item("column", "Doric column", 124_000, "Holds up more than it lets on.", 8),
        Item("pediment", "Pediment", 389_000, "A roof with something to say.", 1),
        Item("lantern", "Porch lantern", 8_900, "On when you are, off when you are not.", 23),
        Item("knocker", "Door knocker", 5_400, "For guests who do their handshake by hand.", 12),
        Item("mat", "Welcome mat", 2_900, "Says 200 OK to everybody.", 64),
        Item("key", "Spare key", 1_200, "Elliptic, 256 bits. Leave it under the mat.", 0),
    )
}

ORDERS = {
    "": ("As we like it", lambda item: 0),
    "price": ("Cheapest first", lambda item: item.cents),
    "name": ("By name", lambda item: item.name.lower()),
}
"""The orders that `?sort=` knows, with what to sort by."""


async def stock_of(item: Item) -> int:
    """Asks the warehouse, which takes 20 ms to answer: in its place an application has a database."""
    await asyncio.sleep(0.02)
    return item.stock


class Shop:
    """Answers for `a.localhost`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def handle(self, request: portico.Request) -> Response:
        """The handler."""
        if request.method not in ("GET", "HEAD"):
            return self.site.other(request)
        if request.path == "/":
            return await self._front(request)
        item = ITEMS.get(request.path.removeprefix("/items/"))
        if item and request.path.startswith("/items/"):
            return await self._item(request, item)
        return self.site.other(request)

    async def _front(self, request: portico.Request) -> Response:
        sort = request.queryStringParameters.get("sort", "")
        items = sorted(ITEMS.values(), key=ORDERS.get(sort, ORDERS[""])[1])
        started = time.perf_counter()
        rows = await asyncio.gather(*(row(item) for item in items))
        took = (time.perf_counter() - started) * 1000
        if not wants_html(request):
            lines = ("{price:>12}  {name} ({left})".format_map(row) for row in rows)
            return self.site.text(request, "", *lines)
        orders = (
            {"sort": key, "label": label, "current": Markup(' aria-current="true"') if key == sort else ""}
            for key, (label, _) in ORDERS.items()
        )
        content = render(
            "shop.html",
            cards=join("card.html", rows),
            orders=join("order.html", orders),
            count=len(items),
            took=f"{took:.0f}",
        )
        return self.site.html(request, "Portico & Sons", content)

    async def _item(self, request: portico.Request, item: Item) -> Response:
        values = await row(item)
        if not wants_html(request):
            return self.site.text(request, "", "{name}, {price} ({left})".format_map(values), item.words)
        return self.site.html(request, item.name, render("item.html", **values))


async def row(item: Item) -> dict[str, str]:
    """What templates show of an item: its drawing takes its colours from the page."""
    stock = await stock_of(item)
    return {
        "slug": item.slug,
        "name": item.name,
        "words": item.words,
        "price": item.price,
        "left": {0: "sold out", 1: "the last one"}.get(stock, f"{stock} in stock"),
        "picture": Markup(asset(f"goods/{item.slug}.svg")),
    }
