"""Q4, Q7 and T11 as the scheduler sees them: permits over all teamspaces, and waiting, which is never a failure."""

from decimal import Decimal

import pytest
from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core.model import SECOND, Family, JobState, StopCause
from leadline.core.rate_limit import ConcurrentLimit, Cost, WindowLimit
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant, LeadId
from tests.core.harness import RULES, START, Harness
from tests.world.windows import worst_window

HOUR = 3600


@pytest.fixture
def snov(queue: Harness) -> Harness:
    queue.provider("snov", WindowLimit(15, 60))
    return queue


@pytest.fixture
def even() -> Harness:
    """One job at a time has work in hand; one of the providers is asked once a second."""
    queue = Harness(replace(RULES, capacity={Family.TABLES: 1}))
    queue.provider("snov")
    queue.provider("even", pace_per_second=1)
    return queue


def later(queue: Harness, seconds: float) -> Instant:
    return Instant(queue.instant + round(seconds * SECOND))


def test_a_permit_is_stored_as_sent_before_it_is_handed_over(snov: Harness) -> None:
    job = snov.submit("a")
    call = snov.ask(job, lead=7)
    row = snov.database.calls[call].row
    assert (row.job, row.attempt, row.lead, row.account) == (job, 1, 7, "snov")
    assert [sent for _, sent in snov.sent] == [call]


def test_a_limit_binds_over_all_teamspaces(snov: Harness) -> None:
    jobs = [snov.submit(f"t{number}") for number in range(8)]
    for _ in range(10):
        for job in jobs:
            snov.ask(job)
    assert len(snov.sent) == 15
    snov.pass_seconds(300)
    assert worst_window([instant for instant, _ in snov.sent], 60) == 15


def test_a_throttled_provider_does_not_starve_other_teamspaces(snov: Harness) -> None:
    first = snov.submit("a")
    calls = [snov.ask(first) for _ in range(100)]
    second = snov.submit("b")
    others = [snov.ask(second) for _ in range(5)]
    snov.pass_seconds(61)
    for call in calls[:15]:
        snov.answer(first, call)
    snov.pass_seconds(61)
    granted = {sent for _, sent in snov.sent}
    assert granted >= set(others)


def test_a_raised_limit_binds_from_the_next_call(snov: Harness) -> None:
    job = snov.submit("a")
    for _ in range(100):
        snov.ask(job)
    assert len(snov.sent) == 15
    snov.provider("snov", WindowLimit(60, 60))
    assert len(snov.sent) == 60


def test_a_cost_above_the_limit_is_refused_and_the_job_goes_on(snov: Harness) -> None:
    job = snov.submit("a")
    call = snov.ask(job, cost=Cost(request=16))
    assert snov.refused[call].reason is JobReason.LIMIT
    assert snov.busy() == 1
    fits = snov.ask(job, cost=Cost(request=15))
    waits = snov.ask(job, cost=Cost(request=12))
    snov.provider("snov", WindowLimit(10, 60))
    assert snov.refused[waits].reason is JobReason.LIMIT
    assert fits in {sent for _, sent in snov.sent}


def test_an_account_that_is_not_known_is_refused(queue: Harness) -> None:
    job = queue.submit("a")
    call = queue.ask(job, "nobody")
    assert queue.refused[call].reason is JobReason.INVALID_KEY


def test_retry_after_stops_everyone_and_lets_one_canary_through(snov: Harness) -> None:
    one, other = snov.submit("a"), snov.submit("b")
    call = snov.ask(one)
    snov.answer(one, call, throttled=True, retry_after=later(snov, 30))
    snov.ask(one)
    snov.ask(other)
    assert snov.waits(one) == snov.waits(other) == {JobReason.RETRY_AFTER}
    snov.pass_seconds(29.9)
    assert len(snov.sent) == 1
    snov.pass_seconds(0.1)
    assert len(snov.sent) == 2
    canary = snov.sent[-1][1]
    snov.answer(snov.database.calls[canary].row.job, canary)
    assert len(snov.sent) == 3


def test_calls_that_waited_for_capacity_keep_to_the_pace_when_they_go(even: Harness) -> None:
    paced = even.submit("a")
    calls = [even.ask(paced, "even") for _ in range(5)]
    even.answer(paced, calls[0])
    busy = even.submit("b")  # has the only share from here on
    call = even.ask(busy)
    even.pass_seconds(40)
    assert len(even.sent_to("even")) == 1
    even.answer(busy, call)
    even.finish(busy)
    even.pass_seconds(10)
    assert [(at - START) / SECOND for at, _ in even.sent_to("even")] == [0, 40, 41, 42, 43]


def test_a_job_that_is_cancelled_before_its_call_goes_keeps_nobody_from_going_at_the_pace(even: Harness) -> None:
    paced = even.submit("a")
    calls = [even.ask(paced, "even") for _ in range(2)]
    even.answer(paced, calls[0])
    busy = even.submit("b")
    call = even.ask(busy)
    even.pass_seconds(5)
    even.cancel(paced)
    even.ask(busy, "even")
    even.answer(busy, call)
    even.pass_seconds(1)
    assert [(at - START) / SECOND for at, _ in even.sent_to("even")] == [0, 5]


def test_retry_after_holds_over_a_restart(snov: Harness) -> None:
    job = snov.submit("a")
    snov.answer(job, snov.ask(job), throttled=True, retry_after=later(snov, 300))
    snov.restart(seconds=5)
    snov.ask(job)
    snov.pass_seconds(294.9)
    assert len(snov.sent) == 1
    snov.pass_seconds(0.1)
    assert len(snov.sent) == 2


def test_windows_hold_over_restarts(snov: Harness) -> None:
    job = snov.submit("a")
    for _ in range(12):
        snov.restart(seconds=5)
        for _ in range(15):
            snov.ask(job)
    snov.pass_seconds(120)
    assert worst_window([instant for instant, _ in snov.sent], 60) <= 15


def test_a_key_that_the_provider_refuses_stops_every_further_call(snov: Harness) -> None:
    one, other = snov.submit("a"), snov.submit("b")
    calls = [snov.ask(one) for _ in range(15)]
    waiting = [snov.ask(one), snov.ask(other)]
    snov.answer(one, calls[0], failed=True, parked=JobReason.INVALID_KEY)
    assert {snov.refused[call].reason for call in waiting} == {JobReason.INVALID_KEY}
    assert snov.refused[snov.ask(other)].reason is JobReason.INVALID_KEY
    snov.resume("provider", "snov")
    assert snov.ask(other) not in snov.refused


def test_a_used_up_quota_parks_the_account_until_a_person_resumes_it(snov: Harness) -> None:
    job = snov.submit("a")
    snov.answer(job, snov.ask(job), failed=True, parked=JobReason.CREDITS)
    call = snov.ask(job)
    snov.pass_seconds(10 * HOUR)
    assert snov.waits(job) == {JobReason.CREDITS}
    assert snov.state(job) is JobState.RUNNING
    assert snov.resume("provider", "snov") is None, "it is parked, not paused, and can be resumed all the same"
    assert call in {sent for _, sent in snov.sent}


def test_who_has_others_to_ask_does_not_wait_for_a_parked_account(snov: Harness) -> None:
    job, other = snov.submit("a"), snov.submit("b")
    calls = [snov.ask(job) for _ in range(15)]
    waiting, passing = snov.ask(other), snov.ask(other, patient=False)
    soon = later(snov, 300)
    snov.answer(job, calls[0], failed=True, parked=JobReason.DAILY_CAP, retry_after=soon)
    assert {call: refused.reason for call, refused in snov.refused.items()} == {passing: JobReason.DAILY_CAP}
    assert snov.refused[snov.ask(other, patient=False)].reason is JobReason.DAILY_CAP
    snov.pass_seconds(300)
    assert snov.ask(other, patient=False) not in snov.refused
    assert waiting not in snov.refused
    assert waiting in {sent for _, sent in snov.sent}


def test_who_has_others_to_ask_waits_for_a_throttled_account_all_the_same(snov: Harness) -> None:
    job = snov.submit("a")
    snov.answer(job, snov.ask(job), throttled=True, retry_after=later(snov, 300))
    call = snov.ask(job, patient=False)
    snov.pass_seconds(300)
    assert call in {sent for _, sent in snov.sent}


def test_what_a_call_may_come_to_is_stored_before_it_is_handed_over(snov: Harness) -> None:
    call = snov.ask(snov.submit("a"), credits_max=Decimal("0.3"))
    assert snov.database.calls[call].row.credits == Decimal("0.3")


def test_what_is_certain_not_to_have_left_costs_nothing(snov: Harness) -> None:
    job = snov.submit("a")
    calls = [snov.ask(job) for _ in range(15)]
    waiting = snov.ask(job)
    snov.tell(ev.CallEnded(calls[0], snov.now.instant, ev.CallEnd(unsent=True)))
    assert waiting in {sent for _, sent in snov.sent}
    assert snov.database.calls[calls[0]].state == "unsent"


def test_events_about_calls_that_are_over_or_never_were_change_nothing(snov: Harness) -> None:
    job = snov.submit("a")
    call = snov.ask(job)
    snov.answer(job, call)
    for stranger in (call, CallId(999)):
        snov.tell(
            ev.CallSent(stranger, snov.now.instant),
            ev.ResponseBegan(stranger, snov.now.instant),
            ev.CallEnded(stranger, snov.now.instant, ev.CallEnd(unsent=True)),
        )
    for _ in range(15):
        waiting = snov.ask(job)
    snov.tell(
        ev.CallSent(waiting, snov.now.instant),
        ev.ResponseBegan(waiting, snov.now.instant),
        ev.CallEnded(waiting, snov.now.instant, ev.CallEnd()),
        ev.CallAsked(waiting, job, 1, AccountName("snov"), LeadId(1), Cost(request=1)),
    )
    assert waiting not in {sent for _, sent in snov.sent}


def test_calls_of_an_earlier_attempt_are_refused(snov: Harness) -> None:
    job = snov.submit("a")
    snov.die(job)
    snov.pass_seconds(1)
    snov.tell(ev.CallAsked(CallId(50), job, 1, AccountName("snov"), LeadId(1), Cost(request=1)))
    assert snov.refused[CallId(50)].reason is None
    assert not snov.sent


def test_calls_in_flight_when_an_attempt_ends_are_closed_as_unknown(snov: Harness) -> None:
    job = snov.submit("a")
    call = snov.ask(job)
    snov.finish(job)
    assert snov.database.calls[call].state == "unknown"
    assert not snov.scheduler.calls


def test_what_a_killed_attempt_had_in_flight_still_counts_at_the_provider(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(1, 60))
    job = queue.submit("a")
    queue.ask(job)
    queue.die(job)
    queue.pass_seconds(1)
    queue.ask(job)
    queue.pass_seconds(59)
    assert len(queue.sent) == 1
    queue.pass_seconds(10)
    assert len(queue.sent) == 2


def test_a_call_that_was_in_flight_at_a_crash_counts_as_sent_at_the_restart(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(1, 60))
    job = queue.submit("a")
    queue.ask(job)
    queue.pass_seconds(50)
    queue.restart()
    restarted = queue.instant
    queue.ask(job)
    queue.pass_seconds(100)
    assert queue.sent[1][0] == restarted + (5 + 60) * SECOND


def test_a_permit_is_used_within_five_seconds_or_not_at_all(snov: Harness) -> None:
    job = snov.submit("a")
    calls = [snov.ask(job) for _ in range(16)]
    assert snov.scheduler.may_send(calls[0], later(snov, 0))
    assert snov.scheduler.may_send(calls[0], later(snov, 5))
    assert not snov.scheduler.may_send(calls[0], later(snov, 5.000001))
    assert not snov.scheduler.may_send(calls[15], later(snov, 0)), "it has no permit"
    assert not snov.scheduler.may_send(CallId(99), later(snov, 0))
    snov.pause("provider", "snov")
    assert not snov.scheduler.may_send(calls[0], later(snov, 0))


def test_a_call_that_was_answered_has_left_whatever_is_said_of_it(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(1, 60))
    job = queue.submit("a")
    call = queue.ask(job)
    queue.tell(
        ev.ResponseBegan(call, queue.now.instant),
        ev.CallEnded(call, queue.now.instant, ev.CallEnd(unsent=True)),
    )
    queue.ask(job)
    assert len(queue.sent) == 1, "its charge stands"


# -- Q7: waiting ------------------------------------------------------------------------------------------------------


def test_waiting_for_a_known_reason_is_never_a_stall_nor_a_failure(queue: Harness) -> None:
    queue.provider("busy", ConcurrentLimit(1))
    holder, job = queue.submit("a"), queue.submit("b")
    queue.ask(holder, "busy")
    queue.ask(job, "busy")
    for _ in range(24):
        queue.settle(holder)
        queue.pass_seconds(290)
    assert queue.state(job) is JobState.RUNNING
    assert queue.details(job).attempts == 1
    assert queue.details(job).stall_kills == 0
    assert not queue.warnings or all(warning.job == holder for _, warning in queue.warnings)


def test_a_wait_of_less_than_fifteen_minutes_keeps_the_slot(queue: Harness) -> None:
    job, follower = queue.submit("a"), queue.submit("a")
    queue.wait(job, JobReason.POLL, 900)
    queue.pass_seconds(890)
    assert queue.running == {job}
    assert queue.state(follower) is JobState.QUEUED


def test_a_wait_known_to_exceed_fifteen_minutes_gives_the_slot_to_the_next_job(queue: Harness) -> None:
    job, follower = queue.submit("a"), queue.submit("a")
    queue.wait(job, JobReason.POLL, 901)
    assert queue.running == {follower}
    assert queue.last_cause(job) is StopCause.YIELDED
    assert queue.state(job) is JobState.QUEUED
    assert queue.waits(job) == {JobReason.POLL}


def test_a_job_that_yielded_resumes_at_the_front_when_its_wait_is_over(queue: Harness) -> None:
    job = queue.submit("a")
    followers = [queue.submit("a") for _ in range(3)]
    queue.wait(job, JobReason.POLL, 1000)
    assert queue.running == {followers[0]}
    queue.wait(followers[0], JobReason.POLL)
    queue.pass_seconds(999.9)
    queue.finish(followers[0])
    assert queue.running == {followers[1]}
    queue.pass_seconds(0.1)
    assert queue.running == {followers[1]}
    queue.finish(followers[1])
    assert queue.running == {job}, "ahead of the one that has not started"
    assert queue.details(job).attempts == 2
    assert queue.details(job).stall_kills == 0


def test_a_mail_that_has_to_wait_leaves_its_slot_to_the_next_at_once(queue: Harness) -> None:
    early, late = queue.submit("a", "mail"), queue.submit("a", "mail")
    queue.wait(early, JobReason.LIMIT, 60)
    assert queue.state(early) is JobState.QUEUED
    assert queue.state(late) is JobState.RUNNING
    queue.finish(late)
    queue.pass_seconds(59)
    assert queue.state(early) is JobState.QUEUED
    queue.pass_seconds(1)
    assert queue.state(early) is JobState.RUNNING


def test_a_job_with_any_short_wait_or_work_in_hand_does_not_yield(snov: Harness) -> None:
    job, follower = snov.submit("a"), snov.submit("a")
    call = snov.ask(job)
    snov.wait(job, JobReason.POLL, 5000)
    assert snov.running == {job}, "a call is out"
    snov.wait(job, JobReason.BACKOFF, 5)
    snov.answer(job, call)
    assert snov.running == {job}, "one of its waits is short"
    snov.wait_over(job, JobReason.BACKOFF)
    assert snov.running == {follower}


def test_a_job_yields_to_a_daily_cap_and_comes_back_when_the_limit_is_lifted(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(1, 86_400))
    job, follower = queue.submit("a"), queue.submit("a")
    queue.answer(job, queue.ask(job))
    queue.ask(job)
    assert queue.running == {follower}
    assert queue.waits(job) == {JobReason.LIMIT}
    queue.finish(follower)
    queue.pass_seconds(HOUR)
    assert queue.running == set()
    queue.provider("snov", WindowLimit(10, 86_400))
    assert queue.running == {job}


@pytest.mark.parametrize("gone_by", ["resume", "cancel", "time"])
def test_a_paused_job_that_also_waited_for_a_provider_waits_for_the_person_alone(snov: Harness, gone_by: str) -> None:
    job = snov.submit("a")
    snov.answer(job, snov.ask(job), throttled=True, retry_after=later(snov, HOUR))
    snov.ask(job)
    snov.pause("job", job)
    assert snov.waits(job) == {JobReason.RETRY_AFTER, JobReason.PAUSED}
    snov.provider("snov", WindowLimit(60, 60))
    assert snov.waits(job) == {JobReason.PAUSED}
    match gone_by:
        case "resume":
            snov.resume("job", job)
            assert snov.running == {job}
            snov.finish(job)
        case "cancel":
            snov.cancel(job)
    snov.pass_seconds(2 * HOUR)
    assert (job in snov.scheduler.jobs) == (gone_by == "time")


def test_a_job_that_yielded_to_a_parked_account_comes_back_when_a_person_resumes_it(snov: Harness) -> None:
    job, follower = snov.submit("a"), snov.submit("a")
    tomorrow = later(snov, 20 * HOUR)
    snov.answer(job, snov.ask(job), failed=True, parked=JobReason.DAILY_CAP, retry_after=tomorrow)
    snov.ask(job)
    assert snov.running == {follower}
    assert snov.waits(job) == {JobReason.DAILY_CAP}
    snov.finish(follower)
    snov.resume("provider", "snov")
    assert snov.running == {job}


def test_a_long_hint_of_the_provider_makes_whoever_waits_yield_soon(snov: Harness) -> None:
    job, follower = snov.submit("a"), snov.submit("a")
    calls = [snov.ask(job) for _ in range(16)]
    for call in calls[1:15]:
        snov.answer(job, call)
    snov.answer(job, calls[0], throttled=True, retry_after=later(snov, HOUR))
    snov.pass_seconds(30)
    assert snov.running == {follower}
    assert snov.waits(job) == {JobReason.RETRY_AFTER}


def test_a_wait_for_a_person_gives_the_slot_back_until_the_job_is_resumed(queue: Harness) -> None:
    job, follower = queue.submit("a"), queue.submit("a")
    queue.wait(job, JobReason.APPROVAL)
    assert queue.running == {follower}
    queue.finish(follower)
    queue.pass_seconds(HOUR)
    assert queue.running == set()
    queue.resume("job", job)
    assert queue.running == {job}


def test_who_resumes_a_job_that_is_still_giving_its_slot_back_is_not_waited_for_again(queue: Harness) -> None:
    job = queue.submit("a")
    queue.actors[job].lingers = True
    queue.wait(job, JobReason.APPROVAL)
    assert queue.last_cause(job) is StopCause.YIELDED
    queue.resume("job", job)
    queue.stop_now(job)
    assert queue.running == {job}
    assert queue.starts[-1].approved


def test_that_it_was_resumed_meanwhile_outlives_the_daemon(queue: Harness) -> None:
    job = queue.submit("a")
    queue.actors[job].lingers = True
    queue.wait(job, JobReason.APPROVAL)
    queue.resume("job", job)
    queue.restart()
    assert queue.running == {job}
    assert queue.starts[-1].approved


def test_who_resumes_a_job_before_it_asks_for_him_has_it_look_once_more_and_approves_of_nothing(queue: Harness) -> None:
    job = queue.submit("a")
    queue.resume("job", job)
    queue.wait(job, JobReason.APPROVAL)
    assert queue.running == {job}
    assert queue.starts[-1].number == 2
    assert not queue.starts[-1].approved
    queue.wait(job, JobReason.APPROVAL)
    assert queue.waits(job) == {JobReason.APPROVAL}


def test_an_account_that_is_resumed_keeps_nobody_who_is_still_giving_its_slot_back(snov: Harness) -> None:
    job = snov.submit("a")
    tomorrow = later(snov, 20 * HOUR)
    snov.actors[job].lingers = True
    snov.answer(job, snov.ask(job), failed=True, parked=JobReason.DAILY_CAP, retry_after=tomorrow)
    snov.ask(job)
    assert snov.last_cause(job) is StopCause.YIELDED
    snov.resume("provider", "snov")
    snov.stop_now(job)
    assert snov.running == {job}


def test_a_job_that_yielded_keeps_its_wait_over_a_restart(queue: Harness) -> None:
    job = queue.submit("a")
    queue.wait(job, JobReason.POLL, 1000)
    queue.restart(seconds=10)
    assert queue.running == set()
    queue.pass_seconds(989.9)
    assert queue.running == set()
    queue.pass_seconds(0.1)
    assert queue.running == {job}
    assert queue.details(job).attempts == 2


def test_work_that_is_interrupted_by_no_fault_of_its_own_goes_on_after_a_second(queue: Harness) -> None:
    job = queue.submit("a")
    queue.die(job)
    assert queue.state(job) is JobState.QUEUED
    queue.pass_seconds(1)
    assert queue.running == {job}
    assert queue.details(job).stall_kills == 0
