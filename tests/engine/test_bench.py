import re

import pytest

from mflux_api.engine.bench import run


def test_the_bench_measures_every_stage_and_mflux_on_the_same_weights(capsys: pytest.CaptureFixture[str]) -> None:
    lines = "\n".join(run([64], 1))
    for name in (
        "import",
        "load",
        "prompt, not remembered",
        "prompt, remembered",
        "64: a step",
        "64: decode",
        "64: PNG",
    ):
        assert re.search(rf"^{name} +\d+\.\d ms", lines, re.MULTILINE), name
    assert re.search(r"^64: mflux +\d+\.\d ms +ours takes \d+\.\d\d of it$", lines, re.MULTILINE)
    assert "MiB" in lines
    assert "another picture" not in lines
