"""The pytest fixture `portico_server`. pytest finds it by itself once portico is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from . import testing


@pytest.fixture
def portico_server() -> Iterator[Callable[..., testing.TestServer]]:
    """Starts servers, each as `portico.testing.server` does, and closes them after the test.

    def test_hello(portico_server):
        server = portico_server(lambda request: {"statusCode": 200, "body": "hi"})
        assert urllib.request.urlopen(server.url, context=server.ssl_context).read() == b"hi"
    """
    with contextlib.ExitStack() as stack:

        def start(*args: Any, **settings: Any) -> testing.TestServer:
            return stack.enter_context(testing.server(*args, **settings))

        yield start
