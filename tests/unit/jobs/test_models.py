"""The list of models: estimates of memory, and when the list is refreshed."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from mflux_api.models.inventory import ModelInventory, ModelLoader, ModelMemory
from mflux_api.models.registry import EMBEDDED_MODELS_DIR, ModelSpec, ResolvedModel
from tests.support.jobs import run_async


async def _no_engine(model: ResolvedModel) -> None:
    """Stand in for loading and unloading, without an engine."""


def make_models(
    models_dir: Path, weigh: Callable[[ModelSpec, Path | None], ModelMemory | None] = lambda *_: None
) -> ModelInventory:
    door = ModelLoader(load=_no_engine, unload=_no_engine, loaded_names=lambda: (), estimate_memory=weigh)
    return ModelInventory(models_dir, "flux2-tiny", door)


@run_async
async def test_models_that_can_paint_are_weighed_here_or_not_and_not_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed: dict[str, tuple[Path | None, int]] = {}
    memory = ModelMemory(weights=1000, fits=True)

    def weigh(spec: ModelSpec, folder: Path | None) -> ModelMemory | None:
        weighed[spec.name] = (folder, threading.get_ident())
        return None if spec.name == "flux2-tiny-base" else memory

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    models = make_models(tmp_path / "models", weigh)
    entries = await models.list_models()
    found = await models.estimate_memory(entries)
    usable = {entry.spec.name: entry for entry in entries if not entry.spec.unavailable}
    assert found == {name: None if name == "flux2-tiny-base" else memory for name in usable}
    assert {name: folder for name, (folder, _) in weighed.items()} == {
        name: each.folder for name, each in usable.items()
    }
    assert threading.get_ident() not in {thread for _, thread in weighed.values()}


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
