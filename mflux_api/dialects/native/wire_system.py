"""The shapes of /api/v1: the server itself."""

from typing import Literal

from mflux_api.dialects.native.wire import Wire


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


class Token(Wire):
    """For EventSource, which can send no headers: `?token=` in the address of a GET."""

    token: str
    expires_in: float
