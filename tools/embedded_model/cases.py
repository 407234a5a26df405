"""The cases that a model is judged on: held-out scenes in the grammar's wordings or in the judge's own, and edits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from captions import caption
from edits import Edit, random_edit, word_request
from other_wordings import word_otherwise
from painters import Order
from pictures import draw, random_jitter
from scenes import Scene, Shapes, draw_lot
from scorer import Verdict, judge

WordingName = Literal["own", "plain", "others"]


@dataclass(frozen=True)
class Case:
    """What to paint, the scene that the picture must show, and the group that its verdicts count for."""

    scene: Scene
    order: Order
    group: str
    edit: Edit | None = None

    def judge(self, picture: np.ndarray) -> list[Verdict]:
        """The verdicts on a picture; those of an edit say whether the property was asked for or should have stayed."""
        verdicts = judge(self.scene, picture)
        if self.edit is None:
            return verdicts
        asked = _asked_index(self.edit)
        return [
            Verdict("asked" if index == asked else "stays", one.wanted, one.seen) for index, one in enumerate(verdicts)
        ]


def _asked_index(edit: Edit) -> int:
    """Which of the judge's verdicts looks at what the request changes."""
    if edit.changed in ("time", "background"):
        return 0
    return 1 if edit.changed == "first" else 4


def make_cases(wording: WordingName, width: int, height: int, count: int, seed: int) -> list[Case]:
    """Scenes that training never sees, with captions."""
    rng = np.random.default_rng(seed)
    scenes = [draw_lot(rng, held_out=True) for _ in range(count)]
    say: dict[str, Callable[[Scene, int], tuple[str, str]]] = {
        "own": lambda scene, _: (caption(scene, rng), "own"),
        "plain": lambda scene, _: (caption(scene, rng, plain=True), "plain"),
        "others": lambda scene, number: word_otherwise(scene, number, rng),
    }
    cases = []
    for number, scene in enumerate(scenes):
        text, group = say[wording](scene, number)
        cases.append(Case(scene, Order(text, width, height, seed + number), group))
    return cases


def make_edits(width: int, height: int, count: int, seed: int) -> list[Case]:
    """Held-out scenes as references, with requests that change one thing."""
    rng = np.random.default_rng(seed)
    cases = []
    for number in range(count):
        edit = random_edit(rng, held_out=True)
        reference = Image.fromarray(draw(edit.before, width, height, random_jitter(rng)))
        order = Order(word_request(edit, rng), width, height, 900 + number, reference)
        pair = isinstance(edit.before, Shapes) and len(edit.before.things) == 2
        cases.append(Case(edit.after, order, "pair" if pair else "one", edit))
    return cases
