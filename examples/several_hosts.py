"""One port, three hosts, each with its own certificate and handler: the name that a client asks for chooses.

Hosts may come while the server runs: the handler of `localhost` adds one when it is asked to.
"""

import tempfile
from pathlib import Path

import portico
from portico.demo.certificates import keep


def text(body, status=200):
    return portico.response(status, f"{body}\n")


def front(request):
    """`/open` opens another shop on this very server."""
    hosts = [context.host for context in request.server.contexts]
    host = "bakery.localhost"
    if request.path != "/open" or host in hosts:
        return text(f"Here live {', '.join(hosts)}. Ask for /open to open a bakery.")
    pair = keep(folder, {host: [host]}).pairs[host]
    request.server.add_context(host, cert=pair, key=pair, handler=lambda request: text(f"{host} is open"))
    return text(f"https://{host} is new", 201)


def books(request):
    return text("Books, by the yard.")


async def bread(request):
    return text("Bread, while it lasts.")


handlers = {"localhost": front, "books.localhost": books, "bread.localhost": bread}

with tempfile.TemporaryDirectory() as made, portico.Server() as server:
    folder = Path(made)
    certificates = keep(folder, {host: [host] for host in handlers})
    for host, handler in handlers.items():
        pair = certificates.pairs[host]
        server.add_context(host, cert=pair, key=pair, handler=handler)
    port = server.listen(0).port
    for url in (*(f"{host}/" for host in handlers), "localhost/open", "bakery.localhost/"):
        curl = f"curl --cacert {certificates.ca} --connect-to ::127.0.0.1:{port}"
        print(f"{curl} https://{url}", flush=True)
    server.serve_forever()
