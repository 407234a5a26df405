from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mflux_api.errors import ModelNotFound, OutOfMemory
from mflux_api.ipc.messages import Ready, Setup
from mflux_api.jobs.job import Inputs
from mflux_api.models.registry import EMBEDDED, ResolvedModel, locate
from mflux_api.worker import admission
from mflux_api.worker.admission import Admission
from mflux_api.worker.engine_process import EngineProcess
from tests.jobs.making import JOB, REQUEST

TINY = locate("flux2-tiny", EMBEDDED)
LARGE = 1 << 40


@pytest.fixture
def desk(tmp_path: Path) -> Admission:
    setup = Setup(budget=None, precision="auto", embedding_cache=1, largest_image=1, background=False)
    made = Admission(EngineProcess(setup, 60), EMBEDDED, tmp_path)
    made.engine.machine = Ready(device="cpu", chip="", mlx="", width=4, budget=LARGE)
    return made


def test_what_was_just_admitted_is_not_looked_at_again(desk: Admission) -> None:
    assert desk.recall(JOB) is None
    desk.admit(TINY, REQUEST, [], False)
    assert desk.recall(JOB) == TINY


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
def test_another_job_is_looked_at(desk: Admission, other: dict[str, Any]) -> None:
    desk.admit(TINY, REQUEST, [], False)
    assert desk.recall(replace(JOB, **other)) is None


def test_what_was_admitted_a_while_ago_is_looked_at(desk: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.admit(TINY, REQUEST, [], False)
    monkeypatch.setattr(admission, "RECENT_SECONDS", -1.0)
    assert desk.recall(JOB) is None


def unknown(desk: Admission) -> None:
    desk.engine.machine = None


def small(desk: Admission) -> None:
    desk.engine.machine = Ready(device="cpu", chip="", mlx="", width=4, budget=1)


@pytest.mark.parametrize("become", [unknown, small])
def test_what_was_not_measured_or_let_in_is_looked_at(desk: Admission, become: Callable[[Admission], None]) -> None:
    become(desk)
    try:
        desk.admit(TINY, REQUEST, [], False)
    except OutOfMemory:
        assert become is small
    assert desk.recall(JOB) is None


def test_a_job_is_measured_where_its_model_lies(desk: Admission) -> None:
    assert desk.locate(JOB) == ResolvedModel(TINY.spec, TINY.folder)
    small(desk)
    with pytest.raises(OutOfMemory):
        desk.locate(JOB)
    with pytest.raises(ModelNotFound):
        desk.locate(replace(JOB, model="nobody's"))
