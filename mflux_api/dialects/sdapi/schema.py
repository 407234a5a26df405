"""/sdapi/v1: request models with all fields of SD-WebUI, validated leniently, and the documented fields."""

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, AliasChoices, BeforeValidator, ConfigDict, Field

from mflux_api.checkpoints.families import SAMPLER
from mflux_api.wire.lenient_form import LenientForm
from mflux_api.wire.order_form import LenientInt, PictureForm, StringList

UPSCALE_SCRIPT = "sd upscale"
IGNORED = "Taken and ignored: it means nothing to FLUX.2, or nothing here"
# Scripts of SD-WebUI that a client may list. They are ignored: the server already does this, or FLUX.2 cannot use it.
BUILT_IN = frozenset(
    {"controlnet", "refiner", "seed", "sampler", "hypertile", "comments", "extra options", "soft inpainting"}
)


def _bool_to_int(value: object) -> object:
    """Convert a boolean to 0 or 1."""
    return int(value) if isinstance(value, bool) else value


def _empty_list_to_mapping(value: object) -> object:
    """Convert [] to {}, because PHP and Lua write an empty object as []."""
    return {} if value == [] else value


def _clamp_to_zero(value: int) -> int:
    return max(0, value)


def _null_to_empty(value: object) -> object:
    return "" if value is None else value


# null is an empty prompt, but a prompt that was sent.
Prompt = Annotated[str, BeforeValidator(_null_to_empty)]
Flag = Annotated[LenientInt, BeforeValidator(_bool_to_int)]
Count = Annotated[LenientInt, AfterValidator(_clamp_to_zero)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_empty_list_to_mapping)]


class LenientModel(LenientForm):
    """A model in which null fields count as missing. An empty text is a value in SD-WebUI."""

    model_config = ConfigDict(
        extra="ignore", allow_inf_nan=False, coerce_numbers_to_str=True, protected_namespaces=(), populate_by_name=True
    )

    ABSENT: ClassVar[tuple[object, ...]] = (None,)


class SdapiRequest(LenientModel, PictureForm):
    """Fields of both txt2img and img2img. Defaults are those of SD-WebUI where FLUX.2 has none of its own."""

    model_config = ConfigDict(json_schema_extra={"required": ["prompt"]})

    # Fields of the documented API that SD-WebUI does not have. A client that sends one follows that documentation.
    DOCUMENTED: ClassVar[tuple[str, ...]] = (
        *("model", "guidance", "num_images", "lora_files", "lora_scales", "low_ram", "image_strength"),
    )

    prompt: Prompt = Field("", description="What the picture shows, in SD-WebUI's syntax; it may be empty")
    styles: StringList = Field(default_factory=list, description="Names from prompt-styles; others are ignored")
    subseed: LenientInt = Field(-1, description="The seed of a variation")
    subseed_strength: float = Field(0.0, description="0 is `seed` alone, 1 `subseed` alone")
    seed_resize_from_h: LenientInt = Field(-1, description=IGNORED)
    seed_resize_from_w: LenientInt = Field(-1, description=IGNORED)
    sampler_name: str | None = Field(None, description=IGNORED)
    sampler_index: str = Field(SAMPLER, description=IGNORED)
    scheduler: str | None = Field(None, description=IGNORED)
    restore_faces: bool | None = Field(None, description=IGNORED)
    tiling: bool | None = Field(None, description=IGNORED)
    do_not_save_samples: bool = Field(False, description=IGNORED)
    do_not_save_grid: bool = Field(False, description=IGNORED)
    eta: float | None = Field(None, description=IGNORED)
    s_min_uncond: float | None = Field(None, description=IGNORED)
    s_churn: float | None = Field(None, description=IGNORED)
    s_tmax: float | None = Field(None, description=IGNORED)
    s_tmin: float | None = Field(None, description=IGNORED)
    s_noise: float | None = Field(None, description=IGNORED)
    override_settings: JsonObject = Field(default_factory=dict, description="Options for this request alone")
    override_settings_restore_afterwards: bool = Field(True, description="false: keep those options")
    refiner_checkpoint: str | None = Field(None, description=IGNORED)
    refiner_switch_at: float | None = Field(None, description=IGNORED)
    disable_extra_networks: bool = Field(False, description="Take <lora:...> tags out and use none of them")
    firstpass_image: str | None = Field(None, description=IGNORED)
    comments: JsonObject | None = Field(None, description=IGNORED)
    script_name: str | None = Field(None, description="img2img: sd upscale")
    script_args: list[Any] = Field(default_factory=list, description='of sd upscale: "", overlap, upscaler, scale')
    alwayson_scripts: JsonObject = Field(default_factory=dict, description="SD-WebUI's own are taken and ignored")
    send_images: bool = Field(True, description="false: reply without the pictures, which are kept all the same")
    save_images: bool = Field(False, description=IGNORED)
    infotext: str | None = Field(None, description="Generation data; what the request leaves out is taken from it")
    force_task_id: str | None = Field(None, description="A name for /internal/progress")

    KEPT: ClassVar[frozenset[str]] = frozenset({"prompt"})
    SHARED: ClassVar[tuple[str, ...]] = (
        *("prompt", "negative_prompt", "seed", "width", "height", "steps", "sd_model_checkpoint"),
        *("init_images", "mask", "extra_images", "priority"),
    )

    @property
    def has_webui_fields(self) -> bool:
        """Whether the request uses fields that only SD-WebUI has, and no documented field."""
        return not self.has_documented_fields and bool(self.model_fields_set - set(self.SHARED))

    @property
    def has_documented_fields(self) -> bool:
        """Whether the request uses fields that only the documented API has."""
        return any(name in self.model_fields_set for name in self.DOCUMENTED)


class Txt2Img(SdapiRequest):
    """A prompt to turn into pictures, with an optional second pass that enlarges and repaints them."""

    enable_hr: bool = Field(False, description="Enlarge the picture and paint it over")
    firstphase_width: LenientInt = Field(0, description=IGNORED)
    firstphase_height: LenientInt = Field(0, description=IGNORED)
    hr_scale: float = Field(2.0, description="The enlarged picture's sides, as a factor up to 16")
    hr_upscaler: str | None = Field(None, description="A name from upscalers or latent-upscale-modes")
    hr_second_pass_steps: Count = Field(0, description="0: as many as the first pass")
    hr_resize_x: Count = Field(0, description="Its width in pixels instead")
    hr_resize_y: Count = Field(0, description="Its height in pixels instead")
    hr_checkpoint_name: str | None = Field(None, description=IGNORED)
    hr_sampler_name: str | None = Field(None, description=IGNORED)
    hr_scheduler: str | None = Field(None, description=IGNORED)
    hr_prompt: str = Field("", description="The second pass's own prompt")
    hr_negative_prompt: str = Field("", description="The second pass's own negative prompt")


class Img2Img(SdapiRequest):
    """Pictures to repaint, completely or where the mask is white."""

    resize_mode: Flag = Field(0, description="0 distort, 1 cover and cut, 2 fit and fill, 3 distort as latents")
    image_cfg_scale: float | None = Field(None, description=IGNORED)
    mask_blur_x: float = Field(4.0, description="Across")
    mask_blur_y: float = Field(4.0, description="Down")
    mask_blur: float | None = Field(None, description="Sigma of the mask's edge, in pixels, up to 1024")
    mask_round: bool = Field(True, description=IGNORED)
    inpainting_fill: Flag = Field(0, description="0 surroundings, 1 original, 2 noise, 3 nothing")
    inpaint_full_res: bool = Field(True, description="Paint only the masked part, at full size")
    inpaint_full_res_padding: Count = Field(0, description="Pixels around the masked part that are seen")
    inpainting_mask_invert: Flag = Field(0, description="1: repaint where the mask is black")
    initial_noise_multiplier: float | None = Field(None, description=IGNORED)
    latent_mask: str | None = Field(None, description=IGNORED)
    include_init_images: bool = Field(False, description="Give the pictures back in `parameters`")


class SingleExtra(LenientModel):
    """A picture to enlarge."""

    resize_mode: Flag = Field(0, description="0 by a factor, 1 to a size")
    show_extras_results: bool = True
    gfpgan_visibility: float = 0.0
    codeformer_visibility: float = 0.0
    codeformer_weight: float = 0.0
    upscaling_resize: float = Field(2.0, description="of resize_mode 0, up to 16")
    upscaling_resize_w: LenientInt = Field(512, description="of resize_mode 1, in pixels")
    upscaling_resize_h: LenientInt = Field(512, description="of resize_mode 1, in pixels")
    upscaling_crop: bool = True
    upscaler_1: str = "None"
    upscaler_2: str = "None"
    extras_upscaler_2_visibility: float = Field(0.0, description="of upscaler_2, from 0 to 1")
    upscale_first: bool = False
    image: str = ""


class NamedPicture(LenientModel):
    """A picture in base64 with a name. One client sends `image` instead of `data`."""

    data: str = Field(validation_alias=AliasChoices("data", "image"))
    name: str = ""


class BatchExtra(SingleExtra):
    """Pictures to enlarge."""

    image_list: list[NamedPicture] = Field(alias="imageList", max_length=64)


class PngInfo(LenientModel):
    image: str
