import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.engine.flux2.sampler import Schedule, compute_empirical_mu
from mflux_api.errors import ModelUnsupported

FLUX2 = Schedule.from_config({"use_dynamic_shifting": True})
tokens = st.integers(16, 20_000)
steps = st.integers(1, 60)


def test_four_steps_at_64_tokens_are_those_of_the_reference() -> None:
    assert FLUX2.make_sigmas(64, 4) == pytest.approx([1, 0.9547, 0.8754, 0.7007, 0], abs=1e-4)


@given(tokens, steps)
def test_levels_fall_from_one_to_zero(tokens: int, steps: int) -> None:
    sigmas = FLUX2.make_sigmas(tokens, steps)
    assert (len(sigmas), sigmas[0], sigmas[-1]) == (steps + 1, 1, 0)
    assert all(high > low for high, low in pairwise(sigmas))


@given(tokens, steps)
def test_a_full_repaint_is_the_whole_schedule(tokens: int, steps: int) -> None:
    np.testing.assert_array_equal(FLUX2.make_repaint_sigmas(tokens, steps, 1.0), FLUX2.make_sigmas(tokens, steps))
    np.testing.assert_array_equal(FLUX2.make_inpaint_sigmas(tokens, steps, 1.0), FLUX2.make_sigmas(tokens, steps))


@given(tokens, steps, st.floats(0.01, 1))
def test_a_repaint_has_about_steps_times_strength_steps(tokens: int, steps: int, strength: float) -> None:
    sigmas = FLUX2.make_repaint_sigmas(tokens, steps, strength)
    assert 1 <= len(sigmas) - 1 <= steps * strength + 1
    assert all(high > low for high, low in pairwise(sigmas))


def test_every_strength_starts_at_another_level() -> None:
    starts = [FLUX2.make_repaint_sigmas(1024, 4, strength / 20)[0] for strength in range(1, 21)]
    assert starts == sorted(set(starts))


def test_bigger_pictures_are_noised_more() -> None:
    assert compute_empirical_mu(4096, 4) > compute_empirical_mu(1024, 4)


def test_a_static_shift_is_used_when_the_config_says_so() -> None:
    schedule = Schedule.from_config({"use_dynamic_shifting": False, "shift": 3.0})
    assert schedule.make_sigmas(64, 2) == pytest.approx([1, 0.75, 0])


def test_a_terminal_level_is_stretched_to() -> None:
    schedule = Schedule.from_config({"use_dynamic_shifting": True, "shift_terminal": 0.1})
    assert schedule.make_sigmas(64, 4)[-2] == pytest.approx(0.1)


@pytest.mark.parametrize("option", ["use_karras_sigmas", "use_beta_sigmas", "stochastic_sampling"])
def test_a_schedule_flux2_does_not_use_is_refused(checkpoint: Path, option: str) -> None:
    (checkpoint / "scheduler" / "scheduler_config.json").write_text(json.dumps({option: True}))
    with pytest.raises(ModelUnsupported, match=f"The scheduler option {option} is not supported."):
        Checkpoint.read(checkpoint)
