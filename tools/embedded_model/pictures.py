"""The picture of any scene, at any size."""

import numpy as np
from numpy.typing import NDArray

from drawing import draw_shapes
from landscapes import draw_landscape
from scenes import Scene, Shapes


def draw(scene: Scene, width: int, height: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a scene; what its caption does not say varies only a little."""
    if isinstance(scene, Shapes):
        return draw_shapes(scene, width, height, rng)
    return draw_landscape(scene, width, height, rng)
