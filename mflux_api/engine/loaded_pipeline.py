"""What the engine needs of a loaded model, whatever its family."""

from collections.abc import Generator
from typing import Any, Protocol, TypeAlias, runtime_checkable

from mflux_api.engine.precision import Precision
from mflux_api.ipc.messages import PaintingEvent, TakeEarlyStop, never_stop_early
from mflux_api.request import EarlyStop, GenerateRequest

PaintingEvents: TypeAlias = Generator[PaintingEvent, None, EarlyStop | None]


class LoadedPipeline(Protocol):
    """A model in memory, used on the thread that loaded it. `bits`: the width its weights are quantized to."""

    bits: int | None

    def paint(self, request: GenerateRequest, take_early_stop: TakeEarlyStop = never_stop_early) -> PaintingEvents:
        """One pass: yield each step once it is computed, and each picture when done.

        The caller may stop after any event; working memory is then given back. `take_early_stop` may end a picture, or
        all, after any step; the last cut is returned.
        """
        ...


@runtime_checkable
class PromptWriter(Protocol):
    """A loaded model that puts prompts into more words."""

    def upsample_prompt(self, prompt: str, *, edit: bool) -> Generator[PaintingEvent, None, str]:
        """The prompt in more words; `edit`: it says how pictures are to be changed."""
        ...


class PipelineLoader(Protocol):
    """What `Family.load` names: from a checkpoint that the family has read to a loaded model.

    `bits`: quantize while loading, unless stored quantized; `embedding_cache`: bytes of prompt embeddings to remember.
    """

    def __call__(
        self, checkpoint: Any, /, *, bits: int | None, precision: Precision, low_ram: bool, embedding_cache: int
    ) -> LoadedPipeline: ...
