"""Q10 and Q11: cancel and pause; what has begun may end, nothing new begins, and every place is given back."""

import pytest
from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core.events import NewJob
from leadline.core.model import Family, JobState, StopCause
from leadline.core.rate_limit import WindowLimit
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import JobId
from tests.core.harness import RULES, Harness


@pytest.fixture
def snov(queue: Harness) -> Harness:
    queue.provider("snov", WindowLimit(15, 60))
    return queue


# -- cancel -----------------------------------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once(queue: Harness) -> None:
    running, queued, last = (queue.submit("a") for _ in range(3))
    assert queue.cancel(queued) is None
    assert queue.state(queued) is JobState.CANCELLED
    assert queue.reason(queued) is JobReason.CANCELLED
    queue.finish(running)
    assert queue.running == {last}


def test_a_delayed_job_is_cancelled_at_once(queue: Harness) -> None:
    job = queue.submit("a", delay=60)
    queue.cancel(job)
    assert queue.state(job) is JobState.CANCELLED
    queue.pass_seconds(120)
    assert queue.running == set()


def test_a_job_is_cancelled_in_the_decision_that_admits_it(queue: Harness) -> None:
    effects = queue.scheduler.handle(
        [ev.PauseSet("queue", "", paused=True), ev.Submitted([NewJob("a", 2, b"")]), ev.CancelAsked(JobId(1))],
        queue.now,
    )
    queue.carry_out(effects)
    assert queue.state(JobId(1)) is JobState.CANCELLED
    assert not queue.database.live


def test_a_running_job_makes_no_new_calls_and_may_finish_those_in_flight(snov: Harness) -> None:
    job = snov.submit("a")
    calls = [snov.ask(job) for _ in range(16)]
    snov.cancel(job)
    assert snov.state(job) is JobState.STOPPING
    assert snov.refused[calls[15]].reason is None
    late = snov.ask(job)
    assert snov.refused[late].reason is None
    snov.pass_seconds(50)
    for call in calls[:15]:
        assert snov.state(job) is JobState.STOPPING
        snov.answer(job, call)
    assert snov.state(job) is JobState.CANCELLED
    assert [stop.order.forced for stop in snov.stops] == [False]


def test_calls_in_flight_are_cut_off_after_sixty_seconds(snov: Harness) -> None:
    job = snov.submit("a")
    call = snov.ask(job)
    snov.cancel(job)
    snov.pass_seconds(59.9)
    assert snov.state(job) is JobState.STOPPING
    snov.pass_seconds(0.1)
    assert snov.state(job) is JobState.CANCELLED
    assert snov.database.calls[call].state == "unknown"
    assert [stop.order.forced for stop in snov.stops] == [False, True]


def test_the_daemons_own_pause_does_not_use_up_the_time_to_finish(snov: Harness) -> None:
    job = snov.submit("a")
    call = snov.ask(job)
    snov.cancel(job)
    snov.sleep(3600)
    snov.tell(ev.Ticked())
    assert snov.state(job) is JobState.STOPPING
    snov.answer(job, call)
    assert snov.state(job) is JobState.CANCELLED


def test_force_closes_a_running_job_at_once(snov: Harness) -> None:
    job = snov.submit("a")
    snov.ask(job)
    snov.cancel(job, force=True)
    assert snov.state(job) is JobState.CANCELLED


def test_force_may_follow_a_graceful_cancel(snov: Harness) -> None:
    job = snov.submit("a")
    snov.ask(job)
    snov.cancel(job)
    snov.cancel(job)
    assert len(snov.stops) == 1, "the same order is not given twice"
    snov.cancel(job, force=True)
    assert snov.state(job) is JobState.CANCELLED


def test_a_stalled_job_is_closed_at_once() -> None:
    queue = Harness(replace(RULES, auto_kill_stalled=False))
    queue.provider("snov", WindowLimit(15, 60))
    job = queue.submit("a")
    queue.ask(job)
    queue.pass_seconds(300)
    queue.cancel(job)
    assert queue.stops[-1].order.forced
    assert queue.state(job) is JobState.CANCELLED


def test_a_job_that_ends_by_itself_while_it_is_being_cancelled_has_ended(snov: Harness) -> None:
    job = snov.submit("a")
    snov.ask(job)
    snov.cancel(job)
    snov.finish(job)
    assert snov.state(job) is JobState.COMPLETED


def test_the_slot_is_held_until_the_cancelled_attempt_is_gone(snov: Harness) -> None:
    job, follower = snov.submit("a"), snov.submit("a")
    call = snov.ask(job)
    snov.cancel(job)
    assert snov.running == {job}
    snov.answer(job, call)
    assert snov.running == {follower}


def test_a_job_that_gave_its_slot_back_is_cancelled_at_once(queue: Harness) -> None:
    yielded = queue.submit("a")
    queue.wait(yielded, JobReason.POLL, 5000)
    paused = queue.submit("b")
    queue.pause("job", paused)
    killed, blocker = queue.submit("c"), queue.submit("d")
    queue.pause("teamspace", "c")
    for job in (yielded, paused, killed):
        assert queue.state(job) is JobState.QUEUED
        queue.cancel(job)
        assert queue.state(job) is JobState.CANCELLED
    queue.resume("teamspace", "c")
    queue.wait(blocker, JobReason.POLL)
    queue.pass_seconds(10_000)
    assert queue.running == {blocker}


def test_cancel_of_a_job_that_is_just_being_killed_wins(queue: Harness) -> None:
    job = queue.submit("a")
    queue.actors[job].lingers = True
    queue.pass_seconds(300)
    assert queue.state(job) is JobState.STOPPING
    assert queue.last_cause(job) is StopCause.STALLED
    queue.cancel(job)
    queue.stop_now(job)
    assert queue.state(job) is JobState.CANCELLED


def test_cancel_of_a_job_that_is_just_being_paused_wins(snov: Harness) -> None:
    job = snov.submit("a")
    call = snov.ask(job)
    snov.pause("job", job)
    assert snov.state(job) is JobState.RUNNING
    snov.cancel(job)
    assert snov.state(job) is JobState.STOPPING
    snov.answer(job, call)
    assert snov.state(job) is JobState.CANCELLED
    assert not snov.database.pauses, "nobody needs to resume what has ended"


def test_a_job_that_is_not_there_cannot_be_cancelled(queue: Harness) -> None:
    job = queue.submit("a")
    queue.finish(job)
    for stranger in (job, JobId(77)):
        answer = queue.cancel(stranger)
        assert isinstance(answer, Refused)
        assert answer.code is ErrorCode.NOT_FOUND


# -- pause and resume -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", [("queue", ""), ("family", "tables"), ("teamspace", "a"), ("job", "1")])
def test_a_paused_job_stops_gives_its_slot_back_and_resumes_in_its_old_place(
    snov: Harness, scope: tuple[str, str]
) -> None:
    job, follower = snov.submit("a"), snov.submit("a")
    call = snov.ask(job)
    snov.pause(*scope)
    assert snov.running == {job}, "its call in flight may finish"
    assert snov.last_cause(job) is StopCause.PAUSED
    snov.answer(job, call)
    assert snov.state(job) is JobState.QUEUED
    assert job not in snov.running
    if scope[0] == "job":
        assert snov.running == {follower}, "its slot goes to the next"
        snov.finish(follower)
    assert snov.running == set()
    snov.pass_seconds(5000)
    assert snov.running == set()
    snov.resume(*scope)
    assert snov.running == {job}
    assert snov.details(job).attempts == 2


@pytest.mark.parametrize(
    ("scope", "goes_on"),
    [(("family", "tables"), {3, 4}), (("teamspace", "a"), {2, 4}), (("queue", ""), set()), (("job", "1"), {2, 3, 4})],
)
def test_a_pause_holds_its_scope_and_nothing_else(queue: Harness, scope: tuple[str, str], goes_on: set[int]) -> None:
    queue.submit("a"), queue.submit("b"), queue.submit("a", "mail"), queue.submit("b", "mail")
    queue.pause(*scope)
    assert queue.running == goes_on
    queue.resume(*scope)
    assert queue.running == {1, 2, 3, 4}


@pytest.mark.parametrize("scope", [("family", "batch"), ("teamspace", "a"), ("queue", ""), ("job", "1")])
def test_a_pause_lets_code_that_runs_come_to_its_end_and_starts_none(queue: Harness, scope: tuple[str, str]) -> None:
    """It cannot be gone on with where it was: whoever wants it to end cancels it."""
    queue.limit("a", batch=1)
    running, waiting = queue.submit("a", "batch"), queue.submit("a", "batch")
    queue.pause(*scope)
    if scope[0] == "job":
        queue.pause("job", waiting)
    queue.pass_seconds(3_600)
    assert queue.running == {running}
    assert not queue.stops
    queue.finish(running)
    assert queue.state(running) is JobState.COMPLETED
    assert queue.running == set()
    queue.resume(*scope)
    queue.resume("job", waiting)
    assert queue.running == {waiting}


EVERY_SCOPE = [("family", "batch"), ("teamspace", "a"), ("queue", ""), ("job", "1"), ("provider", "snov")]


@pytest.mark.parametrize("scope", EVERY_SCOPE)
def test_code_that_goes_on_in_a_pause_makes_no_new_call(snov: Harness, scope: tuple[str, str]) -> None:
    job = snov.submit("a", "batch")
    sent = [snov.ask(job) for _ in range(15)]
    waits = [snov.ask(job) for _ in range(2)]
    snov.pause(*scope)
    asked_meanwhile = snov.ask(job)
    assert [snov.refused[call].reason for call in (*waits, asked_meanwhile)] == [JobReason.PAUSED] * 3
    snov.pass_seconds(300)
    assert [call for _, call in snov.sent] == sent
    for call in sent:
        snov.answer(job, call)
    snov.resume(*scope)
    assert snov.ask(job) == snov.sent[-1][1]
    assert not snov.stops


@pytest.mark.parametrize("scope", EVERY_SCOPE)
def test_a_permit_that_a_pause_overtakes_is_not_used(snov: Harness, scope: tuple[str, str]) -> None:
    job = snov.submit("a", "batch")
    call = snov.ask(job)
    assert snov.scheduler.may_send(call, snov.now.instant)
    snov.pause(*scope)
    assert not snov.scheduler.may_send(call, snov.now.instant)


@pytest.mark.parametrize("scope", [("family", "tables"), ("teamspace", "b"), ("job", "2"), ("provider", "openai")])
def test_a_pause_of_others_keeps_no_code_from_its_calls(snov: Harness, scope: tuple[str, str]) -> None:
    snov.provider("openai")
    job, _ = snov.submit("a", "batch"), snov.submit("b", "batch")
    for _ in range(15):
        snov.ask(job)
    waits = snov.ask(job)
    snov.pause(*scope)
    snov.pass_seconds(66)
    assert waits == snov.sent[-1][1]


def test_the_pause_of_a_chain_is_one_of_its_step_that_goes_on(snov: Harness) -> None:
    chain, step, _ = snov.submit_chain("a", "batch", "batch")
    snov.pause("job", chain)
    assert snov.refused[snov.ask(step)].reason is JobReason.PAUSED


def test_code_that_has_not_started_is_stopped_by_a_pause_like_others() -> None:
    queue = Harness(replace(RULES, capacity={Family.BATCH: 1}))
    running = queue.submit("a", "batch")
    _, first, second = queue.submit_chain("a", "enrich", "batch")
    queue.finish(first)
    queue.pause("family", "batch")
    queue.finish(running)
    queue.pass_seconds(60)
    assert queue.running == set()
    queue.resume("family", "batch")
    assert queue.running == {second}


def test_a_daemon_that_drains_lets_go_of_code_that_runs(queue: Harness) -> None:
    job = queue.submit("a", "batch")
    queue.tell(ev.DrainBegan())
    assert [(stop.job, stop.order.cause, stop.order.forced) for stop in queue.stops] == [(job, StopCause.PAUSED, False)]
    queue.restart()
    assert queue.running == {job}


@pytest.mark.parametrize("scope", [("queue", ""), ("family", "tables"), ("teamspace", "a"), ("job", "1"), ("job", "2")])
def test_pauses_hold_over_a_restart(queue: Harness, scope: tuple[str, str]) -> None:
    queue.submit("a"), queue.submit("b")
    queue.pause(*scope)
    running = queue.running
    queue.restart(seconds=5)
    assert queue.running == running
    queue.resume(*scope)
    assert queue.running == {1, 2}


def test_a_job_paused_while_it_stops_stays_paused_over_a_restart(snov: Harness) -> None:
    job = snov.submit("a")
    snov.ask(job)
    snov.pause("job", job)
    snov.restart(seconds=5)
    assert snov.running == set()
    snov.resume("job", job)
    assert snov.running == {job}


def test_a_job_under_two_pauses_needs_both_to_be_lifted(queue: Harness) -> None:
    job = queue.submit("a")
    queue.pause("job", job)
    queue.pause("teamspace", "a")
    queue.resume("job", job)
    assert queue.running == set()
    queue.pause("job", job)
    queue.resume("teamspace", "a")
    assert queue.running == set()
    queue.resume("job", job)
    assert queue.running == {job}


def test_pause_and_resume_before_the_attempt_is_gone_starts_it_again(snov: Harness) -> None:
    job = snov.submit("a")
    call = snov.ask(job)
    snov.pause("job", job)
    snov.resume("job", job)
    snov.answer(job, call)
    assert snov.running == {job}
    assert snov.details(job).attempts == 2


def test_a_delayed_job_that_is_paused_becomes_due_and_waits_for_its_resumption(queue: Harness) -> None:
    job = queue.submit("a", delay=60)
    queue.pause("job", job)
    queue.pass_seconds(61)
    assert queue.state(job) is JobState.QUEUED
    assert queue.running == set()
    queue.resume("job", job)
    assert queue.running == {job}


def test_jobs_submitted_under_a_pause_wait_in_their_order(queue: Harness) -> None:
    queue.pause("queue")
    first, second, other = queue.submit("a"), queue.submit("a"), queue.submit("c")
    assert queue.running == set()
    queue.resume("queue")
    assert queue.running == {first, other}
    assert queue.state(second) is JobState.QUEUED


def test_a_paused_provider_makes_no_new_call_and_its_jobs_wait(snov: Harness) -> None:
    job = snov.submit("a")
    call = snov.ask(job)
    snov.pause("provider", "snov")
    waiting = snov.ask(job)
    snov.answer(job, call)
    assert snov.waits(job) == {JobReason.PAUSED}
    assert snov.busy() == 0
    snov.pass_seconds(5000)
    assert snov.running == {job}
    assert waiting not in {sent for _, sent in snov.sent}
    snov.resume("provider", "snov")
    assert waiting in {sent for _, sent in snov.sent}


def test_a_providers_pause_holds_over_a_restart(snov: Harness) -> None:
    snov.pause("provider", "snov")
    job = snov.submit("a")
    snov.restart(seconds=5)
    call = snov.ask(job)
    assert not snov.sent
    snov.resume("provider", "snov")
    assert [sent for _, sent in snov.sent] == [call]


def test_a_repeated_pause_changes_nothing(queue: Harness) -> None:
    job = queue.submit("a")
    queue.pause("job", job)
    told = list(queue.story(job))
    assert queue.pause("job", job) is None
    assert queue.resume("queue") is None
    assert queue.story(job) == told


@pytest.mark.parametrize(
    ("scope", "name", "code"),
    [
        ("job", "99", ErrorCode.NOT_FOUND),
        ("job", "one", ErrorCode.NOT_FOUND),
        ("job", "01", ErrorCode.NOT_FOUND),
        ("job", "", ErrorCode.NOT_FOUND),
        ("teamspace", "nobody", ErrorCode.UNKNOWN_TEAMSPACE),
        ("provider", "nobody", ErrorCode.UNKNOWN_PROVIDER),
        ("family", "fruit", ErrorCode.BAD_REQUEST),
        ("queue", "x", ErrorCode.BAD_REQUEST),
        ("planet", "earth", ErrorCode.BAD_REQUEST),
    ],
)
def test_what_is_not_there_cannot_be_paused(queue: Harness, scope: str, name: str, code: ErrorCode) -> None:
    queue.submit("a")
    answer = queue.pause(scope, name)
    assert isinstance(answer, Refused)
    assert answer.code is code
    assert not queue.database.pauses


def test_a_job_that_ends_takes_its_pause_along(queue: Harness) -> None:
    job = queue.submit("a")
    queue.pause("job", job)
    queue.cancel(job)
    assert not queue.database.pauses


def test_a_daemon_that_drains_starts_nothing_more_and_lets_what_runs_stop(snov: Harness) -> None:
    job, waiting = snov.submit("a"), snov.submit("a")
    call = snov.ask(job)
    snov.tell(ev.DrainBegan())
    assert snov.submit("b") not in snov.running
    snov.answer(job, call)
    assert snov.running == set()
    assert snov.submit("a", "noop") in snov.scheduler.jobs
    snov.restart()
    assert snov.running == {job, JobId(3)}
    assert snov.state(waiting) is JobState.QUEUED
    assert snov.state(JobId(4)) is JobState.COMPLETED


# -- jobs whose moment has passed -------------------------------------------------------------------------------------


def test_a_job_that_has_not_started_in_time_is_skipped_and_one_that_has_is_left_alone(queue: Harness) -> None:
    queue.limit("a", batch=1)
    running, waiting, last = (queue.submit("a", "batch") for _ in range(3))
    for job in (running, waiting):
        queue.tell(ev.Expired(job, JobReason.NO_SLOT, "too late"))
    assert queue.state(running) is JobState.RUNNING
    assert queue.state(waiting) is JobState.SKIPPED
    assert queue.reason(waiting) is JobReason.NO_SLOT
    queue.tell(ev.Expired(waiting, JobReason.NO_SLOT, "once more"))
    queue.finish(running)
    assert queue.running == {last}


def test_a_job_that_has_started_once_is_not_skipped_when_it_goes_on(queue: Harness) -> None:
    job = queue.submit("a", "batch")
    queue.pause("queue")
    queue.restart()
    assert queue.running == set()
    queue.tell(ev.Expired(job, JobReason.NO_SLOT, "too late"))
    queue.resume("queue")
    assert queue.running == {job}
