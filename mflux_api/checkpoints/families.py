"""The families of models: how their folders are recognized, read, weighed and loaded, and what their models can do.

How a family is added:

1. Write `engine/NAME/`: a function that loads a checkpoint and returns a `LoadedPipeline` (engine/loaded_pipeline.py).
2. Write what can be read from its folders without MLX into `checkpoints/NAME.py`: file names, configs, memory.
3. List what its models can do here, a `Capabilities` for each variant, and its sampler if it is another one.
4. Add a `Family` to FAMILIES; `load` and `save` are addresses in the engine, "module:function", imported by the engine.
5. Add its models to configs/models.yaml with `family: NAME`, their repositories, sizes and licences.
6. Run tests/catalogue/test_families.py: it prints the table that docs/models.md must have.
The catalogue, the refusals, /api/v1/models, the page, `doctor` and OpenAPI need no change: they read this table. A new
thing that a model may be able to do is a field of `Capabilities`, and of `ModelCapabilities` in dialects/native/models.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from mflux_api.checkpoints import seedvr2
from mflux_api.checkpoints.capabilities import Capabilities, ModelFacts
from mflux_api.checkpoints.checkpoint import DEFAULT_MAX_SEQUENCE_LENGTH, Checkpoint
from mflux_api.checkpoints.detection import is_checkpoint
from mflux_api.checkpoints.language_model import find_language_model
from mflux_api.checkpoints.memory_estimate import Machine, MemoryEstimate, estimate_memory
from mflux_api.errors import MfluxError, ModelUnsupported
from mflux_api.request import SIDE_STEP, SMALLEST_SIDE

# The one sampler, by SD-WebUI's name: Euler steps of a rectified flow.
SAMPLER = "Euler"
DEFAULT_FAMILY = "flux2"


class Estimate(Protocol):
    """Bytes that painting takes; `size` and `references` are (width, height) in pixels; `upsample`: the prompt, too.

    Raises the errors of a bad folder, and ModelUnsupported for a prompt that the model cannot upsample.
    """

    def __call__(
        self,
        checkpoint: Any,
        bits: int | None,
        machine: Machine,
        /,
        *,
        size: tuple[int, int],
        references: Sequence[tuple[int, int]],
        pictures: int,
        upsample: bool,
    ) -> MemoryEstimate: ...


@dataclass(frozen=True, kw_only=True)
class Family:
    """An architecture.

    `title`: as its users write it. `detect`: whether a folder has files of it, all that are needed or not; `is_whole`:
    whether they are all there. `read`: a folder, with what the registry says of it, as the checkpoint that the other
    functions and `load` take; raises the errors of a bad folder. `describe`: what a checkpoint says of itself.
    `check_upsampling` raises ModelUnsupported for a checkpoint that cannot put prompts into more words.
    `load`, `save`: addresses of the engine's functions; without `save` a model cannot be written back to disk.
    `variant`: the name of a kind of model in `capabilities`.
    """

    name: str
    title: str
    detect: Callable[[Path], bool]
    is_whole: Callable[[Path], bool]
    read: Callable[[Path, ModelFacts], Any]
    describe: Callable[[Any], ModelFacts]
    estimate: Estimate
    check_upsampling: Callable[[Any], object]
    load: str
    save: str | None
    variant: Callable[[ModelFacts], str]
    capabilities: Mapping[str, Capabilities]

    def capabilities_of(self, facts: ModelFacts) -> Capabilities:
        """What a model of which this is known can do."""
        return self.capabilities[self.variant(facts)]

    def read_capabilities(self, folder: Path, facts: ModelFacts) -> Capabilities:
        """What the model in a folder can do. Raises the errors of a bad folder."""
        checkpoint = self.read(folder, facts)
        can = self.capabilities_of(self.describe(checkpoint))
        return replace(can, prompt_upsampling=can.prompt_upsampling and self._can_upsample(checkpoint))

    def _can_upsample(self, checkpoint: Any) -> bool:
        try:
            self.check_upsampling(checkpoint)
        except MfluxError:
            return False
        return True


KLEIN = Capabilities(
    from_words=True,
    enlarges=False,
    source=True,
    mask=True,
    references=None,
    cached_references=False,
    loras=True,
    guidance="fixed",
    default_guidance=1.0,
    negative_prompt=False,
    prompt_upsampling=True,
    prompt_tokens=DEFAULT_MAX_SEQUENCE_LENGTH,
    fixed_steps=False,
    few_steps=True,
    default_steps=4,
    size_step=SIDE_STEP,
    smallest_side=SMALLEST_SIDE,
    native_side=1024,
    samplers=(SAMPLER,),
    bits=(3, 4, 6, 8),
)
KLEIN_BASE = replace(
    KLEIN, guidance="cfg", default_guidance=4.0, negative_prompt=True, few_steps=False, default_steps=50
)
DEV = replace(KLEIN_BASE, guidance="embedded", negative_prompt=False, bits=(4, 8))
SEEDVR2 = Capabilities(
    from_words=False,
    enlarges=True,
    source=True,
    mask=False,
    references=0,
    cached_references=False,
    loras=False,
    guidance="fixed",
    default_guidance=1.0,
    negative_prompt=False,
    prompt_upsampling=False,
    prompt_tokens=0,
    fixed_steps=True,
    few_steps=False,
    default_steps=1,
    size_step=SIDE_STEP,
    smallest_side=SMALLEST_SIDE,
    native_side=1024,
    samplers=(SAMPLER,),
    bits=(),
)


def _read_flux2(folder: Path, facts: ModelFacts) -> Checkpoint:
    return Checkpoint.read(folder).with_overrides(
        distilled=facts.distilled, cached_references=facts.cached_references, override_folder=facts.overrides
    )


def _describe_flux2(checkpoint: Checkpoint) -> ModelFacts:
    return ModelFacts(
        distilled=checkpoint.distilled,
        guidance_embeds=checkpoint.guidance_embeds,
        cached_references=checkpoint.cached_references,
        overrides=False,
    )


def _variant_of_flux2(facts: ModelFacts) -> str:
    if facts.guidance_embeds:
        return "dev"
    if facts.cached_references:
        return "klein-kv"
    return "klein-base" if facts.distilled is False else "klein"


def _refuse_upsampling(checkpoint: object) -> None:
    raise no_words_error()


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="flux2",
            title="FLUX.2",
            detect=is_checkpoint,
            is_whole=is_checkpoint,
            read=_read_flux2,
            describe=_describe_flux2,
            estimate=estimate_memory,
            check_upsampling=find_language_model,
            load="mflux_api.engine.flux2.pipeline:load_pipeline",
            save="mflux_api.engine.flux2.saving:save",
            variant=_variant_of_flux2,
            capabilities={
                "klein": KLEIN,
                "klein-kv": replace(KLEIN, cached_references=True),
                "klein-base": KLEIN_BASE,
                "dev": DEV,
            },
        ),
        Family(
            name="seedvr2",
            title="SeedVR2",
            detect=seedvr2.has_files,
            is_whole=seedvr2.is_whole,
            read=lambda folder, facts: seedvr2.read_checkpoint(folder),
            describe=lambda layout: ModelFacts(),
            estimate=seedvr2.estimate_memory,
            check_upsampling=_refuse_upsampling,
            load="mflux_api.engine.seedvr2.upscaler:load_upscaler",
            save=None,
            variant=lambda facts: "seedvr2",
            capabilities={"seedvr2": SEEDVR2},
        ),
    )
}


def detect_family(folder: Path) -> Family:
    """The family of a folder's files; the default one, which says what is missing, where none is recognized."""
    # The default one is not asked: reading its index here would be reading it twice.
    others = (family for family in FAMILIES.values() if family.name != DEFAULT_FAMILY)
    return next((family for family in others if family.detect(folder)), FAMILIES[DEFAULT_FAMILY])


def is_whole_model(folder: Path) -> bool:
    """Whether a folder holds all that a model of some family needs."""
    return any(family.is_whole(folder) for family in FAMILIES.values())


def no_words_error() -> ModelUnsupported:
    """The error for a prompt that a model without words is to upsample."""
    return ModelUnsupported("prompt_upsampling is not available with a model that has no words.")
