"""Wait for an answer as long as somebody wants it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request

T = TypeVar("T")


async def while_connected(request: Request, answer: Awaitable[T], gone: Callable[[], Awaitable[object]]) -> T:
    """The answer; if the client hangs up first, `gone` is called and the answer, whatever it is then, returned."""
    task = asyncio.ensure_future(answer)
    hung_up = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait([task, hung_up], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await gone()
        return await task
    finally:
        hung_up.cancel()
        task.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
