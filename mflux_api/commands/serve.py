"""`serve`: settings to a running server, and a stop in stated order."""

import errno
import ipaddress
import math
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import uvicorn

from mflux_api import logs, settings
from mflux_api.app.application import build
from mflux_api.app.lifecycle import Services
from mflux_api.errors import InvalidSetting
from mflux_api.settings import Settings

OK, STOPPED_AT_ONCE = 0, 1
# After uvicorn's 5 a script that asks every 5 seconds would now and then send into a connection that is being closed.
KEEP_ALIVE_SECONDS = 75
NO_KEY = "no API key is set (security.api_keys)."
ANYWHERE = ("0.0.0.0", "::", "")
FIRST_PICTURE = """First picture:  curl -X POST {url}/sdapi/v1/txt2img -H "Content-Type: application/json" \\
  -d '{{"prompt": "a red circle on a white background", "model": "flux2-tiny"}}' -o reply.json
"""


class Server(uvicorn.Server):
    """uvicorn's, which tells the application to drain before it waits for connections, and heeds a second signal."""

    services: Services

    # Started here and not by uvicorn's lifespan, which turns what goes wrong into a page of traceback.
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.services.start()
        await super().startup(sockets)
        if sockets:
            _greet(self.services.settings, sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.services.drain()
        await super().shutdown(sockets)
        await self.services.stop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own would raise the signal again once all is done, and an orderly stop would look like a crash.
        if self.should_exit:
            # The engine sees its line close and ends as well; what it painted is painted again after a start.
            os._exit(STOPPED_AT_ONCE)
        self.should_exit = True


def run(arguments: Mapping[str, str], file: Path | None) -> int:
    """Serve until a signal; 0 after an orderly stop.

    Raises InvalidSetting, InvalidRequest when another server has the output folder, StorageFailed.
    """
    chosen = settings.load(arguments, os.environ, file).settings
    logs.configure(chosen.logging.level, chosen.logging.format)
    app = build(chosen)
    config = uvicorn.Config(
        app,
        # Named, because uvicorn takes uvloop and httptools wherever they are: what was tried is what runs.
        loop="asyncio",
        http="h11",
        host=chosen.server.host,
        port=chosen.server.port,
        log_config=None,
        # What it has to say beyond warnings, our own events say.
        log_level="warning",
        access_log=False,
        lifespan="off",
        # A moment more than the running job gets, so that who waits for it is answered and not cut off.
        timeout_graceful_shutdown=math.ceil(chosen.server.shutdown_seconds) + 2,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        server_header=False,
        ws="none",
    )
    server = Server(config)
    server.services = app.state.services
    with ExitStack() as listening:
        ports = [chosen.server.port, *chosen.dialects.own_ports]
        server.run(sockets=[listening.enter_context(bound(chosen.server.host, port)) for port in ports])
    return OK


def bound(host: str, port: int) -> socket.socket:
    """The address, before anything is started for it. Raises InvalidSetting when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sends small replies at once (TCP_NODELAY) only then.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = "in use by another program" if error.errno == errno.EADDRINUSE else error.strerror
        raise InvalidSetting(
            f"{host}, port {port} cannot be listened on: {reason}. Take another one: --port 8080", keys=["server.port"]
        ) from None
    return listener


def _greet(chosen: Settings, port: int) -> None:
    """Say where it is: to a person in words, to a program that reads the log as an event."""
    host = chosen.server.host
    url = f"http://{'localhost' if host in ANYWHERE else host}:{port}"
    unguarded = not (chosen.security.api_keys or chosen.security.api_auth) and not _is_loopback(host)
    logs.event("server.ready", url=url, unguarded=unguarded)
    if chosen.logging.format == "json":
        return
    print(f"MFLUX API at {url}  (documentation: {url}/docs; Ctrl+C stops it)", file=sys.stderr)
    print(FIRST_PICTURE.format(url=url), file=sys.stderr)
    if unguarded:
        print(f"Anybody who can reach {host}:{port} may use this server: {NO_KEY}", file=sys.stderr)
    sys.stderr.flush()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
