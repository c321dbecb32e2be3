"""Messages of HTTP in ASGI, for tests with bare apps."""

import pytest

PROTOCOLS = pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
BODY = {"type": "http.response.body", "body": b"fine"}
LEFT = {"type": "http.disconnect"}


async def whole(receive):
    """The body of a request, and the messages that it came in."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    assert {message["type"] for message in messages} == {"http.request"}
    assert len({id(message) for message in messages}) == len(messages)
    return b"".join(message.get("body", b"") for message in messages)
