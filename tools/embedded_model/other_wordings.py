"""The judge's own ways of saying a scene. Training never sees them: this file shares nothing with the captions.

It imports the scene records only. Do not give its words or its frames to `words.py`; a test compares both.
"""

from dataclasses import dataclass

import numpy as np

from scenes import Landscape, Scene, Shapes, Thing


@dataclass(frozen=True)
class Frame:
    """One way of saying a single shape, a pair and a landscape, and how it is typed at the end.

    `{one}` and `{two}` are the shapes, `{s}`, `{c}` and `{f}` a single shape's size, colour and form, `{at}` its place,
    `{rel}` the relation of a pair, `{bg}` the background; `{land}`, `{light}` and `{more}` (or
    `{with_more}`) make a landscape.
    """

    name: str
    single: str
    pair: str
    landscape: str
    articles: bool = True
    typed: str = "as is"


FRAMES = (
    Frame(
        "no articles",
        "{one} placed upon {bg} {at}",
        "{one} {rel} {two} placed upon {bg}",
        "{land} {light} {with_more}",
        articles=False,
    ),
    Frame(
        "list", "{f}: {s} {c}, {at}, all {bg} behind", "{one} {rel} {two}, all {bg} behind", "{land}, {light}, {more}"
    ),
    Frame(
        "background first",
        "{bg} surface, {one} {at}",
        "{bg} surface, {one} {rel} {two}",
        "{light}: {land}, {more}",
        articles=False,
    ),
    Frame(
        "two sentences",
        "We are looking at {one} {at}. Background colour: {bg}.",
        "We are looking at {one} {rel} {two}. Background colour: {bg}.",
        "We are looking at {land} {with_more}. The time: {light}.",
    ),
    Frame(
        "three sentences",
        "Subject is a {f}. Colour {c}, size {s}, {at}. All the rest is {bg}.",
        "Subjects are two. One sees {one} {rel} {two}. All the rest is {bg}.",
        "Subject is {land}. Moment: {light}. Also {more}.",
    ),
    Frame(
        "against",
        "{one} {at} seen against pure {bg}",
        "{one} {rel} {two} seen against pure {bg}",
        "{land} {with_more} seen {light}",
    ),
    Frame(
        "in front of",
        "{one} {at} hanging in front of a curtain of {bg}",
        "{one} {rel} {two}, both hanging in front of a curtain of {bg}",
        "{light}, and in front of us {land} {with_more}",
    ),
    Frame(
        "request",
        "Would you kindly do {one} {at} over {bg}? Thank you!",
        "Would you kindly do {one} {rel} {two} over {bg}? Thank you!",
        "Would you kindly do {land} {light} {with_more}? Thank you!",
    ),
    Frame(
        "tags",
        "best quality, 1{f}, {c}_{f}, {s}, {at}, {bg}_background, simple_background",
        "best quality, 2shapes, {one} {rel} {two}, {bg}_background, simple_background",
        "best quality, scenery, {land}, {light}, {more}, outdoors",
        articles=False,
    ),
    Frame(
        "capitals",
        "Poster: one {s} {c} {f} {at} upon {bg}",
        "Poster: {one} {rel} {two} upon {bg}",
        "Poster: {land} {light} {with_more}",
        typed="capitals",
    ),
    Frame(
        "typing errors",
        "we need {one} {at} printed on {bg}",
        "we need {one} {rel} {two} printed on {bg}",
        "we need {land} {light} {with_more}",
        typed="errors",
    ),
    Frame(
        "no punctuation",
        "looking for a design where {one} sits {at} and all the rest stays {bg}",
        "looking for a design where {one} is {rel} {two} and all the rest stays {bg}",
        "looking for a design where {land} lies {light} {with_more}",
    ),
    Frame(
        "adjectives",
        "a crisp and charming {s} {c} {f} {at} upon a quiet, empty {bg} surface",
        "the crisp and charming duo of {one} {rel} {two} upon a quiet, empty {bg} surface",
        "a charming and tasteful view of {land} {light} {with_more}",
    ),
    Frame(
        "question",
        "How would {one} look on {bg} {at}?",
        "How would {one} {rel} {two} look on {bg}?",
        "How would {land} look {light} {with_more}?",
    ),
    Frame(
        "form",
        "form={f}; colour={c}; size={s}; place={at}; ground={bg}",
        "forms={one} {rel} {two}; ground={bg}",
        "land={land}; light={light}; things={more}",
        articles=False,
    ),
    Frame(
        "passive",
        "Upon {bg}, {one} has been drawn {at}",
        "Upon {bg}, {one} has been drawn {rel} {two}",
        "{light}, {land} has been drawn {with_more}",
    ),
)
AT = {
    "center": "right in the middle",
    "left": "over on the left half",
    "right": "over on the right half",
    "top": "high up, top middle",
    "bottom": "low down, bottom middle",
    "top left": "towards the top left",
    "top right": "towards the top right",
    "bottom left": "towards the bottom left",
    "bottom right": "towards the bottom right",
}
RELATED = {
    "left of": "standing left of",
    "right of": "standing right of",
    "above": "hovering above",
    "below": "lying below",
}
LIGHT = {
    "day": "in bright daylight",
    "sunset": "as the sun goes down at sunset",
    "night": "under the stars at night",
    "sunrise": "as the sun comes up at sunrise",
}
LAND = {
    "mountains": "high mountains",
    "sea": "the open sea",
    "lake": "a still lake",
    "field": "a wide green meadow",
    "desert": "a hot sandy desert",
    "snow": "a plain covered in snow",
}
MORE = {
    "mountains": "mountains far away",
    "trees": "some trees",
    "house": "a lonely house",
    "sailboat": "a white sailboat",
}
NEAR_KEYS = dict(zip("qwertyuiopasdfghjklzxcvbnm", "wqrtyuiopisdfghjkljxzvcnbn", strict=True))


def word_otherwise(scene: Scene, number: int, rng: np.random.Generator) -> tuple[str, str]:
    """The caption of case `number` in the frame whose turn it is, and that frame's name."""
    frame = FRAMES[number % len(FRAMES)]
    text = _landscape(scene, frame) if isinstance(scene, Landscape) else _shapes(scene, frame)
    text = " ".join(text.replace(" ,", ",").replace(", ,", ",").split()).strip(" ,")
    if frame.typed == "capitals":
        return text.upper(), frame.name
    return (_mistype(text, rng) if frame.typed == "errors" else text), frame.name


def _shapes(scene: Shapes, frame: Frame) -> str:
    things = [_thing(thing, frame.articles) for thing in scene.things]
    if len(things) == 2:
        return frame.pair.format(one=things[0], two=things[1], rel=RELATED[scene.place], bg=scene.background)
    thing = scene.things[0]
    return frame.single.format(
        one=things[0], s=thing.size, c=thing.colour, f=thing.shape, at=AT[scene.place], bg=scene.background
    )


def _thing(thing: Thing, article: bool) -> str:
    text = f"{thing.size} {thing.colour} {thing.shape}"
    return f"a {text}" if article else text


def _landscape(scene: Landscape, frame: Frame) -> str:
    more = " and ".join(MORE[name] for name in scene.extras)
    with_more = f"with {more}" if more else ""
    template = frame.landscape if more else frame.landscape.replace(" Also {more}.", "").replace("; things={more}", "")
    return template.format(land=LAND[scene.ground], light=LIGHT[scene.time], more=more, with_more=with_more)


def _mistype(text: str, rng: np.random.Generator) -> str:
    """One wrong letter, a neighbour on the keyboard, in every third of the longer words."""
    made = []
    for word in text.split():
        letters = list(word)
        if len(word) > 4 and word.isalpha() and rng.random() < 0.34:
            at = 1 + int(rng.integers(len(word) - 2))
            letters[at] = NEAR_KEYS[letters[at]]
        made.append("".join(letters))
    return " ".join(made)
