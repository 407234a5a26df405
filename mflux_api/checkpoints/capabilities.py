"""What a model can do, as one value: what is offered, refused, shown and documented is read from it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

# How guidance works: two predictions, one of them for the negative prompt; an input of the network; built in, at 1.
Guidance: TypeAlias = Literal["cfg", "embedded", "fixed"]


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a model takes and makes.

    `from_words`: it paints without a picture to start from; `enlarges`: it is offered as an upscaler.
    `source`: a picture to repaint; `mask`: in a part of it; `references`: how many pictures it looks at, None for as
    many as the server allows; `cached_references`: it looks at them once, not at every step.
    `prompt_upsampling`: its text encoder can put a prompt into more words; `prompt_tokens`: the longest it reads.
    `fixed_steps`: `default_steps` are taken whatever is asked; `few_steps`: it was distilled to a few, so the server's
    own default is meant for it. Sides are in pixels: multiples of `size_step` from `smallest_side` up, best around
    `native_side`. `samplers`: SD-WebUI's names. `bits`: widths it is worth quantizing to while loading.
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
    """What the registry or a folder says of a model of a family; None where it says nothing.

    `distilled`: guidance is built in; `guidance_embeds`: guidance is an input of the network; `cached_references`:
    references are seen once; `overrides`: `distilled` holds whatever the folder says.
    """

    distilled: bool | None = None
    guidance_embeds: bool = False
    cached_references: bool | None = None
    overrides: bool = False
