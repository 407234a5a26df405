import gc
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

from mflux_api.checkpoints.capabilities import ModelFacts
from mflux_api.engine.cache import LoadPlan, ModelCache
from mflux_api.engine.precision import choose_precision
from mflux_api.errors import MfluxError, OutOfMemory
from mflux_api.models.registry import EMBEDDED_MODELS_DIR
from tests.support.estimating import estimate_held

PLAN = LoadPlan(
    folder=EMBEDDED_MODELS_DIR / "flux2-tiny",
    family="flux2",
    facts=ModelFacts(),
    bits=None,
    precision="auto",
    low_ram=False,
    embedding_cache=0,
)
BITS_4 = replace(PLAN, bits=4)
BITS_8 = replace(PLAN, bits=8)


@pytest.fixture(autouse=True)
def nothing_left_over() -> None:
    """Free what earlier tests left behind, so that it is not freed during a measurement."""
    gc.collect()
    mx.clear_cache()


def size(plan: LoadPlan) -> int:
    return estimate_held(plan.read_checkpoint(), plan.bits, choose_precision(plan.precision).dtype.size)


def test_a_model_is_loaded_once() -> None:
    cache = ModelCache(2 * size(PLAN))
    assert cache.get(PLAN) is cache.get(PLAN)
    assert cache.size == size(PLAN)


@pytest.mark.slow
def test_the_least_recently_used_model_makes_room() -> None:
    cache = ModelCache(size(PLAN) + size(BITS_8))
    for plan in (PLAN, BITS_4, PLAN, BITS_8):
        cache.get(plan)
    assert cache.list_plans() == [PLAN, BITS_8]


def test_a_model_that_cannot_fit_is_refused_before_anything_is_evicted() -> None:
    cache = ModelCache(size(BITS_4))
    kept = cache.get(BITS_4)
    with pytest.raises(OutOfMemory) as caught:
        cache.get(PLAN)
    assert caught.value.code == "OOM_ERROR"
    assert "and the budget for models is" in caught.value.message
    assert caught.value.details["needed"] == size(PLAN)
    assert cache.get(BITS_4) is kept


def test_a_model_that_fails_to_load_is_not_kept(tmp_path: Path) -> None:
    cache = ModelCache(size(PLAN))
    with pytest.raises(MfluxError):
        cache.get(replace(PLAN, folder=tmp_path))
    assert cache.list_plans() == []


@pytest.mark.slow
def test_unloading_gives_the_memory_back() -> None:
    before = mx.get_active_memory()
    cache = ModelCache(size(PLAN))
    cache.get(PLAN)
    assert mx.get_active_memory() - before > 0.9 * size(PLAN)
    assert cache.unload(PLAN)
    assert not cache.unload(PLAN)
    assert mx.get_active_memory() - before < 0.01 * size(PLAN)


@pytest.mark.parametrize("plan", [PLAN, BITS_8, BITS_4], ids=["float32", "8-bit", "4-bit"])
def test_the_estimate_is_what_the_model_takes(plan: LoadPlan) -> None:
    before = mx.get_active_memory()
    cache = ModelCache(size(plan))
    cache.get(plan)
    assert mx.get_active_memory() - before == pytest.approx(size(plan), rel=0.05)
