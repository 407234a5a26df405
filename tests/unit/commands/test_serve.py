"""The listening socket."""

import socket

import pytest

from mflux_api.commands.serve import bind_socket
from mflux_api.errors import InvalidSetting


def test_small_replies_are_sent_at_once() -> None:
    # asyncio sets TCP_NODELAY only on sockets whose protocol is IPPROTO_TCP.
    with bind_socket("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_an_address_that_cannot_be_had_is_refused_with_what_to_do() -> None:
    with bind_socket("127.0.0.1", 0) as listener:
        listener.listen()
        with pytest.raises(InvalidSetting, match=r"in use.*--port"):
            bind_socket("127.0.0.1", listener.getsockname()[1])
    with pytest.raises(InvalidSetting, match="cannot be listened on"):
        bind_socket("203.0.113.7", 0)
