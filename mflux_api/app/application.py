"""Build the application from the settings: its services, its dialects, and the middleware around them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import BaseRoute, Route

from mflux_api.app.dialects import DIALECTS, MakeDialect, is_enabled
from mflux_api.app.lifecycle import Services
from mflux_api.app.wiring import make_context, make_services
from mflux_api.errors import MfluxError
from mflux_api.jobs.webhooks import Webhooks
from mflux_api.settings import Settings
from mflux_api.web import static_files
from mflux_api.web.auth import ApiKeys, AuthenticationMiddleware
from mflux_api.web.error_responses import ErrorHandlers, ErrorShape, default_error_shape
from mflux_api.web.middleware import (
    AllowedHostsMiddleware,
    AllowedOriginsMiddleware,
    ClosingMiddleware,
    PrivateNetworkCorsMiddleware,
    RateLimitMiddleware,
    RequestIdMiddleware,
    TimingMiddleware,
    UnexpectedErrorMiddleware,
)
from mflux_api.web.openapi import Endpoint, build_openapi
from mflux_api.web.path_prefix import PathPrefixMiddleware
from mflux_api.wire.dialect import Dialect

TITLE = "MFLUX API"
OPENAPI = "/openapi.json"

Endpoints = Mapping[str, Sequence[Endpoint]]


def build_app(settings: Settings, dialects: Sequence[MakeDialect] = DIALECTS) -> Starlette:
    """Build the Starlette application. Its services are at `app.state.services` and follow its lifespan."""
    services = make_services(settings)
    context = make_context(settings, services.queue)
    made = [make(services) for make in dialects]
    payloads = {each.name: each.webhook_payload(services.service, context) for each in made if each.webhook_payload}
    services.webhooks = Webhooks(services.queue, context.fetcher, payloads)
    services.bucket, services.uploads = context.bucket, context.uploads
    error_handlers = ErrorHandlers(_shapes(made), default_error_shape)
    endpoints = {each.name: each.endpoints(services.service, context) for each in made}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await services.start()
        try:
            yield
        finally:
            await services.stop()

    app = Starlette(
        routes=_build_routes(
            [each for each in made if is_enabled(each, settings)], endpoints, keys=context.keys.is_required
        ),
        middleware=[
            _root_prefix(settings, made, endpoints),
            *_build_middleware(services, context.keys, error_handlers, made),
        ],
        exception_handlers={
            MfluxError: error_handlers.handle_mflux_error,
            HTTPException: error_handlers.handle_http_exception,
        },
        lifespan=lifespan,
    )
    app.state.services = services
    return app


def _build_routes(dialects: Sequence[Dialect], endpoints: Endpoints, *, keys: bool) -> list[BaseRoute]:
    listed = [endpoint for each in dialects if each.is_listed for endpoint in endpoints[each.name]]
    description = build_openapi(TITLE, listed, requires_key=keys)

    async def openapi(request: object) -> JSONResponse:
        return JSONResponse(description)

    async def lead_to_page(request: object) -> RedirectResponse:
        return RedirectResponse("/")

    served = [endpoint.build_route() for each in dialects for endpoint in endpoints[each.name]]
    served += [Route(path, lead_to_page) for each in dialects for path in _page_paths(each)]
    return [*served, Route(OPENAPI, openapi), *static_files.build_routes()]


def _page_paths(dialect: Dialect) -> tuple[str, ...]:
    """Return the paths under which the dialect's clients expect the web page."""
    return (dialect.root, f"{dialect.root}/") if dialect.has_page else ()


def _shapes(dialects: Sequence[Dialect]) -> list[tuple[str, ErrorShape]]:
    """Return (prefix, error shape), longest prefix first: the first match counts, and prefixes may overlap."""
    found = [(prefix, each.error_shape) for each in dialects for prefix in each.prefixes]
    return sorted(found, key=lambda entry: len(entry[0]), reverse=True)


def _root_prefix(settings: Settings, dialects: Sequence[Dialect], endpoints: Endpoints) -> Middleware:
    """Return the middleware that serves dialects at the root and on ports of their own, without their prefix."""
    chosen, ports = settings.dialects, settings.dialects.prefixes_by_port
    named = [each for each in dialects if each.name == chosen.root]
    return Middleware(
        PathPrefixMiddleware,
        ports=ports,
        pages={each.root: {*static_files.PATHS, OPENAPI} for each in dialects if each.has_page},
        root=next((each.root for each in named), ""),
        routes={(found.method, found.path.removeprefix(each.root)) for each in named for found in endpoints[each.name]},
    )


def _build_middleware(
    services: Services, keys: ApiKeys, error_handlers: ErrorHandlers, dialects: Sequence[Dialect]
) -> list[Middleware]:
    """Return the middleware from the outside in. What every reply needs comes before what refuses requests."""
    settings, server = services.settings, services.settings.server
    exposed = [header for each in dialects for header in each.exposed_headers]
    # Health checks of load balancers, the description of the API and the web page work without a key.
    open_paths = {
        OPENAPI,
        *static_files.PATHS,
        *(path for each in dialects for path in (*each.open_paths, *_page_paths(each))),
    }
    return [
        Middleware(RequestIdMiddleware),
        Middleware(TimingMiddleware, observe=services.metrics.observe_request),
        Middleware(ClosingMiddleware, is_stopping=lambda: services.deadline is not None),
        Middleware(
            PrivateNetworkCorsMiddleware,
            allow_origins=server.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Retry-After", *exposed],
        ),
        Middleware(UnexpectedErrorMiddleware, error_handlers=error_handlers),
        Middleware(AllowedHostsMiddleware, hosts=server.allowed_hosts, error_handlers=error_handlers),
        Middleware(AllowedOriginsMiddleware, origins=server.cors_origins, error_handlers=error_handlers),
        Middleware(
            AuthenticationMiddleware,
            keys=keys,
            error_handlers=error_handlers,
            open_paths=frozenset(open_paths),
            open_prefixes=tuple(prefix for each in dialects for prefix in each.open_prefixes),
            logins=[each.basic_login for each in dialects if each.basic_login],
        ),
        Middleware(
            RateLimitMiddleware, per_minute=settings.security.requests_per_minute, error_handlers=error_handlers
        ),
        *(
            Middleware(
                RateLimitMiddleware,
                per_minute=each.requests_per_minute,
                error_handlers=error_handlers,
                prefixes=each.prefixes,
            )
            for each in dialects
            if each.requests_per_minute
        ),
    ]
