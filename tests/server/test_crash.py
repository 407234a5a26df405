"""Whatever is killed, and whenever: what was accepted is painted, once, and whole. `make crash` does it 50 times."""

from pathlib import Path

import pytest

from tests.server.crash import run_trial

pytestmark = pytest.mark.system


def test_nothing_accepted_is_lost_done_twice_or_half_written(tmp_path: Path) -> None:
    _, faults = run_trial(tmp_path, kills=6, seed=1)
    assert faults == []
