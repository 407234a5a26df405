"""/api/v1: list, download, load and unload models, and list adapters."""

from dataclasses import replace
from typing import Any, Literal

from pydantic import ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from mflux_api.checkpoints.capabilities import Capabilities, Guidance
from mflux_api.dialects.native.jobs import json_response
from mflux_api.dialects.native.wire import WireModel
from mflux_api.errors import (
    EngineDied,
    JobConflict,
    ModelCorrupt,
    ModelIncomplete,
    ModelNotDownloaded,
    ModelNotFound,
    ModelUnsupported,
    OutOfMemory,
)
from mflux_api.jobs.order import usual_size
from mflux_api.jobs.service import JobService
from mflux_api.models.inventory import ModelEntry, ModelMemory
from mflux_api.web.openapi import Endpoint


class ModelConfig(WireModel):
    base_arch: str
    supports_guidance: bool
    max_sequence_length: int


class ModelCapabilities(WireModel):
    """The capabilities of a model. `from_words`: it can work from a prompt alone.

    `enlarges`: it is an upscaler. `source`: it can repaint a picture of `init_images`; `mask`: only a part of it.
    `references`: the most pictures of `extra_images`; `cached_references`: they are computed once, not at every step.
    `loras`: it accepts adapters. `guidance`: "cfg" (away from the negative prompt), "embedded" (an input of the model)
    or "fixed" (built in). `prompt_upsampling`: its text encoder can rewrite a prompt in more detail. `fixed_steps`: it
    always uses `default_steps`. Sides are in pixels: multiples of `size_step`, at least `smallest_side`, best around
    `native_side`. `samplers`: SD-WebUI's names. `bits`: the quantizations on offer, as NAME-N-bit.
    """

    model_config = ConfigDict(from_attributes=True)

    from_words: bool
    enlarges: bool
    source: bool
    mask: bool
    references: int
    cached_references: bool
    loras: bool
    guidance: Guidance
    negative_prompt: bool
    prompt_upsampling: bool
    fixed_steps: bool
    size_step: int
    smallest_side: int
    native_side: int
    samplers: list[str]
    bits: list[int]


class ModelRow(WireModel):
    """A model. `hash`, `sha256`: of the names, sizes and headers of its weight files; null if not downloaded.

    `unavailable`: why this version cannot use it. `size_gb`: its size on disk, now or after a download, and
    `download_gb`: the size of a download, both in units of 1000^3 bytes. `memory_gb`: memory of its weights once
    loaded, in units of 1024^3 bytes; null if it cannot be read or estimated. `fits`: this machine has the memory for it
    and for a picture. `upscaler`: it enlarges pictures. `default`: it is used for orders that name no model. `label`:
    its name for people. `variant_of`: the model of which it is a version, which `variant` describes. `demo`: it comes
    with the server, to try it. `examples`: prompts that it paints well. `url`: its own page, with its licence.
    """

    title: str
    label: str
    variant_of: str | None
    variant: str
    demo: bool
    examples: list[str]
    url: str | None
    model_name: str
    hash: str | None
    sha256: str | None
    config: ModelConfig
    capabilities: ModelCapabilities
    default: bool
    downloaded: bool
    loaded: bool
    size_gb: float | None
    description: str
    licence: str
    gated: bool
    quantize: int | None
    default_steps: int
    default_width: int
    default_height: int
    default_guidance: float
    upscaler: bool
    supports_negative_prompt: bool
    memory_gb: float | None
    fits: bool | None
    download_gb: float | None
    unavailable: str | None


class ModelList(WireModel):
    models: list[ModelRow]


class ModelStatus(WireModel):
    """The state of a model. `size_gb`: on disk, in units of 1000^3 bytes. `progress`: of a download, 0 to 1."""

    model: str
    status: Literal["ready", "not_downloaded", "downloading", "unavailable"]
    downloaded: bool
    loaded: bool
    size_gb: float | None
    path: str | None
    progress: float | None


class LoraRow(WireModel):
    """An adapter. `lora_files` takes the name, its last part or the alias, in any case."""

    name: str
    alias: str
    size_mb: float


class LoraList(WireModel):
    loras: list[LoraRow]


TAG = "models"
SHORT_HASH = 10
MEGABYTE = 1000**2
GIB = 1024**3
LOADING = (ModelNotDownloaded, ModelUnsupported, ModelIncomplete, ModelCorrupt, OutOfMemory, EngineDied)


class ModelEndpoints:
    """Handlers of models."""

    def __init__(self, service: JobService) -> None:
        self.service = service
        self.models = service.models

    async def list_models(self, request: Request) -> Response:
        entries = await self.models.list_models()
        memory = await self.models.estimate_memory(entries)
        return json_response(
            ModelList(models=[self._build_row(entry, memory.get(entry.spec.name)) for entry in entries])
        )

    async def get_status(self, request: Request) -> Response:
        return json_response(await self._build_status(request.path_params["model_id"]))

    async def start_download(self, request: Request) -> Response:
        spec = await self.models.find_spec(request.path_params["model_id"])
        if spec.unavailable or spec.repository is None:
            raise ModelUnsupported(spec.unavailable or f"{spec.name} has no repository to come from.", model=spec.name)
        if not (await self.models.read_entry(spec.name)).is_downloaded:
            self.service.downloads.start(spec)
        return json_response(await self._build_status(spec.name))

    async def stop_download(self, request: Request) -> Response:
        spec = await self.models.find_spec(request.path_params["model_id"])
        if not self.service.downloads.cancel(spec):
            raise JobConflict(f"{spec.name} is not being downloaded.", model=spec.name)
        return json_response(await self._build_status(spec.name))

    async def load_model(self, request: Request) -> Response:
        await self.models.load(request.path_params["model_id"])
        return json_response(await self._build_status(request.path_params["model_id"]))

    async def unload_model(self, request: Request) -> Response:
        await self.models.unload(request.path_params["model_id"])
        return json_response(await self._build_status(request.path_params["model_id"]))

    async def list_loras(self, request: Request) -> Response:
        found = await self.service.list_loras()
        return json_response(
            LoraList(
                loras=[
                    LoraRow(name=file.name, alias=file.alias, size_mb=round(file.size / MEGABYTE, 2)) for file in found
                ]
            )
        )

    async def _build_status(self, name: str) -> ModelStatus:
        entry = await self.models.read_entry(name)
        coming = self.service.downloads.find_download(entry.spec)
        return ModelStatus(
            model=entry.spec.name,
            status=_model_state(entry, coming=coming is not None),
            downloaded=entry.is_downloaded,
            loaded=self.models.is_loaded(entry),
            size_gb=entry.size_gb,
            path=None if entry.folder is None else str(entry.folder.resolve()),
            progress=None if coming is None else round(coming.fraction, 4),
        )

    def _build_row(self, entry: ModelEntry, memory: ModelMemory | None) -> ModelRow:
        spec, can = entry.spec, entry.capabilities
        width, height = usual_size(spec, self.service.defaults)
        return ModelRow(
            title=spec.name,
            label=spec.label,
            variant_of=spec.variant_of,
            variant=spec.variant,
            demo=spec.demo,
            examples=list(spec.example_prompts),
            url=spec.url,
            model_name=spec.repository or spec.name,
            hash=entry.fingerprint and entry.fingerprint[:SHORT_HASH],
            sha256=entry.fingerprint,
            config=ModelConfig(
                base_arch=spec.family,
                supports_guidance=can.guidance != "fixed",
                max_sequence_length=can.prompt_tokens,
            ),
            capabilities=ModelCapabilities.model_validate(self._with_limits(can)),
            default=spec.name.lower() == self.models.default.lower(),
            downloaded=entry.is_downloaded,
            loaded=self.models.is_loaded(entry),
            size_gb=entry.size_gb,
            description=spec.description,
            licence=spec.licence,
            gated=spec.gated,
            quantize=spec.quantize,
            default_steps=spec.capabilities.default_steps,
            default_width=width,
            default_height=height,
            default_guidance=spec.capabilities.default_guidance,
            upscaler=can.enlarges,
            supports_negative_prompt=can.negative_prompt,
            memory_gb=None if memory is None else round(memory.weights / GIB, 3),
            fits=None if memory is None else memory.fits,
            download_gb=spec.size_gb,
            unavailable=spec.unavailable or None,
        )

    def _with_limits(self, can: Capabilities) -> Capabilities:
        """Limit `references` to the server's limit, which also applies if the model has no limit."""
        most = self.service.defaults.limits.references
        return replace(can, references=most if can.references is None else min(can.references, most))

    def endpoints(self) -> list[Endpoint]:
        model = "/api/v1/models/{model_id}"
        return [
            Endpoint("GET", "/api/v1/models", self.list_models, "Every model that may be asked for", TAG, ModelList),
            Endpoint(
                "GET",
                f"{model}/status",
                self.get_status,
                "Whether a model is here and in memory",
                TAG,
                ModelStatus,
                errors=(ModelNotFound,),
            ),
            Endpoint(
                "POST",
                f"{model}/download",
                self.start_download,
                "Bring a model here; GET the same address for its progress",
                TAG,
                ModelStatus,
                errors=(ModelNotFound, ModelUnsupported),
            ),
            Endpoint(
                "DELETE",
                f"{model}/download",
                self.stop_download,
                "Stop a download; started again, it goes on where it stopped",
                TAG,
                ModelStatus,
                errors=(ModelNotFound, JobConflict),
            ),
            Endpoint(
                "POST",
                f"{model}/load",
                self.load_model,
                "Load a model into memory",
                TAG,
                ModelStatus,
                errors=(ModelNotFound, *LOADING),
            ),
            Endpoint(
                "POST",
                f"{model}/unload",
                self.unload_model,
                "Let go of a model's memory",
                TAG,
                ModelStatus,
                errors=(ModelNotFound,),
            ),
            Endpoint(
                "GET", "/api/v1/loras", self.list_loras, "The adapters that may be named in lora_files", TAG, LoraList
            ),
        ]


def _model_state(entry: ModelEntry, *, coming: bool) -> Any:
    if entry.spec.unavailable:
        return "unavailable"
    if entry.is_downloaded:
        return "ready"
    return "downloading" if coming else "not_downloaded"
