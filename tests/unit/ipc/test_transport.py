import asyncio
import itertools
import pickle
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflux_api.ipc import transport
from mflux_api.ipc.messages import (
    Command,
    CommandCrashed,
    CommandDone,
    CommandRefused,
    EngineMemory,
    Reply,
    Step,
    StopPainting,
    Thumbnail,
    UnloadCommand,
)

MESSAGES: list[Command | Reply | StopPainting] = [
    UnloadCommand("flux2-tiny"),
    StopPainting(),
    Step(number=1, steps=4, seed=2**64 - 1, seconds=0.25),
    Thumbnail(bytes(range(256))),
    EngineMemory(active=1, cached=2, peak=3, loaded=("a", "b")),
    CommandRefused("OOM_ERROR", "Too much.", {"needed": 2**40}),
    CommandCrashed("Traceback: ☃"),
    CommandDone(stopped=True),
]


def in_parts(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


async def read_from(parts: list[bytes], count: int) -> list[Any]:
    """Read `count` messages at the server's end from bytes that arrive part by part."""
    inbox = transport.Inbox()

    async def feed() -> None:
        for part in parts:
            inbox.data_received(part)
            await asyncio.sleep(0)
        inbox.connection_lost(None)

    feeding = asyncio.create_task(feed())
    try:
        return [await inbox.receive() for _ in range(count)]
    finally:
        await feeding


@contextmanager
def arriving(parts: list[bytes]) -> Iterator[socket.socket]:
    """Yield the engine's end of a socket on which these bytes arrive, followed by end of file."""
    near, far = socket.socketpair()

    def send() -> None:
        with far:
            for part in parts:
                far.sendall(part)

    sender = threading.Thread(target=send)
    sender.start()
    with near:
        yield near
        sender.join()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: object) -> None:
    data = transport.pack_message(message)
    assert asyncio.run(read_from([data], 1)) == [message]
    with arriving([data]) as line:
        assert transport.receive_message(line) == message


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.lists(st.integers(0, 1500), max_size=8))
def test_messages_arrive_whole_wherever_their_bytes_are_cut(sent: list[bytes], cuts: list[int]) -> None:
    parts = in_parts(b"".join(map(transport.pack_message, sent)), cuts)
    assert asyncio.run(read_from(parts, len(sent))) == sent
    with arriving(parts) as line:
        assert [transport.receive_message(line) for _ in sent] == sent


def test_a_message_larger_than_any_buffer_arrives() -> None:
    large = bytes(5_000_000)
    with arriving([transport.pack_message(large), transport.pack_message("next")]) as line:
        assert transport.receive_message(line) == large
        assert transport.receive_message(line) == "next"


@given(st.binary(max_size=50), st.integers(0, 10_000))
def test_an_end_before_the_end_of_a_message_is_the_end_of_the_line(content: bytes, length: int) -> None:
    data = transport.pack_message(content)
    part = data[: length % len(data)]
    with pytest.raises(EOFError):
        asyncio.run(read_from([part] if part else [], 1))
    with arriving([part]) as line, pytest.raises(EOFError):
        transport.receive_message(line)


def test_what_cannot_be_sent_is_refused_before_a_byte_is_on_the_line() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        transport.pack_message(lambda: None)
