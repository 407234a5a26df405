"""The ways of saying a scene: one phrase, a list, tags, or several sentences."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from filler import FILLER_TAGS, PRAISE
from phrases import (
    Wording,
    add_article,
    join_words,
    word_colour,
    word_ground,
    word_place,
    word_shape,
    word_size,
    word_subject,
)
from scenes import Landscape, Shapes
from words import (
    ATTRIBUTE_SENTENCES,
    EXTRA_SENTENCES,
    EXTRA_WORDS,
    GROUND_PHRASES,
    GROUND_SENTENCES,
    GROUND_TAGS,
    GROUND_WORDS,
    PLACE_SENTENCES,
    SUBJECT_SENTENCES,
    TIME_SENTENCES,
    TIME_TAGS,
    TIME_WORDS,
)


def say_shapes(scene: Shapes, words: Wording) -> str:
    """One phrase: subject, place and background, the background first now and then."""
    subject, place = word_subject(scene, words, articles=not words.chance(0.15))
    if scene.background == "white" and words.chance(0.12):
        return join_words((subject, place))
    if words.chance(0.12):
        head = word_ground(scene.background, GROUND_TAGS if words.chance(0.5) else GROUND_PHRASES[:9], words)
        return f"{head}, {join_words((subject, place))}"
    ground = word_ground(scene.background, GROUND_PHRASES, words)
    if place and words.chance(0.2):
        return join_words((subject, ground, place))
    return join_words((subject, place, ground))


def list_shapes(scene: Shapes, words: Wording) -> str:
    """A list with commas or without: subject and background in either order, no articles."""
    subject, place = word_subject(scene, words, articles=words.chance(0.2))
    ground = word_ground(scene.background, GROUND_TAGS, words)
    parts = [join_words((subject, place))] if words.chance(0.5) or not place else [subject, place]
    parts = [ground, *parts] if words.chance(0.4) else [*parts, ground]
    return join_words(parts, words.pick((", ", ", ", ", ", " ", " ", "; ", " - ", " | ")))


def tag_shapes(scene: Shapes, words: Wording) -> str:
    """Tags in any order, with tags that say nothing among them."""
    fillers = [words.pick(FILLER_TAGS) for _ in range(int(words.rng.integers(0, 5)))]
    ground = word_ground(scene.background, GROUND_TAGS[:-1], words)
    if len(scene.things) == 1 and words.chance(0.3):
        thing = scene.things[0]
        shape, colour, size = (
            word_shape(thing.shape, words),
            word_colour(thing.colour, words),
            word_size(thing.size, words),
        )
        split = (f"{colour} {shape}", size) if words.chance(0.5) else (shape, colour, size)
        if words.chance(0.25):
            split = (f"shape: {shape}", f"color: {colour}", f"size: {size}" if size else "")
        own = [join_words(split, ", "), word_place(scene.place, words)]
    else:
        own = list(word_subject(scene, words, articles=False))
        own[0] = f"({own[0]})" if words.chance(0.06) else own[0]
    return join_words(words.shuffle([*own, ground, *fillers]) if words.chance(0.5) else [*own, ground, *fillers], ", ")


def tell_shapes(scene: Shapes, words: Wording) -> str:
    """Two or three sentences."""
    sentences = _tell_one(scene, words) if len(scene.things) == 1 else _tell_pair(scene, words)
    ground = word_ground(scene.background, GROUND_SENTENCES, words)
    return join_sentences([ground, *sentences] if words.chance(0.25) else [*sentences, ground], words)


def _tell_one(scene: Shapes, words: Wording) -> list[str]:
    """The shape, then what it is like, then where it stands, as far as the first sentence has not said so."""
    thing = scene.things[0]
    shape, colour, size = word_shape(thing.shape, words), word_colour(thing.colour, words), word_size(thing.size, words)
    place = word_place(scene.place, words)
    said, attribute = words.pick(("shape", "shape", "size", "colour", "all")), ""
    if said == "shape":
        head, attribute = shape, join_words(words.shuffle([part for part in (size, colour) if part]), " and ")
    elif said == "size":
        head, attribute = join_words((size, shape)), colour
    elif said == "colour":
        head, attribute = f"{colour} {shape}", size
    else:
        head = join_words((size, colour, shape))
    together = bool(place) and words.chance(0.4)
    first = words.pick(SUBJECT_SENTENCES).format(join_words((add_article(head), place if together else "")))
    rest = [words.pick(ATTRIBUTE_SENTENCES).format(attribute, s=shape)] if attribute else []
    if place and not together:
        rest.append(words.pick(PLACE_SENTENCES).format(place, s=shape))
    return [first, *rest]


def _tell_pair(scene: Shapes, words: Wording) -> list[str]:
    subject, _ = word_subject(scene, words)
    first = words.pick(SUBJECT_SENTENCES).format(subject)
    return [words.pick(("two shapes", "there are two shapes")), first] if words.chance(0.2) else [first]


def join_sentences(sentences: list[str], words: Wording) -> str:
    """Sentences with full stops and capitals, or run on with commas or "and"."""
    manner = words.rng.random()
    if manner < 0.6:
        return " ".join(f"{one[0].upper()}{one[1:]}." for one in sentences)
    if manner < 0.8:
        return ". ".join(sentences)
    return (", " if manner < 0.92 else " and ").join(sentences)


def say_landscape(scene: Landscape, words: Wording) -> str:
    """One phrase: the time over the ground, with what stands in it."""
    time, ground = words.pick(TIME_WORDS[scene.time]), words.pick(GROUND_WORDS[scene.ground])
    core = _time_over_ground(scene, time, ground, words)
    extras = " and ".join(words.pick(EXTRA_WORDS[name]) for name in scene.extras)
    if extras:
        core += words.pick((f" with {extras}", f", {extras}", f" and {extras}"))
    return core


def tag_landscape(scene: Landscape, words: Wording) -> str:
    """Tags in any order; without articles in most cases."""
    fillers = [words.pick(FILLER_TAGS) for _ in range(int(words.rng.integers(0, 4)))]
    own = [words.pick(GROUND_WORDS[scene.ground]), words.pick(TIME_TAGS[scene.time])]
    own += [words.pick(EXTRA_WORDS[name]) for name in scene.extras]
    if words.chance(0.7):
        own = [_drop_article(tag) for tag in own]
    tags = words.shuffle([*own, *fillers]) if words.chance(0.5) else [*own, *fillers]
    return join_words(tags, words.pick((", ", ", ", ", ", " ")))


def tell_landscape(scene: Landscape, words: Wording) -> str:
    """Two or more sentences."""
    ground = words.pick(SUBJECT_SENTENCES).format(words.pick(GROUND_WORDS[scene.ground]))
    sentences = words.shuffle([ground, words.pick(TIME_SENTENCES[scene.time])])
    extras = " and ".join(words.pick(EXTRA_WORDS[name]) for name in scene.extras)
    if extras:
        sentences.append(words.pick(EXTRA_SENTENCES).format(extras))
    return join_sentences(sentences, words)


def _time_over_ground(scene: Landscape, time: str, ground: str, words: Wording) -> str:
    if scene.time == "day" and words.chance(0.25):
        return _praise(ground, words)
    if scene.ground == "mountains" and words.chance(0.12):
        return _praise(time, words)
    if words.chance(0.3):
        return f"{_praise(ground, words)} {words.pick(('at', 'at', 'under', 'during', 'in'))} {_drop_article(time)}"
    if words.chance(0.2):
        return f"{_praise(ground, words)}{words.pick((' ', ', '))}{words.pick(TIME_TAGS[scene.time])}"
    return f"{_praise(time, words)} {words.pick(('over', 'over', 'over', 'at', 'above', 'in'))} {ground}"


def _drop_article(noun: str) -> str:
    return noun.removeprefix("a ").removeprefix("an ").removeprefix("the ")


def _praise(noun: str, words: Wording) -> str:
    """The noun with an adjective before it, half of the time."""
    if words.chance(0.5):
        return noun
    article, _, rest = noun.partition(" ")
    praise = words.pick(PRAISE)
    if article in ("a", "an"):
        return f"{add_article(praise)} {rest}"
    if article == "the":
        return f"the {praise} {rest}"
    return f"{add_article(praise)} {noun}" if words.chance(0.5) else f"{praise} {noun}"


@dataclass(frozen=True)
class Way:
    """A way of saying a scene, its share of all captions, and whether words like "a photo of" may stand before it."""

    say: Callable[[Any, Wording], str]
    weight: float
    leads: bool


SHAPE_WAYS = (
    Way(say_shapes, 0.42, leads=True),
    Way(list_shapes, 0.20, leads=True),
    Way(tag_shapes, 0.16, leads=True),
    Way(tell_shapes, 0.22, leads=False),
)
LANDSCAPE_WAYS = (
    Way(say_landscape, 0.56, leads=True),
    Way(tag_landscape, 0.24, leads=True),
    Way(tell_landscape, 0.20, leads=False),
)
