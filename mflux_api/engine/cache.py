"""Which models are in memory: a budget in bytes, the least recently used goes first."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from mflux_api.checkpoints import seedvr2 as upscaling
from mflux_api.checkpoints.checkpoint import Layout, overridden, read_layout
from mflux_api.checkpoints.memory_estimate import Machine, model_bytes, picture_bytes, turn_bytes, writing_bytes
from mflux_api.engine import memory
from mflux_api.engine.flux2.loading import Loader
from mflux_api.engine.flux2.pipeline import Pipeline
from mflux_api.engine.flux2.quantization import check_bits
from mflux_api.engine.precision import choose, device_name
from mflux_api.engine.seedvr2.upscaler import Upscaler
from mflux_api.errors import OutOfMemory

Painter: TypeAlias = Pipeline | Upscaler
USUAL_SIZE = (1024, 1024)


@dataclass(frozen=True)
class Plan:
    """Everything that makes one loaded model differ from another.

    `distilled` and `cached_references`: what the registry knows, None to believe the folder; `insist`: even where the
    folder says otherwise. `bits`: runtime quantization. `embedding_cache`: bytes of prompt embeddings to remember.
    """

    folder: Path
    distilled: bool | None
    cached_references: bool | None
    insist: bool
    bits: int | None
    precision: str
    low_ram: bool
    embedding_cache: int

    def machine(self) -> Machine:
        return Machine(device=device_name(), width=choose(self.precision).dtype.size)

    def layout(self) -> Layout:
        return overridden(
            read_layout(self.folder),
            distilled=self.distilled,
            cached_references=self.cached_references,
            insist=self.insist,
        )


class ModelCache:
    """Loaded models within `budget` bytes, for one thread: MLX's arrays belong to the one that made them."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._models: OrderedDict[Plan, tuple[Painter, int]] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes estimated for the models held now."""
        return sum(size for _, size in self._models.values())

    def plans(self) -> list[Plan]:
        """What is loaded, least recently used first."""
        return list(self._models)

    def fitted(
        self, plan: Plan, size: tuple[int, int] = USUAL_SIZE, references: int = 0, *, upsample: bool = False
    ) -> Plan:
        """The plan with low_ram, if networks that may take turns have no room together beside such a picture.

        Once they do, they go on. `size`: pixels; `references`: how many; `upsample`: the prompt, too. Raises the errors
        of a bad folder, and ModelUnsupported where a text encoder cannot write.
        """
        if plan.low_ram or (layout := self._layout(plan)) is None or not layout.guided:
            return plan
        in_turn = replace(plan, low_ram=True)
        if in_turn in self._models:
            return in_turn
        work = picture_bytes(layout, plan.machine(), size=size, references=[USUAL_SIZE] * references)
        if upsample:
            work = max(work, writing_bytes(layout, plan.bits, plan.machine().width))
        return in_turn if self._size_of(plan) + work > self.budget else plan

    def get(self, plan: Plan) -> Painter:
        """The loaded model, loading it and evicting others as needed.

        Raises OutOfMemory, before anything is loaded or evicted, when it cannot fit at all, and the errors of loading.
        """
        plan = plan if plan in self._models else self.fitted(plan)
        if plan not in self._models:
            check_bits(plan.bits)
            size = _size(plan)
            self._make_room(plan, size)
            with memory.overflow_is_ours():
                self._models[plan] = (_load(plan), size)
        self._models.move_to_end(plan)
        return self._models[plan][0]

    def unload(self, plan: Plan) -> bool:
        """Let go of one model. False when it was not loaded."""
        found = self._models.pop(plan, None) is not None
        memory.reclaim()
        return found

    def clear(self) -> None:
        """Let go of every model."""
        self._models.clear()
        memory.reclaim()

    def _layout(self, plan: Plan) -> Layout | None:
        """None for an upscaler. That of a loaded model is not read again."""
        if plan in self._models:
            painter, _ = self._models[plan]
            return painter.layout if isinstance(painter, Pipeline) else None
        return None if upscaling.has_files(plan.folder) else plan.layout()

    def _size_of(self, plan: Plan) -> int:
        """Bytes it holds or will hold. The files of a loaded model are not read again."""
        return self._models[plan][1] if plan in self._models else _size(plan)

    def _make_room(self, plan: Plan, size: int) -> None:
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
        memory.reclaim()


def _size(plan: Plan) -> int:
    """Bytes it will hold, from headers alone."""
    width = choose(plan.precision).dtype.size
    if upscaling.has_files(plan.folder):
        return upscaling.model_bytes(plan.folder, plan.bits, width)
    layout = plan.layout()
    in_turn = plan.low_ram and layout.guided
    return (turn_bytes if in_turn else model_bytes)(layout, plan.bits, width)


def _load(plan: Plan) -> Painter:
    precision = choose(plan.precision)
    if upscaling.has_files(plan.folder):
        return Upscaler(plan.folder, plan.bits, precision)
    loader = Loader(plan.layout(), plan.bits, precision)
    return Pipeline(loader, low_ram=plan.low_ram, embedding_cache=plan.embedding_cache)


def _gib(size: int) -> str:
    return f"{size / memory.GIB:.2f} GiB"
