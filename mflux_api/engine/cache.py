"""Which models are in memory: a budget in bytes, the least recently used goes first."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from mflux_api.checkpoints.capabilities import ModelFacts
from mflux_api.checkpoints.families import FAMILIES, Family
from mflux_api.checkpoints.memory_estimate import Machine, MemoryEstimate
from mflux_api.engine import memory
from mflux_api.engine.flux2.quantization import check_bits
from mflux_api.engine.loaded_pipeline import LoadedPipeline, PipelineLoader
from mflux_api.engine.precision import choose_precision, device_name
from mflux_api.errors import OutOfMemory

USUAL_SIZE = (1024, 1024)


@dataclass(frozen=True)
class LoadPlan:
    """Everything that makes one loaded model differ from another.

    `family`: its name in FAMILIES; `facts`: what the registry knows. `bits`: runtime quantization. `embedding_cache`:
    bytes of prompt embeddings to remember.
    """

    folder: Path
    family: str
    facts: ModelFacts
    bits: int | None
    precision: str
    low_ram: bool
    embedding_cache: int

    def describe_machine(self) -> Machine:
        return Machine(device=device_name(), bytes_per_value=choose_precision(self.precision).dtype.size)

    def read_checkpoint(self) -> Any:
        """The folder as its family reads it. Raises the errors of a bad folder."""
        return FAMILIES[self.family].read(self.folder, self.facts)


@dataclass(frozen=True, kw_only=True)
class PictureDemand:
    """What a picture asks of memory: `size` in pixels, `references`: how many; `upsample`: the prompt, too."""

    size: tuple[int, int]
    references: int
    upsample: bool


USUAL = PictureDemand(size=USUAL_SIZE, references=0, upsample=False)


@dataclass(frozen=True)
class CachedPipeline:
    """A loaded model and the bytes estimated for it. `estimates`: of pictures, so that its files are not read again."""

    pipeline: LoadedPipeline
    size: int
    estimates: dict[PictureDemand, MemoryEstimate]


class ModelCache:
    """Loaded models within `budget` bytes, for one thread: MLX's arrays belong to the one that made them."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._models: OrderedDict[LoadPlan, CachedPipeline] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes estimated for the models held now."""
        return sum(held.size for held in self._models.values())

    def list_plans(self) -> list[LoadPlan]:
        """What is loaded, least recently used first."""
        return list(self._models)

    def fit_to_budget(
        self, plan: LoadPlan, size: tuple[int, int] = USUAL_SIZE, references: int = 0, *, upsample: bool = False
    ) -> LoadPlan:
        """The plan with low_ram, if networks that may take turns have no room together beside such a picture.

        Once they do, they go on. `size`: pixels; `references`: how many; `upsample`: the prompt, too. Raises the errors
        of a bad folder, and ModelUnsupported where a text encoder cannot write.
        """
        if plan.low_ram or not self._estimate(plan, USUAL).takes_turns:
            return plan
        in_turn = replace(plan, low_ram=True)
        if in_turn in self._models:
            return in_turn
        need = self._estimate(plan, PictureDemand(size=size, references=references, upsample=upsample))
        return in_turn if need.weights + max(need.activations, need.upsampling) > self.budget else plan

    def get(self, plan: LoadPlan) -> LoadedPipeline:
        """The loaded model, loading it and evicting others as needed.

        Raises OutOfMemory, before anything is loaded or evicted, when it cannot fit at all, and the errors of loading.
        """
        plan = plan if plan in self._models else self.fit_to_budget(plan)
        if plan not in self._models:
            check_bits(plan.bits)
            need = self._estimate(plan, USUAL)
            size = _held_bytes(need, low_ram=plan.low_ram)
            self._make_room(plan, size)
            with memory.translate_allocation_errors():
                self._models[plan] = CachedPipeline(_load_pipeline(plan), size, {USUAL: need})
        self._models.move_to_end(plan)
        return self._models[plan].pipeline

    def unload(self, plan: LoadPlan) -> bool:
        """Let go of one model. False when it was not loaded."""
        found = self._models.pop(plan, None) is not None
        memory.release_unused()
        return found

    def clear(self) -> None:
        """Let go of every model."""
        self._models.clear()
        memory.release_unused()

    def _estimate(self, plan: LoadPlan, wanted: PictureDemand) -> MemoryEstimate:
        """What the model and such a picture take. The files of a loaded model are read once for each such picture."""
        held = self._models.get(plan)
        if held is None:
            return _estimate(plan, wanted)
        if wanted not in held.estimates:
            held.estimates[wanted] = _estimate(plan, wanted)
        return held.estimates[wanted]

    def _make_room(self, plan: LoadPlan, size: int) -> None:
        if size > self.budget:
            raise OutOfMemory(
                f"{plan.folder.name} needs {_gib(size)} and the budget for models is {_gib(self.budget)}. "
                "Use a quantized model or a larger budget.",
                needed=size,
                budget=self.budget,
                suggestion="Use flux2-klein-4b-mlx-4bit or set low_ram=true",
            )
        while self.size + size > self.budget:
            self._models.popitem(last=False)
        memory.release_unused()


def _estimate(plan: LoadPlan, wanted: PictureDemand) -> MemoryEstimate:
    """From headers alone."""
    return FAMILIES[plan.family].estimate(
        plan.read_checkpoint(),
        plan.bits,
        plan.describe_machine(),
        size=wanted.size,
        references=[USUAL_SIZE] * wanted.references,
        pictures=0,
        upsample=wanted.upsample,
    )


def _held_bytes(need: MemoryEstimate, *, low_ram: bool) -> int:
    """Bytes held at most between pictures: networks that take turns are never in memory together."""
    if low_ram and need.takes_turns:
        return need.vae + max(need.transformer, need.text_encoder)
    return need.weights


def _load_pipeline(plan: LoadPlan) -> LoadedPipeline:
    return find_loader(FAMILIES[plan.family])(
        plan.read_checkpoint(),
        bits=plan.bits,
        precision=choose_precision(plan.precision),
        low_ram=plan.low_ram,
        embedding_cache=plan.embedding_cache,
    )


def find_loader(family: Family) -> PipelineLoader:
    """Import what loads the models of a family: seconds, at the first time."""
    loader: PipelineLoader = resolve_name(family.load)
    return loader


def _gib(size: int) -> str:
    return f"{size / memory.GIB:.2f} GiB"
