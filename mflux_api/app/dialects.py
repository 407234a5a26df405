"""The list of served APIs. To add one, write a module in `dialects` and add an entry here."""

from collections.abc import Callable
from typing import Any

from mflux_api.app.lifecycle import Services, get_engine_view
from mflux_api.dialects import bfl, edge, files, flux2_web, klein, native, openai, ops, replicate, sdapi
from mflux_api.jobs.disk_space import measure_disk
from mflux_api.settings import Settings, schema
from mflux_api.wire.dialect import Dialect

MakeDialect = Callable[[Services], Dialect]


def is_enabled(dialect: Dialect, settings: Settings) -> bool:
    """Whether the dialect is served. Dialects that the settings cannot name are always served."""
    return dialect.name in settings.dialects.enabled or dialect.name not in schema.DIALECTS


def _sdapi(services: Services) -> Dialect:
    settings = services.settings
    return sdapi.dialect(
        engine=lambda: get_engine_view(services), styles_file=settings.generation.styles_file, flags=_flags(settings)
    )


def _flags(settings: Settings) -> dict[str, Any]:
    """Return the command-line flags shown at /sdapi/v1/cmd-flags. They contain no secrets."""
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


def _edge(services: Services) -> Dialect:
    chosen = services.settings.dialects
    prices = edge.Prices(
        usd_per_tile=chosen.million_tiles_usd / 1e6,
        usd_per_step=chosen.million_steps_usd / 1e6,
        thb_per_usd=chosen.thb_per_usd,
        usd_per_kwh=chosen.kwh_usd,
        watts=chosen.watts,
    )
    return edge.dialect(model=chosen.edge_model, prices=prices, requests_per_minute=chosen.edge_requests_per_minute)


DIALECTS: tuple[MakeDialect, ...] = (
    lambda services: native.dialect(
        engine=lambda: get_engine_view(services),
        tasks=lambda: list(services.supervisor.tasks.values()),
        disk=lambda: measure_disk(services.settings.generation.output_dir),
    ),
    _sdapi,
    lambda services: ops.dialect(render=services.metrics.render, content_type=services.metrics.CONTENT_TYPE),
    lambda _: files.dialect(),
    lambda services: klein.dialect(model=services.settings.dialects.klein_model),
    lambda services: flux2_web.dialect(output=services.settings.generation.output_dir),
    _edge,
    lambda _: bfl.dialect(),
    lambda _: replicate.dialect(),
    lambda _: openai.dialect(),
)
