"""ASGI middleware for every request: id, timing, host and origin checks, rate limit."""

import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mflux_api.errors import HostRefused, OriginRefused, RateLimited
from mflux_api.logs import REQUEST_ID
from mflux_api.web.error_responses import Faults

CLIENTS_REMEMBERED = 10_000
SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class RequestId:
    """Give each request an id: the client's X-Request-ID if it is safe to log, else a new one. The reply repeats it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if SAFE_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = name
        token = REQUEST_ID.set(name)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = name
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self.app(scope, receive, named)
        finally:
            REQUEST_ID.reset(token)


class Timing:
    """Report each request to `tell`: method, route, status and seconds until the reply starts."""

    def __init__(self, app: ASGIApp, tell: Callable[[str, str, int, float], None]) -> None:
        self.app = app
        self.tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("state", {}).get("route", "other")
                self.tell(scope["method"], route, message["status"], time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, timed)


class AllowedHosts:
    """Refuse requests whose Host header is not in the allowed list. Protects against DNS rebinding by web pages."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], faults: Faults) -> None:
        self.app = app
        self.hosts = {host.lower() for host in (*hosts, *LOOPBACK)}
        self.faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "*" not in self.hosts and self._host(scope) not in self.hosts:
            error = HostRefused("This server does not answer for this host. Add it to server.allowed_hosts.")
            await self.faults.reply(error, scope)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _host(self, scope: Scope) -> str:
        return re.sub(r":\d+$", "", Headers(scope=scope).get("host", "").lower())


class AllowedOrigins:
    """Refuse state-changing requests from web pages of other origins.

    Browsers send a CORS preflight before cross-origin JSON, but not before a POST without a body.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str], faults: Faults) -> None:
        self.app = app
        self.origins = frozenset(origins)
        self.faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in LOOKING and not self._is_welcome(Headers(scope=scope)):
            error = OriginRefused("Pages of this origin may not use this server. Add it to server.cors_origins.")
            await self.faults.reply(error, scope)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_welcome(self, headers: Headers) -> bool:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if "*" in self.origins or origin in self.origins or site in {"same-origin", "none"}:
            return True
        # Other clients than browsers send neither header; old browsers send only Origin.
        own = origin is not None and origin.partition("://")[2] == headers.get("host")
        return site is None and (origin is None or own)


class RateLimit:
    """Limit POST requests per minute for each API key or, without one, each IP address. 0 means no limit.

    `prefixes`: of the paths that count.

    A bucket that fills evenly: as many as a minute's may come at once after a quiet minute.
    """

    def __init__(self, app: ASGIApp, per_minute: int, faults: Faults, prefixes: tuple[str, ...] = ("",)) -> None:
        self.app = app
        self.prefixes = prefixes
        self.per_minute = per_minute
        self.faults = faults
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        meant = scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(self.prefixes)
        if meant and self.per_minute:
            wait = self._take(self._client(scope))
            if wait > 0:
                error = RateLimited("Too many requests. Wait a moment.", retry_after=int(wait) + 1)
                await self.faults.reply(error, scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _client(self, scope: Scope) -> str:
        owner = scope.get("state", {}).get("owner")
        return f"key {owner}" if owner else f"address {(scope.get('client') or ('',))[0]}"

    def _take(self, client: str) -> float:
        """Take a token from the client's bucket. Return 0, or the seconds to wait when the bucket is empty."""
        now = time.monotonic()
        left, then = self._buckets.pop(client, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - then) * self.per_minute / 60)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left, now)
        if len(self._buckets) > CLIENTS_REMEMBERED:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) * 60 / self.per_minute
