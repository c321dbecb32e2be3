"""The smallest program: one handler for one host, with a certificate that is thrown away at the end.

Ctrl-C stops it. `readme.py` shows the same with certificate files.
"""

import portico.testing


def hello(request):
    return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": f"hello {request.path}\n"}


with portico.testing.server(hello) as running:
    print(f"curl --insecure {running.url}/world", flush=True)
    running.server.serve_forever()
