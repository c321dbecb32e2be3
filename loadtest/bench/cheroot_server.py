"""cheroot as a contender: `python cheroot_server.py PORT CERTIFICATE KEY`."""

from __future__ import annotations

import sys

from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server

import apps


def main() -> None:
    port, certificate, key = sys.argv[1:]
    # Its threads stay at their default, ten. That is also how many connections it would keep, and all others would be
    # opened anew for each request. The time-out is above that of any load.
    server = Server(("127.0.0.1", int(port)), apps.wsgi(), request_queue_size=1024, timeout=75)
    server.keep_alive_conn_limit = 10_000
    server.ssl_adapter = BuiltinSSLAdapter(certificate, key)
    server.safe_start()


if __name__ == "__main__":
    main()
