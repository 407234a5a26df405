"""/api/v1, the project's own API, as its document has it and beyond."""

from collections.abc import Callable

from mflux_api.dialects.native import webhooks
from mflux_api.dialects.native.jobs import Jobs
from mflux_api.dialects.native.models import Models
from mflux_api.dialects.native.pictures import Pictures
from mflux_api.dialects.native.queue import Queue
from mflux_api.dialects.native.streams import Streams
from mflux_api.dialects.native.system import SystemEndpoints
from mflux_api.jobs.service import EngineView, JobService
from mflux_api.web.context import Tools
from mflux_api.web.openapi import Endpoint
from mflux_api.wire.dialect import Dialect


def dialect(*, engine: Callable[[], EngineView]) -> Dialect:
    """`engine`: how the engine process is."""
    return Dialect(
        name="native",
        prefixes=("/api/v1/",),
        endpoints=lambda service, tools: _endpoints(service, tools, engine),
        open_paths=frozenset({"/api/v1/health"}),
        is_listed=True,
    )


def _endpoints(service: JobService, tools: Tools, engine: Callable[[], EngineView]) -> list[Endpoint]:
    jobs = Jobs(service, tools)
    parts = (
        *(jobs, Pictures(service), Streams(service, tools, jobs)),
        *(Queue(service), Models(service), SystemEndpoints(service, tools, engine)),
    )
    return [*(endpoint for part in parts for endpoint in part.endpoints()), *webhooks.endpoints(service)]
