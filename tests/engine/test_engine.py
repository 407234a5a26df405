from collections.abc import Callable

import pytest

from mflux_api.engine import engine as door
from mflux_api.engine.engine import Engine
from mflux_api.ipc.messages import EngineSetup, FinishedPicture, PaintCommand, Reply, Step, Thumbnail, always_watched
from mflux_api.models.registry import EMBEDDED_MODELS_DIR, resolve_model
from mflux_api.request import GenerateRequest

WATCHED = [Step, Thumbnail, Step, Thumbnail, Step, FinishedPicture]
REQUEST = GenerateRequest(prompt="a", negative_prompt="", width=64, height=64, steps=3, guidance=1.0, seeds=(7,))


@pytest.fixture(scope="module")
def engine() -> Engine:
    setup = EngineSetup(
        budget=None, precision="float32", embedding_cache=1 << 20, max_image_pixels=1 << 20, low_priority=False
    )
    made = Engine(setup)
    reply_types(made)
    return made


def reply_types(engine: Engine, is_watched: Callable[[], bool] = always_watched) -> list[type[Reply]]:
    command = PaintCommand(model=resolve_model("flux2-tiny", EMBEDDED_MODELS_DIR), low_ram=False, request=REQUEST)
    return [type(reply) for reply in engine.run_command(command, is_watched=is_watched)]


def test_who_looks_is_shown_a_preview_of_every_step_but_the_last(engine: Engine) -> None:
    assert reply_types(engine) == WATCHED


def test_nobody_is_shown_previews_of_a_short_painting(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "UNWATCHED_SECONDS", 60.0)
    assert reply_types(engine, lambda: False) == [Step, Step, Step, FinishedPicture]


def test_a_long_painting_has_one_now_and_then_for_who_comes_late(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "UNWATCHED_SECONDS", 0.0)
    assert reply_types(engine, lambda: False) == WATCHED


def test_who_comes_in_the_middle_is_shown_the_next(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "UNWATCHED_SECONDS", 60.0)
    looks = iter([False, True])
    assert reply_types(engine, lambda: next(looks)) == [Step, Step, Thumbnail, Step, FinishedPicture]
