"""The parts of a caption: a shape, its place, the background and a relation, in words picked by lot."""

from collections.abc import Sequence

import numpy as np

from filler import ADJECTIVES, STRANGERS, SYLLABLES, TINTS
from scenes import Shapes, Thing
from words import (
    COLOUR_WORDS,
    CORNER_WORDS,
    PLACE_WORDS,
    RELATION_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
)


class Wording:
    """Picks words by lot."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def pick(self, words: Sequence[str]) -> str:
        """One of these words."""
        return words[int(self.rng.integers(len(words)))]

    def chance(self, share: float) -> bool:
        """True in this share of cases."""
        return bool(self.rng.random() < share)

    def shuffle(self, parts: Sequence[str]) -> list[str]:
        """These parts in any order."""
        return [parts[int(index)] for index in self.rng.permutation(len(parts))]


def invent_word(words: Wording) -> str:
    """A word that has nothing to do with the picture, real or made up."""
    if words.chance(0.6):
        return words.pick(STRANGERS)
    return "".join(words.pick(SYLLABLES) for _ in range(int(words.rng.integers(2, 4))))


def join_words(parts: Sequence[str], between: str = " ") -> str:
    """The parts that are not empty, joined."""
    return between.join(part for part in parts if part)


def add_article(noun: str) -> str:
    """The noun with "a" or "an"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def word_colour(name: str, words: Wording) -> str:
    """A colour, now and then a bright or a plain one."""
    colour = words.pick(COLOUR_WORDS.get(name, (name,)))
    return f"{words.pick(TINTS)} {colour}" if words.chance(0.04) else colour


def word_size(size: str, words: Wording) -> str:
    """A size; nothing says medium most often."""
    return words.pick(SIZE_WORDS[size])


def word_shape(shape: str, words: Wording) -> str:
    """A shape's name."""
    return words.pick(SHAPE_WORDS.get(shape, (shape,)))


def word_thing(thing: Thing, words: Wording) -> str:
    """Size, colour and shape without an article, the colour before or after the noun."""
    size, colour, shape = word_size(thing.size, words), word_colour(thing.colour, words), word_shape(thing.shape, words)
    extra = words.pick(ADJECTIVES) if words.chance(0.08) else ""
    order = words.rng.random()
    if order < 0.10:
        return join_words((extra, size, shape, "in", colour))
    if order < 0.17:
        return join_words((extra, colour, size, shape))
    if order < 0.20:
        return join_words((extra, size, f"{colour}-coloured" if words.chance(0.5) else f"{colour} colored", shape))
    return join_words((extra, size, colour, shape))


def word_place(place: str, words: Wording) -> str:
    """Where a single shape stands; nothing says the centre half of the time."""
    if place in PLACE_WORDS:
        return words.pick(PLACE_WORDS[place])
    if words.chance(0.3):
        place = place.replace("top", "upper").replace("bottom", "lower")
    if words.chance(0.15):
        place = place.replace(" ", "-")
    return words.pick(CORNER_WORDS).format(place)


def word_ground(background: str, phrases: Sequence[str], words: Wording) -> str:
    """The background in one of these phrases."""
    colour = word_colour(background, words)
    return words.pick(phrases).format(a=add_article(colour), c=colour, x=invent_word(words))


def word_subject(scene: Shapes, words: Wording, articles: bool = True) -> tuple[str, str]:
    """The shape or the pair with its relation, and the place of a single shape."""
    nouns = [word_thing(thing, words) for thing in scene.things]
    if articles:
        nouns = [add_article(noun) for noun in nouns]
    if len(nouns) == 2:
        return words.pick(RELATION_WORDS[scene.place]).format(*nouns), ""
    return nouns[0], word_place(scene.place, words)
