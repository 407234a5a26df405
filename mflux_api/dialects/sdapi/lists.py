"""/sdapi/v1: the lists that SD-WebUI's clients read before they paint. Keys and nullability are SD-WebUI's own."""

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
from mflux_api.pixels.enlarging import FILTERS, LATENT, NONE
from mflux_api.web.openapi import Endpoint, Handler

# FLUX.2 has one sampler. Other names are taken and mean this one.
SAMPLERS = [{"name": SAMPLER, "aliases": [f"k_{SAMPLER.lower()}"], "options": {}}]
SCHEDULERS = [
    {"name": "automatic", "label": "Automatic", "aliases": None, "default_rho": -1.0, "need_inner_model": False}
]
SCRIPTS = {"txt2img": [], "img2img": [UPSCALE_SCRIPT]}


def _argument(label: str, value: object, **limits: object) -> dict[str, object]:
    return {"label": label, "value": value, "minimum": None, "maximum": None, "step": None, "choices": None, **limits}


SCRIPT_INFO = [
    {
        "name": UPSCALE_SCRIPT,
        "is_alwayson": False,
        "is_img2img": True,
        "args": [
            _argument("", ""),
            _argument("Tile overlap", 64, minimum=0, maximum=256, step=16),
            _argument("Upscaler", "Lanczos", choices=[NONE, *FILTERS]),
            _argument("Scale Factor", 2.0, minimum=1.0, maximum=4.0, step=0.05),
        ],
    }
]
# What FLUX.2 has none of, in the form these lists have when they are empty.
EMPTY: Mapping[str, Any] = {
    "hypernetworks": [],
    "face-restorers": [],
    "realesrgan-models": [],
    "embeddings": {"loaded": {}, "skipped": {}},
    "extensions": [],
    "sd-vae": [],
}
REFRESHED = ("refresh-checkpoints", "refresh-loras", "refresh-lycos", "refresh-vae", "refresh-embeddings")
LOADING = (ModelNotFound, ModelNotDownloaded, ModelUnsupported, OutOfMemory)


class ListEndpoints:
    """Handlers of lists. `engine` tells how the engine process is; `flags` are the server's own."""

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

    async def models(self, request: Request) -> Response:
        return JSONResponse(await self.checkpoints.rows())

    async def loras(self, request: Request) -> Response:
        return JSONResponse([_adapter(name, alias=name.rpartition("/")[2]) for name in await self._adapters()])

    async def lycos(self, request: Request) -> Response:
        return JSONResponse([_adapter(name) for name in await self._adapters()])

    async def _adapters(self) -> list[str]:
        return [name for name, _ in await self.service.list_loras()]

    async def prompt_styles(self, request: Request) -> Response:
        found = await asyncio.to_thread(styles.load, self.styles_file)
        return JSONResponse(
            [{"name": each.name, "prompt": each.prompt, "negative_prompt": each.negative_prompt} for each in found]
        )

    async def list_upscalers(self, request: Request) -> Response:
        return JSONResponse([_upscaler(name) for name in await self.upscalers()])

    async def memory(self, request: Request) -> Response:
        memory, engine = psutil.virtual_memory(), self.engine()
        ram = {"free": memory.available, "used": memory.total - memory.available, "total": memory.total}
        held = {"current": engine.active, "peak": engine.peak}
        kept = {"current": engine.cached, "peak": engine.cached}
        parts = {"active": held, "allocated": held, "reserved": held, "inactive": kept}
        return JSONResponse({"ram": ram, "cuda": {"system": ram, **parts, "events": {"retries": 0, "oom": 0}}})

    async def cmd_flags(self, request: Request) -> Response:
        return JSONResponse(self.flags)

    async def refresh(self, request: Request) -> Response:
        self.service.models.forget()
        return JSONResponse(None)

    async def unload(self, request: Request) -> Response:
        """Let go of every model; the next picture loads its own again."""
        for name in self.engine().loaded:
            await self.service.models.unload(name)
        return JSONResponse({})

    async def reload(self, request: Request) -> Response:
        await self.service.models.load(await self.options.model())
        return JSONResponse({})

    def endpoints(self) -> list[Endpoint]:
        lists: dict[str, tuple[Handler, str]] = {
            "sd-models": (self.models, "Models that can paint now"),
            "loras": (self.loras, "Adapters"),
            "lycos": (self.lycos, "Adapters, by an older name"),
            "prompt-styles": (self.prompt_styles, "The styles in styles.csv"),
            "upscalers": (self.list_upscalers, "What enlarges pictures"),
            "memory": (self.memory, "Memory of the machine and of MLX"),
            "cmd-flags": (self.cmd_flags, "What the server was started with"),
            "samplers": (_fixed(SAMPLERS), "The one sampler"),
            "schedulers": (_fixed(SCHEDULERS), "The one scheduler"),
            "latent-upscale-modes": (_fixed([{"name": name} for name in LATENT]), "What enlarges latents"),
            "scripts": (_fixed(SCRIPTS), "Scripts by what they work on"),
            "script-info": (_fixed(SCRIPT_INFO), "Scripts and their arguments"),
            **{name: (_fixed(content), "Nothing of this kind here") for name, content in EMPTY.items()},
        }
        verbs: dict[str, tuple[Handler, str]] = {
            **dict.fromkeys(REFRESHED, (self.refresh, "Look for models again")),
            "unload-checkpoint": (self.unload, "Let go of the models in memory"),
        }
        path, summary = "/sdapi/v1/reload-checkpoint", "Load the model of the options"
        reload = Endpoint("POST", path, self.reload, summary, TAG, JSON, errors=LOADING)
        return [*_described("GET", lists), *_described("POST", verbs), reload]


def _described(method: str, handlers: Mapping[str, tuple[Handler, str]]) -> list[Endpoint]:
    return [
        Endpoint(method, f"/sdapi/v1/{name}", handle, summary, TAG, JSON)
        for name, (handle, summary) in handlers.items()
    ]


def _fixed(content: Any) -> Handler:
    async def handle(request: Request) -> Response:
        return JSONResponse(content)

    return handle


def _adapter(name: str, **more: str) -> dict[str, Any]:
    """The older list's rows have no alias, and a client counts their keys."""
    return {"name": name, **more, "path": f"{name}.safetensors", "metadata": {}}


def _upscaler(name: str) -> dict[str, Any]:
    return {"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": 4}
