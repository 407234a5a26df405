from pathlib import Path

import pytest

from mflux_api.engine.bench import Measurement, run_benchmark

STAGES = ("import", "load", "prompt, not remembered", "prompt, remembered", "64: a step", "64: decode", "64: PNG")


@pytest.fixture(scope="module")
def figures() -> dict[str, Measurement]:
    return {figure.name: figure for figure in run_benchmark("flux2-tiny", [64], 1, Path("models"))}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_measured(figures: dict[str, Measurement], stage: str) -> None:
    assert figures[stage].unit == "ms"
    assert figures[stage].value is not None


@pytest.mark.slow
def test_mflux_paints_the_same_picture_and_is_compared(figures: dict[str, Measurement]) -> None:
    assert figures["64: mflux, eager"].note.startswith("ours takes ")


@pytest.mark.slow
def test_memory_is_read_before_mflux_paints(figures: dict[str, Measurement]) -> None:
    names = list(figures)
    assert names.index("64: peak of MLX") < names.index("process (RSS)") < names.index("64: mflux, eager")


def test_lines_are_aligned_and_say_when_there_is_nothing_to_compare() -> None:
    assert str(Measurement("load", 12.34, "ms")) == f"{'load':34} {12.3:9} ms"
    assert str(Measurement("64: mflux", None, "", "other")) == f"{'64: mflux':34} {'-':>9}       other"
