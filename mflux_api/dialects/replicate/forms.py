"""/replicate/v1: the request bodies."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mflux_api.errors import InvalidRequest
from mflux_api.wire.order_form import LenientInt
from mflux_api.wire.picture_size import MEGAPIXEL, PictureSize, exact_size, size_of_ratio

# Webhook events in the order they happen. The event `logs` of Replicate is never sent.
EVENTS = ("start", "output", "completed")
# Values of `megapixels`, in pixels.
AREAS = {"1": MEGAPIXEL, "0.25": MEGAPIXEL // 4, "0.5": MEGAPIXEL // 2, "2": 2 * MEGAPIXEL, "match_input": MEGAPIXEL}
# Inputs of FLUX models on Replicate that cannot be honoured, and the values that change nothing.
UNSUPPORTED = {
    **dict.fromkeys(("control_image", "redux_image", "outpaint", "raw", "finetune_id", "conditioning_image")),
    "image_prompt_strength": 0.1,
}
FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}


class PredictionInput(BaseModel):
    """The inputs of FLUX models on Replicate. Those in UNSUPPORTED are refused, unknown ones are ignored."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    prompt: str = Field(min_length=1)
    width: LenientInt | None = None
    height: LenientInt | None = None
    aspect_ratio: str | None = Field(None, description="W:H, of a megapixel")
    num_outputs: LenientInt = Field(1, ge=1)
    seed: LenientInt | None = None
    num_inference_steps: LenientInt | None = None
    steps: LenientInt | None = Field(None, description="The name of `num_inference_steps` at flux-pro")
    megapixels: str | None = Field(None, description="With aspect_ratio: 1, 0.25, ...")
    mask: str | None = Field(None, description="Repaint only the white part of `image`")
    lora_weights: str | None = Field(None, description="An adapter of /api/v1/loras")
    lora_scale: float = Field(1.0, ge=-10, le=10)
    extra_lora: str | None = None
    extra_lora_scale: float = Field(1.0, ge=-10, le=10)
    guidance: float | None = Field(None, ge=0, le=100)
    output_format: str = "webp"
    image: str | None = Field(None, description="The picture to repaint: address or data URL")
    image_prompt: str | None = None
    prompt_upsampling: bool = Field(False, description="Let the model's text encoder put the prompt into more words")
    prompt_strength: float = Field(0.8, ge=0, le=1)
    input_image: str | None = None
    input_images: list[str] = Field(default_factory=list, description="Pictures to look at")

    @property
    def loras(self) -> tuple[tuple[str, float], ...]:
        """(name, scale) of each adapter."""
        named = ((self.lora_weights, self.lora_scale), (self.extra_lora, self.extra_lora_scale))
        return tuple((name, scale) for name, scale in named if name)


class PredictionRequest(BaseModel):
    """A request for a prediction. The model is named by `version` or by the path.

    Without a `webhook_events_filter`, the events `output` and `completed` are sent.
    """

    model_config = ConfigDict(extra="ignore")

    input: dict[str, Any]
    version: str | None = None
    webhook: str | None = None
    webhook_events_filter: list[Literal["start", "output", "logs", "completed"]] = Field(default_factory=list)
    stream: bool | None = None


def list_webhook_events(body: PredictionRequest) -> list[str]:
    """Return the events that are sent to the prediction's webhook."""
    asked = body.webhook_events_filter or ("output", "completed")
    return [event for event in EVENTS if event in asked]


def parse_size(form: PredictionInput) -> PictureSize:
    """Return the requested size, or one of about a megapixel with the aspect ratio. Raises InvalidRequest."""
    if form.width is not None or form.height is not None or form.aspect_ratio in {None, "match_input_image", "custom"}:
        return exact_size(form.width, form.height, smallest=1)
    area = AREAS.get(form.megapixels or "1")
    if area is None:
        raise InvalidRequest(f"megapixels must be {', '.join(AREAS)}.", field="megapixels")
    return exact_size(*size_of_ratio(str(form.aspect_ratio), area=area), smallest=1)
