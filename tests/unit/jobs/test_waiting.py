from hypothesis import given
from hypothesis import strategies as st

from mflux_api.jobs.waiting import QueuePosition, WaitingJobs

PRIORITIES = st.integers(-10, 10)
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove", "move"]), PRIORITIES, st.integers(0, 2**32)))


def in_order(waiting: dict[str, QueuePosition]) -> list[str]:
    return sorted(waiting, key=lambda job_id: (-waiting[job_id].priority, waiting[job_id].place))


@given(STEPS)
def test_it_agrees_with_a_sorted_list(steps: list[tuple[str, int, int]]) -> None:
    line = WaitingJobs()
    waiting: dict[str, QueuePosition] = {}
    for number, (verb, priority, which) in enumerate(steps):
        chosen = sorted(waiting)[which % len(waiting)] if waiting else ""
        if verb == "add" or not waiting:
            waiting[f"job{number}"] = QueuePosition(f"job{number}", priority, number, number)
            line.add(waiting[f"job{number}"])
        elif verb == "move":
            waiting[chosen] = QueuePosition(chosen, priority, number - 0.5, waiting[chosen].number)
            line.move(waiting[chosen])
        else:
            del waiting[chosen]
            line.remove(chosen)
            assert line.position(chosen) is None
        assert len(line) == len(waiting)
        assert [line.position(job_id) for job_id in in_order(waiting)] == list(range(1, len(waiting) + 1))


@given(st.lists(PRIORITIES))
def test_one_that_is_read_is_one_that_was_filled(priorities: list[int]) -> None:
    jobs = [QueuePosition(f"job{number}", priority, number, number) for number, priority in enumerate(priorities)]
    filled = WaitingJobs()
    for job in reversed(jobs):
        filled.add(job)
    read = WaitingJobs(jobs)
    assert [read.position(job.id) for job in jobs] == [filled.position(job.id) for job in jobs]


def make_line(*names: str) -> WaitingJobs:
    return WaitingJobs(QueuePosition(name, 0, number, number) for number, name in enumerate(names, start=1))


def test_a_released_job_is_back_at_its_place() -> None:
    line = make_line("a", "b", "c")
    line.remove("b")
    line.add(QueuePosition("b", 0, 2, 2))
    assert [line.position(job_id) for job_id in "abc"] == [1, 2, 3]


def test_at_the_same_place_the_earlier_submission_is_first() -> None:
    line = WaitingJobs([QueuePosition("b", 0, 1.0, 2), QueuePosition("a", 0, 1.0, 1)])
    assert [line.position(job_id) for job_id in "ab"] == [1, 2]


def test_what_does_not_wait_has_no_position_and_can_be_removed_and_moved() -> None:
    line = make_line("a")
    line.remove("b")
    line.move(QueuePosition("b", 0, 0.5, 2))
    assert (line.position("b"), "b" in line, "a" in line, len(line)) == (None, False, True, 1)
