"""/sdapi/v1: the lists that clients read at their start. Keys and nullability are those of SD-WebUI."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mflux_api.checkpoints.families import SAMPLER
from mflux_api.dialects.sdapi import styles
from mflux_api.dialects.sdapi.checkpoints import Checkpoints
from mflux_api.dialects.sdapi.errors import JSON, TAG
from mflux_api.dialects.sdapi.options import Options
from mflux_api.dialects.sdapi.schema import UPSCALE_SCRIPT
from mflux_api.errors import ModelNotDownloaded, ModelNotFound, ModelUnsupported, OutOfMemory
from mflux_api.jobs.service import EngineView, JobService
from mflux_api.pixels.enlarging import FILTERS, LATENT_UPSCALERS, NONE
from mflux_api.web.openapi import Endpoint, Handler

# FLUX.2 has one sampler. Other names are accepted and mean this one.
SAMPLERS = [{"name": SAMPLER, "aliases": [f"k_{SAMPLER.lower()}"], "options": {}}]
SCHEDULERS = [
    {"name": "automatic", "label": "Automatic", "aliases": None, "default_rho": -1.0, "need_inner_model": False}
]
SCRIPTS = {"txt2img": [], "img2img": [UPSCALE_SCRIPT]}


def _script_argument(label: str, value: object, **limits: object) -> dict[str, object]:
    return {"label": label, "value": value, "minimum": None, "maximum": None, "step": None, "choices": None, **limits}


SCRIPT_INFO = [
    {
        "name": UPSCALE_SCRIPT,
        "is_alwayson": False,
        "is_img2img": True,
        "args": [
            _script_argument("", ""),
            _script_argument("Tile overlap", 64, minimum=0, maximum=256, step=16),
            _script_argument("Upscaler", "Lanczos", choices=[NONE, *FILTERS]),
            _script_argument("Scale Factor", 2.0, minimum=1.0, maximum=4.0, step=0.05),
        ],
    }
]
# Lists that have no entries for FLUX.2, in SD-WebUI's form of an empty list.
EMPTY_LISTS: Mapping[str, Any] = {
    "hypernetworks": [],
    "face-restorers": [],
    "realesrgan-models": [],
    "embeddings": {"loaded": {}, "skipped": {}},
    "extensions": [],
    "sd-vae": [],
}
REFRESH_PATHS = ("refresh-checkpoints", "refresh-loras", "refresh-lycos", "refresh-vae", "refresh-embeddings")
LOADING = (ModelNotFound, ModelNotDownloaded, ModelUnsupported, OutOfMemory)


class ListEndpoints:
    """Handlers of lists. `engine`: returns the state of the engine process. `flags`: the reply of cmd-flags."""

    def __init__(
        self,
        service: JobService,
        checkpoints: Checkpoints,
        options: Options,
        *,
        engine: Callable[[], EngineView],
        upscalers: Callable[[], Any],
        styles_file: Path | None,
        flags: Mapping[str, Any],
    ) -> None:
        self.service = service
        self.checkpoints = checkpoints
        self.options = options
        self.engine = engine
        self.upscalers = upscalers
        self.styles_file = styles_file
        self.flags = flags

    async def list_models(self, request: Request) -> Response:
        return JSONResponse(await self.checkpoints.list_rows())

    async def list_loras(self, request: Request) -> Response:
        return JSONResponse([_adapter_row(file.name, alias=file.alias) for file in await self.service.list_loras()])

    async def list_lycos(self, request: Request) -> Response:
        return JSONResponse([_adapter_row(file.name) for file in await self.service.list_loras()])

    async def list_prompt_styles(self, request: Request) -> Response:
        found = await asyncio.to_thread(styles.load_styles, self.styles_file)
        return JSONResponse(
            [{"name": each.name, "prompt": each.prompt, "negative_prompt": each.negative_prompt} for each in found]
        )

    async def list_upscalers(self, request: Request) -> Response:
        return JSONResponse([_upscaler_row(name) for name in await self.upscalers()])

    async def get_memory(self, request: Request) -> Response:
        memory, engine = psutil.virtual_memory(), self.engine()
        ram = {"free": memory.available, "used": memory.total - memory.available, "total": memory.total}
        held = {"current": engine.active, "peak": engine.peak}
        kept = {"current": engine.cached, "peak": engine.cached}
        parts = {"active": held, "allocated": held, "reserved": held, "inactive": kept}
        return JSONResponse({"ram": ram, "cuda": {"system": ram, **parts, "events": {"retries": 0, "oom": 0}}})

    async def get_cmd_flags(self, request: Request) -> Response:
        return JSONResponse(self.flags)

    async def refresh_models(self, request: Request) -> Response:
        self.service.models.invalidate()
        return JSONResponse(None)

    async def unload_checkpoints(self, request: Request) -> Response:
        """Unload all models. The next job loads its model again."""
        for name in self.engine().loaded:
            await self.service.models.unload(name)
        return JSONResponse({})

    async def reload_checkpoint(self, request: Request) -> Response:
        await self.service.models.load(await self.options.get_model())
        return JSONResponse({})

    def endpoints(self) -> list[Endpoint]:
        lists: dict[str, tuple[Handler, str]] = {
            "sd-models": (self.list_models, "Models that can paint now"),
            "loras": (self.list_loras, "Adapters"),
            "lycos": (self.list_lycos, "Adapters, by an older name"),
            "prompt-styles": (self.list_prompt_styles, "The styles in styles.csv"),
            "upscalers": (self.list_upscalers, "What enlarges pictures"),
            "memory": (self.get_memory, "Memory of the machine and of MLX"),
            "cmd-flags": (self.get_cmd_flags, "What the server was started with"),
            "samplers": (_constant_handler(SAMPLERS), "The one sampler"),
            "schedulers": (_constant_handler(SCHEDULERS), "The one scheduler"),
            "latent-upscale-modes": (
                _constant_handler([{"name": name} for name in LATENT_UPSCALERS]),
                "What enlarges latents",
            ),
            "scripts": (_constant_handler(SCRIPTS), "Scripts by what they work on"),
            "script-info": (_constant_handler(SCRIPT_INFO), "Scripts and their arguments"),
            **{
                name: (_constant_handler(content), "Nothing of this kind here") for name, content in EMPTY_LISTS.items()
            },
        }
        verbs: dict[str, tuple[Handler, str]] = {
            **dict.fromkeys(REFRESH_PATHS, (self.refresh_models, "Look for models again")),
            "unload-checkpoint": (self.unload_checkpoints, "Let go of the models in memory"),
        }
        path, summary = "/sdapi/v1/reload-checkpoint", "Load the model of the options"
        reload = Endpoint("POST", path, self.reload_checkpoint, summary, TAG, JSON, errors=LOADING)
        return [*_build_endpoints("GET", lists), *_build_endpoints("POST", verbs), reload]


def _build_endpoints(method: str, handlers: Mapping[str, tuple[Handler, str]]) -> list[Endpoint]:
    return [
        Endpoint(method, f"/sdapi/v1/{name}", handle, summary, TAG, JSON)
        for name, (handle, summary) in handlers.items()
    ]


def _constant_handler(content: Any) -> Handler:
    async def handle(request: Request) -> Response:
        return JSONResponse(content)

    return handle


def _adapter_row(name: str, **more: str) -> dict[str, Any]:
    """Return an adapter's row. Rows of the older list have no alias: a client checks the number of keys."""
    return {"name": name, **more, "path": f"{name}.safetensors", "metadata": {}}


def _upscaler_row(name: str) -> dict[str, Any]:
    return {"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": 4}
