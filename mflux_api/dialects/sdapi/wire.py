"""The shapes of /sdapi/v1: SD-WebUI's replies, filled with what FLUX.2 has to say."""

import base64
import json
import time
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from mflux_api.errors import MethodNotAllowed, MfluxError, NoSuchRoute
from mflux_api.forms import Names, PictureForm
from mflux_api.jobs.job import Job
from mflux_api.version import __version__
from mflux_api.web.faults import plain_shape

SAMPLER = "Euler"


class Img2Img(PictureForm):
    """As txt2img, with the picture to repaint."""

    init_images: Names = Field(min_length=1, description="The picture to repaint, in base64")


class Painted(BaseModel):
    """`info` is a string that holds a JSON object, as SD-WebUI's clients expect."""

    model_config = ConfigDict(protected_namespaces=())

    images: list[str] = Field(description="PNG files in base64")
    parameters: dict[str, Any]
    info: str


def painted(job: Job, pictures: Sequence[bytes]) -> Painted:
    return Painted(
        images=[base64.b64encode(data).decode("ascii") for data in pictures],
        parameters=parameters(job),
        info=json.dumps(info(job)),
    )


def parameters(job: Job) -> dict[str, Any]:
    """The request as it was carried out, under both families of names."""
    request = job.request
    guidance = job.pictures[0].guidance if job.pictures else request.guidance
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": request.seeds[0],
        "steps": request.steps,
        "model": job.model,
        "sd_model_checkpoint": job.model,
        "width": request.width,
        "height": request.height,
        "guidance": guidance,
        "cfg_scale": guidance,
        "num_images": len(request.seeds),
        "batch_size": len(request.seeds),
        "n_iter": 1,
        "sampler_name": SAMPLER,
        "low_ram": job.low_ram,
        **({} if job.inputs.source is None else _strength(request.strength)),
    }


def _strength(strength: float) -> dict[str, float]:
    return {"image_strength": strength, "denoising_strength": strength}


def info(job: Job) -> dict[str, Any]:
    """SD-WebUI's generation info; every key its strictest client checks for is there."""
    request, pictures = job.request, job.pictures
    seeds = [picture.seed for picture in pictures]
    seconds = job.seconds or 0.0
    return {
        "message": f"Generated {len(pictures)} image(s) in {seconds:.1f}s",
        "prompt": request.prompt,
        "all_prompts": [request.prompt] * len(pictures),
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": [request.negative_prompt] * len(pictures),
        "seed": request.seeds[0],
        "all_seeds": seeds,
        "subseed": request.seeds[0],
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": request.width,
        "height": request.height,
        "sampler_name": SAMPLER,
        "cfg_scale": pictures[0].guidance if pictures else request.guidance,
        "steps": request.steps,
        "batch_size": len(request.seeds),
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": job.model,
        "sd_model_hash": "",
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": None if job.inputs.source is None else request.strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [picture.text for picture in pictures],
        "styles": [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(job.created)),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": f"mflux-api {__version__}",
    }


def shape(error: MfluxError, request_id: str) -> JSONResponse:
    """The documented error with SD-WebUI's keys beside it; its clients compare `detail` with these very words."""
    words = {NoSuchRoute: "Not Found", MethodNotAllowed: "Method Not Allowed"}.get(type(error), error.message)
    content = json.loads(bytes(plain_shape(error, request_id).body))
    return JSONResponse({**content, "detail": words, "body": "", "errors": ""}, error.status)
