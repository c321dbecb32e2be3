"""Bodies that are made on an event loop while they are sent. The rest is `rust/python/src/bodies.rs`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from ._core import BodySender, BodyStream, Request

_Piece = TypeVar("_Piece", covariant=True)


class _Polled(Protocol[_Piece]):
    """What comes piece by piece: a request's body, or the messages of an ASGI application that reads one."""

    def poll(self, future: asyncio.Future[None]) -> _Piece | None:
        """The next piece; None where there is none yet, and then `future` is done when to ask again."""


async def pump(body: AsyncIterable[bytes], sender: BodySender) -> None:
    """Hands on what `body` gives, as fast as the client takes it. Cancelled when nobody wants any more of it."""
    try:
        async for piece in body:
            try:
                if not sender.send(piece):
                    await room(sender)
            except BrokenPipeError:
                return
        sender.finish()
    finally:
        sender.abandon()
        # An async generator that is left in the middle ends here, and not whenever it is collected.
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()


async def room(sender: BodySender) -> None:
    """Waits until there is room for more."""
    loop = asyncio.get_running_loop()
    while True:
        future = loop.create_future()
        if sender.has_room(future):
            return
        await future


async def next_piece(stream: _Polled[_Piece]) -> _Piece:
    """The next piece, once it has come. Raises `StopAsyncIteration` at the end of a body."""
    while True:
        future = asyncio.get_running_loop().create_future()
        piece = stream.poll(future)
        if piece is not None:
            return piece
        await future


async def read_rest(request: Request, stream: BodyStream) -> bytes:
    """The rest of a request's body, which the request keeps."""
    stream.keep(b"".join([piece async for piece in stream]))
    return request.body
