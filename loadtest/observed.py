"""What metrics and the access log cost: CPU of the server for each request, with and without, in pairs.

    python loadtest/observed.py                            with an access log and metrics, beside without a log
    python loadtest/observed.py --baseline PYTHON          beside the portico of another environment, as one from before
                                                           there were histograms, without a log

Both servers run all the time, on one core, and their client on another one; each pair of runs asks first the one, then
the other. Measure what `make wheel` or `make bench` builds, and let nothing else run meanwhile: CPU is what counts, but
caches are shared.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("bench")))

import environment
from clients import Client, Target, h2load, wrk
from contenders import Contender, Site, ours
from process import Server

# With how many connections; on one of HTTP/2 are 32 requests at once, and all together stay below `max_in_flight`.
CLIENTS: dict[str, tuple[Client, int]] = {"http1": (wrk, 32), "http2": (h2load, 8)}


def contender(kind: str, name: str, python: str) -> Contender:
    """portico by that interpreter."""
    plain = ours(kind)

    def command(site: Site) -> list[str]:
        return [python, *plain.command(site)[1:]]

    return dataclasses.replace(plain, name=name, command=command)


def cost(server: Server, client: tuple[Client, int], seconds: float, core: int) -> float:
    """Microseconds of CPU for each request."""
    before = server.cpu()
    ask, connections = client
    counted = ask(Target(server.port, "/", seconds, connections, core, server.site.folder))
    assert not counted.errors, counted.errors
    return (server.cpu() - before) / counted.requests * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", default=sys.executable, help="the Python of what is compared with")
    parser.add_argument("--kind", default="inline", help="how the handler runs: auto, inline, threads, async, asgi")
    parser.add_argument("--client", default="http1", choices=CLIENTS)
    parser.add_argument("--format", default="combined", choices=("common", "combined", "json"))
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each run of a pair")
    parser.add_argument("--cores", type=int, nargs=2, default=(0, 1), help="of the servers, and of the client")
    given = parser.parse_args()
    server_core, client_core = given.cores
    client = CLIENTS[given.client]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment.certificate(folder)
        log = {"PORTICO_BENCH_ACCESS_LOG": str(folder / "access.log"), "PORTICO_BENCH_ACCESS_LOG_FORMAT": given.format}
        with (
            Server(contender(given.kind, "plain", given.baseline), "hello", server_core, folder, {}) as plain,
            Server(contender(given.kind, "observed", sys.executable), "hello", server_core, folder, log) as observed,
        ):
            for server in (plain, observed):
                cost(server, client, 1.0, client_core)  # until caches and the judge have settled
            pairs = []
            for at in range(given.pairs):
                # In turn, so that a machine that gets warmer or busier favours neither.
                order = (plain, observed) if at % 2 == 0 else (observed, plain)
                costs = {server: cost(server, client, given.seconds, client_core) for server in order}
                pairs.append((costs[plain], costs[observed]))
                ratio = costs[observed] / costs[plain] - 1
                print(f"{at + 1:3}  {costs[plain]:7.2f} µs  {costs[observed]:7.2f} µs  {ratio:+.1%}", flush=True)
        lines = (folder / "access.log").read_bytes().count(b"\n")
    ratios = sorted(after / before - 1 for before, after in pairs)
    low, high = ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]
    print(
        f"a request costs {statistics.median(before for before, _ in pairs):.2f} µs without, "
        f"{statistics.median(after for _, after in pairs):.2f} µs with; the median of the pairs is "
        f"{statistics.median(ratios):+.1%} (quartiles {low:+.1%} to {high:+.1%}); {lines} lines were written"
    )


if __name__ == "__main__":
    main()
