"""The list of models: estimates of memory, and when the list is refreshed."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from mflux_api.models.inventory import ModelInventory, ModelLoader
from mflux_api.models.registry import EMBEDDED_MODELS_DIR, ResolvedModel
from tests.support.jobs import run_async


async def _no_engine(model: ResolvedModel) -> None:
    """Stand in for loading and unloading, without an engine."""


def make_models(models_dir: Path, weigh: Callable[[ResolvedModel], int | None] = lambda _: None) -> ModelInventory:
    door = ModelLoader(load=_no_engine, unload=_no_engine, loaded_names=lambda: (), estimate_weights=weigh)
    return ModelInventory(models_dir, "flux2-tiny", door)


@run_async
async def test_only_models_that_are_here_and_can_paint_are_weighed_and_not_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed: list[tuple[str, int]] = []

    def weigh(model: ResolvedModel) -> int | None:
        weighed.append((model.spec.name, threading.get_ident()))
        return None if model.spec.name == "flux2-tiny-base" else 1000

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    models = make_models(tmp_path / "models", weigh)
    entries = await models.list_models()
    weights = await models.estimate_weights(entries)
    here = {entry.spec.name for entry in entries if entry.is_downloaded and not entry.spec.unavailable}
    assert {"flux2-tiny", "flux2-tiny-base"} <= here < {entry.spec.name for entry in entries}
    assert weights == {name: None if name == "flux2-tiny-base" else 1000 for name in here}
    assert threading.get_ident() not in {thread for _, thread in weighed}


@run_async
async def test_an_old_list_serves_for_what_is_still_there_and_only_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("mine", "yours"):
        shutil.copytree(EMBEDDED_MODELS_DIR / "flux2-tiny", tmp_path / "models" / name)
    models = make_models(tmp_path / "models")
    looks = Mock(side_effect=models._list_entries)
    monkeypatch.setattr(models, "_list_entries", looks)
    assert {"mine", "yours"} <= {entry.spec.name for entry in await models.list_models()}
    models.invalidate()
    shutil.rmtree(tmp_path / "models" / "yours")
    still = {entry.spec.name for entry in await models.list_still_present()}
    assert {"mine", "flux2-tiny"} <= still
    assert not {"yours", "flux2-klein-4b"} & still
    assert looks.call_count == 1
