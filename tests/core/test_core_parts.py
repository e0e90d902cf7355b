"""The scheduler's smaller parts on their own: deadlines, the table of states, back-off, lanes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.core.backlog import Backlog
from leadline.core.deadlines import Alarm, Deadlines
from leadline.core.lifecycle import TRANSITIONS, IllegalTransition, Trigger, move, start_and_complete
from leadline.core.model import ENDED, SECOND, Family, Job, JobState
from leadline.core.retry import Backoff
from leadline_protocol.ids import Instant, JobId, TeamspaceId


def job_in(state: JobState, number: int = 1, order: int = 0) -> Job:
    return Job(order, JobId(number), TeamspaceId(1), 2, state)


# -- deadlines --------------------------------------------------------------------------------------------------------


def test_the_earliest_deadline_of_a_thing_is_the_one_in_force() -> None:
    deadlines = Deadlines()
    for instant in (50, 30, 40):
        deadlines.arm(Instant(instant), Alarm.CHECK, 1, 1)
    assert deadlines.first() == 30
    assert deadlines.pop(Instant(29)) is None
    assert deadlines.pop(Instant(100)) == (30, Alarm.CHECK, 1, 1)
    assert deadlines.pop(Instant(100)) is None
    assert deadlines.first() is None


def test_a_forgotten_deadline_never_goes_off() -> None:
    deadlines = Deadlines()
    deadlines.arm(Instant(30), Alarm.WAIT, 1)
    deadlines.arm(Instant(40), Alarm.WAIT, 2)
    deadlines.forget(Alarm.WAIT, 1)
    deadlines.forget(Alarm.WAIT, 1)
    assert deadlines.first() == 40
    assert (Alarm.WAIT, 1, 0) not in deadlines


@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from([1, 2, "snov"]), st.booleans())))
def test_deadlines_go_off_in_order_and_once(armed: list[tuple[int, int | str, bool]]) -> None:
    deadlines = Deadlines()
    expected: dict[int | str, int] = {}
    for instant, key, forget in armed:
        alarm = Alarm.ACCOUNT if isinstance(key, str) else Alarm.WAIT
        if forget:
            deadlines.forget(alarm, key)
            expected.pop(key, None)
        else:
            deadlines.arm(Instant(instant), alarm, key)
            expected[key] = min(instant, expected.get(key, instant))
    seen = []
    while (due := deadlines.pop(Instant(100))) is not None:
        seen.append((due[2], due[0]))
    assert dict(seen) == expected
    assert [instant for _, instant in seen] == sorted(expected.values())


# -- the table of states ----------------------------------------------------------------------------------------------


def test_every_state_and_every_arrow_of_the_table_leads_to_a_state_of_the_table() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert {after for arrows in TRANSITIONS.values() for after in arrows.values()} <= set(JobState)


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("trigger", Trigger)
def test_only_arrows_of_the_table_can_be_taken(state: JobState, trigger: Trigger) -> None:
    job = job_in(state)
    if trigger in TRANSITIONS[state]:
        assert move(job, trigger) is job.state is TRANSITIONS[state][trigger]
    else:
        with pytest.raises(IllegalTransition, match=f"job 1 is {state}"):
            move(job, trigger)
        assert job.state is state


def test_nothing_leaves_a_final_state() -> None:
    assert all(not TRANSITIONS[state] for state in ENDED)
    assert {state for state in JobState if not TRANSITIONS[state]} == ENDED


def test_only_a_queued_job_starts_and_completes_at_once() -> None:
    job = job_in(JobState.QUEUED)
    start_and_complete(job)
    assert job.state is JobState.COMPLETED
    with pytest.raises(IllegalTransition):
        start_and_complete(job_in(JobState.RUNNING))


# -- back-off ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.floats(0, 1, exclude_max=True))
def test_a_backoff_lies_between_half_of_its_delay_and_the_whole(failed: int, jitter: float) -> None:
    backoff = Backoff(first_seconds=2, factor=3, max_seconds=100, tries=20)
    delay = backoff.delay_microseconds(failed, jitter)
    if failed >= 20:
        assert delay is None
    else:
        full = min(100, 2 * 3 ** (failed - 1)) * SECOND
        assert delay is not None
        assert full // 2 <= delay <= full


# -- lanes ------------------------------------------------------------------------------------------------------------


def test_a_lane_from_which_thousands_were_withdrawn_does_not_keep_them() -> None:
    backlog = Backlog(lambda *_: 0, lambda *_: False)
    jobs = [job_in(JobState.QUEUED, number) for number in range(10_000)]
    for job in jobs:
        backlog.put(job, Family.TABLES)
    for job in jobs[10:]:
        backlog.withdraw(job, Family.TABLES)
        job.state = JobState.CANCELLED
    (lane,) = backlog.lanes.values()
    assert lane.queued == 10
    assert len(lane.heap) <= 100
    assert backlog.ahead_of(jobs[9], Family.TABLES) == 9


def test_a_job_that_left_and_came_back_counts_once() -> None:
    backlog = Backlog(lambda *_: 0, lambda *_: False)
    first, second = job_in(JobState.QUEUED, 1), job_in(JobState.QUEUED, 2)
    for job in (first, second):
        backlog.put(job, Family.TABLES)
    for _ in range(5):
        backlog.withdraw(first, Family.TABLES)
        backlog.put(first, Family.TABLES)
    assert backlog.ahead_of(second, Family.TABLES) == 1
    assert backlog.oldest() == {Family.TABLES: 0}
