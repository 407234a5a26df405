"""The order fields shared by several dialects: the documented names and the names of SD-WebUI."""

import hashlib
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mflux_api.errors import (
    BodyTooLarge,
    BodyTooSlow,
    InvalidImage,
    InvalidRequest,
    LoraInvalid,
    LoraNotFound,
    ModelNotDownloaded,
    ModelNotFound,
    ModelUnsupported,
    OutOfMemory,
    QueueFull,
    ShuttingDown,
    StorageFailed,
    UnsupportedMedia,
)
from mflux_api.jobs.order import Order
from mflux_api.request import LARGEST_SEED
from mflux_api.web.pictures import PictureReader
from mflux_api.wire.ranges import check_range

LARGEST_KEY = 200
DEFAULT_STRENGTH = 0.75
# Errors of every endpoint that takes an order, for its description in OpenAPI.
BODY_ERRORS = (InvalidRequest, BodyTooLarge, BodyTooSlow, UnsupportedMedia)
ORDER_ERRORS = (
    *(InvalidImage, ModelNotFound, ModelNotDownloaded, ModelUnsupported, LoraNotFound, LoraInvalid),
    *(OutOfMemory, QueueFull, ShuttingDown, StorageFailed),
    *BODY_ERRORS,
)


def _to_int(value: object) -> object:
    """Convert a number or numeric text to an integer, because clients send 25.0 and "25.0". 7.5 becomes 7.

    Raises ValueError for booleans and for integers beyond LARGEST_SEED.
    """
    if isinstance(value, str) and value.strip():
        try:
            value = float(value) if any(mark in value for mark in ".eE") else int(value)
        except ValueError:
            return value
    value = _reject_bool(value)
    if isinstance(value, float) and abs(value) < 2**63:
        return int(value)
    if isinstance(value, int) and abs(value) > LARGEST_SEED:
        raise ValueError(f"Input should be at most {LARGEST_SEED}")
    return value


def _reject_bool(value: object) -> object:
    """Reject booleans where a number is expected. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("Input should be a number")  # noqa: TRY004 - pydantic turns ValueError into a validation error
    return value


def _to_list(value: object) -> object:
    """Put a single value into a list; null becomes an empty list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


LenientInt = Annotated[int, BeforeValidator(_to_int)]
# Checked to be from 0 to 1 where there is a picture to repaint.
Strength = Annotated[float, BeforeValidator(_reject_bool)]
Guidance = Annotated[float, Field(ge=0, le=100), BeforeValidator(_reject_bool)]
LoraScale = Annotated[float, Field(ge=-10, le=10), BeforeValidator(_reject_bool)]
StringList = Annotated[list[str], BeforeValidator(_to_list)]
LoraScales = Annotated[list[LoraScale], BeforeValidator(_to_list)]


class PictureForm(BaseModel):
    """A request for pictures. Null fields count as missing; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())

    prompt: str = Field(description="What the picture shows")
    negative_prompt: str | None = Field(None, description="What to paint away from; base models only")
    model: str | None = Field(None, description="A name from /api/v1/models")
    sd_model_checkpoint: str | None = Field(None, description="SD-WebUI's name for `model`")
    seed: LenientInt | None = Field(None, description="The first picture's seed; null or -1 is random")
    width: LenientInt | None = Field(None, description="Pixels, a multiple of 16 from 64 up")
    height: LenientInt | None = Field(None, description="Pixels, a multiple of 16 from 64 up")
    steps: LenientInt | None = Field(None, description="Denoising steps")
    guidance: Guidance | None = Field(None, description="Above 1 follows the prompt closer; distilled models run at 1")
    cfg_scale: Guidance | None = Field(None, description="SD-WebUI's name for `guidance`")
    num_images: LenientInt | None = Field(None, description="Pictures, of seeds N, N+1, ...")
    batch_size: LenientInt | None = Field(None, description="SD-WebUI: pictures = batch_size x n_iter")
    n_iter: LenientInt | None = Field(None, description="SD-WebUI: pictures = batch_size x n_iter")
    lora_files: StringList = Field(default_factory=list, description="Adapters, by name (/api/v1/loras)")
    lora_scales: LoraScales = Field(default_factory=list, description="Their weights, 1.0 where left out")
    low_ram: bool | None = Field(None, description="Let go of the text encoder before denoising")
    init_images: StringList = Field(default_factory=list, description="One picture to repaint, in base64")
    image_strength: Strength | None = Field(None, description="0 keeps the picture, 1 ignores it")
    denoising_strength: Strength | None = Field(None, description="SD-WebUI's name for `image_strength`")
    mask: str | None = Field(None, description="Repaint only where this picture is white")
    extra_images: StringList = Field(default_factory=list, description="Reference pictures to look at, in base64")
    priority: LenientInt | None = Field(None, description="-10 to 10; higher ones are painted first")

    async def build_order(self, pictures: PictureReader, owner: str, idempotency_key: str | None) -> Order:
        """Read the pictures and build the order. Raises InvalidRequest, InvalidImage."""
        if len(self.init_images) > 1:
            raise InvalidRequest("init_images: one picture is repainted at a time.", field="init_images")
        if idempotency_key is not None and len(idempotency_key) > LARGEST_KEY:
            raise InvalidRequest(f"Idempotency-Key may have at most {LARGEST_KEY} characters.", field="Idempotency-Key")
        source = [await pictures.read_base64(text, "init_images") for text in self.init_images]
        references = [await pictures.read_base64(text, "extra_images") for text in self.extra_images]
        mask = None if not self.mask else await pictures.read_base64(self.mask, "mask")
        return Order(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt or "",
            model=self.model or self.sd_model_checkpoint or None,
            width=self.width,
            height=self.height,
            steps=self.steps,
            guidance=self.guidance if self.guidance is not None else self.cfg_scale,
            seed=self.seed,
            count=self.num_images if self.num_images is not None else _default_to_one(self.batch_size),
            batches=1 if self.num_images is not None else _default_to_one(self.n_iter),
            strength=self._resolve_strength() if source else DEFAULT_STRENGTH,
            source=source[0] if source else None,
            mask=mask,
            references=tuple(references),
            loras=self._pair_loras_with_scales(),
            low_ram=bool(self.low_ram),
            priority=self.priority or 0,
            owner=owner,
            key=idempotency_key,
            digest=None if idempotency_key is None else self._compute_digest(),
        )

    def _resolve_strength(self) -> float:
        """Return the strength of a repaint. Raises InvalidRequest."""
        name = "denoising_strength" if self.image_strength is None else "image_strength"
        given = getattr(self, name)
        strength = DEFAULT_STRENGTH if given is None else float(given)
        check_range(name, strength, 0, 1)
        return strength

    def _pair_loras_with_scales(self) -> tuple[tuple[str, float], ...]:
        if len(self.lora_scales) > len(self.lora_files):
            raise InvalidRequest("lora_scales: there are more scales than lora_files.", field="lora_scales")
        scales = [*self.lora_scales, *[1.0] * (len(self.lora_files) - len(self.lora_scales))]
        return tuple(zip(self.lora_files, scales, strict=True))

    def _compute_digest(self) -> str:
        """Return a hash of the form that does not depend on the order of its fields."""
        return hashlib.sha256(repr(sorted(self.model_dump(mode="json").items())).encode()).hexdigest()


def _default_to_one(number: int | None) -> int:
    return 1 if number is None else number
