"""The picture of any scene, at any size, and the free variables that no caption says."""

import math

import numpy as np
from numpy.typing import NDArray

from drawing import Jitter, draw_shapes
from landscapes import draw_landscape
from scenes import Landscape, Scene, Shapes

FREE = 6


def draw(scene: Scene, width: int, height: int, jitter: Jitter) -> NDArray[np.uint8]:
    """Draw a scene; `jitter` is FREE numbers in -1..1, what its caption does not say."""
    if isinstance(scene, Shapes):
        return draw_shapes(scene, width, height, jitter)
    return draw_landscape(scene, width, height, jitter)


def random_jitter(rng: np.random.Generator) -> Jitter:
    """Free variables by lot."""
    return [float(value) for value in rng.uniform(-1, 1, FREE)]


def count_free(scene: Scene) -> int:
    """How many of the free variables this scene uses: lamp, horizon and drift, or place and size of each shape."""
    return 4 if isinstance(scene, Landscape) else 3 * len(scene.things)


def random_quantiles(scene: Scene, rng: np.random.Generator) -> NDArray[np.float64]:
    """The free variables as standard normal numbers, zero where the scene uses none."""
    values = rng.standard_normal(FREE)
    values[count_free(scene) :] = 0
    return values


def quantiles_to_jitter(quantiles: NDArray[np.float64]) -> Jitter:
    """Standard normal numbers as evenly spread ones in -1..1."""
    return [math.erf(value / math.sqrt(2)) for value in quantiles]
