"""Model families: how to detect, read, estimate and load their folders, and the capabilities of their models.

To add a family:

1. Write `engine/NAME/`: a function that loads a checkpoint and returns a `LoadedPipeline` (engine/loaded_pipeline.py).
2. Write `checkpoints/NAME.py`: what can be read from its folders without MLX (file names, configs, memory).
3. Add a `Capabilities` for each variant here, four example prompts, and its sampler if it differs.
4. Add a `Family` to FAMILIES. `load` and `save` are "module:function" addresses that only the engine imports.
5. Add its models to configs/models.yaml with `family: NAME`, their repositories, sizes and licences.
6. Run tests/unit/checkpoints/test_families.py: it prints the table that docs/models.md must have.

The catalogue, request checks, /api/v1/models, the page, `doctor` and OpenAPI need no change: they read FAMILIES. To add
a capability, add a field to `Capabilities` and to `ModelCapabilities` in dialects/native/models.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from mflux_api.checkpoints import seedvr2
from mflux_api.checkpoints.capabilities import Capabilities, ModelFacts
from mflux_api.checkpoints.checkpoint import DEFAULT_MAX_SEQUENCE_LENGTH, Checkpoint
from mflux_api.checkpoints.completeness import find_missing_files
from mflux_api.checkpoints.detection import is_checkpoint
from mflux_api.checkpoints.language_model import find_language_model
from mflux_api.checkpoints.memory_estimate import Machine, MemoryEstimate, estimate_memory
from mflux_api.errors import MfluxError, ModelUnsupported
from mflux_api.request import SIDE_STEP, SMALLEST_SIDE

# The only sampler, by SD-WebUI's name: Euler steps of a rectified flow.
SAMPLER = "Euler"
DEFAULT_FAMILY = "flux2"


class Estimate(Protocol):
    """Estimate the bytes that painting takes.

    `size`, `references`: (width, height) in pixels. `upsample`: include upsampling of the prompt. Raises the errors of
    a bad folder, and ModelUnsupported if the model cannot upsample prompts.
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
    """A model architecture.

    `title`: the name for users. `detect`: whether a folder has files of the family, complete or not; `is_whole`:
    whether it has some of each kind. `find_missing`: names of files and components that are missing or cut off, those
    given among them. `read`: reads a folder, with the registry's facts, into the checkpoint that the other
    functions and `load` take; raises the errors of a bad folder. `describe`: facts from a checkpoint.
    `check_upsampling`: raises ModelUnsupported for a checkpoint that cannot upsample prompts. `load`, `save`: addresses
    of the engine's functions, "module:function"; without `save` a model cannot be written to disk. `variant`: maps
    facts to a key of `capabilities`. `examples`: prompts for models without their own.
    """

    name: str
    title: str
    detect: Callable[[Path], bool]
    is_whole: Callable[[Path], bool]
    find_missing: Callable[[Path, Sequence[str]], list[str]]
    read: Callable[[Path, ModelFacts], Any]
    describe: Callable[[Any], ModelFacts]
    estimate: Estimate
    check_upsampling: Callable[[Any], object]
    load: str
    save: str | None
    variant: Callable[[ModelFacts], str]
    capabilities: Mapping[str, Capabilities]
    examples: tuple[str, ...]

    def capabilities_of(self, facts: ModelFacts) -> Capabilities:
        """Return the capabilities of a model with these facts."""
        return self.capabilities[self.variant(facts)]

    def read_capabilities(self, folder: Path, facts: ModelFacts) -> Capabilities:
        """Return the capabilities of the model in a folder. Raises the errors of a bad folder."""
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
            find_missing=find_missing_files,
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
            examples=(
                "a red fox in fresh snow, photograph, soft morning light",
                "a small wooden house by the sea at sunset, watercolour",
                "a shop window with the words OPEN ALL NIGHT in red neon, rain",
                "an astronaut reading a newspaper in a cafe, 35 mm film",
            ),
        ),
        Family(
            name="seedvr2",
            title="SeedVR2",
            detect=seedvr2.has_files,
            is_whole=seedvr2.is_whole,
            find_missing=seedvr2.find_missing_files,
            read=lambda folder, facts: seedvr2.read_checkpoint(folder),
            describe=lambda layout: ModelFacts(),
            estimate=seedvr2.estimate_memory,
            check_upsampling=_refuse_upsampling,
            load="mflux_api.engine.seedvr2.upscaler:load_upscaler",
            save=None,
            variant=lambda facts: "seedvr2",
            capabilities={"seedvr2": SEEDVR2},
            examples=(),
        ),
    )
}


def detect_family(folder: Path) -> Family:
    """Return the family of a folder's files; the default family, which reports what is missing, if none is detected."""
    # The default family is not tested, because that would read its index twice.
    others = (family for family in FAMILIES.values() if family.name != DEFAULT_FAMILY)
    return next((family for family in others if family.detect(folder)), FAMILIES[DEFAULT_FAMILY])


def is_whole_model(folder: Path) -> bool:
    """Return whether a folder holds all files of a model of any family."""
    return any(family.is_whole(folder) for family in FAMILIES.values())


def no_words_error() -> ModelUnsupported:
    """Return the error for prompt upsampling on a model that takes no prompt."""
    return ModelUnsupported("prompt_upsampling is not available with a model that has no words.")
