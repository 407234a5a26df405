"""Captions of a scene in many wordings; what is usual (medium size, in the centre, by day) may go unsaid."""

import numpy as np

from filler import LEADS, TAILS
from phrases import Wording, invent_word
from scenes import Scene, Shapes
from slips import retype
from wordings import LANDSCAPE_WAYS, SHAPE_WAYS, say_landscape, say_shapes


def caption(scene: Scene, rng: np.random.Generator, plain: bool = False) -> str:
    """A caption of this scene; a plain one is one phrase without filler, unknown words or odd spelling."""
    words = Wording(rng)
    if plain:
        return say_shapes(scene, words) if isinstance(scene, Shapes) else say_landscape(scene, words)
    ways = SHAPE_WAYS if isinstance(scene, Shapes) else LANDSCAPE_WAYS
    way = ways[int(rng.choice(len(ways), p=[one.weight for one in ways]))]
    return retype(add_filler(way.say(scene, words), way.leads, words), words)


def add_filler(core: str, leads: bool, words: Wording) -> str:
    """Words before and after that say nothing about the picture, some of them unknown."""
    text = core
    if leads and words.chance(0.6):
        text = words.pick(LEADS) + core
    if words.chance(0.6):
        tail = words.pick(TAILS)
        text = (text.rstrip(".") if tail else text) + tail
    return add_strangers(text, words) if words.chance(0.16) else text


def add_strangers(text: str, words: Wording) -> str:
    """One or two unknown words, real or made up, before, after or in the middle."""
    strange = [invent_word(words) for _ in range(1 + words.chance(0.4))]
    manner = words.rng.random()
    if manner < 0.4:
        return f"{' '.join(strange)} {text}"
    if manner < 0.75:
        return f"{text}, {' '.join(strange)}"
    pieces = text.split(" ")
    at = int(words.rng.integers(len(pieces) + 1))
    return " ".join([*pieces[:at], *strange, *pieces[at:]])
