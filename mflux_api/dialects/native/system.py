"""/api/v1: health, system information, statistics and tokens."""

import asyncio
import time
from collections.abc import Callable
from typing import Literal

import psutil
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from mflux_api.dialects.native.jobs import json_response
from mflux_api.dialects.native.wire import WireModel, format_time
from mflux_api.errors import InvalidRequest
from mflux_api.jobs.disk_space import DiskSpace
from mflux_api.jobs.queue import HistoryBucket
from mflux_api.jobs.service import EngineView, JobService
from mflux_api.supervisor import SupervisedTask, TaskState
from mflux_api.version import __version__
from mflux_api.web.body import parse_query
from mflux_api.web.context import HttpContext, get_owner
from mflux_api.web.openapi import Endpoint


class TaskHealth(WireModel):
    """A background task of the server. `error`: why it failed last; null if it never did.

    A task that failed is started again after a pause, which `restarts` counts.
    """

    name: str
    state: TaskState
    restarts: int
    error: str | None


class Health(WireModel):
    """The state of the server.

    `models_available`: number of downloaded models that can be used. `warnings`: what people should do something about.
    """

    status: Literal["healthy", "stopping"]
    version: str
    models_available: int
    active_jobs: int
    queue_length: int
    tasks: list[TaskHealth]
    warnings: list[str]


class SystemMemory(WireModel):
    total: float
    used: float
    free: float


class Disk(WireModel):
    total: float
    free: float


class EngineStatus(WireModel):
    running: bool
    backend: str | None
    mlx: str | None
    restarts: int
    memory_budget_gb: float | None


class System(WireModel):
    """Memory, device, disk and models. Gigabytes are 1024^3 bytes.

    `active_model`: the loaded model that was used last. `disk_gb`: the disk of the pictures; null if it is unknown.
    `warnings`: what people should do something about.
    """

    active_model: str | None
    loaded_models: list[str]
    mlx_memory_gb: float
    mlx_cache_gb: float
    mlx_peak_gb: float
    system_memory_gb: SystemMemory
    device: str
    engine: EngineStatus
    disk_gb: Disk | None
    warnings: list[str]


class Stats(WireModel):
    total_generations: int
    total_images: int
    total_failures: int
    average_time_seconds: float
    uptime_hours: float


class HistoryQuery(WireModel):
    bucket: Literal["hour", "day"] = "hour"
    count: int = Field(24, ge=1, le=168, description="buckets, the current one included")


class HistoryPoint(WireModel):
    """Statistics of an hour or a day. `start`: its beginning. `pictures`: the pictures of completed jobs.

    `seconds_per_picture`: the average; null without pictures.
    """

    start: str
    pictures: int
    failures: int
    seconds_per_picture: float | None


class History(WireModel):
    """Statistics over time, oldest first. The last point is not complete yet. Hours and days are in UTC."""

    bucket: Literal["hour", "day"]
    points: list[HistoryPoint]


class Token(WireModel):
    """A token for EventSource, which cannot send headers. Send it as `?token=` in the URL of a GET."""

    token: str
    expires_in: float


def build_task(task: SupervisedTask) -> TaskHealth:
    return TaskHealth(name=task.name, state=task.state, restarts=task.restarts, error=task.error or None)


def build_point(found: HistoryBucket) -> HistoryPoint:
    return HistoryPoint(
        start=format_time(found.start) or "",
        pictures=found.pictures,
        failures=found.failures,
        seconds_per_picture=None if found.pace is None else round(found.pace, 3),
    )


TAG = "system"
GIB = 1024**3
HOUR = 3600


class SystemEndpoints:
    """Handlers about the server itself.

    `engine`: the state of the engine process. `tasks`: of background tasks. `disk`: of the disk of the pictures.
    """

    def __init__(
        self,
        service: JobService,
        context: HttpContext,
        engine: Callable[[], EngineView],
        tasks: Callable[[], list[SupervisedTask]],
        disk: Callable[[], DiskSpace | None],
    ) -> None:
        self.service = service
        self.context = context
        self.engine = engine
        self.tasks = tasks
        self.disk = disk

    async def get_health(self, request: Request) -> Response:
        queue = self.service.queue
        disk = await asyncio.to_thread(self.disk)
        return json_response(
            Health(
                status="stopping" if queue.closing else "healthy",
                version=__version__,
                models_available=self.service.models.ready_count,
                active_jobs=len(queue.running_jobs()),
                queue_length=queue.count_waiting(),
                tasks=[build_task(task) for task in self.tasks()],
                warnings=_list_warnings(disk),
            )
        )

    async def get_system(self, request: Request) -> Response:
        engine, memory = self.engine(), psutil.virtual_memory()
        disk = await asyncio.to_thread(self.disk)
        return json_response(
            System(
                active_model=engine.latest,
                loaded_models=list(engine.loaded),
                mlx_memory_gb=_to_gib(engine.active),
                mlx_cache_gb=_to_gib(engine.cached),
                mlx_peak_gb=_to_gib(engine.peak),
                system_memory_gb=SystemMemory(
                    total=_to_gib(memory.total),
                    used=_to_gib(memory.total - memory.available),
                    free=_to_gib(memory.available),
                ),
                device=engine.chip,
                engine=EngineStatus(
                    running=engine.running,
                    backend=engine.backend,
                    mlx=engine.mlx,
                    restarts=engine.restarts,
                    memory_budget_gb=None if engine.budget is None else _to_gib(engine.budget),
                ),
                disk_gb=None if disk is None else Disk(total=_to_gib(disk.total), free=_to_gib(disk.free)),
                warnings=_list_warnings(disk),
            )
        )

    async def get_stats(self, request: Request) -> Response:
        totals = await self.service.queue.totals()
        count = totals.generations
        return json_response(
            Stats(
                total_generations=count,
                total_images=totals.images,
                total_failures=totals.failures,
                average_time_seconds=round(totals.seconds / count, 3) if count else 0.0,
                uptime_hours=round((time.time() - self.service.started) / HOUR, 4),
            )
        )

    async def get_history(self, request: Request) -> Response:
        asked = parse_query(request, HistoryQuery)
        buckets = await self.service.queue.history(asked.bucket, asked.count)
        return json_response(History(bucket=asked.bucket, points=[build_point(found) for found in buckets]))

    async def create_token(self, request: Request) -> Response:
        keys = self.context.keys
        return json_response(Token(token=keys.create_token(get_owner(request)), expires_in=keys.token_seconds))

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("GET", "/api/v1/health", self.get_health, "Whether the server works", TAG, Health),
            Endpoint("GET", "/api/v1/system", self.get_system, "Memory, device and what is loaded", TAG, System),
            Endpoint(
                "GET", "/api/v1/stats", self.get_stats, "What has been painted since the database was made", TAG, Stats
            ),
            Endpoint(
                "GET",
                "/api/v1/stats/history",
                self.get_history,
                "What has been painted by the hour or by the day",
                TAG,
                History,
                query=HistoryQuery,
                errors=(InvalidRequest,),
            ),
            Endpoint(
                "POST",
                "/api/v1/token",
                self.create_token,
                "A short-lived token for EventSource, which can send no key",
                TAG,
                Token,
            ),
        ]


def _list_warnings(disk: DiskSpace | None) -> list[str]:
    return [disk.warning] if disk is not None and disk.warning else []


def _to_gib(size: int) -> float:
    return round(size / GIB, 3)
