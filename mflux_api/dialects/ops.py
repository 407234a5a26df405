"""For whoever runs the server: metrics, and what may be looked at without a key."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from mflux_api.web.openapi import Endpoint
from mflux_api.web.static_files import PATHS

# What a load balancer asks, and what a person sees first. Nothing here tells of jobs or prompts.
# A client of SD-WebUI that may not read /config thinks that its page asks for a login.
OPEN_PATHS = frozenset({"/config", "/internal/ping", "/api/v1/health", "/klein/health", "/openapi.json", *PATHS})


def endpoints(render: Callable[[], bytes], content_type: str) -> list[Endpoint]:
    async def metrics(request: Request) -> Response:
        return Response(render(), media_type=content_type)

    return [Endpoint("GET", "/metrics", metrics, "Counters and times for Prometheus", "system", "text/plain")]
