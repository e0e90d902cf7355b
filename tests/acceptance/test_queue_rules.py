"""The rules of the queue, a test for each sentence with its exact numbers, on virtual time.

What a sentence says of sockets, processes and Postgres is held in the other files here, in real time.
"""

import pytest

from leadline.core import events as ev
from leadline.core.effects import Receipt
from leadline.core.model import SECOND, JobState, StopCause
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import JobId, LeadId
from tests.acceptance.virtual import COMMIT, START, Queue, enrich
from tests.world.windows import worst_window

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
SOON = 0.05 * SECOND
"""A few commits."""


def test_q1_every_job_enters_one_queue_first_in_first_out_among_the_eligible() -> None:
    queue = Queue(tables=1)
    jobs = [queue.submit(f"team{number % 7}") for number in range(30)]
    queue.run_until_ended(*jobs)
    assert [job for _, job, _ in queue.started] == jobs


def test_q2_j1_and_j3_run_and_j2_waits_although_older() -> None:
    queue = Queue(tables=2)
    j1, j2, j3 = queue.submit("a", 10), queue.submit("a", 10), queue.submit("b", 10)
    queue.run(1)
    assert queue.running == {j1, j3}
    assert queue.state(j2) is JobState.QUEUED
    queue.run_until_ended(j1)
    assert queue.running == {j2, j3}


def test_q3_with_capacity_free_a_job_starts_at_once() -> None:
    queue = Queue()
    submitted = queue.now
    job = queue.submit("a")
    assert queue.start_of(job) - submitted == COMMIT


def test_q3_eight_jobs_waiting_five_hours_for_snov_stop_nobody() -> None:
    queue = Queue(tables=8)
    slow = [queue.submit(f"slow{number}", 563, provider="snov", at_once=2) for number in range(8)]
    while not all(job in queue.store.ended for job in slow):
        queue.run(20 * 60)
        submitted = queue.now
        quick = queue.submit("quick")
        queue.run_until_ended(quick)
        assert queue.start_of(quick) - submitted < SOON
    assert 5 * HOUR < queue.now - START < 5.4 * HOUR
    assert all(queue.state(job) is JobState.COMPLETED for job in slow)
    leads = [line.at for line in queue.providers[queue.around.learned[0].account].log]
    assert worst_window(leads, 60) == 15


def test_q5_of_300_and_30_leads_on_snov_the_30_are_done_between_3_and_4_2_minutes_and_all_not_before_21() -> None:
    queue = Queue()
    large, small = (
        queue.submit("a", 300, provider="snov", at_once=30),
        queue.submit("b", 30, provider="snov", at_once=30),
    )
    queue.run_until_ended(small)
    assert 3 * MINUTE <= queue.now - START <= 4.2 * MINUTE
    queue.run_until_ended(large)
    assert 21 * MINUTE <= queue.now - START <= 23 * MINUTE


def test_q5_alone_a_teamspace_gets_all_of_snov() -> None:
    queue = Queue()
    job = queue.submit("a", 150, provider="snov", at_once=30)
    queue.run_until_ended(job)
    assert 9 * MINUTE <= queue.now - START <= 10 * MINUTE


def test_q7_waiting_for_a_known_reason_is_no_failure_no_stall_and_no_attempt() -> None:
    queue = Queue()
    queue.behaviours["ai"].hint = 890
    job = queue.submit("a", 3)
    queue.run_until_ended(job)
    assert queue.state(job) is JobState.COMPLETED
    assert queue.now - START > 890 * SECOND
    assert [attempt for _, started, attempt in queue.started if started == job] == [1]
    assert not queue.stopped


def test_q7_a_wait_known_to_exceed_15_minutes_gives_the_slot_away_and_the_waiting_one_resumes_at_the_front() -> None:
    queue = Queue(answers_after=20)
    waiting = queue.submit("a", 3, rests_seconds=7200)
    second, third = queue.submit("a", 200), queue.submit("a", 200)
    queue.run(1)
    assert queue.running == {second}
    queue.run_until_ended(second)
    assert queue.running == {third}
    assert queue.state(waiting) is JobState.QUEUED
    fourth = queue.submit("a")
    queue.run_until_ended(third)
    assert queue.running == {waiting}
    assert queue.state(fourth) is JobState.QUEUED
    queue.run_until_ended(fourth)
    assert queue.state(waiting) is JobState.COMPLETED


def stuck(times: int, *, leads: int = 5) -> tuple[Queue, JobId]:
    """A queue whose job hangs so many times on its second lead."""
    queue = Queue()
    queue.luck.stuck[JobId(1), LeadId(2)] = times
    return queue, queue.submit("a", leads)


def test_q9_299_9_seconds_without_progress_are_no_stall_and_300_0_are() -> None:
    queue, job = stuck(1)
    queue.run_until(lambda: queue.counts(job).settled == 1)
    queue.run(1)
    moved = queue.last_progress_of(job)
    queue.run_until(lambda: queue.now - moved >= 299.9 * SECOND)
    assert not queue.stopped
    queue.run_until(lambda: bool(queue.stopped))
    ((killed, stop),) = queue.stopped
    assert killed - moved == 300 * SECOND
    assert (stop.order.cause, stop.order.forced) == (StopCause.STALLED, True)


def test_q9_one_lead_every_20_seconds_is_never_a_stall() -> None:
    queue = Queue(answers_after=19.9)
    job = queue.submit("a", 500)
    queue.run_until_ended(job)
    assert queue.state(job) is JobState.COMPLETED
    assert not queue.stopped


def test_q9_the_slot_is_free_within_5_seconds_and_only_the_lead_that_hung_is_called_again() -> None:
    queue, job = stuck(1)
    queue.run_until(lambda: bool(queue.stopped))
    killed = queue.now
    queue.run_until_ended(job)
    assert queue.start_of(job, 2) - killed < 5 * SECOND
    assert queue.state(job) is JobState.COMPLETED
    assert len(queue.calls(job)) == 5 + 1


def test_q9_a_lead_that_hung_twice_is_failed_and_the_job_goes_on() -> None:
    queue, job = stuck(3)
    queue.run_until_ended(job)
    assert queue.state(job) is JobState.PARTIAL
    counts = queue.counts(job)
    assert (counts.done, counts.failed) == (4, 1)
    assert len(queue.calls(job)) == 5 + 1


def test_q9_after_two_kills_in_a_row_without_a_settled_lead_the_job_fails() -> None:
    queue = Queue()
    queue.luck.stuck |= {(JobId(1), LeadId(1)): 1, (JobId(1), LeadId(2)): 9, (JobId(1), LeadId(3)): 9}
    job = queue.submit("a", 3)
    queue.run_until_ended(job)
    assert queue.state(job) is JobState.PARTIAL, "the first lead was settled between the first kill and the second"
    queue.luck.stuck |= {(JobId(2), LeadId(1)): 1}
    silent = queue.submit("a", 3)
    for _ in range(2):
        queue.run_until(lambda: silent in queue.reign.actors)
        queue.reign.actors[silent].silent = True
        queue.run_until(lambda: silent not in queue.reign.actors)
    queue.run_until_ended(silent)
    assert queue.state(silent) is JobState.FAILED
    assert queue.store.ended[silent].reason is JobReason.WORKER_LOST


def test_q9_no_beat_for_30_seconds_means_that_the_worker_is_dead() -> None:
    queue = Queue(answers_after=1000)
    job = queue.submit("a")
    queue.run(25)
    beaten = queue.now // (10 * SECOND)
    queue.reign.actors[job].silent = True
    queue.run_until(lambda: bool(queue.stopped))
    ((killed, stop),) = queue.stopped
    assert stop.order.cause is StopCause.WORKER_LOST
    assert killed // (10 * SECOND) - beaten == 3


def test_q10_a_queued_job_is_gone_at_once_and_a_running_one_takes_no_new_leads() -> None:
    queue = Queue(answers_after=5)
    running, queued = queue.submit("a", 50, at_once=4), queue.submit("a")
    queue.run(12)
    assert queue.ask(ev.CancelAsked(queued)) is None
    assert queue.state(queued) is JobState.CANCELLED
    assert queue.ask(ev.CancelAsked(running)) is None
    cancelled, done = queue.now, queue.counts(running).done
    queue.run_until_ended(running)
    assert queue.state(running) is JobState.CANCELLED
    assert queue.now - cancelled < 6 * SECOND, "it waited for the calls in flight and no longer"
    assert max(queue.calls(running)) <= cancelled
    assert queue.counts(running).done == done + 4, "what was in flight came to its end, and done leads stay done"


def test_q10_a_call_in_flight_is_cut_off_after_60_seconds_and_at_once_by_force() -> None:
    for force, seconds in ((False, 60.0), (True, 0.0)):
        queue, job = stuck(1)
        queue.run(5)
        queue.ask(ev.CancelAsked(job, force))
        cancelled = queue.now
        queue.run_until_ended(job)
        assert seconds * SECOND - SOON <= queue.now - cancelled <= seconds * SECOND + SOON


@pytest.mark.parametrize(
    "scope", [("queue", ""), ("family", "tables"), ("teamspace", "a"), ("provider", "ai"), ("job", "1")]
)
def test_q11_what_is_paused_begins_no_call_and_goes_on_where_it_was(scope: tuple[str, str]) -> None:
    queue = Queue()
    job = queue.submit("a", 50, at_once=4)
    queue.run(5)
    assert queue.ask(ev.PauseSet(*scope, paused=True)) is None
    paused = queue.now
    queue.run(3600)
    assert max(queue.calls(job)) <= paused
    assert queue.ask(ev.PauseSet(*scope, paused=False)) is None
    queue.run_until_ended(job)
    assert queue.state(job) is JobState.COMPLETED
    assert len(queue.calls(job)) == 50, "calls in flight had finished: none was repeated"


def test_q12_a_head_start_lets_a_job_pass_those_of_the_last_minute_and_none_before() -> None:
    queue = Queue()
    running, old = queue.submit("a", 100), queue.submit("a")
    queue.run(61)
    recent = queue.submit("a")
    urgent = queue.submit("a", priority_microseconds=60 * SECOND)
    queue.run_until_ended(recent)
    assert [job for _, job, _ in queue.started] == [running, old, urgent, recent]


def test_q13_the_same_key_gives_the_first_job_and_another_body_a_conflict() -> None:
    queue = Queue()
    key, other = ev.Key(b"key", b"body"), ev.Key(b"key", b"another body")
    first = queue.receipt(enrich("a", key=key))
    queue.run_until_ended(first.job)
    queue.restart()
    queue.run(1)
    again = queue.receipt(enrich("a", key=key))
    assert again == Receipt(first.job, JobState.COMPLETED, 0, duplicate=True)
    answers = queue.ask(ev.Submitted([enrich("a", key=other)]))
    assert isinstance(answers, list)
    assert isinstance(answers[0], Refused)
    assert answers[0].code is ErrorCode.CONFLICT


def test_q14_a_delayed_job_takes_no_slot_and_starts_at_its_time() -> None:
    queue = Queue()
    run_at = queue.now + HOUR
    delayed = queue.submit("a", run_at=run_at)
    other = queue.submit("a", 10)
    queue.run(1)
    assert queue.state(delayed) is JobState.DELAYED
    assert queue.running == {other}
    queue.run_until_ended(delayed)
    assert queue.start_of(delayed) - run_at == COMMIT


def test_q15_done_failed_skipped_unknown_and_pending_add_up_at_every_read_also_after_a_restart() -> None:
    queue, job = stuck(3, leads=40)
    while job not in queue.store.ended:
        queue.run(7)
        counts = queue.counts(job)
        assert counts.done + counts.failed + counts.skipped + counts.unknown + counts.pending == counts.total == 40
        if counts.done == 20:
            queue.restart()
    assert queue.counts(job).pending == 0
