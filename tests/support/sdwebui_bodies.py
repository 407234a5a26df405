"""Request bodies of SD-WebUI's clients, with their exact fields and types; only sizes and steps are smaller."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Body = dict[str, Any]
PREFIX = "data:image/png;base64,"
SIDE = {"width": 64, "height": 64}


def encode_base64(image: Image.Image, prefix: str = "") -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return prefix + base64.b64encode(buffer.getvalue()).decode()


def decode_image(text: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
    image.load()
    return image


def pixels(image: Image.Image) -> NDArray[np.int_]:
    return np.asarray(image.convert("RGB")).astype(int)


def noise(width: int = 64, height: int = 64) -> Image.Image:
    return Image.effect_noise((width, height), 60).convert("RGB")


def half_mask(width: int = 64, height: int = 64, mode: str = "L") -> Image.Image:
    """Return a mask whose right half is white."""
    mask = Image.new(mode, (width, height), "black")
    mask.paste("white", (width // 2, 0, width, height))
    return mask


def open_webui(prompt: str, n: int) -> Body:
    return {"prompt": prompt, "batch_size": n, **SIDE}


def silly_tavern() -> Body:
    """Body of its extension. Its server forwards it with `url` and `auth` still inside."""
    return {
        "url": "http://localhost:7860",
        "auth": "",
        "prompt": "best quality, absurdres, masterpiece, a red circle",
        "negative_prompt": "lowres, bad anatomy, bad hands",
        "sampler_name": "DDIM",
        "scheduler": "normal",
        "steps": 2,
        "cfg_scale": 7,
        **SIDE,
        "restore_faces": False,
        "enable_hr": False,
        "hr_upscaler": "Latent",
        "hr_scale": 1,
        "hr_additional_modules": [],
        "denoising_strength": 0.7,
        "hr_second_pass_steps": 0,
        "seed": -1,
        "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"},
        "override_settings_restore_afterwards": True,
        "clip_skip": 1,
        "save_images": True,
        "send_images": True,
        "do_not_save_grid": False,
        "do_not_save_samples": False,
    }


def libre_chat() -> Body:
    words = {"prompt": "photo of a man in black clothes", "negative_prompt": "semi-realistic, cgi, 3d"}
    return {**words, "cfg_scale": 4.5, "steps": 2, **SIDE}


def text_generation_webui() -> Body:
    return {
        "prompt": "(Masterpiece:1.1), detailed, intricate, colorful(a red circle:1)",
        "seed": -1,
        "sampler_name": "DPM++ 2M",
        "enable_hr": True,
        "hr_scale": "1.0",
        "hr_upscaler": "ESRGAN_4x",
        "denoising_strength": 0.61,
        "steps": 2,
        "cfg_scale": 7,
        **SIDE,
        "restore_faces": False,
        "override_settings_restore_afterwards": True,
        "negative_prompt": "(worst quality, low quality:1.3)",
    }


def photoshop(**mode: object) -> Body:
    """Photoshop plugin.

    Its own fields: selection_info, mask_expansion, expanded_mask, uniqueDocumentId, mode, backend_type and more.
    """
    return {
        "selection_info": {"left": 0, "top": 0, "right": 64, "bottom": 64, "width": 64, "height": 64},
        "alwayson_scripts": {},
        "prompt": "a red circle",
        "negative_prompt": "ugly",
        "steps": 2,
        "cfg_scale": 7,
        **SIDE,
        "denoising_strength": 0.7,
        "batch_size": 1,
        "seed": "7",
        "mask_blur": 4.0,
        "use_sharp_mask": False,
        "use_prompt_shortcut": False,
        "prompt_shortcut_ui_dict": {},
        "uniqueDocumentId": "5f1a",
        "mode": "txt2img",
        "sampler_index": "Euler a",
        "restore_faces": False,
        "backend_type": "auto1111",
        "script_args": [],
        "enable_hr": True,
        "hr_scale": 1.5,
        "hr_upscaler": "Latent",
        "hr_second_pass_steps": 1.5,
        **mode,
    }


def aiyabot(style: str, **more: object) -> Body:
    return {
        "prompt": "a red circle",
        "negative_prompt": "",
        "steps": 2,
        **SIDE,
        "cfg_scale": "7.0",
        "sampler_index": "Euler a",
        "seed": 7,
        "seed_resize_from_h": 0,
        "seed_resize_from_w": 0,
        "denoising_strength": None,
        "n_iter": 1,
        "styles": [style],
        "override_settings": {"CLIP_stop_at_last_layers": 1},
        **more,
    }


def ai_render(source: str) -> Body:
    """AI Render for Blender. `sampler` and `image_similarity` are its own fields."""
    return {
        "prompt": "a red circle",
        "negative_prompt": "ugly, bad art",
        **SIDE,
        "image_similarity": 0.4,
        "seed": 7,
        "cfg_scale": 7.0,
        "steps": 2,
        "sampler": "LMS",
        "init_images": [source],
        "denoising_strength": 0.6,
        "sampler_index": "LMS",
    }


def gimp(**mode: object) -> Body:
    """GIMP plugin. It sends slider values as floats and the seed as text."""
    return {
        "prompt": "a red circle",
        "negative_prompt": "",
        "steps": 2.0,
        "sampler_index": "Euler a",
        "batch_size": 2,
        "cfg_scale": 7.5,
        "seed": "-1",
        "restore_faces": False,
        **SIDE,
        **mode,
    }


def n8n() -> Body:
    words = {"prompt": "a red circle", "negative_prompt": ""}
    return {**words, **SIDE, "steps": 2, "cfg_scale": 7, "seed": -1}


def suite_txt2img(**case: object) -> Body:
    """Body that SD-WebUI's own tests start from."""
    return {
        "batch_size": 1,
        "cfg_scale": 7,
        "denoising_strength": 0,
        "enable_hr": False,
        "eta": 0,
        "firstphase_height": 0,
        "firstphase_width": 0,
        "height": 64,
        "n_iter": 1,
        "negative_prompt": "",
        "prompt": "example prompt",
        "restore_faces": False,
        "s_churn": 0,
        "s_noise": 1,
        "s_tmax": 0,
        "s_tmin": 0,
        "sampler_index": "Euler a",
        "seed": -1,
        "seed_resize_from_h": -1,
        "seed_resize_from_w": -1,
        "steps": 3,
        "styles": [],
        "subseed": -1,
        "subseed_strength": 0,
        "tiling": False,
        "width": 64,
        **case,
    }


def suite_img2img(source: str, mask: str | None = None, **case: object) -> Body:
    return {
        "batch_size": 1,
        "cfg_scale": 7,
        "denoising_strength": 0.75,
        "eta": 0,
        "height": 64,
        "include_init_images": False,
        "init_images": [source],
        "inpaint_full_res": False,
        "inpaint_full_res_padding": 0,
        "inpainting_fill": 0,
        "inpainting_mask_invert": False,
        "mask": mask,
        "mask_blur": 4,
        "n_iter": 1,
        "negative_prompt": "",
        "override_settings": {},
        "prompt": "example prompt",
        "resize_mode": 0,
        "restore_faces": False,
        "s_churn": 0,
        "s_noise": 1,
        "s_tmax": 0,
        "s_tmin": 0,
        "sampler_index": "Euler a",
        "seed": -1,
        "seed_resize_from_h": -1,
        "seed_resize_from_w": -1,
        "steps": 3,
        "styles": [],
        "subseed": -1,
        "subseed_strength": 0,
        "tiling": False,
        "width": 64,
        **case,
    }


def suite_extras(source: str) -> Body:
    return {
        "resize_mode": 0,
        "show_extras_results": True,
        "gfpgan_visibility": 0,
        "codeformer_visibility": 0,
        "codeformer_weight": 0,
        "upscaling_resize": 2,
        "upscaling_resize_w": 128,
        "upscaling_resize_h": 128,
        "upscaling_crop": True,
        "upscaler_1": "Lanczos",
        "upscaler_2": "None",
        "extras_upscaler_2_visibility": 0,
        "image": source,
    }
