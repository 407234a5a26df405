"""The only room that sees everything: builds the parts, mounts the dialects, starts and stops them in order."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from mflux_api.app.lifecycle import Parts, view
from mflux_api.app.wiring import make_parts, make_tools
from mflux_api.dialects import bfl, edge, files, flux2_web, klein, native, openai, ops, replicate, sdapi
from mflux_api.dialects.bfl.moderation import Moderation
from mflux_api.errors import MfluxError
from mflux_api.jobs.webhooks import Webhooks
from mflux_api.metrics import Metrics
from mflux_api.settings import Settings
from mflux_api.web import static_files
from mflux_api.web.auth import Authentication, Keys
from mflux_api.web.context import Tools
from mflux_api.web.error_responses import Faults, Shape, plain_shape
from mflux_api.web.middleware import AllowedHosts, AllowedOrigins, RateLimit, RequestId, Timing
from mflux_api.web.openapi import Endpoint, document
from mflux_api.web.path_prefix import Mounted

TITLE = "MFLUX API"


def build(settings: Settings) -> Starlette:
    """The application. Its parts are at `app.state.parts`; they start and stop with its lifespan."""
    parts = make_parts(settings)
    tools = make_tools(settings)
    told = {"bfl": bfl.teller(parts.studio, tools), "replicate": replicate.teller(parts.studio, tools)}
    parts.webhooks = Webhooks(parts.queue, tools.fetcher, told)
    parts.bucket = tools.bucket
    faults = Faults(_shapes(), plain_shape)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await parts.start()
        try:
            yield
        finally:
            await parts.stop()

    app = Starlette(
        routes=_routes(parts, tools),
        middleware=_middleware(settings, parts.metrics, tools.keys, faults),
        exception_handlers={MfluxError: faults.ours, HTTPException: faults.http, Exception: faults.unforeseen},
        lifespan=lifespan,
    )
    app.state.parts = parts
    return app


def _routes(parts: Parts, tools: Tools) -> list[BaseRoute]:
    listed: list[Endpoint] = [
        *native.endpoints(parts.studio, tools, lambda: view(parts)),
        *sdapi.endpoints(
            parts.studio,
            tools,
            lambda: view(parts),
            styles_file=parts.settings.generation.styles_file,
            flags=_flags(parts.settings),
        ),
        *ops.endpoints(parts.metrics.render, parts.metrics.CONTENT_TYPE),
    ]
    description = document(TITLE, listed, keys=tools.keys.are_needed)

    async def openapi(request: object) -> JSONResponse:
        return JSONResponse(description)

    # What documents of others describe is not described again here.
    served = [*listed, *_foreign(parts, tools)]
    return [*(endpoint.route() for endpoint in served), Route("/openapi.json", openapi), *static_files.routes()]


def _root(settings: Settings) -> str:
    return f"/{settings.dialects.root}" if settings.dialects.root else ""


def _root_routes(name: str | None) -> frozenset[tuple[str, str]]:
    """What a dialect answers at the root, too."""
    return {
        "klein": frozenset({("GET", "/health"), ("POST", "/generate"), ("POST", "/edit")}),
        "flux2-web": frozenset(
            {("POST", "/generate"), ("GET", "/status"), ("GET", "/model-info"), ("GET", "/images/{name}")}
        ),
        "edge": frozenset({("POST", "/")}),
    }.get(name or "", frozenset())


def _foreign(parts: Parts, tools: Tools) -> list[Endpoint]:
    """The dialects that are switched on."""
    studio, chosen = parts.studio, parts.settings.dialects
    prices = edge.Prices(
        tile=chosen.million_tiles_usd / 1e6,
        step=chosen.million_steps_usd / 1e6,
        baht=chosen.thb_per_usd,
        kwh=chosen.kwh_usd,
        watts=chosen.watts,
    )
    made: dict[str, Callable[[], list[Endpoint]]] = {
        "klein": lambda: klein.endpoints(studio, tools, chosen.klein_model),
        "flux2-web": lambda: flux2_web.endpoints(studio, tools, parts.settings.generation.output_dir),
        "edge": lambda: edge.endpoints(studio, tools, chosen.edge_model, prices),
        "bfl": lambda: bfl.endpoints(studio, tools, Moderation.load()),
        "replicate": lambda: replicate.endpoints(studio, tools),
        "openai": lambda: openai.endpoints(studio, tools),
    }
    return [*files.endpoints(studio, tools), *(each for name in chosen.enabled for each in made[name]())]


def _shapes() -> list[tuple[str, Shape]]:
    """The first prefix that matches counts."""
    return [
        *((prefix, sdapi.shape) for prefix in sdapi.PREFIXES),
        ("/klein", klein.shape),
        ("/edge", edge.shape),
        ("/flux2-web/", flux2_web.shape),
        ("/flux/", bfl.shape),
        ("/replicate/", replicate.shape),
        ("/v1/images/", openai.shape),
        ("/v1/models", openai.shape),
        ("/v1/", bfl.shape),
    ]


def _flags(settings: Settings) -> dict[str, Any]:
    """What SD-WebUI's clients may know of how the server was started."""
    server = settings.server
    return {
        "api": True,
        "api_auth": None,
        "listen": server.host not in {"127.0.0.1", "localhost", "::1"},
        "port": server.port,
        "cors_allow_origins": ",".join(server.cors_origins) or None,
        "lowvram": False,
        "medvram": settings.engine.low_ram,
        "nowebui": True,
        "share": False,
        "gradio_auth": None,
        "skip_version_check": True,
    }


def _middleware(settings: Settings, metrics: Metrics, keys: Keys, faults: Faults) -> list[Middleware]:
    """From the outside in: what refuses comes after what must be on every reply."""
    server = settings.server
    return [
        Middleware(
            Mounted,
            ports=settings.dialects.own_ports,
            root=_root(settings),
            routes=_root_routes(settings.dialects.root),
        ),
        Middleware(RequestId),
        Middleware(Timing, tell=metrics.http),
        Middleware(
            CORSMiddleware,
            allow_origins=server.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Retry-After", *edge.HEADERS],
        ),
        Middleware(AllowedHosts, hosts=server.allowed_hosts, faults=faults),
        Middleware(AllowedOrigins, origins=server.cors_origins, faults=faults),
        Middleware(
            Authentication,
            keys=keys,
            faults=faults,
            open_paths=ops.OPEN_PATHS,
            open_prefixes=files.OPEN_PREFIXES,
            logins=[sdapi.LOGIN],
        ),
        Middleware(RateLimit, per_minute=settings.security.requests_per_minute, faults=faults),
        Middleware(
            RateLimit, per_minute=settings.dialects.edge_requests_per_minute, faults=faults, prefixes=(edge.PREFIX,)
        ),
    ]
