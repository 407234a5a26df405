import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mflux_api.app import admission
from mflux_api.app.admission import Admission
from mflux_api.catalogue.models import EMBEDDED, Located, locate
from mflux_api.engine.messages import Ready, Setup
from mflux_api.engine.process import EngineProcess
from mflux_api.errors import ModelNotFound, OutOfMemory
from mflux_api.jobs.job import Inputs, Job, State
from tests.jobs.making import REQUEST

TINY = locate("flux2-tiny", EMBEDDED)
LARGE = 1 << 40


@pytest.fixture
def desk(tmp_path: Path) -> Admission:
    setup = Setup(budget=None, precision="auto", embedding_cache=1, largest_image=1, background=False)
    made = Admission(EngineProcess(setup, 60), EMBEDDED, tmp_path)
    made.engine.machine = Ready(device="cpu", chip="", mlx="", width=4, budget=LARGE)
    return made


def a_job(**changes: object) -> Job:
    plain = Job(
        id="0123456789ab",
        number=1,
        state=State.GENERATING,
        priority=0,
        place=1.0,
        held=False,
        attempts=1,
        owner="",
        key=None,
        digest=None,
        model="flux2-tiny",
        low_ram=False,
        request=REQUEST,
        inputs=Inputs(),
        pictures=(),
        error=None,
        created=time.time(),
        started=time.time(),
        finished=None,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_what_was_just_admitted_is_not_looked_at_again(desk: Admission) -> None:
    assert desk.recall(a_job()) is None
    desk.admit(TINY, REQUEST, [], False)
    assert desk.recall(a_job()) == TINY


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
def test_another_job_is_looked_at(desk: Admission, other: dict[str, object]) -> None:
    desk.admit(TINY, REQUEST, [], False)
    assert desk.recall(a_job(**other)) is None


def test_what_was_admitted_a_while_ago_is_looked_at(desk: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.admit(TINY, REQUEST, [], False)
    monkeypatch.setattr(admission, "RECENT_SECONDS", -1.0)
    assert desk.recall(a_job()) is None


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
    assert desk.recall(a_job()) is None


def test_a_job_is_measured_where_its_model_lies(desk: Admission) -> None:
    assert desk.locate(a_job()) == Located(TINY.spec, TINY.folder)
    small(desk)
    with pytest.raises(OutOfMemory):
        desk.locate(a_job())
    with pytest.raises(ModelNotFound):
        desk.locate(a_job(model="nobody's"))
