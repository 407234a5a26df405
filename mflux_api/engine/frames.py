"""Messages between the two processes: a length, then a pickle. Both ends are ours; nothing else may write to them."""

import asyncio
import pickle
import socket
import struct
from typing import Any

LENGTH = struct.Struct(">Q")


def pack(message: object) -> bytes:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(data)) + data


async def read(stream: asyncio.StreamReader) -> Any:
    """The next message. Raises IncompleteReadError when the other end is gone."""
    (size,) = LENGTH.unpack(await stream.readexactly(LENGTH.size))
    return pickle.loads(await stream.readexactly(size))


def receive(connection: socket.socket) -> Any:
    """The next message, waiting for it. Raises EOFError when the other end is gone."""
    (size,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    return pickle.loads(_exactly(connection, size))


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(min(size - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
