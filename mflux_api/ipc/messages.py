"""Events of a painting, and the commands and replies between server and engine, as plain dataclasses."""

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
    """A finished denoising step. `number` counts from 1 to `steps`. `seconds` is its duration."""

    number: int
    steps: int
    seed: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The predicted final picture at one eighth of its width and height, from a linear map of the latents."""

    number: int
    seed: int
    image: Image.Image


@dataclass(frozen=True, kw_only=True)
class UpsamplingProgress:
    """Progress of prompt upsampling. `tokens`: the number generated so far."""

    tokens: int


@dataclass(frozen=True, kw_only=True)
class LoraReport:
    """How an adapter fitted. `layers`: number of layers it changes. `keys`: keys of the file used of `total_keys`.

    The others belong to text encoders, which adapters do not change here.
    """

    path: str
    scale: float
    layers: int
    keys: int
    total_keys: int

    @property
    def left_out(self) -> int:
        """Number of keys that are not used."""
        return self.total_keys - self.keys


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished picture.

    `image`: RGB PIL image. After inpainting it has the source's own pixels where the mask is black.
    `array`: the decoder's float32 (H, W, 3) in 0..1, before rounding and before those pixels are restored.
    `guidance`: the value that was used. Distilled models always run at 1.
    `timings`: seconds for "encoding" (prompt and pictures), "diffusion", "decoding" and "total".
    `prompt`: the upsampled prompt, or None without upsampling.
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


# From the server to the engine


@dataclass(frozen=True, kw_only=True)
class EngineSetup:
    """Settings of the engine process.

    `budget`: bytes for models, None for the default. `embedding_cache`: size of the prompt embedding cache in bytes.
    `max_image_pixels`: pixels of the largest picture it opens. `low_priority`: whether other processes go first
    (Linux only).
    """

    budget: int | None
    precision: str
    embedding_cache: int
    max_image_pixels: int
    low_priority: bool


@dataclass(frozen=True, kw_only=True)
class PaintCommand:
    """Paint a request. `request` contains no pictures; the engine reads them from the files given here."""

    model: ResolvedModel
    low_ram: bool
    request: GenerateRequest
    source: Path | None = None
    mask: Path | None = None
    references: tuple[Path, ...] = ()
    further_sources: tuple[Path, ...] = ()

    @property
    def private_folders(self) -> tuple[Path, ...]:
        """Folders to strip from error messages."""
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
    """Unload a model by its name."""

    model: str
    private_folders: ClassVar[tuple[Path, ...]] = ()


@dataclass(frozen=True)
class StopPainting:
    """Stop the current painting after its step."""


@dataclass(frozen=True)
class ShowPreviews:
    """Send a preview of every further step of the current painting: a client is watching."""


# Called after each step and each decoding. A skip applies to one picture, so the call consumes it.
TakeEarlyStop: TypeAlias = Callable[[], EarlyStop | None]


def never_stop_early() -> None:
    """Default of `take_early_stop`: no early stop."""


def always_watched() -> bool:
    """Default of `is_watched`: send every preview."""
    return True


Command: TypeAlias = PaintCommand | LoadCommand | UnloadCommand


# From the engine to the server


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The engine process is ready. `bytes_per_value`: size of the dtype it computes in. `budget`: bytes for models."""

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
    """A picture as PNG. `text`: the generation data inside it. `prompt`: the upsampled prompt, or None."""

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
    """MLX's memory in bytes: in use, cached for reuse, and the peak in use. `loaded`: names of the loaded models."""

    active: int
    cached: int
    peak: int
    loaded: tuple[str, ...]


@dataclass(frozen=True)
class CommandDone:
    """The command has ended. `stopped`: it was stopped before it was complete."""

    stopped: bool = False


@dataclass(frozen=True)
class CommandRefused:
    """The command failed with an MfluxError. The server raises it again."""

    code: str
    message: str
    details: dict[str, object]


@dataclass(frozen=True)
class CommandCrashed:
    """The command failed with an unexpected error. `trace` is for the log only."""

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
