"""Await a result until the client disconnects."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from mflux_api.errors import JobCancelled

T = TypeVar("T")


async def wait_with_disconnect_callback(
    request: Request, answer: Awaitable[T], on_close: Callable[[], Awaitable[object]]
) -> T:
    """Await a result. If the client disconnects first, call `on_close`, then go on waiting and return the result."""
    task = asyncio.ensure_future(answer)
    disconnect = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait([task, disconnect], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await on_close()
        return await task
    finally:
        disconnect.cancel()
        task.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def wait_or_cancel(request: Request, answer: Coroutine[Any, Any, T]) -> T:
    """Await a result. If the client disconnects first, cancel the coroutine and raise JobCancelled."""
    task = asyncio.ensure_future(answer)
    disconnect = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait([task, disconnect], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            raise JobCancelled("The client disconnected.")
        return await task
    finally:
        disconnect.cancel()
        task.cancel()
