"""For whoever runs the server: metrics, the description of the API and a page that shows it."""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from mflux_api.web.openapi import Endpoint

# What a load balancer asks, and what a person sees first. Nothing here tells of jobs or prompts.
# A client of SD-WebUI that may not read /config thinks that its page asks for a login.
OPEN_PATHS = frozenset(
    {
        *("/", "/config", "/internal/ping", "/api/v1/health", "/klein/health"),
        *("/openapi.json", "/docs", "/docs/docs.js", "/docs/docs.css"),
    }
)


def endpoints(render: Callable[[], bytes], content_type: str) -> list[Endpoint]:
    async def metrics(request: Request) -> Response:
        return Response(render(), media_type=content_type)

    return [Endpoint("GET", "/metrics", metrics, "Counters and times for Prometheus", "system", "text/plain")]


STATIC = files("mflux_api.web") / "static"
SECURE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'",
    "X-Content-Type-Options": "nosniff",
}


def pages() -> list[BaseRoute]:
    """/docs, made in the browser from /openapi.json without any network, and / that leads there."""
    return [
        Route("/", _home),
        Route("/docs", _file("docs.html", "text/html")),
        Route("/docs/docs.js", _file("docs.js", "text/javascript")),
        Route("/docs/docs.css", _file("docs.css", "text/css")),
    ]


async def _home(request: Request) -> Response:
    return RedirectResponse("/docs")


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = (STATIC / name).read_bytes()

    async def handle(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=SECURE)

    return handle
