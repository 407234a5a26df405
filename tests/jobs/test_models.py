"""The list of models: what each will hold in memory."""

import threading
from pathlib import Path

import pytest

from mflux_api.catalogue.models import Located
from mflux_api.jobs.models import EngineDoor, Models
from tests.jobs.making import asynchronous


async def _no_engine(model: Located) -> None:
    """Nobody paints here."""


@asynchronous
async def test_only_models_that_are_here_and_can_paint_are_weighed_and_not_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed: list[tuple[str, int]] = []

    def weigh(model: Located) -> int | None:
        weighed.append((model.spec.name, threading.get_ident()))
        return None if model.spec.name == "flux2-tiny-base" else 1000

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    door = EngineDoor(load=_no_engine, unload=_no_engine, loaded=lambda: (), weigh=weigh)
    models = Models(tmp_path / "models", "flux2-tiny", door)
    entries = await models.listed()
    weights = await models.weights(entries)
    here = {entry.spec.name for entry in entries if entry.is_here and not entry.spec.unavailable}
    assert {"flux2-tiny", "flux2-tiny-base"} <= here < {entry.spec.name for entry in entries}
    assert weights == {name: None if name == "flux2-tiny-base" else 1000 for name in here}
    assert threading.get_ident() not in {thread for _, thread in weighed}
