"""/sdapi/v1: build orders from SD-WebUI's fields, with the meaning they have in SD-WebUI."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from mflux_api.dialects.sdapi import prompt as syntax
from mflux_api.dialects.sdapi import styles
from mflux_api.dialects.sdapi.errors import ScriptNotFound, WebuiError
from mflux_api.dialects.sdapi.prompt_editing import parse_schedule as schedule_of
from mflux_api.dialects.sdapi.schema import BUILT_IN, UPSCALE_SCRIPT, Img2Img, SdapiRequest, Txt2Img
from mflux_api.dialects.sdapi.styles import Style
from mflux_api.errors import InvalidImage, InvalidRequest
from mflux_api.jobs.order import RANDOM_SEEDS, Order
from mflux_api.models.loras import LoraFile, find_lora
from mflux_api.pixels.enlarging import FILTERS, LANCZOS, LATENT_UPSCALERS
from mflux_api.request import (
    SMALLEST_SIDE,
    Emphasis,
    Fill,
    Hires,
    InpaintOptions,
    Resize,
    Tiles,
    Variation,
    count_repaint_steps,
)
from mflux_api.web.pictures import PictureReader, is_url
from mflux_api.wire.order_form import DEFAULT_STRENGTH
from mflux_api.wire.ranges import check_factor, check_range

# Sizes in SD-WebUI are multiples of 8 pixels.
WEBUI_SIDE_STEP = 8
LARGEST_SUBSEED = 2**63
LARGEST_FACTOR = 16
LARGEST_BLUR = 1024
# Larger weights only break the picture.
MAX_EMPHASIS = 3.0
Spans: TypeAlias = tuple[tuple[int, int, float], ...]
RESIZE_MODES: tuple[Resize, ...] = ("stretch", "crop", "fill", "latent")
FILL_MODES: tuple[Fill, ...] = ("surroundings", "original", "noise", "zero")
DEFAULT_HIRES = "Latent"


@dataclass(frozen=True)
class ServerResources:
    """What a form may refer to: styles, names of adapters, the chosen checkpoint and the default number of steps."""

    styles: Sequence[Style]
    loras: Sequence[LoraFile]
    model: str | None
    steps: int


async def build_order(form: SdapiRequest, pictures: PictureReader, owner: str, resources: ServerResources) -> Order:
    """Build the order. Raises InvalidRequest, InvalidImage, ScriptNotFound, WebuiError."""
    _check_scripts(form)
    plain = await _build_documented_order(form, pictures, owner)
    original_prompts = styles.apply_styles(form.prompt, form.negative_prompt or "", form.styles, resources.styles)
    worded = _apply_prompt_syntax(
        replace(plain, model=plain.model or resources.model), original_prompts, form, resources
    )
    sized = replace(worded, exact=_takes_size(form))
    match form:
        case Txt2Img(enable_hr=True):
            return replace(sized, hires=_build_hires(form))
        case Img2Img():
            return _apply_img2img(sized, form)
    return sized


async def _build_documented_order(form: SdapiRequest, pictures: PictureReader, owner: str) -> Order:
    """Build the order from the documented fields. Only img2img keeps its pictures."""
    single: SdapiRequest
    if isinstance(form, Img2Img):
        _check_pictures(form)
        unused = {"mask": None} if _is_upscale_script(form) else {}
        single = form.model_copy(update={"init_images": form.init_images[:1], **unused})
    else:
        # Clients send the fields of img2img to txt2img too, which has no picture to repaint.
        single = form.model_copy(update={"init_images": [], "mask": None})
    try:
        plain = await single.build_order(pictures, owner, None)
        further = [await pictures.read_base64(text, "init_images") for text in form.init_images[1:]]
    except InvalidImage as error:
        if form.has_documented_fields or "pixels" in error.message:
            raise
        raise WebuiError(_unreadable_message(form), name="HTTPException", like=InvalidImage) from None
    return replace(plain, further_sources=tuple(further)) if isinstance(form, Img2Img) else plain


def _unreadable_message(form: SdapiRequest) -> str:
    """Return SD-WebUI's message. URLs are never fetched: they could point into the server's own network."""
    texts = (*form.init_images, *form.extra_images, form.mask or "")
    return "Requests not allowed" if any(map(is_url, texts)) else "Invalid encoded image"


def _check_pictures(form: Img2Img) -> None:
    if form.init_images:
        if len(form.init_images) > max(1, form.batch_size or 1):
            raise WebuiError("bad number of images passed", name="RuntimeError", like=InvalidRequest)
        return
    if form.has_documented_fields:
        raise InvalidRequest("init_images: a picture to repaint is needed.", field="init_images")
    raise WebuiError("Init image not found", name="HTTPException", like=InvalidRequest, status=404)


def _check_scripts(form: SdapiRequest) -> None:
    known = {UPSCALE_SCRIPT} if isinstance(form, Img2Img) else set()
    if form.script_name and form.script_name.lower() not in known:
        raise ScriptNotFound(f"Script '{form.script_name}' not found", script=form.script_name)
    for name, script in form.alwayson_scripts.items():
        if name.lower() in known:
            raise ScriptNotFound(f"Cannot have a selectable script in the always on scripts params: {name}")
        if name.lower() not in BUILT_IN or (name.lower() == "controlnet" and _has_enabled_unit(script)):
            raise ScriptNotFound(f"Script '{name}' not found", script=name)


def _has_enabled_unit(script: Any) -> bool:
    """Whether a ControlNet unit is enabled. Units are enabled by default."""
    units = script.get("args") if isinstance(script, Mapping) else None
    return isinstance(units, list) and any(isinstance(unit, Mapping) and unit.get("enabled", True) for unit in units)


def _apply_prompt_syntax(
    plain: Order, original_prompts: tuple[str, str], form: SdapiRequest, resources: ServerResources
) -> Order:
    """Remove the syntax from the prompts, and add the adapters of tags to those of `lora_files`."""
    if _is_json_prompt(original_prompts[0]):
        return replace(
            plain,
            prompt=original_prompts[0],
            negative_prompt=original_prompts[1],
            said=original_prompts,
            variation=_build_variation(form),
        )
    words, tags = syntax.extract_loras(original_prompts[0])
    negative, _ = syntax.extract_loras(original_prompts[1])
    steps = max(1, plain.steps if plain.steps is not None else resources.steps)
    if isinstance(form, Img2Img):
        steps = max(1, count_repaint_steps(steps, plain.strength))
    emphasis: dict[str, Spans] = {}
    schedule = tuple((last, _extract_emphasis(text, emphasis)) for last, text in schedule_of(words, steps))
    changing = schedule if len({text for _, text in schedule}) > 1 else ()
    return replace(
        plain,
        prompt=schedule[-1][1],
        negative_prompt=_extract_emphasis(schedule_of(negative, steps)[-1][1], emphasis),
        schedule=changing,
        emphasis=tuple(Emphasis(text=text, spans=spans) for text, spans in emphasis.items()),
        said=original_prompts,
        loras=(*plain.loras, *(() if form.disable_extra_networks else _match_adapters(tags, resources.loras))),
        variation=_build_variation(form),
    )


def _extract_emphasis(text: str, emphasis: dict[str, Spans]) -> str:
    """Return the text without emphasis syntax, and store its weights in `emphasis`."""
    words, spans = syntax.parse_emphasis(text)
    limited = tuple((start, end, min(MAX_EMPHASIS, max(0.0, weight))) for start, end, weight in spans)
    if limited:
        emphasis[words] = limited
    return words


def _is_json_prompt(text: str) -> bool:
    """Whether the prompt is a JSON object, which FLUX.2 understands. Its brackets are not emphasis."""
    try:
        return text.lstrip().startswith("{") and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _match_adapters(tags: Sequence[tuple[str, float]], files: Sequence[LoraFile]) -> list[tuple[str, float]]:
    """Find the adapters of tags. Unknown ones are skipped, and reported by `find_unused_networks`."""
    found = ((find_lora(name, files), weight) for name, weight in tags)
    return [(file.name, max(-10.0, min(10.0, weight))) for file, weight in found if file is not None]


def find_unused_networks(form: SdapiRequest, resources: ServerResources) -> list[str]:
    """Return the names in tags that have no effect: unknown adapters, and those that only other prompts name."""
    prompt, negative = styles.apply_styles(form.prompt, form.negative_prompt or "", form.styles, resources.styles)
    if form.disable_extra_networks or _is_json_prompt(prompt):
        return []
    used = {name for name, _ in syntax.extract_loras(prompt)[1] if find_lora(name, resources.loras)}
    others = [form.hr_prompt, form.hr_negative_prompt] if isinstance(form, Txt2Img) and form.enable_hr else []
    named = [name for text in (prompt, negative, *others) for name in syntax.list_networks(text)]
    return [name for name in dict.fromkeys(named) if name not in used]


def _build_variation(form: SdapiRequest) -> Variation | None:
    share = max(0.0, min(1.0, form.subseed_strength))
    if share == 0:
        return None
    seed = form.subseed if form.subseed >= 0 else random.randrange(RANDOM_SEEDS)
    return Variation(seed=min(seed, LARGEST_SUBSEED), strength=share)


def _takes_size(form: SdapiRequest) -> bool:
    """Whether any size is painted, as in SD-WebUI. The documented API takes those that SD-WebUI's page offers."""
    sides = [side for side in (form.width, form.height) if side is not None]
    return not form.has_documented_fields or all(
        side >= SMALLEST_SIDE and side % WEBUI_SIDE_STEP == 0 for side in sides
    )


def _build_hires(form: Txt2Img) -> Hires:
    width, height, upscaler = form.hr_resize_x, form.hr_resize_y, form.hr_upscaler or DEFAULT_HIRES
    first = (form.width or 512, form.height or 512)
    if not (width or height):
        check_factor("hr_scale", form.hr_scale, LARGEST_FACTOR)
    strength = form.denoising_strength if form.denoising_strength is not None else DEFAULT_STRENGTH
    check_range("denoising_strength", strength, 0, 1)
    if width and not height:
        height = max(1, width * first[1] // first[0])
    elif height and not width:
        width = max(1, height * first[0] // first[1])
    return Hires(
        width=width,
        height=height,
        scale=form.hr_scale,
        resized=bool(width),
        steps=form.hr_second_pass_steps,
        strength=strength,
        # Presets of clients may name upscalers that do not exist here. Lanczos replaces them.
        upscaler=upscaler if upscaler in {*LATENT_UPSCALERS, *FILTERS} else LANCZOS,
        prompt=_strip_prompt_syntax(form.hr_prompt),
        negative_prompt=_strip_prompt_syntax(form.hr_negative_prompt),
    )


def _strip_prompt_syntax(text: str) -> str | None:
    words, _ = syntax.extract_loras(text)
    return syntax.strip_emphasis(words) or None


def _is_upscale_script(form: Img2Img) -> bool:
    return (form.script_name or "").lower() == UPSCALE_SCRIPT


def _apply_img2img(plain: Order, form: Img2Img) -> Order:
    if _is_upscale_script(form):
        return replace(plain, mask=None, count=1, further_sources=(), tiles=_parse_tiles(form.script_args))
    if plain.mask is None:
        return replace(
            plain, retouch=InpaintOptions(resize=_choose_by_number(RESIZE_MODES, form.resize_mode, "resize_mode"))
        )
    blur = (form.mask_blur_x, form.mask_blur_y) if form.mask_blur is None else (form.mask_blur, form.mask_blur)
    for sigma in blur:
        check_range("mask_blur", sigma, 0, LARGEST_BLUR)
    return replace(
        plain,
        retouch=InpaintOptions(
            resize=_choose_by_number(RESIZE_MODES, form.resize_mode, "resize_mode"),
            fill=_choose_by_number(FILL_MODES, form.inpainting_fill, "inpainting_fill"),
            invert=bool(form.inpainting_mask_invert),
            blur=blur,
            closeup=form.inpaint_full_res_padding if form.inpaint_full_res else None,
        ),
    )


def _choose_by_number(names: Sequence[Any], number: int, field: str) -> Any:
    if not 0 <= number < len(names):
        raise InvalidRequest(f"{field} must be from 0 to {len(names) - 1}, not {number}.", field=field)
    return names[number]


def _parse_tiles(arguments: Sequence[Any]) -> Tiles:
    """Read `["", overlap, upscaler, scale]`, the arguments of the script, with its defaults. Raises InvalidRequest."""
    usual: tuple[Any, ...] = ("", 64, LANCZOS, 2.0)
    _, overlap, upscaler, scale = [*arguments[:4], *usual[len(arguments) :]]
    try:
        tiles = Tiles(overlap=int(overlap), upscaler=str(upscaler), scale=float(scale))
    except (TypeError, ValueError):
        tiles = None
    if tiles is None or not 0 <= tiles.overlap <= 256 or not 1 <= tiles.scale <= 4:
        raise InvalidRequest(
            'script_args of sd upscale are ["", overlap 0 to 256, upscaler, scale 1 to 4].', field="script_args"
        )
    return tiles
