"""The capabilities of a model. The catalogue, request checks, page and documentation all read them from here."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

# How guidance works. cfg: two predictions a step, one of them for the negative prompt. embedded: an input of the
# network. fixed: built in, always 1.
Guidance: TypeAlias = Literal["cfg", "embedded", "fixed"]


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a model accepts and produces.

    `from_words`: text to image is supported; `enlarges`: offered as an upscaler. `source`: can repaint a picture;
    `mask`: can repaint a part of it. `references`: the number of reference pictures, None for as many as the server
    allows; `cached_references`: they are processed once instead of at every step. `prompt_upsampling`: the text encoder
    can rewrite a prompt in more detail; `prompt_tokens`: the longest prompt. `fixed_steps`: `default_steps` are used
    whatever is requested; `few_steps`: distilled to a few steps, so the server's default applies. Sides are in pixels:
    multiples of `size_step`, at least `smallest_side`, best around `native_side`. `samplers`: SD-WebUI's names.
    `bits`: bit widths offered for quantization while loading.
    """

    from_words: bool
    enlarges: bool
    source: bool
    mask: bool
    references: int | None
    cached_references: bool
    loras: bool
    guidance: Guidance
    default_guidance: float
    negative_prompt: bool
    prompt_upsampling: bool
    prompt_tokens: int
    fixed_steps: bool
    few_steps: bool
    default_steps: int
    size_step: int
    smallest_side: int
    native_side: int
    samplers: tuple[str, ...]
    bits: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Properties of a model as set by the registry or its folder. None means not set.

    `distilled`: guidance is built in. `guidance_embeds`: guidance is an input of the network. `cached_references`:
    references are processed once. `overrides`: `distilled` takes precedence over the folder.
    """

    distilled: bool | None = None
    guidance_embeds: bool = False
    cached_references: bool | None = None
    overrides: bool = False
