"""Forms made by hand, and handlers that say what is in them."""

from __future__ import annotations

import json

KINDS = ["def", "async def", "streaming def", "streaming async def"]
MULTIPART = "multipart/form-data; boundary=X"
URLENCODED = "application/x-www-form-urlencoded"


def told(form):
    """What is in a form, as JSON has it."""
    values = [(name, value) for name in form for value in form.getlist(name)]
    return [
        [name, value] if isinstance(value, str) else [name, value.filename, value.content_type, value.read().hex()]
        for name, value in values
    ]


def handler_of(kind, look=told):
    def plain(request):
        return {"statusCode": 200, "body": json.dumps(look(request.form()))}

    async def coroutine(request):
        return {"statusCode": 200, "body": json.dumps(look(await request.form()))}

    handler = coroutine if kind.endswith("async def") else plain
    handler.stream_body = kind.startswith("streaming")
    return handler


def post(wire, body, content_type=MULTIPART, pieces=None):
    """Sends a form, in chunks of `pieces` bytes where that is given, and reads the answer."""
    framing = f"content-length: {len(body)}" if pieces is None else "transfer-encoding: chunked"
    wire.send(f"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n")
    if pieces is None:
        return wire.send(body).read()
    for at in range(0, len(body), pieces):
        piece = body[at : at + pieces]
        wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    return wire.send(b"0\r\n\r\n").read()


def post_late(wire, called, body, content_type=MULTIPART):
    """The same with a body that is not sent before the handler has set `called`."""
    head = f"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    wire.send(head)
    assert called.wait(30)
    called.clear()
    return wire.send(body).read()


def part(disposition, content=b"1", more=b""):
    head = b"--X\r\ncontent-disposition: form-data" + disposition + b"\r\n" + more
    return head + b"\r\n" + content + b"\r\n"


def file_part(content, filename=b"x"):
    return part(b'; name="file"; filename="' + filename + b'"', content)


LAST = b"--X--\r\n"
