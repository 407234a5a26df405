import mlx.core as mx
import pytest

from mflux_api.engine import memory
from mflux_api.engine.model import Model, load_model
from mflux_api.errors import OutOfMemory


def test_loading_a_model_caps_what_mlx_keeps_for_reuse() -> None:
    mx.set_cache_limit(2**40)
    load_model("flux2-tiny")
    assert mx.set_cache_limit(memory.CACHE_LIMIT) == memory.CACHE_LIMIT


def test_the_report_counts_what_is_held() -> None:
    before = memory.read_mlx_memory().active
    held = mx.zeros((1000, 1000))
    mx.eval(held)
    assert memory.read_mlx_memory().active - before >= held.nbytes
    assert memory.read_mlx_memory().peak >= memory.read_mlx_memory().active


def test_the_budget_leaves_room_for_the_rest() -> None:
    assert 0 < memory.default_budget() < 2**50


@pytest.mark.parametrize(
    "words",
    [
        "[malloc_or_wait] Unable to allocate 68719476736 bytes.",
        "[metal::malloc] Attempting to allocate 19327352832 bytes above the maximum buffer size",
        "[METAL] Command buffer execution failed: Insufficient Memory",
    ],
)
def test_a_failed_allocation_is_out_of_memory(tiny: Model, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(tiny.pipeline.autoencoder, "decode", fail)
    with pytest.raises(OutOfMemory, match="The memory is full") as caught:
        tiny.generate("x", width=64, height=64, steps=1)
    assert caught.value.code == "OOM_ERROR"


def test_other_errors_of_mlx_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="no stream"), memory.translate_allocation_errors():
        raise RuntimeError("no stream")
