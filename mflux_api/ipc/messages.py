"""What painting yields, and what the two processes say to each other, in plain Python."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from PIL import Image

from mflux_api.models.registry import ResolvedModel
from mflux_api.request import EarlyStop, GenerateRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Step:
    """A denoising step that has been computed. `number` counts from 1 to `steps`; `seconds` is its duration."""

    number: int
    steps: int
    seed: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The picture as it would end now, an eighth of its width and height, from a linear map of the latents."""

    number: int
    seed: int
    image: Image.Image


@dataclass(frozen=True, kw_only=True)
class UpsamplingProgress:
    """A prompt is being put into more words. `tokens`: how many there are."""

    tokens: int


@dataclass(frozen=True, kw_only=True)
class LoraReport:
    """How an adapter fitted: `layers` it changed, `keys` of the file used out of `total_keys`."""

    path: str
    scale: float
    layers: int
    keys: int
    total_keys: int


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished picture.

    `image`: RGB PIL image, in an inpainting with the source's own pixels wherever the mask is black.
    `array`: the decoder's float32 (H, W, 3) in 0..1 before rounding and before those pixels are put back.
    `guidance`: the value really used (distilled models run at 1 whatever was asked).
    `timings`: seconds for "encoding" (prompt and pictures), "diffusion", "decoding" and "total".
    `prompt`: what upsampling made of the prompt, None without.
    """

    image: Image.Image
    array: "NDArray[np.float32]"
    seed: int
    timings: dict[str, float]
    steps: int
    guidance: float
    loras: tuple[LoraReport, ...] = field(default=())
    prompt: str | None = None


PaintingEvent: TypeAlias = UpsamplingProgress | Step | Preview | Picture


# Between the server's process and the engine's: what is asked


@dataclass(frozen=True, kw_only=True)
class EngineSetup:
    """How the engine process is to work. `budget`: bytes for models, None for the default.
    `max_image_pixels`: pixels of the largest picture it opens. `low_priority`: whether other processes go first
    (Linux)."""

    budget: int | None
    precision: str
    embedding_cache: int
    max_image_pixels: int
    low_priority: bool


@dataclass(frozen=True, kw_only=True)
class PaintCommand:
    """`request` has no pictures: the engine reads them from files."""

    model: ResolvedModel
    low_ram: bool
    request: GenerateRequest
    source: Path | None = None
    mask: Path | None = None
    references: tuple[Path, ...] = ()
    further_sources: tuple[Path, ...] = ()

    @property
    def private_folders(self) -> tuple[Path, ...]:
        """Where its files lie, which is nobody's business but the server's."""
        return (self.model.folder.parent, *(Path(use.path).parent for use in self.request.loras))


@dataclass(frozen=True)
class LoadCommand:
    model: ResolvedModel
    low_ram: bool

    @property
    def private_folders(self) -> tuple[Path, ...]:
        return (self.model.folder.parent,)


@dataclass(frozen=True)
class UnloadCommand:
    """Let go of a model, by its name."""

    model: str
    private_folders: ClassVar[tuple[Path, ...]] = ()


@dataclass(frozen=True)
class StopPainting:
    """Stop the painting that is going on, after its step."""


@dataclass(frozen=True)
class ShowPreviews:
    """Somebody looks on: show a preview of every further step of the painting that is going on."""


# Asked after each step and each decoding. A skip counts for one picture, so asking takes it.
TakeEarlyStop: TypeAlias = Callable[[], EarlyStop | None]


def never_stop_early() -> None:
    """Nobody cuts this painting short."""


def always_watched() -> bool:
    """Somebody looks on."""
    return True


Command: TypeAlias = PaintCommand | LoadCommand | UnloadCommand


# And what is answered


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The engine process is ready. `bytes_per_value`: of the type it computes with; `budget`: bytes for models."""

    device: str
    chip: str
    mlx: str
    bytes_per_value: int
    budget: int


@dataclass(frozen=True)
class Loading:
    model: str


@dataclass(frozen=True)
class Thumbnail:
    """A preview as PNG."""

    data: bytes


@dataclass(frozen=True, kw_only=True)
class FinishedPicture:
    """A picture as PNG. `text`: the generation data inside it; `prompt`: what upsampling made of it, None without."""

    data: bytes
    text: str
    prompt: str | None
    seed: int
    width: int
    height: int
    guidance: float
    timings: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class EngineMemory:
    """Bytes MLX uses, keeps for reuse, and has used at most; the names of the models it holds."""

    active: int
    cached: int
    peak: int
    loaded: tuple[str, ...]


@dataclass(frozen=True)
class CommandDone:
    """The command is carried out; `stopped`: as far as it was wanted."""

    stopped: bool = False


@dataclass(frozen=True)
class CommandRefused:
    """An error of ours, to be raised again on the other side."""

    code: str
    message: str
    details: dict[str, object]


@dataclass(frozen=True)
class CommandCrashed:
    """An error that nobody foresaw. `trace` is for the log only."""

    trace: str


Reply: TypeAlias = (
    Ready
    | Loading
    | UpsamplingProgress
    | Step
    | Thumbnail
    | FinishedPicture
    | EngineMemory
    | CommandDone
    | CommandRefused
    | CommandCrashed
)
