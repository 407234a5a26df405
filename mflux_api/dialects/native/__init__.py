"""/api/v1: the project's own API."""

from collections.abc import Callable

from mflux_api.dialects.native import webhooks
from mflux_api.dialects.native.jobs import JobEndpoints
from mflux_api.dialects.native.models import ModelEndpoints
from mflux_api.dialects.native.pictures import PictureEndpoints
from mflux_api.dialects.native.queue import QueueEndpoints
from mflux_api.dialects.native.streams import StreamEndpoints
from mflux_api.dialects.native.system import SystemEndpoints
from mflux_api.jobs.disk_space import DiskSpace
from mflux_api.jobs.service import EngineView, JobService
from mflux_api.supervisor import SupervisedTask
from mflux_api.web.context import HttpContext
from mflux_api.web.openapi import Endpoint
from mflux_api.wire.dialect import Dialect


def dialect(
    *,
    engine: Callable[[], EngineView],
    tasks: Callable[[], list[SupervisedTask]],
    disk: Callable[[], DiskSpace | None],
) -> Dialect:
    """Describe the dialect. `engine`, `tasks`, `disk`: the state of the engine, of background tasks and of the disk."""
    return Dialect(
        name="native",
        prefixes=("/api/v1/",),
        endpoints=lambda service, context: _endpoints(
            service, context, SystemEndpoints(service, context, engine, tasks, disk)
        ),
        open_paths=frozenset({"/api/v1/health"}),
        is_listed=True,
    )


def _endpoints(service: JobService, context: HttpContext, system: SystemEndpoints) -> list[Endpoint]:
    jobs = JobEndpoints(service, context)
    parts = (
        *(jobs, PictureEndpoints(service), StreamEndpoints(service, context, jobs)),
        *(QueueEndpoints(service), ModelEndpoints(service), system),
    )
    return [*(endpoint for part in parts for endpoint in part.endpoints()), *webhooks.endpoints(service)]
