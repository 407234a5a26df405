"""ASGI middleware for every request: id, timing, host and origin checks, rate limit."""

import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mflux_api.errors import HostRefused, OriginRefused, RateLimited
from mflux_api.logs import REQUEST_ID
from mflux_api.web.error_responses import ErrorHandlers

CLIENTS_REMEMBERED = 10_000
SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class RequestIdMiddleware:
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

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = name
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            REQUEST_ID.reset(token)


class TimingMiddleware:
    """Report each request to `observe`: method, route, status and seconds until the reply starts."""

    def __init__(self, app: ASGIApp, observe: Callable[[str, str, int, float], None]) -> None:
        self.app = app
        self.observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def send_timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("state", {}).get("route", "other")
                self.observe(scope["method"], route, message["status"], time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, send_timed)


class UnexpectedErrorMiddleware:
    """Reply to unexpected exceptions inside the other middleware, so that web pages and metrics get this reply too."""

    def __init__(self, app: ASGIApp, error_handlers: ErrorHandlers) -> None:
        self.app = app
        self.error_handlers = error_handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_and_remember(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_remember)
        except Exception as error:
            if started or scope["type"] != "http":
                # Half a reply is no reply: the server closes the connection.
                raise
            await self.error_handlers.build_unexpected(error, scope)(scope, receive, send)


class ClosingMiddleware:
    """Announce with `Connection: close` that the server closes the connection after this reply.

    `is_stopping`: tells whether the server is shutting down.
    """

    def __init__(self, app: ASGIApp, is_stopping: Callable[[], bool]) -> None:
        self.app = app
        self.is_stopping = is_stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # A client that waits for "100 Continue" has not sent its body. After a reply without one, no byte tells
        # whether the body or another request follows.
        is_unread = Headers(scope=scope).get("expect", "").lower() == "100-continue"

        async def receive_body() -> Message:
            nonlocal is_unread
            is_unread = False
            return await receive()

        async def send_with_end(message: Message) -> None:
            if message["type"] == "http.response.start" and (is_unread or self.is_stopping()):
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        # A stream aborts its connection through the server's own `receive`, so others are not wrapped.
        await self.app(scope, receive_body if is_unread else receive, send_with_end)


class PrivateNetworkCorsMiddleware(CORSMiddleware):
    """CORS that lets allowed pages of the internet into a private network, if the browser asks for that."""

    def __init__(
        self,
        app: ASGIApp,
        allow_origins: Sequence[str],
        allow_methods: Sequence[str],
        allow_headers: Sequence[str],
        expose_headers: Sequence[str],
    ) -> None:
        super().__init__(
            app,
            allow_origins=allow_origins,
            allow_methods=allow_methods,
            allow_headers=allow_headers,
            expose_headers=expose_headers,
            allow_private_network=True,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code != HTTPStatus.OK:
            del response.headers["Access-Control-Allow-Private-Network"]
        return response


class AllowedHostsMiddleware:
    """Refuse requests whose Host header is not in the allowed list. Protects against DNS rebinding by web pages."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], error_handlers: ErrorHandlers) -> None:
        self.app = app
        self.hosts = {_normalise_host(host) for host in (*hosts, *LOOPBACK)}
        self.error_handlers = error_handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = _normalise_host(Headers(scope=scope).get("host", ""))
        if scope["type"] == "http" and "*" not in self.hosts and host not in self.hosts:
            error = HostRefused("This server does not answer for this host. Add it to server.allowed_hosts.")
            await self.error_handlers.build_response(error, scope)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _normalise_host(text: str) -> str:
    """Lower case, and without a port or the dot of a fully qualified name."""
    return re.sub(r":\d+$", "", text.lower()).removesuffix(".")


class AllowedOriginsMiddleware:
    """Refuse state-changing requests from web pages of other origins.

    Browsers send a CORS preflight before cross-origin JSON, but not before a POST without a body.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str], error_handlers: ErrorHandlers) -> None:
        self.app = app
        self.origins = frozenset(origins)
        self.error_handlers = error_handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["method"] not in SAFE_METHODS
            and not self._is_allowed(Headers(scope=scope))
        ):
            error = OriginRefused("Pages of this origin may not use this server. Add it to server.cors_origins.")
            await self.error_handlers.build_response(error, scope)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_allowed(self, headers: Headers) -> bool:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if "*" in self.origins or origin in self.origins or site in {"same-origin", "none"}:
            return True
        # Other clients than browsers send neither header; old browsers, and all over plain HTTP, send only Origin.
        # A page cannot set these two headers without a preflight request, which is refused.
        hosts = {headers[name].lower() for name in ("host", "x-forwarded-host") if name in headers}
        return site is None and (origin is None or origin.partition("://")[2].lower() in hosts)


class RateLimitMiddleware:
    """Limit POST requests per minute for each API key or, without one, each IP address. 0 means no limit.

    `prefixes`: only paths that begin with one of these are limited.

    This is a token bucket: after a minute without requests, `per_minute` requests may come at once.
    """

    def __init__(
        self, app: ASGIApp, per_minute: int, error_handlers: ErrorHandlers, prefixes: tuple[str, ...] = ("",)
    ) -> None:
        self.app = app
        self.prefixes = prefixes
        self.per_minute = per_minute
        self.error_handlers = error_handlers
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_limited = scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(self.prefixes)
        if is_limited and self.per_minute:
            wait = self._take_token(self._client_key(scope))
            if wait > 0:
                error = RateLimited("Too many requests. Wait a moment.", retry_after=int(wait) + 1)
                await self.error_handlers.build_response(error, scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _client_key(self, scope: Scope) -> str:
        owner = scope.get("state", {}).get("owner")
        return f"key {owner}" if owner else f"address {(scope.get('client') or ('',))[0]}"

    def _take_token(self, client: str) -> float:
        """Take a token from the client's bucket. Return 0, or the seconds to wait when the bucket is empty."""
        now = time.monotonic()
        left, then = self._buckets.pop(client, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - then) * self.per_minute / 60)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left, now)
        if len(self._buckets) > CLIENTS_REMEMBERED:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) * 60 / self.per_minute
