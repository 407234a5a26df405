"""Protocols of a loaded model that every family implements."""

from collections.abc import Generator
from typing import Any, Protocol, TypeAlias, runtime_checkable

from mflux_api.engine.precision import Precision
from mflux_api.ipc.messages import PaintingEvent, TakeEarlyStop, never_stop_early
from mflux_api.request import EarlyStop, GenerateRequest

PaintingEvents: TypeAlias = Generator[PaintingEvent, None, EarlyStop | None]


class LoadedPipeline(Protocol):
    """A model in memory. Use it on the thread that loaded it. `bits`: those of its quantized weights, or None."""

    bits: int | None

    def paint(self, request: GenerateRequest, take_early_stop: TakeEarlyStop = never_stop_early) -> PaintingEvents:
        """Run one pass: yield each step once it is computed, and each picture when done.

        Closing the generator after any event frees the working memory. `take_early_stop` may end a picture, or all
        pictures, after any step. Returns the last early stop, or None.
        """
        ...


@runtime_checkable
class PromptWriter(Protocol):
    """A loaded model that can upsample prompts."""

    def upsample_prompt(self, prompt: str, *, edit: bool) -> Generator[PaintingEvent, None, str]:
        """Return a more detailed prompt. `edit`: the prompt is an instruction for changing pictures."""
        ...


class PipelineLoader(Protocol):
    """The function that `Family.load` names. Loads a model from a checkpoint that the family has read.

    `bits`: quantize while loading, unless stored quantized. `embedding_cache`: size of the prompt embedding cache in
    bytes.
    """

    def __call__(
        self, checkpoint: Any, /, *, bits: int | None, precision: Precision, low_ram: bool, embedding_cache: int
    ) -> LoadedPipeline: ...
