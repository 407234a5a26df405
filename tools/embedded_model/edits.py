"""Edits: a scene, the same layout with one thing changed, and the words that ask for it."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from phrases import Wording, word_colour, word_shape
from scenes import COLOURS, TIMES, Landscape, Scene, Shapes, draw_lot
from slips import retype

PAIR_SHARE = 0.5
BACKGROUND_REQUESTS = (
    "make the background {c}",
    "make the background {c}",
    "change the background to {c}",
    "turn the background {c}",
    "{c} background",
    "{c} background instead",
    "the background should be {c}",
    "paint the background {c}",
    "i want a {c} background",
    "put it on {c}",
    "the same on {c}",
    "change the colour of the background to {c}",
    "set the background to {c}",
    "background {c}",
)
THING_REQUESTS = (
    "make the {t} {c}",
    "make the {t} {c}",
    "change the {t} to {c}",
    "turn the {t} {c}",
    "colour the {t} {c}",
    "color the {t} {c}",
    "paint the {t} {c}",
    "recolor the {t} {c}",
    "the {t} should be {c}",
    "i want the {t} in {c}",
    "change the colour of the {t} to {c}",
    "make {t} {c}",
    "the {t} in {c}",
)
TIME_REQUESTS = (
    "make it {t}",
    "change it to {t}",
    "turn it into {t}",
    "the same at {t}",
    "{t}",
    "at {t}",
    "make it look like {t}",
    "{t} instead",
    "now at {t}",
    "the same picture at {t}",
    "change the time to {t}",
    "show it at {t}",
)
TIME_NAMES = {
    "day": ("day", "day", "daytime", "midday", "noon"),
    "sunset": ("sunset", "sunset", "golden hour", "dusk"),
    "night": ("night", "night", "nighttime", "midnight"),
    "sunrise": ("sunrise", "sunrise", "dawn", "early morning"),
}
BEFORE = ("", "", "", "", "please ", "can you ", "could you please ", "now ")
AFTER = ("", "", "", "", " please", ", keep the rest", ", nothing else", ".", ", leave everything else as it is")
Changed = Literal["time", "background", "first", "second"]


@dataclass(frozen=True)
class Edit:
    """The scene before and after."""

    before: Scene
    after: Scene

    @property
    def changed(self) -> Changed:
        """What differs."""
        if isinstance(self.before, Landscape) or isinstance(self.after, Landscape):
            return "time"
        if self.before.background != self.after.background:
            return "background"
        return "first" if self.before.things[0] != self.after.things[0] else "second"


def random_edit(rng: np.random.Generator, held_out: bool = False) -> Edit:
    """A scene by lot with its time of day, its background or one shape's colour changed, often of a pair."""
    while True:
        scene = draw_lot(rng, held_out)
        single = isinstance(scene, Shapes) and len(scene.things) == 1
        if not (single and rng.random() < PAIR_SHARE):
            return edit_scene(scene, rng)


def edit_scene(scene: Scene, rng: np.random.Generator) -> Edit:
    """Change one thing of this scene."""
    if isinstance(scene, Landscape):
        return Edit(scene, replace(scene, time=str(rng.choice([name for name in TIMES if name != scene.time]))))
    used = {scene.background} | {thing.colour for thing in scene.things}
    colour = str(rng.choice([name for name in COLOURS if name not in used]))
    if rng.random() < 0.5:
        return Edit(scene, replace(scene, background=colour))
    index = int(rng.integers(len(scene.things)))
    things = tuple(replace(one, colour=colour) if k == index else one for k, one in enumerate(scene.things))
    return Edit(scene, replace(scene, things=things))


def word_request(edit: Edit, rng: np.random.Generator, plain: bool = False) -> str:
    """The words that ask for the change; a plain request has no filler and no odd spelling."""
    words = Wording(rng)
    if plain:
        return _ask(edit, words)
    return retype(f"{words.pick(BEFORE)}{_ask(edit, words)}{words.pick(AFTER)}", words)


def _ask(edit: Edit, words: Wording) -> str:
    if isinstance(edit.after, Landscape):
        return words.pick(TIME_REQUESTS).format(t=words.pick(TIME_NAMES[edit.after.time]))
    assert isinstance(edit.before, Shapes)
    if edit.changed == "background":
        return words.pick(BACKGROUND_REQUESTS).format(c=word_colour(edit.after.background, words))
    index = 0 if edit.changed == "first" else 1
    old, new = edit.before.things[index], edit.after.things[index]
    alone = len({one.shape for one in edit.before.things}) == len(edit.before.things) and words.chance(0.5)
    name = word_shape(old.shape, words)
    name = name if alone else f"{word_colour(old.colour, words)} {name}"
    return words.pick(THING_REQUESTS).format(t=name, c=word_colour(new.colour, words))
