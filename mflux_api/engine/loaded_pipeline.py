"""What the engine needs of a loaded model, whatever its family."""

from collections.abc import Generator
from typing import Any, Protocol, TypeAlias, runtime_checkable

from mflux_api.engine.precision import Precision
from mflux_api.ipc.messages import AskCut, Event, never
from mflux_api.request import Cut, GenerateRequest

Painting: TypeAlias = Generator[Event, None, Cut | None]


class LoadedPipeline(Protocol):
    """A model in memory, used on the thread that loaded it. `bits`: the width its weights are quantized to."""

    bits: int | None

    def paint(self, request: GenerateRequest, ask_cut: AskCut = never) -> Painting:
        """One pass: yield each step once it is computed, and each picture when done.

        The caller may stop after any event; working memory is then given back. `ask_cut` may end a picture, or all,
        after any step; the last cut is returned.
        """
        ...


@runtime_checkable
class PromptWriter(Protocol):
    """A loaded model that puts prompts into more words."""

    def rewrite(self, prompt: str, *, edit: bool) -> Generator[Event, None, str]:
        """The prompt in more words; `edit`: it says how pictures are to be changed."""
        ...


class PipelineLoader(Protocol):
    """What `Family.load` names: from a checkpoint that the family has read to a loaded model.

    `bits`: quantize while loading, unless stored quantized; `embedding_cache`: bytes of prompt embeddings to remember.
    """

    def __call__(
        self, checkpoint: Any, /, *, bits: int | None, precision: Precision, low_ram: bool, embedding_cache: int
    ) -> LoadedPipeline: ...
