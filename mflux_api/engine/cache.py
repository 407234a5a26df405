"""LRU cache of loaded models with a budget in bytes."""

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
    """How to load a model; the key of the cache.

    `family`: its name in FAMILIES. `facts`: what the registry knows of the model. `bits`: runtime quantization.
    `embedding_cache`: size of the prompt embedding cache in bytes.
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
        """Read the folder with its family's reader. Raises the errors of a bad folder."""
        return FAMILIES[self.family].read(self.folder, self.facts)


@dataclass(frozen=True)
class CachedPipeline:
    """A pipeline, the checkpoint it was loaded from, and the bytes estimated for it."""

    pipeline: LoadedPipeline
    checkpoint: Any
    size: int


class ModelCache:
    """Loaded models within `budget` bytes. Use it on one thread: MLX's arrays belong to the thread that made them."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._models: OrderedDict[LoadPlan, CachedPipeline] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes estimated for the loaded models."""
        return sum(model.size for model in self._models.values())

    def list_plans(self) -> list[LoadPlan]:
        """Return the plans of the loaded models, least recently used first."""
        return list(self._models)

    def fit_to_budget(
        self, plan: LoadPlan, size: tuple[int, int] = USUAL_SIZE, references: int = 0, *, upsample: bool = False
    ) -> LoadPlan:
        """Fall back to low_ram if text encoder and transformer do not fit together beside such a picture.

        Applies only to models whose networks can take turns. A model already loaded with low_ram keeps it. `size`:
        width and height in pixels. `references`: their number. `upsample`: whether the prompt is upsampled. Raises the
        errors of a bad folder, and ModelUnsupported if the prompt is to be upsampled and the text encoder cannot.
        """
        if plan.low_ram:
            return plan
        checkpoint = self._find_checkpoint(plan)
        needed = _estimate(plan, checkpoint, USUAL_SIZE, references=0, upsample=False)
        if not needed.takes_turns:
            return plan
        in_turn = replace(plan, low_ram=True)
        if in_turn in self._models:
            return in_turn
        needed = _estimate(plan, checkpoint, size, references=references, upsample=upsample)
        return in_turn if needed.weights + max(needed.activations, needed.upsampling) > self.budget else plan

    def get(self, plan: LoadPlan) -> LoadedPipeline:
        """Return the loaded model. Loads it and evicts others as needed.

        Raises OutOfMemory if the model exceeds the budget, before anything is loaded or evicted, and the errors of
        loading.
        """
        plan = plan if plan in self._models else self.fit_to_budget(plan)
        if plan not in self._models:
            check_bits(plan.bits)
            checkpoint = plan.read_checkpoint()
            needed = _estimate(plan, checkpoint, USUAL_SIZE, references=0, upsample=False)
            size = needed.held_bytes(low_ram=plan.low_ram)
            self._make_room(plan, size)
            with memory.translate_allocation_errors():
                self._models[plan] = CachedPipeline(_load_pipeline(plan, checkpoint), checkpoint, size)
        self._models.move_to_end(plan)
        return self._models[plan].pipeline

    def unload(self, plan: LoadPlan) -> bool:
        """Unload one model. Returns False if it was not loaded."""
        found = self._models.pop(plan, None) is not None
        memory.release_unused()
        return found

    def clear(self) -> None:
        """Unload every model."""
        self._models.clear()
        memory.release_unused()

    def _find_checkpoint(self, plan: LoadPlan) -> Any:
        """Return the checkpoint of a loaded model, or read it."""
        loaded = self._models.get(plan)
        return plan.read_checkpoint() if loaded is None else loaded.checkpoint

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


def _estimate(
    plan: LoadPlan, checkpoint: Any, size: tuple[int, int], *, references: int, upsample: bool
) -> MemoryEstimate:
    """Estimate the model and such a picture from the headers of the files only."""
    return FAMILIES[plan.family].estimate(
        checkpoint,
        plan.bits,
        plan.describe_machine(),
        size=size,
        references=[USUAL_SIZE] * references,
        pictures=0,
        upsample=upsample,
    )


def _load_pipeline(plan: LoadPlan, checkpoint: Any) -> LoadedPipeline:
    return find_loader(FAMILIES[plan.family])(
        checkpoint,
        bits=plan.bits,
        precision=choose_precision(plan.precision),
        low_ram=plan.low_ram,
        embedding_cache=plan.embedding_cache,
    )


def find_loader(family: Family) -> PipelineLoader:
    """Import the loader of a family. The first import takes seconds."""
    loader: PipelineLoader = resolve_name(family.load)
    return loader


def _gib(size: int) -> str:
    return f"{size / memory.GIB:.2f} GiB"
