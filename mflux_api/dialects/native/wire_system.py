"""The shapes of /api/v1: the server itself."""

from typing import Literal

from pydantic import Field

from mflux_api.dialects.native.wire import Wire, stamp
from mflux_api.jobs.database.statistics import Point


class Health(Wire):
    """`models_available`: those that are here and can paint."""

    status: Literal["healthy", "stopping"]
    version: str
    models_available: int
    active_jobs: int
    queue_length: int


class SystemMemory(Wire):
    total: float
    used: float
    free: float


class EngineStatus(Wire):
    running: bool
    backend: str | None
    mlx: str | None
    restarts: int
    memory_budget_gb: float | None


class System(Wire):
    """Gigabytes are of 1024^3 bytes. `active_model`: the one used last among those in memory."""

    active_model: str | None
    loaded_models: list[str]
    mlx_memory_gb: float
    mlx_cache_gb: float
    mlx_peak_gb: float
    system_memory_gb: SystemMemory
    device: str
    engine: EngineStatus


class Stats(Wire):
    total_generations: int
    total_images: int
    total_failures: int
    average_time_seconds: float
    uptime_hours: float


class HistoryQuery(Wire):
    bucket: Literal["hour", "day"] = "hour"
    count: int = Field(24, ge=1, le=168, description="buckets, the current one included")


class HistoryPoint(Wire):
    """`start`: when the bucket began. `pictures`: of completed jobs. `seconds_per_picture`: null where none."""

    start: str
    pictures: int
    failures: int
    seconds_per_picture: float | None


class History(Wire):
    """Oldest first; the last point is not over yet. Hours and days are UTC's."""

    bucket: Literal["hour", "day"]
    points: list[HistoryPoint]


class Token(Wire):
    """For EventSource, which can send no headers: `?token=` in the address of a GET."""

    token: str
    expires_in: float


def point(found: Point) -> HistoryPoint:
    return HistoryPoint(
        start=stamp(found.start) or "",
        pictures=found.pictures,
        failures=found.failures,
        seconds_per_picture=None if found.pace is None else round(found.pace, 3),
    )
