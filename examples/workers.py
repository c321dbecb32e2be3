"""Two processes on one port, and a supervisor that replaces one that dies, as it does on a request for `/crash`.

Ctrl-C stops all of them. docs/workers.md says more.
"""

import functools
import os
import tempfile
from pathlib import Path

import portico
from portico.demo.certificates import keep


def hello(request):
    if request.path == "/crash":
        os._exit(3)
    return portico.response(200, f"hello {request.path}\n")


def main(worker, pair):
    """Runs in each process."""
    with portico.Server(hello) as server:
        server.add_context("localhost", cert=pair, key=pair)
        worker.listen(server)
        server.serve_forever()


if __name__ == "__main__":  # workers import this file too
    with tempfile.TemporaryDirectory() as folder:
        made = keep(Path(folder), {"localhost": ["localhost"]})
        serve = functools.partial(main, pair=made.pairs["localhost"])
        with portico.Workers(serve, workers=2, listen=0) as workers:
            print(f"curl --cacert {made.ca} https://localhost:{workers.ports[0]}/one")
            print(f"curl --cacert {made.ca} https://localhost:{workers.ports[0]}/another", flush=True)
            workers.run_forever()
