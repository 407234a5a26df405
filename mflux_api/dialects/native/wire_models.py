"""The shapes of /api/v1: models and adapters."""

from typing import Literal

from mflux_api.dialects.native.wire import Wire


class ModelConfig(Wire):
    base_arch: str
    supports_guidance: bool
    max_sequence_length: int


class ModelRow(Wire):
    """`hash`, `sha256`: of names, sizes and headers of the weights; null where the model is not here.

    `unavailable`: why it cannot paint with this version.
    """

    title: str
    model_name: str
    hash: str | None
    sha256: str | None
    config: ModelConfig
    downloaded: bool
    loaded: bool
    size_gb: float | None
    description: str
    licence: str
    gated: bool
    quantize: int | None
    default_steps: int
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
