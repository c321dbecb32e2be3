"""Connections without HTTP, over TLS: an echo, a protocol of lines, and HTTP answered by hand.

Run without arguments it serves, and prints how to ask. `python streams.py PORT CA LINE...` is the client that it
prints: it sends the lines and shows what comes back.
"""

import socket
import ssl
import sys
import tempfile

import portico
from portico.demo.certificates import keep


def echo(conn):
    """Whatever comes goes back, to the end of the client's side."""
    while data := conn.read(65536):
        conn.write(data)


numbers = {}


async def counter(conn):
    """`add NAME NUMBER` and `get NAME`, each a line that is answered with a line; `quit` ends it."""
    while line := await conn.read_until(b"\n", limit=1000):
        match line.decode("utf-8", "replace").split():
            case ["add", name, number] if number.isdecimal() and len(number) < 10:
                numbers[name] = numbers.get(name, 0) + int(number)
                await conn.write(f"{name} is {numbers[name]}\n".encode())
            case ["get", name]:
                await conn.write(f"{name} is {numbers.get(name, 0)}\n".encode())
            case ["quit"]:
                return
            case _:
                await conn.write(b"commands: add NAME NUMBER, get NAME, quit\n")


def by_hand(conn):
    """One request after the other on the same connection."""
    for number, request in enumerate(conn.requests(), 1):
        conn.respond(portico.response(200, f"request {number} on this connection: {request.path}\n"))


def client(port, ca, lines):
    context = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        # Without suppression, so that an end without close_notify is noticed: somebody may have cut the answer off.
        context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as secure,
    ):
        for line in lines:
            secure.sendall(line.encode() + b"\n")
            print(secure.recv(1000).decode(), end="")
        secure.unwrap()


def serve():
    with tempfile.TemporaryDirectory() as made, portico.Server() as server:
        certificates = keep(made, {"localhost": ["localhost"]})
        pair = certificates.pairs["localhost"]
        server.add_context("localhost", cert=pair, key=pair)
        ports = [server.listen(0, stream=callback).port for callback in (echo, counter, by_hand)]
        print(f"python {sys.argv[0]} {ports[0]} {certificates.ca} hello again")
        print(f"python {sys.argv[0]} {ports[1]} {certificates.ca} 'add apples 3' 'add apples 4' 'get pears' help")
        url = f"https://localhost:{ports[2]}"
        print(f"curl --cacert {certificates.ca} {url}/one {url}/two", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) > 3:
        client(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
    else:
        serve()
