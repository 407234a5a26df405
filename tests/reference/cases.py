"""Cases of the comparison with diffusers, for the script that makes the references and for the test.

Needs only NumPy and Pillow.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HERE = Path(__file__).parent
LEVELS = 65535
# One row in ROWS of an encoding is stored.
ROWS = 6


@dataclass(frozen=True, kw_only=True)
class Case:
    """One picture. `pipeline`: a key of `PIPELINES` in make.py. `references`: sizes (width, height) of references.

    `seeded`: the pipeline draws the noise itself (patched to draw this one) instead of being given latents.
    """

    name: str
    pipeline: str = "klein"
    checkpoint: str = "klein"
    prompt: str = "a red circle above a blue square"
    negative: str = ""
    guidance: float = 1.0
    width: int = 96
    height: int = 64
    steps: int = 4
    references: tuple[tuple[int, int], ...] = ()
    strength: float | None = None
    loras: tuple[tuple[str, float], ...] = ()
    seeded: bool = False

    @property
    def latents(self) -> NDArray[np.float32]:
        """Return the initial noise, float32 (1, 128, H/16, W/16)."""
        shape = (1, 128, self.height // 16, self.width // 16)
        return np.random.RandomState(7).standard_normal(shape).astype(np.float32)

    @property
    def images(self) -> list[Image.Image]:
        return [picture(size, seed) for seed, size in enumerate(self.references, start=1)]

    @property
    def source(self) -> Image.Image:
        return picture((self.width, self.height), 11)

    @property
    def mask(self) -> Image.Image:
        """Return a mask with a white box that cuts through latent cells, so that some are partly masked."""
        mask = np.zeros((self.height, self.width), np.uint8)
        mask[20:55, 24:73] = 255
        return Image.fromarray(mask)

    @property
    def path(self) -> Path:
        return HERE / "cases" / f"{self.name}.npz"

    def store(self, pixels: NDArray[np.float32]) -> None:
        """Store a picture of 0..1 in 16 bits a value: an error of 8e-6 at half the size."""
        self.path.parent.mkdir(exist_ok=True)
        np.savez_compressed(self.path, pixels=np.round(pixels * LEVELS).astype(np.uint16))

    def expected(self) -> NDArray[np.float32]:
        """Return the reference picture, float32 (H, W, 3) in 0..1."""
        with np.load(self.path) as stored:
            pixels: NDArray[np.float32] = stored["pixels"].astype(np.float32) / LEVELS
        return pixels


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Output of FLUX.2-dev's text encoder for a prompt."""

    name: str
    checkpoint: str = "dev"
    prompt: str

    @property
    def path(self) -> Path:
        return HERE / "encodings" / f"{self.name}.npz"

    def store(self, mask: NDArray[np.int64], states: NDArray[np.float32]) -> None:
        """Store the mask (L,) and every sixth row of the states (L, width), the last row included."""
        self.path.parent.mkdir(exist_ok=True)
        np.savez_compressed(self.path, mask=mask.astype(np.uint8), states=states[::-ROWS])

    def expected(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the mask and every sixth row of the states, last row first."""
        with np.load(self.path) as stored:
            return stored["mask"], stored["states"]


def picture(size: tuple[int, int], seed: int) -> Image.Image:
    """Draw smooth random colours."""
    cells = np.random.RandomState(seed).randint(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3)).astype(np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


CASES = [
    Case(name="text"),
    Case(name="text-square-1-step", width=64, steps=1),
    Case(name="text-8-steps", width=80, height=80, steps=8),
    Case(name="text-empty", prompt=""),
    Case(name="text-too-long", prompt="a long prompt " * 300),
    Case(name="text-unicode", prompt="日本語 «café» 🌅"),
    Case(name="base-negative", pipeline="base", guidance=4.0, negative="a green star"),
    Case(name="base-empty-negative", pipeline="base", guidance=2.5),
    Case(name="base-guidance-1", pipeline="base", guidance=1.0, negative="ignored"),
    Case(name="edit-1", references=((100, 90),)),
    Case(name="edit-2", references=((70, 130), (140, 72))),
    Case(name="edit-5", references=((64, 64), (80, 64), (64, 96), (70, 70), (65, 66))),
    Case(name="edit-base", pipeline="base", guidance=3.0, negative="blue", references=((80, 64),)),
    Case(name="inpaint-full", pipeline="inpaint", strength=1.0),
    Case(name="inpaint-part", pipeline="inpaint", strength=0.6),
    Case(name="inpaint-seeded", pipeline="inpaint", strength=0.6, seeded=True),
    Case(name="inpaint-reference", pipeline="inpaint", strength=0.8, references=((90, 120),)),
    Case(name="inpaint-20", pipeline="inpaint", strength=0.55, steps=20, width=80, seeded=True),
    Case(name="inpaint-base", pipeline="inpaint-base", strength=0.7, guidance=3.0, negative="a green star"),
    Case(name="kv-text", pipeline="kv"),
    Case(name="kv-1", pipeline="kv", references=((100, 90),)),
    Case(name="kv-2", pipeline="kv", references=((70, 130), (140, 72))),
    Case(name="lora-diffusers", loras=(("style.diffusers", 0.7),)),
    Case(name="lora-kohya", loras=(("style.kohya", 0.7),)),
    Case(name="lora-bfl", loras=(("style.bfl", 0.7),)),
    Case(name="lora-base", pipeline="base", guidance=3.0, loras=(("detail.diffusers", 0.7),)),
    Case(name="lora-kv", pipeline="kv", references=((100, 90),), loras=(("style.kohya", 0.7),)),
    Case(name="lora-two", loras=(("style.diffusers", 0.7), ("detail.kohya", -0.4))),
    Case(name="odd-text", checkpoint="odd"),
    Case(name="odd-edit", checkpoint="odd", references=((100, 90),)),
    Case(name="odd-base", checkpoint="odd", pipeline="base", guidance=4.0, negative="a green star"),
    Case(name="odd-kv", checkpoint="odd", pipeline="kv", references=((100, 90), (64, 64))),
    Case(name="odd-inpaint", checkpoint="odd", pipeline="inpaint", strength=0.5),
    Case(name="dev", checkpoint="dev", pipeline="dev", guidance=4.0),
    Case(name="dev-guidance-2.5", checkpoint="dev", pipeline="dev", guidance=2.5),
    Case(name="dev-guidance-1", checkpoint="dev", pipeline="dev", guidance=1.0),
    Case(name="dev-tall", checkpoint="dev", pipeline="dev", guidance=4.0, width=64, height=96),
    Case(name="dev-too-long", checkpoint="dev", pipeline="dev", guidance=4.0, prompt="a long prompt " * 300),
    Case(name="dev-edit-1", checkpoint="dev", pipeline="dev", guidance=4.0, references=((100, 90),)),
    Case(name="dev-edit-2", checkpoint="dev", pipeline="dev", guidance=2.5, references=((70, 130), (140, 72))),
    Case(name="dev-lora", checkpoint="dev", pipeline="dev", guidance=4.0, loras=(("dev.diffusers", 0.7),)),
    Case(name="dev-odd", checkpoint="dev-odd", pipeline="dev", guidance=4.0),
    Case(name="dev-odd-edit", checkpoint="dev-odd", pipeline="dev", guidance=3.0, references=((100, 90),)),
]
ENCODINGS = [
    Encoding(name="short", prompt="a red circle above a blue square"),
    Encoding(name="long", prompt="a red circle above a blue square, " * 30),
    Encoding(name="over-long", prompt="a long prompt " * 300),
    Encoding(name="empty", prompt=""),
    Encoding(name="image-token", prompt="日本語 [IMG] «café» 🌅"),
    Encoding(name="odd-short", checkpoint="dev-odd", prompt="a red circle"),
    Encoding(name="odd-over-long", checkpoint="dev-odd", prompt="a long prompt " * 300),
]
