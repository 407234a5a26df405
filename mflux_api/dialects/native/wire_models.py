"""The shapes of /api/v1: models and adapters."""

from typing import Literal

from mflux_api.dialects.native.wire import Wire


class ModelConfig(Wire):
    base_arch: str
    supports_guidance: bool
    max_sequence_length: int


class ModelRow(Wire):
    """`hash`, `sha256`: of names, sizes and headers of the weights; null where the model is not here.

    `unavailable`: why it cannot paint with this version. `size_gb`: what it takes on disk, or would take, and
    `download_gb`: what a download brings, both in units of 1000^3 bytes. `memory_gb`: what it will hold once loaded,
    in units of 1024^3 bytes; null where it is not here. `upscaler`: it enlarges pictures and paints none from words.
    `default`: it paints what is ordered without a model.
    """

    title: str
    model_name: str
    hash: str | None
    sha256: str | None
    config: ModelConfig
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
    download_gb: float | None
    unavailable: str | None


class ModelList(Wire):
    models: list[ModelRow]


class ModelStatus(Wire):
    """`status`: ready, not_downloaded, downloading or unavailable. `progress`: of a download."""

    model: str
    status: Literal["ready", "not_downloaded", "downloading", "unavailable"]
    downloaded: bool
    loaded: bool
    size_gb: float | None
    path: str | None
    progress: float | None


class LoraRow(Wire):
    name: str
    size_mb: float


class LoraList(Wire):
    loras: list[LoraRow]
