"""/sdapi/v1: the replies of txt2img and img2img in SD-WebUI's form."""

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mflux_api.checkpoints.families import SAMPLER
from mflux_api.dialects.sdapi.schema import Img2Img, SdapiRequest, Txt2Img
from mflux_api.jobs.job import Job
from mflux_api.pixels import infotext
from mflux_api.version import __version__

# SD-WebUI's default, shown if the request has no cfg_scale. The value in use is shown as `guidance`.
CFG_SCALE = 7.0
NOT_FOUND = "Networks not found"
# Names in an infotext that have their own keys in `info`.
NAMED_FACTS = frozenset(
    {
        *("Prompt", "Negative prompt", "Steps", "Sampler", "CFG scale", "Seed", "Size-1", "Size-2"),
        *("Model", "Model hash", "Denoising strength", "Variation seed", "Variation seed strength", "Version"),
    }
)


class GenerationReply(BaseModel):
    """The reply. `info` is a string that contains a JSON object, as SD-WebUI's clients expect."""

    model_config = ConfigDict(protected_namespaces=())

    images: list[str] = Field(description="PNG files in base64")
    parameters: dict[str, Any]
    info: str


@dataclass(frozen=True)
class FinishedJob:
    """A finished job, its form, and its pictures as PNG files. `unused`: networks of its prompt without effect."""

    form: SdapiRequest
    job: Job
    pictures: Sequence[bytes]
    unused: Sequence[str] = ()


def make_reply(done: FinishedJob) -> GenerationReply:
    shown = done.pictures if done.form.send_images else ()
    return GenerationReply(
        images=[base64.b64encode(data).decode("ascii") for data in shown],
        parameters=build_parameters(done.form, done.job),
        info=json.dumps(info(done)),
    )


def build_parameters(form: SdapiRequest, job: Job) -> dict[str, Any]:
    """Return the request with all missing fields filled. A seed of -1 stays; a missing seed becomes the one used."""
    request = job.request
    echo = form.model_dump(mode="json", exclude={"model", "seed", *form.DOCUMENTED})
    if isinstance(form, Img2Img) and not form.include_init_images:
        echo |= {"init_images": None, "mask": None}
    if isinstance(form, Txt2Img):
        del echo["init_images"], echo["mask"]
    width, height = request.requested_size
    guidance = _guidance(job)
    return {
        **echo,
        "seed": form.seed if form.seed is not None else request.seeds[0],
        "steps": request.steps,
        "width": width,
        "height": height,
        "cfg_scale": form.cfg_scale if form.cfg_scale is not None else CFG_SCALE,
        "batch_size": form.batch_size if form.batch_size is not None else len(request.seeds),
        "n_iter": form.n_iter if form.n_iter is not None else 1,
        "negative_prompt": form.negative_prompt or "",
        "denoising_strength": _strength(form, job),
        "sd_model_checkpoint": job.model,
        # The values in use, under the documented names.
        "model": job.model,
        "guidance": guidance,
        "num_images": len(request.seeds),
        "low_ram": job.low_ram,
        **({} if job.inputs.source is None else {"image_strength": request.strength}),
    }


def _guidance(job: Job) -> float:
    return job.pictures[0].guidance if job.pictures else job.request.guidance


def _strength(form: SdapiRequest, job: Job) -> float:
    if job.inputs.source is not None:
        return job.request.strength
    if job.request.hires is not None:
        return job.request.hires.strength
    return form.denoising_strength if form.denoising_strength is not None else 0.75


def info(done: FinishedJob) -> dict[str, Any]:
    """Return SD-WebUI's generation info, with all keys that its strictest client checks for."""
    job, request = done.job, done.job.request
    count = len(job.pictures)
    seeds = [picture.seed for picture in job.pictures]
    prompt, negative = request.said or (request.prompt, request.negative_prompt)
    width, height = request.requested_size
    varied = request.variation
    subseeds = seeds if varied is None else [varied.seed + index for index in range(count)]
    hires = request.hires
    facts = infotext.parse_infotext(job.pictures[0].text) if job.pictures else {}
    # SD-WebUI's own words for them.
    missing = {NOT_FOUND: ", ".join(done.unused)} if done.unused else {}
    notes = "".join(f". {name}: {names}" for name, names in missing.items())
    return {
        "message": f"Generated {count} image(s) in {job.seconds or 0.0:.1f}s{notes}",
        "prompt": prompt,
        "all_prompts": [prompt] * count,
        "negative_prompt": negative,
        "all_negative_prompts": [negative] * count,
        "seed": request.seeds[0],
        "all_seeds": seeds,
        "subseed": varied.seed if varied else request.seeds[0],
        "all_subseeds": subseeds,
        "subseed_strength": varied.strength if varied else 0,
        "width": width,
        "height": height,
        "sampler_name": SAMPLER,
        "cfg_scale": _guidance(job),
        "steps": request.steps,
        "batch_size": done.form.batch_size or len(request.seeds),
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": job.model,
        "sd_model_hash": facts.get("Model hash", ""),
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": request.strength if job.inputs.source else hires.strength if hires else None,
        "extra_generation_params": {
            **{name: value for name, value in facts.items() if name not in NAMED_FACTS},
            **missing,
        },
        "index_of_first_image": 0,
        "infotexts": [picture.text for picture in job.pictures],
        "styles": done.form.styles,
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(job.created)),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": f"mflux-api {__version__}",
    }
