from hypothesis import given
from hypothesis import strategies as st

from mflux_api.jobs.line import Line

PRIORITIES = st.integers(-10, 10)
STEPS = st.lists(st.tuples(st.booleans(), PRIORITIES, st.integers(0, 2**32)))


def in_order(waiting: dict[str, tuple[int, int]]) -> list[str]:
    return sorted(waiting, key=lambda job_id: (-waiting[job_id][0], waiting[job_id][1]))


@given(STEPS)
def test_it_agrees_with_a_sorted_list(steps: list[tuple[bool, int, int]]) -> None:
    line = Line()
    waiting: dict[str, tuple[int, int]] = {}
    for number, (arrives, priority, which) in enumerate(steps):
        if arrives or not waiting:
            waiting[f"job{number}"] = (priority, number)
            line.add(f"job{number}", priority, number)
        else:
            gone = sorted(waiting)[which % len(waiting)]
            del waiting[gone]
            line.remove(gone)
            assert line.position(gone) is None
        assert len(line) == len(waiting)
        assert [line.position(job_id) for job_id in in_order(waiting)] == list(range(1, len(waiting) + 1))


@given(st.lists(PRIORITIES))
def test_one_that_is_read_is_one_that_was_filled(priorities: list[int]) -> None:
    jobs = [(f"job{number}", priority, number) for number, priority in enumerate(priorities)]
    filled = Line()
    for job in reversed(jobs):
        filled.add(*job)
    read = Line(jobs)
    assert [read.position(job_id) for job_id, _, _ in jobs] == [filled.position(job_id) for job_id, _, _ in jobs]


def test_a_released_job_is_back_at_its_place() -> None:
    line = Line([("a", 0, 1), ("b", 0, 2), ("c", 0, 3)])
    line.remove("b")
    line.add("b", 0, 2)
    assert [line.position(job_id) for job_id in "abc"] == [1, 2, 3]


def test_what_does_not_wait_has_no_position_and_can_be_removed() -> None:
    line = Line([("a", 0, 1)])
    line.remove("b")
    assert (line.position("b"), "b" in line, "a" in line, len(line)) == (None, False, True, 1)
