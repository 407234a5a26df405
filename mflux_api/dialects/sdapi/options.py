"""/sdapi/v1/options: the options that SD-WebUI's clients read and write, stored in the job database."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mflux_api.dialects.sdapi.body import WrongKind, read_json_object
from mflux_api.dialects.sdapi.checkpoints import Checkpoints
from mflux_api.dialects.sdapi.errors import JSON, TAG, WebuiError
from mflux_api.errors import ModelNotFound, StorageFailed
from mflux_api.jobs.service import JobService
from mflux_api.web.context import HttpContext
from mflux_api.web.openapi import Endpoint

STORE_KEY = "sdapi.options"
CHECKPOINT = "sd_model_checkpoint"
# Options that clients read, with SD-WebUI's defaults. Only those of live previews have an effect here. The others are
# stored and returned. `forge_preset` must stay absent, or clients take the server for Forge.
DEFAULTS: Mapping[str, Any] = {
    "samples_save": True,
    "samples_format": "png",
    "save_images_add_number": True,
    "grid_save": False,
    "grid_format": "png",
    "enable_pnginfo": True,
    "save_txt": False,
    "jpeg_quality": 80,
    "webp_lossless": False,
    "export_for_4chan": False,
    "outdir_samples": "",
    "outdir_txt2img_samples": "",
    "outdir_img2img_samples": "",
    "outdir_extras_samples": "",
    "outdir_grids": "",
    "outdir_save": "",
    "sd_checkpoint_cache": 0,
    "sd_vae": "Automatic",
    "sd_vae_as_default": True,
    "sd_unet": "Automatic",
    "inpainting_mask_weight": 1.0,
    "initial_noise_multiplier": 1.0,
    "img2img_color_correction": False,
    "img2img_fix_steps": False,
    "img2img_background_color": "#ffffff",
    "return_mask": False,
    "return_mask_composite": False,
    "overlay_inpaint": True,
    "enable_quantization": False,
    "enable_emphasis": True,
    "enable_batch_seeds": True,
    "comma_padding_backtrack": 20,
    "CLIP_stop_at_last_layers": 1,
    "upcast_attn": False,
    "randn_source": "CPU",
    "tiling": False,
    "face_restoration": False,
    "face_restoration_model": "CodeFormer",
    "code_former_weight": 0.5,
    "upscaler_for_img2img": "None",
    "ESRGAN_tile": 192,
    "ESRGAN_tile_overlap": 8,
    "live_previews_enable": True,
    "show_progress_every_n_steps": 1,
    "live_preview_refresh_period": 1000,
    "show_progress_type": "Approx NN",
    "live_previews_image_format": "png",
    "interrogate_return_ranks": False,
    "extra_networks_default_multiplier": 1.0,
    "sd_lora": "None",
    "send_seed": True,
    "send_size": True,
    "eta_ancestral": 1.0,
    "eta_ddim": 0.0,
    "s_churn": 0.0,
    "s_tmin": 0.0,
    "s_noise": 1.0,
    "eta_noise_seed_delta": 0,
    "always_discard_next_to_last_sigma": False,
    "quicksettings_list": [CHECKPOINT],
    "disabled_extensions": [],
    "disable_all_extensions": "none",
    "add_model_hash_to_info": True,
    "add_model_name_to_info": True,
    "add_version_to_infotext": True,
}


class Options:
    """Handlers of the options, which are read from the database once and written with each change."""

    def __init__(self, service: JobService, context: HttpContext, checkpoints: Checkpoints) -> None:
        self.service = service
        self.context = context
        self.checkpoints = checkpoints
        self._changed: dict[str, Any] | None = None

    async def get_value(self, name: str) -> Any:
        return (await self._read_changed()).get(name, DEFAULTS.get(name))

    async def get_first_preview_step(self) -> int | None:
        """Return the first step with a live preview; None if live previews are off."""
        every = int(await self.get_value("show_progress_every_n_steps"))
        return every if every > 0 and await self.get_value("live_previews_enable") else None

    async def get_model(self) -> str:
        """Return the chosen checkpoint, or the server's default model if none is chosen or it no longer exists."""
        chosen = (await self._read_changed()).get(CHECKPOINT)
        found = None if chosen is None else await self.checkpoints.find(chosen)
        return found or self.service.models.default

    async def get_options(self, request: Request) -> Response:
        name = await self.get_model()
        hashed = await self.checkpoints.get_short_hash(name)
        return JSONResponse({**DEFAULTS, **await self._read_changed(), CHECKPOINT: name, "sd_checkpoint_hash": hashed})

    async def set_options(self, request: Request) -> Response:
        await self.update(await read_json_object(self.context.body, request))
        return JSONResponse(None)

    async def update(self, wanted: Mapping[str, Any]) -> None:
        """Set all options, or none if one fails. A checkpoint is loaded before anything is stored.

        Raises WebuiError for an unknown checkpoint, WrongKind, and the errors of loading a model.
        """
        stored = await self._read_changed()
        changed = {
            name: _validate(name, value) for name, value in wanted.items() if name in DEFAULTS and value is not None
        }
        if wanted.get(CHECKPOINT):
            changed[CHECKPOINT] = await self._load_checkpoint(str(wanted[CHECKPOINT]))
        if any(stored.get(name) != value for name, value in changed.items()):
            await self.service.queue.save_value(STORE_KEY, json.dumps({**stored, **changed}))
            self._changed = {**stored, **changed}

    async def _load_checkpoint(self, name: str) -> str:
        found = await self.checkpoints.find(name)
        if found is None:
            raise WebuiError(f"model {name!r} not found", name="RuntimeError", like=ModelNotFound)
        # A model that is not downloaded yet is downloaded by the first job.
        here = {entry.spec.name for entry in await self.checkpoints.list_available() if entry.is_downloaded}
        if found != await self.get_model() and found in here:
            await self.service.models.load(found)
        return found

    async def _read_changed(self) -> dict[str, Any]:
        if self._changed is None:
            text = await self.service.queue.load_value(STORE_KEY)
            self._changed = {} if text is None else json.loads(text)
        return self._changed

    def endpoints(self) -> list[Endpoint]:
        path = "/sdapi/v1/options"
        errors = (WebuiError, WrongKind, StorageFailed)
        return [
            Endpoint("GET", path, self.get_options, "SD-WebUI's options", TAG, JSON),
            Endpoint(
                "POST", path, self.set_options, "Set some of them; a checkpoint is loaded", TAG, JSON, errors=errors
            ),
        ]


def _validate(name: str, value: Any) -> Any:
    """Convert the value to the type of its default. Raises WrongKind."""
    try:
        return TypeAdapter(type(DEFAULTS[name])).validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        listed = {"loc": ["body", name], "msg": problem["msg"], "type": problem["type"]}
        raise WrongKind(f"{name}: {problem['msg']}.", [listed]) from None
