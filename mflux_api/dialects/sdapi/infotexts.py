"""/sdapi/v1: fill missing fields of a request from its `infotext`."""

from collections.abc import Mapping
from typing import Any, TypeVar

from mflux_api.dialects.sdapi.body import validate_form
from mflux_api.dialects.sdapi.schema import SdapiRequest, Txt2Img
from mflux_api.pixels import infotext

P = TypeVar("P", bound=SdapiRequest)
FIELDS = {
    "Prompt": "prompt",
    "Negative prompt": "negative_prompt",
    "Steps": "steps",
    "Sampler": "sampler_name",
    "Schedule type": "scheduler",
    "CFG scale": "cfg_scale",
    "Seed": "seed",
    "Size-1": "width",
    "Size-2": "height",
    "Model": "sd_model_checkpoint",
    "Denoising strength": "denoising_strength",
    "Variation seed": "subseed",
    "Variation seed strength": "subseed_strength",
}
HIRES = {
    "Hires upscale": "hr_scale",
    "Hires resize-1": "hr_resize_x",
    "Hires resize-2": "hr_resize_y",
    "Hires steps": "hr_second_pass_steps",
    "Hires upscaler": "hr_upscaler",
    "Hires prompt": "hr_prompt",
    "Hires negative prompt": "hr_negative_prompt",
}


def fill_from_infotext(form: P) -> P:
    """Return the form with missing fields filled from its infotext. Raises the errors of `validate_form`."""
    if form.infotext is None:
        return form
    facts = infotext.parse_infotext(form.infotext)
    found: dict[str, Any] = {field: facts[name] for name, field in FIELDS.items() if facts.get(name)}
    found.setdefault("prompt", "")
    # The infotext may name a model of another server, which must not cause an error.
    found.pop("sd_model_checkpoint", None)
    if isinstance(form, Txt2Img):
        found |= _hires_fields(facts)
    given = form.model_dump(exclude_unset=True)
    return validate_form(type(form), {**found, **given})


def _hires_fields(facts: Mapping[str, str]) -> dict[str, Any]:
    if not ("Hires upscale" in facts or "Hires resize-1" in facts):
        return {}
    return {"enable_hr": True, **{field: facts[name] for name, field in HIRES.items() if facts.get(name)}}
