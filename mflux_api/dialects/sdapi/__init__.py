"""/sdapi/v1: the API of SD-WebUI, and the other paths that its clients use."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mflux_api.dialects.sdapi.checkpoints import Checkpoints
from mflux_api.dialects.sdapi.errors import TAG, error_shape
from mflux_api.dialects.sdapi.extras import ExtrasEndpoints
from mflux_api.dialects.sdapi.generate import GenerateEndpoints
from mflux_api.dialects.sdapi.gradio_config import GradioConfigEndpoints
from mflux_api.dialects.sdapi.lists import ListEndpoints
from mflux_api.dialects.sdapi.options import Options
from mflux_api.dialects.sdapi.progress import ProgressEndpoints
from mflux_api.dialects.sdapi.task_ids import TaskIds
from mflux_api.jobs.service import EngineView, JobService
from mflux_api.web.auth import BasicLogin
from mflux_api.web.context import HttpContext
from mflux_api.web.openapi import Endpoint
from mflux_api.wire.dialect import Dialect

LOGIN = BasicLogin(
    prefixes=("/sdapi/", "/internal/"), missing="Not authenticated", wrong="Incorrect username or password"
)


def dialect(*, engine: Callable[[], EngineView], styles_file: Path | None, flags: Mapping[str, Any]) -> Dialect:
    """Describe the dialect. `engine`: returns the state of the engine process.

    `flags`: how the server was started, for cmd-flags, without secrets.
    """
    return Dialect(
        name=TAG,
        prefixes=("/sdapi/", "/internal/", "/controlnet/"),
        endpoints=lambda service, context: _endpoints(service, context, engine, styles_file, flags),
        error_shape=error_shape,
        # If a client cannot read /config, it assumes that the web page requires a login.
        open_paths=frozenset({"/config", "/internal/ping"}),
        basic_login=LOGIN,
        is_listed=True,
    )


def _endpoints(
    service: JobService,
    context: HttpContext,
    engine: Callable[[], EngineView],
    styles_file: Path | None,
    flags: Mapping[str, Any],
) -> list[Endpoint]:
    checkpoints, tasks = Checkpoints(service), TaskIds()
    options, extras = Options(service, context, checkpoints), ExtrasEndpoints(service, context)
    catalogue = ListEndpoints(
        service,
        checkpoints,
        options,
        engine=engine,
        upscalers=extras.list_upscalers,
        styles_file=styles_file,
        flags=flags,
    )
    parts = (
        GenerateEndpoints(service, context, checkpoints, options, tasks, styles_file=styles_file),
        ProgressEndpoints(service, context, tasks, options.get_first_preview_step),
        options,
        catalogue,
        extras,
        GradioConfigEndpoints(checkpoints, extras.list_upscalers),
    )
    return [endpoint for part in parts for endpoint in part.endpoints()]
