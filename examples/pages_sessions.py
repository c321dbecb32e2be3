"""Two sites of server pages in one program, each on a port of its own and with a session class of its own: what a page
may do for its visitor is what that class lets it. Needs pydantic-monty: pip install 'portico[pages]'.

python examples/pages_sessions.py
"""

import os
import tempfile
import threading
from pathlib import Path

import portico

SHOP = """\
<% if "item" in query: %>
<% session.add(query["item"]) %>
<% end %>
<p>In your cart: <%= ", ".join(session.items()) or "nothing" %>
"""
OFFICE = """\
<% try: %>
<% session.sell(query["item"]) %>
<p>Sold.
<% except KeyError: %>
<p>Which item? There are: <%= ", ".join(f"{number} {item}" for item, number in session.stock().items()) %>
<% except PermissionError as error: %>
<% exit(403, f"{error}\\n") %>
<% end %>
"""

stock = {"tea": 3, "milk": 1}
lock = threading.Lock()


class Cart:
    """Customers: a list of their own, of what there is."""

    def __init__(self, values):
        self._values = values  # kept for this visitor

    def items(self):
        return self._values.get("items", [])

    def add(self, item):
        if item in stock and len(self.items()) < 20:
            self._values["items"] = [*self.items(), item]


class Clerk:
    """The office: the stock of all, and three sales for each visit."""

    def __init__(self, values):
        self._values = values

    def stock(self):
        with lock:
            return dict(stock)

    def sell(self, item):
        sales = self._values.get("sales", 0)
        if sales == 3:
            raise PermissionError("three sales are enough for one clerk")
        with lock:
            if not stock[item]:
                raise PermissionError(f"there is no {item} left")
            stock[item] -= 1
        self._values["sales"] = sales + 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="portico-pages-") as folder:
        for name, text in {"shop": SHOP, "office": OFFICE}.items():
            Path(folder, name).mkdir()
            Path(folder, name, "index.psp").write_text(text)
        shop = portico.Pages(Path(folder, "shop"), session=Cart, workers=1)
        office = portico.Pages(Path(folder, "office"), session=Clerk, workers=1)
        with portico.Server(shop) as public, portico.Server(office) as internal:
            customers, clerks = public.listen(0, tls=False).url, internal.listen(0, tls=False).url
            print(f"Process {os.getpid()} has a shop and an office. Try:")
            print(f"curl -s -c jar -b jar '{customers}/?item=tea'")
            print(f"curl -s -c jar -b jar '{customers}/?item=milk'")
            print(f"curl {clerks}/")
            print(f"curl '{clerks}/?item=milk'")
            print(f"curl '{clerks}/?item=milk'")
            print("Ctrl-C ends it.", flush=True)
            public.serve_forever()
        shop.close()
        office.close()
