"""The workshop's words: what training says, what the judge says, and that they are not the same."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.paths import ROOT

WORKSHOP = ROOT / "tools" / "embedded_model"


class Workshop:
    """The workshop's modules that need numpy and Pillow only."""

    def __getattr__(self, name: str) -> Any:
        return importlib.import_module(name)


@pytest.fixture
def workshop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(WORKSHOP))
    yield Workshop()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(WORKSHOP)):
            del sys.modules[name]


def imported_modules(path: Path) -> set[str]:
    tree = ast.walk(ast.parse(path.read_text()))
    return {node.module or "" for node in tree if isinstance(node, ast.ImportFrom)}


def frame_of(caption: str, names: list[str]) -> str:
    """A caption without its punctuation and without what is named in it."""
    words = re.sub(r"[^a-z ]", " ", caption.lower()).split()
    return " ".join("*" if word in names else word for word in words)


def test_the_judge_imports_only_the_scenes() -> None:
    assert imported_modules(WORKSHOP / "other_wordings.py") <= {"dataclasses", "scenes"}


def test_training_never_says_what_the_judge_says(workshop: Workshop) -> None:
    rng, scenes = np.random.default_rng(3), workshop.scenes
    names = [*scenes.COLOURS, *scenes.SHAPES, *scenes.SIZES, *scenes.TIMES, *scenes.GROUNDS]
    trained = {frame_of(workshop.captions.caption(scenes.draw_lot(rng), rng), names) for _ in range(5000)}
    judged = {
        frame_of(workshop.other_wordings.word_otherwise(scenes.draw_lot(rng, held_out=True), number, rng)[0], names)
        for number in range(800)
    }
    assert trained & judged == set()


def test_the_judge_has_at_least_twelve_ways(workshop: Workshop) -> None:
    assert len({frame.name for frame in workshop.other_wordings.FRAMES}) >= 12


def test_a_plain_caption_names_every_shape_and_colour(workshop: Workshop) -> None:
    rng, words = np.random.default_rng(4), workshop.words
    for _ in range(300):
        scene = workshop.scenes.random_shapes(rng)
        text = workshop.captions.caption(scene, rng, plain=True)
        for thing in scene.things:
            assert any(word in text for word in words.SHAPE_WORDS.get(thing.shape, (thing.shape,))), text
            assert any(word in text for word in words.COLOUR_WORDS.get(thing.colour, (thing.colour,))), text


def test_a_slip_changes_few_letters(workshop: Workshop) -> None:
    words = workshop.phrases.Wording(np.random.default_rng(5))
    text = "a large red circle on a yellow background"
    slipped = [workshop.slips.misspell(text, words) for _ in range(50)]
    assert all(abs(len(one) - len(text)) <= 3 for one in slipped)
    assert all(one.split()[0] == "a" and len(one.split()) == 8 for one in slipped)


def test_an_edit_changes_one_thing_and_asks_for_it(workshop: Workshop) -> None:
    rng = np.random.default_rng(6)
    for _ in range(200):
        edit = workshop.edits.random_edit(rng)
        assert edit.before != edit.after
        if edit.changed in ("first", "second"):
            same = [a == b for a, b in zip(edit.before.things, edit.after.things, strict=True)]
            assert same.count(False) == 1
        assert workshop.edits.word_request(edit, rng)


def test_the_shares_of_the_diet_add_up(workshop: Workshop) -> None:
    kinds = workshop.diet.KINDS
    assert sum(kind.early for kind in kinds) == pytest.approx(1)
    assert sum(kind.late for kind in kinds) == pytest.approx(1)


def test_every_scene_and_request_has_labels_in_range(workshop: Workshop) -> None:
    rng, labels = np.random.default_rng(7), workshop.labels
    sizes = [len(names) for names in labels.FIELDS.values()]
    for _ in range(100):
        edit = workshop.edits.random_edit(rng)
        rows = [labels.label_scene(edit.after), labels.label_request(edit, workshop.edits.word_request(edit, rng))[0]]
        assert all(label < size for row in rows for label, size in zip(row, sizes, strict=True))


def test_the_free_variables_move_the_drawing(workshop: Workshop) -> None:
    rng, pictures = np.random.default_rng(8), workshop.pictures
    for scene in (workshop.scenes.random_shapes(rng), workshop.scenes.random_landscape(rng)):
        jitter = pictures.random_jitter(rng)
        first = pictures.draw(scene, 64, 64, jitter)
        assert np.array_equal(first, pictures.draw(scene, 64, 64, jitter))
        assert not np.array_equal(first, pictures.draw(scene, 64, 64, [-value for value in jitter]))
