"""Await a result until the client disconnects."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from mflux_api.errors import JobCancelled

T = TypeVar("T")


async def while_connected(request: Request, answer: Awaitable[T], gone: Callable[[], Awaitable[object]]) -> T:
    """Await a result. If the client disconnects first, call `gone`, then go on waiting and return the result."""
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
    """Await a result. If the client disconnects first, cancel the coroutine and raise JobCancelled."""
    task = asyncio.ensure_future(answer)
    hung_up = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait([task, hung_up], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            raise JobCancelled("The client disconnected.")
        return await task
    finally:
        hung_up.cancel()
        task.cancel()
