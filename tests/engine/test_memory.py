import mlx.core as mx

from mflux_api.engine import memory
from mflux_api.engine.model import load_model


def test_loading_a_model_caps_what_mlx_keeps_for_reuse() -> None:
    mx.set_cache_limit(2**40)
    load_model("flux2-tiny")
    assert mx.set_cache_limit(memory.CACHE_LIMIT) == memory.CACHE_LIMIT


def test_the_report_counts_what_is_held() -> None:
    before = memory.report().active
    held = mx.zeros((1000, 1000))
    mx.eval(held)
    assert memory.report().active - before >= held.nbytes
    assert memory.report().peak >= memory.report().active


def test_the_budget_leaves_room_for_the_rest() -> None:
    assert 0 < memory.default_budget() < 2**50
