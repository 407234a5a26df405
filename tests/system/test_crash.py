"""Accepted jobs are painted completely and once, even if the server or its engine is killed.

`make crash` runs the same trial with 50 kills.
"""

from pathlib import Path

import pytest

from tests.system.crash import run_trial

pytestmark = pytest.mark.system


@pytest.mark.slow
def test_nothing_accepted_is_lost_done_twice_or_half_written(tmp_path: Path) -> None:
    _, faults = run_trial(tmp_path, kills=6, seed=1)
    assert faults == []
