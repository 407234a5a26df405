"""`serve`: run the server, and shut it down in order."""

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
from mflux_api.app.application import build_app
from mflux_api.app.lifecycle import Services
from mflux_api.errors import InvalidSetting
from mflux_api.settings import Settings

OK, STOPPED_AT_ONCE = 0, 1
# With uvicorn's default of 5, a client that polls every 5 seconds sometimes uses a connection that is being closed.
KEEP_ALIVE_SECONDS = 75
NO_KEY = "no API key is set (security.api_keys)."
ANYWHERE = ("0.0.0.0", "::", "")
FIRST_PICTURE = """First picture:  curl -X POST {url}/sdapi/v1/txt2img -H "Content-Type: application/json" \\
  -d '{{"prompt": "a red circle on a white background", "model": "flux2-tiny"}}' -o reply.json
"""


class Server(uvicorn.Server):
    """uvicorn's server, which drains the application before it waits for connections, and exits on a second signal."""

    services: Services
    home: Path

    # The application starts here and not in uvicorn's lifespan, which would print errors as long tracebacks.
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.services.start()
        await super().startup(sockets)
        if sockets:
            _announce(self.services.settings, self.home, sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.services.drain()
        await super().shutdown(sockets)
        await self.services.stop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own handler raises the signal again after the shutdown, so an orderly stop would look like a crash.
        if self.should_exit:
            # The engine exits when its socket closes. The interrupted job is run again after the next start.
            os._exit(STOPPED_AT_ONCE)
        self.should_exit = True


def run_server(arguments: Mapping[str, str], file: Path | None, *, home: Path) -> int:
    """Serve until a signal. Returns 0 after an orderly stop.

    Raises InvalidSetting, StorageFailed, and InvalidRequest when another server uses the output folder.
    """
    chosen = settings.load(arguments, os.environ, file, home=home).settings
    logs.configure_logging(chosen.logging.level, chosen.logging.format)
    app = build_app(chosen)
    config = uvicorn.Config(
        app,
        # Set explicitly: uvicorn would use uvloop and httptools if installed, with which the server is not tested.
        loop="asyncio",
        http="h11",
        host=chosen.server.host,
        port=chosen.server.port,
        log_config=None,
        # Below warnings, our own events cover what uvicorn logs.
        log_level="warning",
        access_log=False,
        lifespan="off",
        # A little longer than the running job gets, so that clients waiting for it still get their reply.
        timeout_graceful_shutdown=math.ceil(chosen.server.shutdown_seconds) + 2,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        server_header=False,
        ws="none",
    )
    server = Server(config)
    server.services = app.state.services
    server.home = home
    with ExitStack() as listening:
        ports = [chosen.server.port, *chosen.dialects.prefixes_by_port]
        server.run(sockets=[listening.enter_context(bind_socket(chosen.server.host, port)) for port in ports])
    return OK


def bind_socket(host: str, port: int) -> socket.socket:
    """Bind the address before anything else starts. Raises InvalidSetting when that fails."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY, which avoids a delay of small replies, only if the protocol is given explicitly.
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


def _announce(chosen: Settings, home: Path, port: int) -> None:
    """Announce the server's URL and its home: as text for people, and as an event in the log for programs."""
    host = chosen.server.host
    url = f"http://{'localhost' if host in ANYWHERE else host}:{port}"
    unguarded = not (chosen.security.api_keys or chosen.security.api_auth) and not _is_loopback(host)
    logs.log_event("server.ready", url=url, unguarded=unguarded, home=str(home.absolute()))
    if chosen.logging.format == "json":
        return
    print(f"MFLUX API at {url}  (documentation: {url}/docs; Ctrl+C stops it)", file=sys.stderr)
    if home != Path():
        print(f"Home: {home}  (config.yaml, models, output, logs)", file=sys.stderr)
    print(FIRST_PICTURE.format(url=url), file=sys.stderr)
    if unguarded:
        print(f"Anybody who can reach {host}:{port} may use this server: {NO_KEY}", file=sys.stderr)
    sys.stderr.flush()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
