import re

from mflux_api.engine.bench import run

STAGES = ("import", "load", "prompt, not remembered", "prompt, remembered", "64: a step", "64: decode", "64: PNG")


def test_the_bench_measures_every_stage_and_mflux_on_the_same_weights() -> None:
    lines = "\n".join(run([64], 1))
    for name in STAGES:
        assert re.search(rf"^{name} +\d+\.\d ms", lines, re.MULTILINE), name
    assert re.search(r"^64: mflux, eager +\d+\.\d ms +ours takes \d+\.\d\d of it$", lines, re.MULTILINE)
    assert "MiB" in lines
    assert "another picture" not in lines
