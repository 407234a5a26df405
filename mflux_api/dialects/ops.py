"""/metrics: Prometheus metrics for operators of the server."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from mflux_api.web.openapi import Endpoint
from mflux_api.wire.dialect import Dialect


def dialect(*, render: Callable[[], bytes], content_type: str) -> Dialect:
    """Describe the dialect. `render`: returns all metrics as Prometheus text, of the media type `content_type`."""

    async def metrics(request: Request) -> Response:
        return Response(render(), media_type=content_type)

    path, summary = "/metrics", "Counters and times for Prometheus"
    endpoint = Endpoint("GET", path, metrics, summary, "system", "text/plain")
    return Dialect(name="ops", prefixes=(path,), endpoints=lambda service, context: [endpoint], is_listed=True)
