"""What a new reign makes of what is stored: nothing acknowledged is lost, and nothing runs that nobody started."""

import pytest

from leadline.core import audit
from leadline.core import events as ev
from leadline.core.effects import HistoryRow
from leadline.core.model import SECOND, JobState
from leadline.core.permits import PERMIT_SECONDS
from leadline.core.rate_limit import FLIGHT_SECONDS, Cost, Unit, WindowLimit
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, JobId
from tests.core.harness import KINDS, RULES, Harness, new


def test_running_jobs_go_back_to_their_place_and_start_again_with_a_new_attempt(queue: Harness) -> None:
    running, queued, other = queue.submit("a"), queue.submit("a"), queue.submit("b")
    queue.restart(seconds=5)
    assert queue.running == {running, other}
    assert queue.state(queued) is JobState.QUEUED
    assert queue.details(running).attempts == 2
    assert queue.details(running).stall_kills == 0


def test_a_restart_is_told_in_the_jobs_story(queue: Harness) -> None:
    job = queue.submit("a")
    queue.restart(seconds=5)
    assert [(line.event, line.detail) for line in queue.database.history[job]] == [
        ("started", "attempt 1"),
        ("queued", "again, after a restart of the daemon"),
        ("started", "attempt 2"),
    ]


def test_slots_of_the_dead_daemon_are_given_back_in_the_first_decision(queue: Harness) -> None:
    queue.submit("a")
    queue.pause("queue")
    queue.submit("b")
    queue.resume("queue")
    queue.database.pauses.add(("queue", ""))
    queue.restart(seconds=5)
    assert queue.running == set()
    assert not queue.database.slots


def test_a_job_killed_for_a_stall_just_before_the_crash_goes_on(queue: Harness) -> None:
    job = queue.submit("a")
    queue.actors[job].lingers = True
    queue.pass_seconds(300)
    assert queue.state(job) is JobState.STOPPING
    queue.restart(seconds=5)
    assert queue.running == {job}


def test_a_job_cancelled_just_before_the_crash_has_been_cancelled(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    job = queue.submit("a")
    call = queue.ask(job)
    queue.cancel(job)
    queue.restart(seconds=5)
    assert queue.state(job) is JobState.CANCELLED
    assert (queue.database.calls[call].state, queue.database.calls[call].cause) == ("unknown", "crash")


def test_ids_go_on_where_they_were(queue: Harness) -> None:
    queue.finish(queue.submit("a"))
    queue.restart()
    assert queue.submit("b") == JobId(2)
    assert queue.scheduler.names == {"a": 1, "b": 2}


def test_a_crash_before_anything_was_stored_is_a_first_start(queue: Harness) -> None:
    queue.restart()
    assert queue.submit("a") == JobId(1)


def test_a_decision_that_was_not_stored_never_happened(queue: Harness) -> None:
    first = queue.submit("a")
    queue.scheduler.handle(
        [ev.Submitted([new("a"), new("b")]), ev.CancelAsked(first), ev.PauseSet("queue", "", paused=True)], queue.now
    )
    queue.restart(seconds=5)
    assert set(queue.scheduler.jobs) == {first}
    assert queue.running == {first}
    assert queue.submit("b") == JobId(2)


def test_jobs_of_an_unknown_kind_and_the_chains_they_belong_to_are_left_alone(queue: Harness) -> None:
    plain = queue.submit("a")
    mail = queue.submit("a", "mail")
    chain = queue.submit_chain("a", "batch", "mail")
    before = {job: queue.database.live[job].state for job in (mail, *chain)}
    queue.kinds = KINDS[:4]
    queue.restart(seconds=5)
    assert queue.running == {plain}
    assert set(queue.scheduler.jobs) == {plain}
    assert {job: queue.database.live[job].state for job in (mail, *chain)} == before
    queue.kinds = KINDS
    queue.restart(seconds=5)
    assert queue.running == {plain, mail, chain[1]}


def test_waits_without_an_end_hold_over_a_restart(queue: Harness) -> None:
    job = queue.submit("a")
    queue.wait(job, JobReason.APPROVAL)
    queue.restart(seconds=5)
    assert queue.running == set()
    queue.resume("job", job)
    assert queue.running == {job}


def test_a_recovered_queue_is_the_queue_that_was(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(2, 60))
    queue.pause("family", "batch")
    jobs = [queue.submit(f"t{number % 7}", kind) for number in range(60) for kind in ("enrich", "batch")]
    queue.submit_chain("t1", delay=60)
    queue.pause("job", jobs[3])
    places = [(job.order, job.id) for job in queue.scheduler.jobs.values()]
    states = {job.id: job.state for job in queue.scheduler.jobs.values()}
    queue.restart()
    audit.check(queue.scheduler, queue.now)
    assert [(job.order, job.id) for job in sorted(queue.scheduler.jobs.values(), key=lambda job: job.id)] == places
    assert {job.id: job.state for job in queue.scheduler.jobs.values()} == states


def test_the_first_decision_answers_nobody(queue: Harness) -> None:
    queue.submit("a")
    scheduler, first = queue.database.recover(KINDS, RULES, queue.now)
    assert first.answers == []
    assert isinstance(first.records.history[0], HistoryRow)
    assert scheduler.next_job == 2


def charged(queue: Harness, provider: str = "snov") -> list[int]:
    return [limit.charged for limit in queue.scheduler.accounts[AccountName(provider)].state(queue.now.instant).limits]


@pytest.mark.parametrize("tokens", [100, 450])
def test_what_calls_have_come_to_outlives_a_restart(queue: Harness, tokens: int) -> None:
    queue.provider("ai", WindowLimit(1_000, 60, Unit.TOKEN))
    job = queue.submit("a")
    call = queue.ask(job, "ai", cost=Cost(request=1, token=400))
    queue.answer(job, call, cost=Cost(request=1, token=tokens), done=True)
    assert charged(queue, "ai") == [tokens]
    queue.restart(seconds=1)
    assert charged(queue, "ai") == [tokens]


@pytest.mark.parametrize("end", ["failed", "throttled"])
def test_a_failed_call_that_cost_nothing_costs_nothing_after_a_restart(queue: Harness, end: str) -> None:
    queue.provider("snov", WindowLimit(15, 60), failed_count=False)
    job = queue.submit("a")
    queue.answer(job, queue.ask(job), **{end: True})
    assert charged(queue) == [0]
    queue.restart(seconds=1)
    assert charged(queue) == [0]


def test_a_call_that_was_cut_off_counts_from_the_first_restart_and_not_anew_from_each(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    queue.ask(queue.submit("a"))
    queue.restart(seconds=30)
    last = queue.instant + (PERMIT_SECONDS + FLIGHT_SECONDS + 60) * SECOND
    for _ in range(4):
        queue.restart(seconds=10)
    queue.run_to(int(last) - 1)
    assert charged(queue) == [1]
    queue.run_to(int(last))
    assert charged(queue) == [0]
