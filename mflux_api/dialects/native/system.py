"""/api/v1: is it well, what is it made of, what has it done."""

import time
from collections.abc import Callable

import psutil
from starlette.requests import Request
from starlette.responses import Response

from mflux_api.dialects.native import wire_system as wire
from mflux_api.dialects.native.jobs import reply
from mflux_api.errors import InvalidRequest
from mflux_api.jobs.database import statistics
from mflux_api.jobs.service import EngineView, Studio
from mflux_api.version import __version__
from mflux_api.web.body import query
from mflux_api.web.openapi import Endpoint
from mflux_api.web.tools import Tools, owner

TAG = "system"
GIB = 1024**3
HOUR = 3600


class System:
    """Handlers about the server itself. `engine` tells how the engine process is."""

    def __init__(self, studio: Studio, tools: Tools, engine: Callable[[], EngineView]) -> None:
        self.studio = studio
        self.tools = tools
        self.engine = engine

    async def health(self, request: Request) -> Response:
        queue = self.studio.queue
        return reply(
            wire.Health(
                status="stopping" if queue.closing else "healthy",
                version=__version__,
                models_available=self.studio.models.here,
                active_jobs=len(queue.floor.active),
                queue_length=len(queue.line),
            )
        )

    async def system(self, request: Request) -> Response:
        engine, memory = self.engine(), psutil.virtual_memory()
        return reply(
            wire.System(
                active_model=engine.latest,
                loaded_models=list(engine.loaded),
                mlx_memory_gb=_gb(engine.active),
                mlx_cache_gb=_gb(engine.cached),
                mlx_peak_gb=_gb(engine.peak),
                system_memory_gb=wire.SystemMemory(
                    total=_gb(memory.total), used=_gb(memory.total - memory.available), free=_gb(memory.available)
                ),
                device=engine.chip,
                engine=wire.EngineStatus(
                    running=engine.running,
                    backend=engine.backend,
                    mlx=engine.mlx,
                    restarts=engine.restarts,
                    memory_budget_gb=None if engine.budget is None else _gb(engine.budget),
                ),
            )
        )

    async def stats(self, request: Request) -> Response:
        totals = await self.studio.queue.store.run(statistics.totals)
        count = int(totals.get("generations", 0))
        return reply(
            wire.Stats(
                total_generations=count,
                total_images=int(totals.get("images", 0)),
                total_failures=int(totals.get("failures", 0)),
                average_time_seconds=round(totals.get("seconds", 0.0) / count, 3) if count else 0.0,
                uptime_hours=round((time.time() - self.studio.started) / HOUR, 4),
            )
        )

    async def history(self, request: Request) -> Response:
        asked = query(request, wire.HistoryQuery)
        points = await self.studio.queue.store.run(statistics.points, asked.bucket, asked.count, time.time())
        return reply(wire.History(bucket=asked.bucket, points=[wire.point(found) for found in points]))

    async def token(self, request: Request) -> Response:
        keys = self.tools.keys
        return reply(wire.Token(token=keys.token(owner(request)), expires_in=keys.token_seconds))

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("GET", "/api/v1/health", self.health, "Whether the server works", TAG, wire.Health),
            Endpoint("GET", "/api/v1/system", self.system, "Memory, device and what is loaded", TAG, wire.System),
            Endpoint(
                "GET", "/api/v1/stats", self.stats, "What has been painted since the database was made", TAG, wire.Stats
            ),
            Endpoint(
                "GET",
                "/api/v1/stats/history",
                self.history,
                "What has been painted by the hour or by the day",
                TAG,
                wire.History,
                query=wire.HistoryQuery,
                errors=(InvalidRequest,),
            ),
            Endpoint(
                "POST",
                "/api/v1/token",
                self.token,
                "A short-lived token for EventSource, which can send no key",
                TAG,
                wire.Token,
            ),
        ]


def _gb(size: int) -> float:
    return round(size / GIB, 3)
