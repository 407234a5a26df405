"""/replicate/v1: the request bodies."""

from typing import Any

from pydantic import ConfigDict, Field

from mflux_api.errors import InvalidRequest
from mflux_api.wire.lenient_form import LenientForm
from mflux_api.wire.order_form import LenientInt
from mflux_api.wire.picture_size import MEGAPIXEL, size_of_ratio

# Webhook events in the order they happen. The event `logs` of Replicate is never sent.
EVENTS = ("start", "output", "completed")
KNOWN_EVENTS = (*EVENTS, "logs")
# Values of `megapixels`, in pixels.
AREAS = {"1": MEGAPIXEL, "0.25": MEGAPIXEL // 4, "0.5": MEGAPIXEL // 2, "2": 2 * MEGAPIXEL, "match_input": MEGAPIXEL}
# Inputs of FLUX models on Replicate that cannot be honoured, and the values that change nothing.
UNSUPPORTED = {
    **dict.fromkeys(("control_image", "redux_image", "outpaint", "raw", "finetune_id", "conditioning_image")),
    "image_prompt_strength": 0.1,
}
FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}


class PredictionInput(LenientForm):
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
    prompt_strength: float = Field(0.8, description="Of `image`: 0 keeps it, 1 ignores it")
    input_image: str | None = None
    input_images: list[str | None] = Field(default_factory=list, description="Pictures to look at")

    @property
    def loras(self) -> tuple[tuple[str, float], ...]:
        """(name, scale) of each adapter."""
        named = ((self.lora_weights, self.lora_scale), (self.extra_lora, self.extra_lora_scale))
        return tuple((name, scale) for name, scale in named if name)


class PredictionRequest(LenientForm):
    """A request for a prediction. The model is named by `version` or by the path.

    Without a `webhook_events_filter`, the events `output` and `completed` are sent.
    """

    input: dict[str, Any]
    version: str | None = None
    webhook: str | None = None
    webhook_events_filter: list[str] = Field(default_factory=list, description=", ".join(KNOWN_EVENTS))
    stream: bool | None = None


def list_webhook_events(body: PredictionRequest) -> list[str]:
    """Return the events that are sent to the prediction's webhook, none without one. Raises InvalidRequest."""
    if not body.webhook:
        return []
    if unknown := set(body.webhook_events_filter) - set(KNOWN_EVENTS):
        message = f"webhook_events_filter: {', '.join(sorted(unknown))} is none of {', '.join(KNOWN_EVENTS)}."
        raise InvalidRequest(message, field="webhook_events_filter")
    asked = body.webhook_events_filter or ("output", "completed")
    return [event for event in EVENTS if event in asked]


def parse_size(form: PredictionInput) -> tuple[int | None, int | None]:
    """Return the requested width and height, or those of a megapixel with the aspect ratio. Raises InvalidRequest."""
    if form.width is not None or form.height is not None or form.aspect_ratio in {None, "match_input_image", "custom"}:
        return form.width, form.height
    area = AREAS.get(form.megapixels or "1")
    if area is None:
        raise InvalidRequest(f"megapixels must be {', '.join(AREAS)}.", field="megapixels")
    return size_of_ratio(str(form.aspect_ratio), area=area)
