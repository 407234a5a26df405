"""What the transformer eats: every kind of picture with its share of the steps and how much of it makes a batch."""

from dataclasses import dataclass
from pathlib import Path

Size = tuple[int, int]
ROUNDS = 6
# The part of the run in which outlines are learned, at two sizes; then every size and edits join.
EARLY_SHARE = 0.5


@dataclass(frozen=True)
class Kind:
    """Pictures of one size, or edits of them.

    `scenes` are drawn a round. A batch is `batch` scenes of which `image_tokens` tokens are trained. `early` and `late`
    are the shares of the steps.
    """

    name: str
    size: Size
    scenes: int
    batch: int
    image_tokens: int
    early: float
    late: float
    edits: bool = False

    @property
    def subset(self) -> float:
        """The share of the tokens that are trained: of the picture's, and of the prompt's.

        Both must shrink alike. Attention that sees 48 words beside 48 of 256 image tokens listens to the words too
        much: the error at pure noise is 1.0 instead of 0.3.
        """
        return min(1.0, self.image_tokens * 16 * 16 / (self.size[0] * self.size[1]))

    def bank(self, work: Path, number: int) -> Path:
        """Where a round's scenes are kept."""
        return work / "banks" / f"{self.name}-{number}.pt"


KINDS = (
    Kind("256", (256, 256), 2000, batch=40, image_tokens=48, early=0.8, late=0.20),
    Kind("128", (128, 128), 1500, batch=40, image_tokens=32, early=0.2, late=0.10),
    Kind("192", (192, 192), 1000, batch=40, image_tokens=48, early=0.0, late=0.09),
    Kind("edit-128", (128, 128), 1000, batch=24, image_tokens=32, early=0.0, late=0.08, edits=True),
    Kind("edit-256", (256, 256), 500, batch=20, image_tokens=48, early=0.0, late=0.06, edits=True),
    Kind("320x192", (320, 192), 500, batch=40, image_tokens=48, early=0.0, late=0.075),
    Kind("192x320", (192, 320), 500, batch=40, image_tokens=48, early=0.0, late=0.075),
    Kind("160x112", (160, 112), 800, batch=36, image_tokens=35, early=0.0, late=0.04),
    Kind("112x160", (112, 160), 800, batch=36, image_tokens=35, early=0.0, late=0.04),
    Kind("64", (64, 64), 1500, batch=64, image_tokens=16, early=0.0, late=0.04),
    Kind("384", (384, 384), 300, batch=32, image_tokens=72, early=0.0, late=0.10),
    Kind("512", (512, 512), 150, batch=24, image_tokens=112, early=0.0, late=0.09),
    Kind("edit-64", (64, 64), 500, batch=24, image_tokens=16, early=0.0, late=0.01, edits=True),
)
