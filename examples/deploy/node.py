"""One of several machines behind haproxy.cfg, which share sessions and the keys of TLS tickets by a Redis: any of them
may die, and its clients go on with the others.

    node.py NAME --cert example.crt --key example.key \\
        --redis redis://10.0.0.10:6379/0 --proxy 10.0.0.1 --secret shared.key --address 10.0.0.11

The secret is a file of 64 random bytes that all have (`openssl rand 64`). docs/several-machines.md explains it.
"""

import argparse
from pathlib import Path

import portico
from portico.sessions import Sessions


def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    ip, port = request.client
    count, resumed = request.session["visits"], request.connection.resumed
    return portico.response(200, f"visit {count} of {ip}:{port}, to {arguments.name}, resumed: {resumed}\n")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("name")
parser.add_argument("--cert", required=True)
parser.add_argument("--key", required=True)
parser.add_argument("--redis", required=True)
parser.add_argument("--secret", required=True, type=Path)
parser.add_argument("--proxy", action="append", required=True, help="the address of an HAProxy; may be repeated")
parser.add_argument("--address", default="127.0.0.1")
parser.add_argument("--port", type=int, default=8443)
parser.add_argument("--admin-port", type=int, default=9090)
arguments = parser.parse_args()

secret = arguments.secret.read_bytes()
# One secret for each purpose, of one file.
sessions_secret, tickets_secret = secret[:32], secret[32:64]
# Who has died keeps the session that it was writing locked for `lease`; others wait that long for it.
sessions = Sessions(store=arguments.redis, secret=sessions_secret, lease=10, lock_timeout=15)
ticket_keys = portico.RedisTicketKeys(arguments.redis, secret=tickets_secret)

with portico.Server(visits, sessions=sessions, trusted_proxies=arguments.proxy) as server:
    server.add_context(None, cert=arguments.cert, key=arguments.key, ticket_keys=ticket_keys)
    server.listen(arguments.port, arguments.address, proxy_protocol=True)
    # Probes need no token; without one this listener is for its own machine.
    token = None if arguments.address == "127.0.0.1" else secret.hex()
    server.listen_admin(arguments.admin_port, arguments.address, token=token)
    print(f"{arguments.name} listens", flush=True)
    server.serve_forever()
