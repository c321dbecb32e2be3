"""A server that notes what its handler is asked."""

from __future__ import annotations

import portico


class Recorder:
    """`seen` has a `(method, target, body)` for each request."""

    def __init__(self, **settings):
        self.seen = []
        self.server = portico.Server(self.handle, dispatch="inline", **settings)
        self.port = self.server.listen(0, tls=False).port

    def handle(self, request):
        query = f"?{request.queryString}" if request.queryString else ""
        self.seen.append((request.method, request.rawPath + query, request.body))
        return {"statusCode": 200, "body": f"hello {request.path}"}

    def close(self):
        self.server.close(0)
