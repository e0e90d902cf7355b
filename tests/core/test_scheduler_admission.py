"""Q12 to Q14: head starts, full queues, idempotency keys, delays."""

import pytest
from msgspec.structs import replace

from leadline.core import admission
from leadline.core.effects import Receipt
from leadline.core.model import SECOND, Family, JobState
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import Instant, JobId
from tests.core.harness import RULES, Harness, new

HOUR = 3600


# -- priority ---------------------------------------------------------------------------------------------------------


def test_priority_is_a_head_start(queue: Harness) -> None:
    running, early = queue.submit("a"), queue.submit("a")
    queue.pass_seconds(59)
    late = queue.submit("a", priority=60)
    queue.finish(running)
    assert queue.running == {late}
    queue.finish(late)
    assert queue.running == {early}


def test_a_head_start_is_used_up_by_time(queue: Harness) -> None:
    running, early = queue.submit("a"), queue.submit("a")
    for _ in range(7):
        queue.pass_seconds(9)
        queue.settle(running)
    queue.submit("a", priority=60)
    queue.finish(running)
    assert queue.running == {early}


def test_a_better_head_takes_the_place_of_one_that_stands_ready(queue: Harness) -> None:
    """The lane is offered under two heads; both offers, and the second of the first, must be told apart."""
    queue.pause("family", "tables")
    plain, urgent = queue.submit("a"), queue.submit("a", priority=60)
    queue.resume("family", "tables")
    assert queue.running == {urgent}
    queue.submit("b")
    queue.pause("job", urgent)
    assert plain in queue.running
    queue.resume("job", urgent)
    queue.finish(plain)
    assert urgent in queue.running


def test_a_head_start_counts_among_teamspaces_that_wait_for_capacity() -> None:
    queue = Harness(replace(RULES, capacity={Family.TABLES: 1}))
    running, early = queue.submit("c"), queue.submit("b")
    plain = queue.submit("a")
    urgent = queue.submit("a", priority=60)
    queue.finish(running)
    assert queue.running == {urgent}
    queue.finish(urgent)
    assert queue.running == {early}
    queue.finish(early)
    assert queue.running == {plain}


def test_nobody_makes_up_teamspaces_without_end(queue: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.submit("a")
    monkeypatch.setattr(admission, "TEAMSPACES_MAX", 2)
    queue.submit("b")
    answer = queue.answer_to(new("c"))
    assert isinstance(answer, Refused)
    assert (answer.code, answer.at) == (ErrorCode.UNKNOWN_TEAMSPACE, "teamspace")
    queue.submit("a")


# -- max_queued -------------------------------------------------------------------------------------------------------


def test_beyond_max_queued_a_submission_is_refused(queue: Harness) -> None:
    queue.limit("a", max_queued=3)
    for _ in range(4):
        queue.submit("a")
    answer = queue.answer_to(new("a"))
    assert isinstance(answer, Refused)
    assert answer.code is ErrorCode.QUEUE_FULL
    assert answer.retry_after is not None
    assert queue.submit("b")
    (job,) = queue.running - {JobId(5)}
    queue.finish(job)
    assert queue.submit("a")


def test_delayed_and_paused_jobs_count_as_queued(queue: Harness) -> None:
    queue.limit("a", max_queued=2)
    queue.submit("a", delay=60)
    paused = queue.submit("a")
    queue.pause("job", paused)
    assert isinstance(queue.answer_to(new("a")), Refused)


def test_a_chain_counts_once(queue: Harness) -> None:
    queue.limit("a", max_queued=2)
    queue.submit("a")
    queue.submit_chain("a")
    queue.submit_chain("a")
    assert isinstance(queue.answer_to(new("a")), Refused)


def test_a_job_that_gives_its_slot_back_counts_again_but_is_not_refused(queue: Harness) -> None:
    queue.limit("a", max_queued=1)
    running = queue.submit("a")
    queue.submit("a")
    queue.pause("job", running)
    assert queue.scheduler.teamspaces.pending == {1: 1}
    queue.pause("queue")
    assert queue.scheduler.teamspaces.pending == {1: 2}


def test_noops_that_never_wait_are_not_bounded(queue: Harness) -> None:
    queue.limit("a", max_queued=5)
    assert all(isinstance(answer, Receipt) for answer in queue.answers_to(*(new("a", "noop") for _ in range(8))))
    queue.pause("family", "noop")
    answers = queue.answers_to(*(new("a", "noop") for _ in range(8)))
    assert [isinstance(answer, Receipt) for answer in answers] == [True] * 5 + [False] * 3


# -- keys -------------------------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_first_job_and_its_present_state(queue: Harness) -> None:
    first = queue.receipt(new("a", key="k"))
    again = queue.receipt(new("a", key="k"))
    assert (again.job, again.state, again.duplicate) == (first.job, JobState.RUNNING, True)
    queue.finish(first.job)
    ended = queue.receipt(new("a", key="k"))
    assert (ended.job, ended.state, ended.duplicate) == (first.job, JobState.COMPLETED, True)
    assert queue.database.last_job == 1


def test_the_same_key_within_one_batch_is_noticed(queue: Harness) -> None:
    first, second, other = queue.answers_to(new("a", key="k"), new("a", key="k"), new("a", key="k", body="other"))
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert (second.job, second.duplicate) == (first.job, True)
    assert isinstance(other, Refused)
    assert other.code is ErrorCode.CONFLICT


@pytest.mark.parametrize("kind", ["noop", "chain"])
def test_the_same_key_within_one_batch_is_noticed_even_where_the_first_has_ended(queue: Harness, kind: str) -> None:
    steps = (new("a", "noop"),) if kind == "chain" else ()
    first, second = queue.answers_to(new("a", kind, key="k", steps=steps), new("a", kind, key="k", steps=steps))
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert (second.job, second.duplicate) == (first.job, True)
    assert second.state in {JobState.COMPLETED, JobState.QUEUED}


def test_the_same_key_with_another_body_is_a_conflict(queue: Harness) -> None:
    queue.submit("a", key="k", body="one")
    answer = queue.answer_to(new("a", key="k", body="two"))
    assert isinstance(answer, Refused)
    assert answer.code is ErrorCode.CONFLICT


def test_keys_belong_to_their_teamspace(queue: Harness) -> None:
    assert queue.submit("a", key="k") != queue.submit("b", key="k")


def test_a_refused_submission_does_not_take_its_key(queue: Harness) -> None:
    queue.limit("a", max_queued=0)
    refused, again = queue.answers_to(new("a", key="k"), new("a", key="k", body="other"))
    assert isinstance(refused, Refused)
    assert isinstance(again, Refused)
    assert again.code is ErrorCode.QUEUE_FULL
    queue.limit("a")
    assert not queue.receipt(new("a", key="k")).duplicate


def test_a_duplicate_is_answered_even_where_the_queue_is_full(queue: Harness) -> None:
    queue.limit("a", max_queued=1)
    queue.submit("a", "batch", delay=5)
    queue.limit("b", max_queued=1)
    first = queue.receipt(new("b", key="k", delay=5))
    assert queue.receipt(new("b", key="k", delay=5)).job == first.job


def test_a_key_is_known_after_a_restart(queue: Harness) -> None:
    first = queue.receipt(new("a", key="k"))
    chain = queue.receipt(new("a", "chain", key="c", steps=(new("a"), new("a"))))
    queue.restart(seconds=5)
    assert queue.receipt(new("a", key="k")) == Receipt(first.job, JobState.RUNNING, 0, duplicate=True)
    again = queue.receipt(new("a", "chain", key="c", steps=(new("a"), new("a"))))
    assert (again.job, again.steps, again.jobs_ahead) == (chain.job, chain.steps, 1)


# -- delays -----------------------------------------------------------------------------------------------------------


def test_a_delayed_job_takes_no_slot_and_starts_to_the_microsecond(queue: Harness) -> None:
    delayed = queue.receipt(new("a", delay=60))
    assert (delayed.state, delayed.jobs_ahead) == (JobState.DELAYED, 0)
    other = queue.submit("a")
    assert queue.running == {other}
    queue.finish(other)
    queue.pass_seconds(59.999999)
    assert queue.running == set()
    queue.pass_seconds(0.000001)
    assert queue.running == {delayed.job}


def test_run_at_is_wall_time(queue: Harness) -> None:
    job = queue.submit("a", run_at=Instant(queue.wall + HOUR * SECOND))
    queue.pass_seconds(1800)
    queue.set_wall(-HOUR)
    queue.pass_seconds(HOUR + 1799.9)
    assert queue.state(job) is JobState.DELAYED
    queue.pass_seconds(0.1)
    assert queue.running == {job}


def test_a_clock_set_forward_makes_a_delayed_job_due_at_the_next_look(queue: Harness) -> None:
    job = queue.submit("a", run_at=Instant(queue.wall + 3 * HOUR * SECOND))
    queue.set_wall(3 * HOUR)
    assert queue.scheduler.next_deadline(queue.now) == queue.instant
    queue.tell()
    assert queue.running == {job}


def test_a_job_that_has_become_due_stays_so_when_the_clock_is_set_back(queue: Harness) -> None:
    running, delayed = queue.submit("a"), queue.submit("a", delay=10)
    queue.pass_seconds(10)
    assert queue.state(delayed) is JobState.QUEUED
    queue.set_wall(-HOUR)
    queue.restart(seconds=1)
    queue.finish(running)
    assert queue.running == {delayed}


def test_a_run_at_in_the_past_is_no_head_start(queue: Harness) -> None:
    queue.pause("queue")
    first = queue.submit("a")
    second = queue.submit("a", run_at=Instant(queue.wall - HOUR * SECOND))
    assert queue.state(second) is JobState.QUEUED
    queue.resume("queue")
    assert queue.running == {first}


def test_delayed_jobs_are_ordered_by_run_at(queue: Harness) -> None:
    running = queue.submit("a")
    due_second, due_first = queue.submit("a", delay=20), queue.submit("a", delay=10)
    queue.pass_seconds(15)
    queued = queue.submit("a")
    queue.pass_seconds(15)
    ran = []
    for _ in range(4):
        (job,) = queue.running
        ran.append(job)
        queue.finish(job)
    assert ran == [running, due_first, queued, due_second]


def test_delays_hold_over_a_restart(queue: Harness) -> None:
    job = queue.submit("a", delay=60)
    chain = queue.submit_chain("b", delay=60)
    queue.restart(seconds=5)
    queue.pass_seconds(54.9)
    assert queue.running == set()
    queue.pass_seconds(0.1)
    assert queue.running == {job, chain[1]}


@pytest.mark.parametrize("kind", ["noop", "chain"])
def test_noops_and_chains_can_be_delayed_too(queue: Harness, kind: str) -> None:
    steps = (new("a"),) if kind == "chain" else ()
    job = queue.submit("a", kind, delay=60, steps=steps)
    queue.pass_seconds(59.9)
    assert queue.state(job) is JobState.DELAYED
    queue.pass_seconds(0.1)
    assert queue.state(job) is (JobState.RUNNING if steps else JobState.COMPLETED)


def test_cancelled_delays_do_not_wake_anybody(queue: Harness) -> None:
    queue.cancel(queue.submit("a", delay=60))
    assert queue.scheduler.next_deadline(queue.now) is None
