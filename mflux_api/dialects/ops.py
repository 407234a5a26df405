"""/metrics, for whoever runs the server."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from mflux_api.web.openapi import Endpoint
from mflux_api.wire.dialect import Dialect


def dialect(*, render: Callable[[], bytes], content_type: str) -> Dialect:
    """`render`: all metrics as Prometheus reads them, which is a `content_type`."""

    async def metrics(request: Request) -> Response:
        return Response(render(), media_type=content_type)

    path, summary = "/metrics", "Counters and times for Prometheus"
    endpoint = Endpoint("GET", path, metrics, summary, "system", "text/plain")
    return Dialect(name="ops", prefixes=(path,), endpoints=lambda service, context: [endpoint], is_listed=True)
