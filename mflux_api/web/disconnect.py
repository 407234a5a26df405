"""Wait for an answer as long as somebody wants it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from mflux_api.errors import JobCancelled

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


async def while_wanted(request: Request, answer: Coroutine[Any, Any, T]) -> T:
    """The answer; if the client hangs up first it is cancelled, and JobCancelled is raised for nobody to read."""
    task = asyncio.ensure_future(answer)
    hung_up = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait([task, hung_up], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            raise JobCancelled("The client hung up.")
        return await task
    finally:
        hung_up.cancel()
        task.cancel()
