"""Captions of a scene in many wordings; what is usual (medium size, in the centre, by day) may go unsaid."""

import numpy as np

from scenes import Landscape, Scene, Shapes, Thing
from words import (
    COLOUR_WORDS,
    CORNER_WORDS,
    EXTRA_WORDS,
    GROUND_WORDS,
    LEADS,
    PLACE_WORDS,
    PRAISE,
    RELATION_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
    STRANGERS,
    TAILS,
    TIME_WORDS,
)


class Wording:
    """Picks words by lot."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def pick(self, words: tuple[str, ...] | list[str]) -> str:
        """One of these words."""
        return words[int(self.rng.integers(len(words)))]

    def chance(self, share: float) -> bool:
        """True in this share of cases."""
        return bool(self.rng.random() < share)


def caption(scene: Scene, rng: np.random.Generator, plain: bool = False) -> str:
    """A caption of this scene; a plain one has no filler, no unknown words and no odd spelling."""
    words = Wording(rng)
    core = _shapes(scene, words) if isinstance(scene, Shapes) else _landscape(scene, words)
    return core if plain else _dress(core, words)


def _dress(core: str, words: Wording) -> str:
    lead = words.pick(LEADS)
    text = lead + core + words.pick(TAILS)
    if words.chance(0.12):
        text = (
            f"{words.pick(STRANGERS)} {text}"
            if words.chance(0.5)
            else f"{text}, {words.pick(STRANGERS)} {words.pick(STRANGERS)}"
        )
    if words.chance(0.08):
        text = text.replace(",", "")
    if words.chance(0.03):
        return text.title() if words.chance(0.6) else text.upper()
    return text[0].upper() + text[1:] if words.chance(0.2) else text


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _colour(name: str, words: Wording) -> str:
    return words.pick(COLOUR_WORDS.get(name, (name,)))


def _noun(thing: Thing, words: Wording) -> str:
    size = words.pick(SIZE_WORDS[thing.size])
    shape = words.pick(SHAPE_WORDS.get(thing.shape, (thing.shape,)))
    return " ".join(part for part in (size, _colour(thing.colour, words), shape) if part)


def _place(place: str, words: Wording) -> str:
    if place in PLACE_WORDS:
        return words.pick(PLACE_WORDS[place])
    return words.pick(CORNER_WORDS).format(place.replace("top", "upper") if words.chance(0.15) else place)


def _ground(background: str, words: Wording) -> str:
    colour = _colour(background, words)
    if background == "white" and words.chance(0.2):
        return ""
    return words.pick(
        (
            f"on {_article(colour)} background",
            f"on {_article(colour)} background",
            f"on {colour}",
            f"with {_article(colour)} background",
        )
    )


def _shapes(scene: Shapes, words: Wording) -> str:
    """Subject, place and background, in one of three orders."""
    nouns = [_article(_noun(thing, words)) for thing in scene.things]
    if len(nouns) == 2:
        subject, place = words.pick(RELATION_WORDS[scene.place]).format(*nouns), ""
    else:
        subject, place = nouns[0], _place(scene.place, words)
    ground = _ground(scene.background, words)
    if ground and words.chance(0.12):
        head = ground if ground.startswith("on ") else f"{_colour(scene.background, words)} background"
        return ", ".join(part for part in (head, f"{subject} {place}".strip()) if part)
    return " ".join(part for part in (subject, place, ground) if part)


def _landscape(scene: Landscape, words: Wording) -> str:
    time = words.pick(TIME_WORDS[scene.time])
    ground = words.pick(GROUND_WORDS[scene.ground])
    core = _time_over_ground(scene, time, ground, words)
    extras = " and ".join(words.pick(EXTRA_WORDS[name]) for name in scene.extras)
    if extras:
        core += words.pick((f" with {extras}", f", {extras}", f" and {extras}"))
    return core


def _time_over_ground(scene: Landscape, time: str, ground: str, words: Wording) -> str:
    if scene.time == "day" and words.chance(0.35):
        return _praised(ground, words)
    if scene.ground == "mountains" and words.chance(0.12):
        return _praised(time, words)
    if words.chance(0.3):
        return f"{_praised(ground, words)} {words.pick(('at', 'at', 'under', 'during'))} {_bare(time)}"
    return f"{_praised(time, words)} {words.pick(('over', 'over', 'over', 'at', 'above', 'in'))} {ground}"


def _bare(time: str) -> str:
    return time.removeprefix("a ").removeprefix("the ")


def _praised(noun: str, words: Wording) -> str:
    """The noun with an adjective before it, half of the time."""
    if words.chance(0.5):
        return noun
    article, _, rest = noun.partition(" ")
    praise = words.pick(PRAISE)
    if article in ("a", "an"):
        return f"{_article(praise)} {rest}"
    if article == "the":
        return f"the {praise} {rest}"
    return f"{_article(praise)} {noun}" if words.chance(0.5) else f"{praise} {noun}"
