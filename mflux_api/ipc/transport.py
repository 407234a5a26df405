"""Send and receive messages on a socket: a length, then a pickle.

Only the server and its own engine process have this socket, so unpickling is safe.
"""

import asyncio
import pickle
import socket
import struct
from typing import Any

LENGTH = struct.Struct(">Q")


def pack_message(message: object) -> bytes:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(data)) + data


class Inbox(asyncio.Protocol):
    """The server's end of the socket. Queues complete messages, so that waiting for one can be cancelled safely."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._messages: asyncio.Queue[Any] = asyncio.Queue()

    async def receive(self) -> Any:
        """Wait for the next message. Raises EOFError, on every call, after the other end has closed."""
        message = await self._messages.get()
        if isinstance(message, EOFError):
            self._messages.put_nowait(message)
            raise message
        return message

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._data)
            end = LENGTH.size + size
            if len(self._data) < end:
                return
            self._messages.put_nowait(pickle.loads(self._data[LENGTH.size : end]))
            del self._data[:end]

    def connection_lost(self, error: Exception | None) -> None:
        self._messages.put_nowait(EOFError())


def receive_message(connection: socket.socket) -> Any:
    """Block until the next message. Raises EOFError after the other end has closed."""
    (size,) = LENGTH.unpack(_receive_exactly(connection, LENGTH.size))
    return pickle.loads(_receive_exactly(connection, size))


def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(min(size - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
