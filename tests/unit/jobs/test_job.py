from itertools import product

import pytest

from mflux_api.errors import JobConflict
from mflux_api.jobs.job import FINAL, WAITING, Inputs, State, check_transition, public_status

ALLOWED = {
    *(("queued", after) for after in ("generating", "failed", "cancelled")),
    *(("generating", after) for after in ("completed", "failed", "cancelled", "interrupted")),
    *(("interrupted", after) for after in ("generating", "failed", "cancelled")),
    *(("failed", "queued"), ("cancelled", "queued")),
}
PAIRS = list(product([str(state) for state in State], repeat=2))


@pytest.mark.parametrize(("before", "after"), sorted(ALLOWED))
def test_a_job_may_go_this_way(before: str, after: str) -> None:
    check_transition(State(before), State(after))


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if pair not in ALLOWED])
def test_a_job_may_not_go_this_way(before: str, after: str) -> None:
    with pytest.raises(JobConflict) as caught:
        check_transition(State(before), State(after))
    assert caught.value.details == {"status": public_status(State(before))}


def test_an_interrupted_job_is_shown_as_queued() -> None:
    assert public_status(State.INTERRUPTED) == "queued"
    with pytest.raises(JobConflict, match="A queued job cannot become completed"):
        check_transition(State.INTERRUPTED, State.COMPLETED)


@pytest.mark.parametrize("state", [state for state in State if state is not State.INTERRUPTED])
def test_other_states_are_shown_as_they_are(state: State) -> None:
    assert public_status(state) == state.value


def test_every_state_waits_or_runs_or_is_final() -> None:
    assert {*WAITING, *FINAL, State.GENERATING} == set(State)
    assert not WAITING & FINAL


def test_inputs_have_names_for_clients() -> None:
    inputs = Inputs(source="a", mask="b", references=("c", "d"), further_sources=("e",))
    assert inputs.files_by_name == {"source": "a", "mask": "b", "reference-0": "c", "reference-1": "d"}
    assert Inputs().files_by_name == {}
