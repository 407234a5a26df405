"""/replicate/v1: the request bodies."""

from typing import Any

from pydantic import Field

from mflux_api.errors import InvalidRequest
from mflux_api.request import SIDE_STEP
from mflux_api.wire.lenient_form import LenientForm
from mflux_api.wire.order_form import LenientInt

# Webhook events in the order they happen. The event `logs` of Replicate is never sent.
EVENTS = ("start", "output", "completed")
KNOWN_EVENTS = (*EVENTS, "logs")
AREA = 1024 * 1024
FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}


class PredictionInput(LenientForm):
    """The inputs of FLUX models on Replicate. Unknown inputs are ignored."""

    prompt: str = Field(min_length=1)
    width: LenientInt | None = None
    height: LenientInt | None = None
    aspect_ratio: str | None = Field(None, description="W:H, of a megapixel")
    num_outputs: LenientInt = Field(1, ge=1)
    seed: LenientInt | None = None
    num_inference_steps: LenientInt | None = None
    guidance: float | None = Field(None, ge=0, le=100)
    output_format: str = "webp"
    image: str | None = Field(None, description="The picture to repaint: address or data URL")
    image_prompt: str | None = None
    prompt_upsampling: bool = Field(False, description="Let the model's text encoder put the prompt into more words")
    prompt_strength: float = Field(0.8, description="Of `image`: 0 keeps it, 1 ignores it")
    input_image: str | None = None
    input_images: list[str | None] = Field(default_factory=list, description="Pictures to look at")


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
    across, _, down = str(form.aspect_ratio).partition(":")
    if not (across.isdecimal() and down.isdecimal() and 0 < int(across) <= 100 and 0 < int(down) <= 100):
        raise InvalidRequest("aspect_ratio must be W:H, for example 16:9.", field="aspect_ratio")
    scale = (AREA / (int(across) * int(down))) ** 0.5
    sides = (round(int(side) * scale / SIDE_STEP) * SIDE_STEP for side in (across, down))
    return next(sides), next(sides)
