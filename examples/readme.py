"""The program of the README: two hosts, a default for clients that name none, TLS and cleartext.

The certificates are made on the spot, so that it runs as it is. Give the paths of your own, or their bytes.
"""

import tempfile
from pathlib import Path

import portico
from portico.demo.certificates import keep


def hello(request):
    return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": f"hello {request.path}\n"}


def shop(request):
    return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": f"{request.url}\n"}


with tempfile.TemporaryDirectory() as folder, portico.Server(hello, max_header_bytes=32 * 1024) as server:
    made = keep(Path(folder), {"localhost": ["localhost", "127.0.0.1"], "shop.test": ["*.shop.test"]})
    ours, theirs = made.pairs["localhost"], made.pairs["shop.test"]

    server.add_context("localhost", cert=ours, key=ours)  # a file may hold both
    server.add_context("*.shop.test", cert=theirs, key=theirs, handler=shop)  # its own handler
    pem = ours.read_bytes()
    server.add_context(None, cert=pem, key=pem)  # the default: no name asked for, or an unknown one
    listener = server.listen(0)  # returns at once; HTTP/1.1 and HTTP/2 by ALPN; 0 is any free port
    clear = server.listen(0, tls=False)  # cleartext

    print(f"curl --cacert {made.ca} {listener.url}/tls")
    print(f"curl --cacert {made.ca} --connect-to ::{listener.url[8:]} https://vip.shop.test/")
    print(f"curl {clear.url}/cleartext", flush=True)
    server.serve_forever()  # until Ctrl-C
