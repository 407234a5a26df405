from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mflux_api.errors import ModelNotFound, OutOfMemory
from mflux_api.ipc.messages import EngineSetup, Ready
from mflux_api.jobs.job import Inputs
from mflux_api.models.registry import EMBEDDED_MODELS_DIR, ResolvedModel, resolve_model
from mflux_api.worker import admission
from mflux_api.worker.admission import Admission
from mflux_api.worker.engine_process import EngineProcess
from tests.support.jobs import JOB, REQUEST

TINY = resolve_model("flux2-tiny", EMBEDDED_MODELS_DIR)
LARGE = 1 << 40


@pytest.fixture
def admission_desk(tmp_path: Path) -> Admission:
    setup = EngineSetup(budget=None, precision="auto", embedding_cache=1, max_image_pixels=1, low_priority=False)
    made = Admission(EngineProcess(setup, 60), EMBEDDED_MODELS_DIR, tmp_path)
    made.engine.last_ready = Ready(device="cpu", chip="", mlx="", bytes_per_value=4, budget=LARGE)
    return made


def test_what_was_just_admitted_is_not_looked_at_again(admission_desk: Admission) -> None:
    assert admission_desk.find_admitted(JOB) is None
    admission_desk.check_request(TINY, REQUEST, [], False)
    assert admission_desk.find_admitted(JOB) == TINY


@pytest.mark.parametrize(
    "other",
    [
        {"model": "flux2-klein-4b"},
        {"request": replace(REQUEST, width=128)},
        {"request": replace(REQUEST, seeds=(7, 8))},
        {"low_ram": True},
        {"inputs": Inputs(references=("inputs/x",))},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_job_is_looked_at(admission_desk: Admission, other: dict[str, Any]) -> None:
    admission_desk.check_request(TINY, REQUEST, [], False)
    assert admission_desk.find_admitted(replace(JOB, **other)) is None


def test_what_was_admitted_a_while_ago_is_looked_at(admission_desk: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    admission_desk.check_request(TINY, REQUEST, [], False)
    monkeypatch.setattr(admission, "RECENT_SECONDS", -1.0)
    assert admission_desk.find_admitted(JOB) is None


def forget_machine(desk: Admission) -> None:
    desk.engine.last_ready = None


def shrink_budget(desk: Admission) -> None:
    desk.engine.last_ready = Ready(device="cpu", chip="", mlx="", bytes_per_value=4, budget=1)


@pytest.mark.parametrize("become", [forget_machine, shrink_budget])
def test_what_was_not_measured_or_let_in_is_looked_at(
    admission_desk: Admission, become: Callable[[Admission], None]
) -> None:
    become(admission_desk)
    try:
        admission_desk.check_request(TINY, REQUEST, [], False)
    except OutOfMemory:
        assert become is shrink_budget
    assert admission_desk.find_admitted(JOB) is None


def test_a_job_is_measured_where_its_model_lies(admission_desk: Admission) -> None:
    assert admission_desk.admit_job(JOB) == ResolvedModel(TINY.spec, TINY.folder)
    shrink_budget(admission_desk)
    with pytest.raises(OutOfMemory):
        admission_desk.admit_job(JOB)
    with pytest.raises(ModelNotFound):
        admission_desk.admit_job(replace(JOB, model="nobody's"))
