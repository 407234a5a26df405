"""Build the application from the settings: its services, its dialects, and the middleware around them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from mflux_api.app.dialects import DIALECTS, MakeDialect, is_enabled
from mflux_api.app.wiring import make_context, make_services
from mflux_api.errors import MfluxError
from mflux_api.jobs.webhooks import Webhooks
from mflux_api.metrics import Metrics
from mflux_api.settings import Settings
from mflux_api.web import static_files
from mflux_api.web.auth import Authentication, Keys
from mflux_api.web.error_responses import Faults, Shape, plain_shape
from mflux_api.web.middleware import AllowedHosts, AllowedOrigins, RateLimit, RequestId, Timing
from mflux_api.web.openapi import Endpoint, document
from mflux_api.web.path_prefix import Mounted
from mflux_api.wire.dialect import Dialect

TITLE = "MFLUX API"
OPENAPI = "/openapi.json"

Endpoints = Mapping[str, Sequence[Endpoint]]


def build(settings: Settings, dialects: Sequence[MakeDialect] = DIALECTS) -> Starlette:
    """The application. Its services are at `app.state.services`; they start and stop with its lifespan."""
    services = make_services(settings)
    context = make_context(settings)
    made = [make(services) for make in dialects]
    payloads = {each.name: each.webhook_payload(services.service, context) for each in made if each.webhook_payload}
    services.webhooks = Webhooks(services.queue, context.fetcher, payloads)
    services.bucket = context.bucket
    faults = Faults(_shapes(made), plain_shape)
    endpoints = {each.name: each.endpoints(services.service, context) for each in made}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await services.start()
        try:
            yield
        finally:
            await services.stop()

    app = Starlette(
        routes=_routes([each for each in made if is_enabled(each, settings)], endpoints, keys=context.keys.are_needed),
        middleware=[
            _root(settings, made, endpoints),
            *_middleware(settings, services.metrics, context.keys, faults, made),
        ],
        exception_handlers={MfluxError: faults.ours, HTTPException: faults.http, Exception: faults.unforeseen},
        lifespan=lifespan,
    )
    app.state.services = services
    return app


def _routes(dialects: Sequence[Dialect], endpoints: Endpoints, *, keys: bool) -> list[BaseRoute]:
    listed = [endpoint for each in dialects if each.is_listed for endpoint in endpoints[each.name]]
    description = document(TITLE, listed, keys=keys)

    async def openapi(request: object) -> JSONResponse:
        return JSONResponse(description)

    served = [endpoint.route() for each in dialects for endpoint in endpoints[each.name]]
    return [*served, Route(OPENAPI, openapi), *static_files.routes()]


def _shapes(dialects: Sequence[Dialect]) -> list[tuple[str, Shape]]:
    """Longer prefixes first: the first that matches counts, and one may begin with another."""
    found = [(prefix, each.error_shape) for each in dialects for prefix in each.prefixes]
    return sorted(found, key=lambda entry: len(entry[0]), reverse=True)


def _root(settings: Settings, dialects: Sequence[Dialect], endpoints: Endpoints) -> Middleware:
    """What is answered at the root, and on ports of its own, as under the prefix of its dialect."""
    chosen, ports = settings.dialects, settings.dialects.own_ports
    named = next((each for each in dialects if each.name == chosen.root), None)
    if named is None:
        return Middleware(Mounted, ports=ports, root="", routes=frozenset())
    routes = {(each.method, each.path.removeprefix(named.root)) for each in endpoints[named.name]}
    return Middleware(Mounted, ports=ports, root=named.root, routes=routes)


def _middleware(
    settings: Settings, metrics: Metrics, keys: Keys, faults: Faults, dialects: Sequence[Dialect]
) -> list[Middleware]:
    """From the outside in: what refuses comes after what must be on every reply."""
    server = settings.server
    exposed = [header for each in dialects for header in each.exposed_headers]
    # What a load balancer asks, and what a person sees first.
    open_paths = {OPENAPI, *static_files.PATHS, *(path for each in dialects for path in each.open_paths)}
    return [
        Middleware(RequestId),
        Middleware(Timing, tell=metrics.http),
        Middleware(
            CORSMiddleware,
            allow_origins=server.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Retry-After", *exposed],
        ),
        Middleware(AllowedHosts, hosts=server.allowed_hosts, faults=faults),
        Middleware(AllowedOrigins, origins=server.cors_origins, faults=faults),
        Middleware(
            Authentication,
            keys=keys,
            faults=faults,
            open_paths=frozenset(open_paths),
            open_prefixes=tuple(prefix for each in dialects for prefix in each.open_prefixes),
            logins=[each.basic_login for each in dialects if each.basic_login],
        ),
        Middleware(RateLimit, per_minute=settings.security.requests_per_minute, faults=faults),
        *(
            Middleware(RateLimit, per_minute=each.requests_per_minute, faults=faults, prefixes=each.prefixes)
            for each in dialects
            if each.requests_per_minute
        ),
    ]
