"""Q9: who beats no more is lost after 30 s, who makes no progress stalled after 300 s, neither a moment sooner."""

import pytest
from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core.effects import WarnStalled
from leadline.core.model import SECOND, Family, JobState, StopCause
from leadline.core.rate_limit import ConcurrentLimit, WindowLimit
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import Instant, JobId, TeamspaceId
from tests.core.harness import RULES, Harness

HOUR = 3600


def kill_for_a_stall(queue: Harness, job: JobId) -> None:
    queue.pass_seconds(300)
    assert queue.stops[-1].job == job
    assert queue.last_cause(job) is StopCause.STALLED


def test_no_progress_for_299_9_seconds_is_no_stall(queue: Harness) -> None:
    job = queue.submit("a")
    queue.pass_seconds(299.9)
    assert queue.running == {job}
    assert not queue.stops


def test_no_progress_for_300_seconds_is_a_stall(queue: Harness) -> None:
    job = queue.submit("a")
    queue.pass_seconds(299.999999)
    assert not queue.stops
    queue.pass_seconds(0.000001)
    assert [(stop.job, stop.order.cause, stop.order.forced) for stop in queue.stops] == [(job, StopCause.STALLED, True)]


def test_code_that_bounds_its_own_time_never_stands_still_but_is_lost_like_others(queue: Harness) -> None:
    job = queue.submit("a", "batch")
    queue.pass_seconds(24 * HOUR)
    assert queue.running == {job}
    assert not queue.warnings
    queue.actors[job].beats = False
    queue.pass_seconds(30)
    assert queue.last_cause(job) is StopCause.WORKER_LOST


def test_one_lead_every_20_seconds_is_never_a_stall(queue: Harness) -> None:
    job = queue.submit("a")
    for _ in range(3 * HOUR // 20):
        queue.pass_seconds(20)
        queue.settle(job)
    assert queue.running == {job}
    assert not queue.warnings


def test_every_lead_starts_the_300_seconds_anew(queue: Harness) -> None:
    job = queue.submit("a")
    queue.pass_seconds(299.9)
    queue.settle(job)
    queue.pass_seconds(299.9)
    assert not queue.stops
    queue.pass_seconds(0.1)
    assert queue.last_cause(job) is StopCause.STALLED


def test_progress_that_no_count_shows_is_progress(queue: Harness) -> None:
    job = queue.submit("a")
    for _ in range(10):
        queue.pass_seconds(299)
        queue.tell(ev.Moved(job, 1))
    assert not queue.stops


def test_counts_that_do_not_move_are_no_progress(queue: Harness) -> None:
    job = queue.submit("a")
    queue.settle(job)
    for _ in range(30):
        queue.pass_seconds(10)
        queue.settle(job, 0)
    assert queue.last_cause(job) is StopCause.STALLED


def test_an_open_wait_stops_the_clock_and_its_end_starts_it_anew(queue: Harness) -> None:
    job = queue.submit("a")
    queue.pass_seconds(299)
    queue.wait(job, JobReason.POLL)
    queue.pass_seconds(HOUR)
    queue.wait_over(job, JobReason.POLL)
    queue.pass_seconds(299.9)
    assert not queue.stops
    queue.pass_seconds(0.1)
    assert queue.last_cause(job) is StopCause.STALLED


def test_a_call_in_flight_is_no_wait(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    job = queue.submit("a")
    queue.ask(job)
    queue.pass_seconds(300)
    assert queue.last_cause(job) is StopCause.STALLED


def test_a_call_that_hangs_is_missed_though_others_of_its_attempt_wait_for_its_place(queue: Harness) -> None:
    queue.provider("busy", ConcurrentLimit(1))
    job = queue.submit("a")
    queue.ask(job, "busy", lead=1)
    queue.ask(job, "busy", lead=2)
    queue.pass_seconds(299.9)
    assert not queue.stops
    queue.pass_seconds(0.1)
    assert queue.last_cause(job) is StopCause.STALLED


def test_a_canary_that_hangs_is_missed_though_everybody_waits_for_its_answer(queue: Harness) -> None:
    queue.provider("ai", WindowLimit(60, 60), ConcurrentLimit(10))
    job, other = queue.submit("a"), queue.submit("b")
    retry = Instant(queue.instant + 60 * SECOND)
    queue.answer(job, queue.ask(job, "ai", lead=9), throttled=True, retry_after=retry)
    canary, *rest = [queue.ask(job, "ai", lead=lead) for lead in (10, 14, 15)]
    waiting = queue.ask(other, "ai")
    queue.pass_seconds(60)
    assert queue.sent[-1] == (queue.instant, canary)
    queue.tell(ev.ResponseBegan(canary, queue.now.instant))
    queue.pass_seconds(300)
    assert queue.last_cause(job) is StopCause.STALLED
    assert set(rest) <= queue.refused.keys()
    assert queue.sent[-1][1] == waiting, "the next canary"
    queue.answer(other, waiting)
    queue.ask(job, "ai", lead=10)
    assert len(queue.sent) == 4, "everyone goes"


def test_a_wait_of_the_work_is_no_excuse_for_a_call_that_hangs_beside_it(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    job = queue.submit("a")
    queue.ask(job)
    queue.pass_seconds(200)
    queue.wait(job, JobReason.BULK_RESULT)
    queue.pass_seconds(299.9)
    assert not queue.stops
    queue.pass_seconds(0.1)
    assert queue.last_cause(job) is StopCause.STALLED


def test_while_calls_go_and_end_their_attempt_is_at_work(queue: Harness) -> None:
    queue.provider("busy", ConcurrentLimit(2))
    job = queue.submit("a")
    calls = [queue.ask(job, "busy") for _ in range(20)]
    for call in calls[:18]:
        queue.pass_seconds(100)
        queue.answer(job, call, failed=True)
    assert not queue.stops
    assert not queue.warnings


def test_people_are_warned_once_at_120_seconds(queue: Harness) -> None:
    job = queue.submit("a")
    queue.pass_seconds(119.9)
    assert not queue.warnings
    queue.pass_seconds(0.1)
    assert [warning for _, warning in queue.warnings] == [WarnStalled(job, TeamspaceId(1), 120, killed=False)]
    queue.pass_seconds(179.9)
    assert len(queue.warnings) == 1
    queue.pass_seconds(0.1)
    assert [warning for _, warning in queue.warnings][1:] == [WarnStalled(job, TeamspaceId(1), 300, killed=True)]
    assert {"standing_still", "stalled", "stopped", "queued"} < set(queue.story(job))


def test_a_warning_is_given_again_after_progress(queue: Harness) -> None:
    job = queue.submit("a")
    queue.pass_seconds(130)
    queue.settle(job)
    queue.pass_seconds(120)
    assert [warning.seconds for _, warning in queue.warnings] == [120, 120]


def test_without_auto_kill_a_stalled_job_is_flagged_once_and_left_to_a_person() -> None:
    queue = Harness(replace(RULES, auto_kill_stalled=False))
    job = queue.submit("a")
    queue.pass_seconds(HOUR)
    assert queue.running == {job}
    assert [(at - queue.instant + HOUR * SECOND, warning) for at, warning in queue.warnings] == [
        (120 * SECOND, WarnStalled(job, TeamspaceId(1), 120, killed=False)),
        (300 * SECOND, WarnStalled(job, TeamspaceId(1), 300, killed=False)),
    ]


def test_auto_kill_switched_on_takes_what_is_stalled_already() -> None:
    queue = Harness(replace(RULES, auto_kill_stalled=False))
    job = queue.submit("a")
    queue.pass_seconds(HOUR)
    queue.tell(ev.RulesSet(RULES))
    queue.pass_seconds(30)
    assert queue.last_cause(job) is StopCause.STALLED


def test_no_beat_for_30_seconds_means_that_the_worker_is_dead(queue: Harness) -> None:
    job = queue.submit("a")
    queue.pass_seconds(10)
    queue.actors[job].beats = False
    queue.pass_seconds(29.999999)
    assert not queue.stops
    queue.pass_seconds(0.000001)
    assert queue.last_cause(job) is StopCause.WORKER_LOST
    assert queue.stops[-1].order.forced


def test_who_beats_no_more_is_dead_even_while_it_waits(queue: Harness) -> None:
    job = queue.submit("a")
    queue.wait(job, JobReason.POLL)
    queue.actors[job].beats = False
    queue.pass_seconds(30)
    assert queue.last_cause(job) is StopCause.WORKER_LOST


def test_the_slot_is_free_as_soon_as_the_killed_attempt_is_gone(queue: Harness) -> None:
    job, follower = queue.submit("a"), queue.submit("a")
    queue.pass_seconds(300)
    assert queue.running == {job}, "it resumes at once, ahead of the one behind it"
    assert queue.details(job).attempts == 2
    assert queue.state(follower) is JobState.QUEUED
    assert queue.database.slots == {(1, 1, 0): job}


def test_a_killed_job_keeps_its_order_and_resumes(queue: Harness) -> None:
    job = queue.submit("a")
    order = queue.job(job).order
    kill_for_a_stall(queue, job)
    assert queue.job(job).order == order
    assert queue.running == {job}
    queue.settle(job)
    queue.finish(job)
    assert queue.state(job) is JobState.COMPLETED


def test_late_reports_of_a_killed_attempt_are_ignored(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    job = queue.submit("a")
    call = queue.ask(job)
    kill_for_a_stall(queue, job)
    before = queue.details(job).attempt
    assert before is not None
    queue.tell(
        ev.Progressed(job, 1, queue.actors[job].counts),
        ev.Beat(job, 1),
        ev.Moved(job, 1),
        ev.ResponseBegan(call, queue.now.instant),
        ev.CallEnded(call, queue.now.instant, ev.CallEnd()),
        ev.AttemptStopped(job, 1, queue.actors[job].counts),
        ev.AttemptFinished(job, 1, JobState.COMPLETED, queue.actors[job].counts),
    )
    assert queue.running == {job}
    assert queue.database.calls[call].state == "unknown"
    assert queue.database.calls[call].cause == "stalled"


def test_two_kills_in_a_row_without_a_settled_lead_fail_the_job(queue: Harness) -> None:
    job, follower = queue.submit("a"), queue.submit("a")
    kill_for_a_stall(queue, job)
    kill_for_a_stall(queue, job)
    assert queue.state(job) is JobState.FAILED
    assert queue.reason(job) is JobReason.STALLED
    assert queue.running == {follower}


def test_a_lead_settled_between_two_kills_breaks_the_row(queue: Harness) -> None:
    job = queue.submit("a")
    for _ in range(5):
        kill_for_a_stall(queue, job)
        queue.settle(job)
    assert queue.state(job) is JobState.RUNNING
    queue.pass_seconds(300)
    kill_for_a_stall(queue, job)
    assert queue.state(job) is JobState.FAILED


def test_a_lead_that_hung_twice_does_not_fail_its_job(queue: Harness) -> None:
    """The work fails that lead when it resumes, which is progress since the first kill."""
    queue.provider("snov", WindowLimit(15, 60))
    job = queue.submit("a")
    queue.ask(job, lead=7)
    kill_for_a_stall(queue, job)
    queue.ask(job, lead=7)
    kill_for_a_stall(queue, job)
    assert queue.state(job) is JobState.RUNNING
    queue.settle(job, 0, failed=1)
    queue.ask(job, lead=8)
    kill_for_a_stall(queue, job)
    assert queue.state(job) is JobState.RUNNING
    kill_for_a_stall(queue, job)
    assert queue.state(job) is JobState.FAILED


def test_another_lead_hanging_at_the_second_kill_fails_the_job(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    job = queue.submit("a")
    queue.ask(job, lead=7)
    kill_for_a_stall(queue, job)
    queue.ask(job, lead=8)
    kill_for_a_stall(queue, job)
    assert queue.state(job) is JobState.FAILED


def test_kills_and_the_leads_that_hung_are_remembered_over_a_restart(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    job = queue.submit("a")
    queue.ask(job, lead=7)
    kill_for_a_stall(queue, job)
    queue.restart(seconds=5)
    queue.ask(job, lead=7)
    kill_for_a_stall(queue, job)
    assert queue.state(job) is JobState.RUNNING
    other = queue.submit("b")
    queue.pass_seconds(300)
    queue.restart(seconds=5)
    queue.pass_seconds(300)
    assert queue.state(other) is JobState.FAILED


def test_leads_that_hang_in_turns_are_told_apart(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    job = queue.submit("a")
    for lead in (7, 8, 7):
        queue.settle(job, 0 if lead == 7 and queue.details(job).stall_kills else 1)
        queue.ask(job, lead=lead)
        kill_for_a_stall(queue, job)
    assert queue.details(job).stall_kills == 2
    assert queue.state(job) is JobState.RUNNING, "lead 7 was in flight at two stall kills, though not at two in a row"


def test_a_row_of_dead_workers_fails_the_job_with_its_own_reason(queue: Harness) -> None:
    job = queue.submit("a")
    for _ in range(2):
        queue.actors[job].beats = False
        queue.pass_seconds(30)
    assert queue.state(job) is JobState.FAILED
    assert queue.reason(job) is JobReason.WORKER_LOST


def test_a_lead_in_flight_when_its_worker_died_twice_has_not_hung(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    job = queue.submit("a")
    for _ in range(2):
        queue.ask(job, lead=7)
        queue.actors[job].beats = False
        queue.pass_seconds(30)
    assert queue.state(job) is JobState.FAILED


def test_neither_yielding_nor_pausing_nor_a_restart_counts_as_a_kill(queue: Harness) -> None:
    job = queue.submit("a")
    kill_for_a_stall(queue, job)
    queue.settle(job)
    queue.wait(job, JobReason.POLL, 1000)
    queue.pass_seconds(1000)
    queue.pause("job", job)
    queue.resume("job", job)
    queue.restart(seconds=5)
    assert queue.details(job).attempts == 5
    assert queue.details(job).stall_kills == 1


@pytest.mark.parametrize("seconds", [31, 299, 400, 86_400])
def test_the_daemons_own_pause_kills_nobody(queue: Harness, seconds: float) -> None:
    job = queue.submit("a")
    queue.pass_seconds(17)
    queue.sleep(seconds)
    queue.tell(ev.Ticked())
    queue.pass_seconds(282)
    assert not queue.stops
    queue.pass_seconds(30)
    assert queue.last_cause(job) is StopCause.STALLED


def test_a_pause_that_ends_just_after_a_workers_bound_kills_nobody(queue: Harness) -> None:
    queue.submit("a")
    queue.pass_seconds(35)
    queue.sleep(25.5)  # the last beat is 30.5 s old
    queue.tell(ev.Ticked())
    assert not queue.stops


def test_a_pause_that_ends_just_after_a_jobs_bound_counts_for_nothing(queue: Harness) -> None:
    job = queue.submit("a")
    queue.pass_seconds(280)
    queue.sleep(20.5)
    queue.tell(ev.Ticked())
    queue.pass_seconds(19.9)
    assert not queue.stops
    queue.pass_seconds(0.1)
    assert queue.last_cause(job) is StopCause.STALLED


def test_nobody_is_woken_for_a_daemon_in_which_nothing_runs(queue: Harness) -> None:
    job = queue.submit("a")
    queue.pass_seconds(5)
    queue.finish(job)
    queue.pass_seconds(30)
    assert queue.scheduler.next_deadline(queue.now) is None


def test_a_pause_that_the_shell_noticed_gives_fresh_time_even_where_no_deadline_passed(queue: Harness) -> None:
    job = queue.submit("a")
    queue.pass_seconds(10)
    queue.sleep(25)
    queue.tell(ev.DaemonSlept(25 * SECOND))
    queue.actors[job].beats = False
    queue.pass_seconds(29.9)
    assert not queue.stops
    queue.pass_seconds(0.1)
    assert queue.last_cause(job) is StopCause.WORKER_LOST


def test_short_pauses_of_the_daemon_are_told_by_beats_that_come_late(queue: Harness) -> None:
    job = queue.submit("a")
    for _ in range(5):
        queue.pass_seconds(30)
        queue.sleep(25)
        queue.tell(ev.Beat(job, 1))
    assert queue.details(job).attempt.moved == queue.instant - (5 * 55 - 5 * 15) * SECOND  # type: ignore[union-attr]
    queue.pass_seconds(99)
    assert not queue.stops
    queue.pass_seconds(1)
    assert queue.last_cause(job) is StopCause.STALLED


def test_a_stalled_jobs_clock_is_not_reset_by_a_loop_that_is_always_a_little_late(queue: Harness) -> None:
    job = queue.submit("a")
    for _ in range(700):
        queue.sleep(0.5)
        queue.tell(ev.Beat(job, 1))
        if queue.stops:
            break
    assert queue.last_cause(job) is StopCause.STALLED
    assert queue.instant - queue.details(job).attempt.moved <= 5 * SECOND  # type: ignore[union-attr]


def test_time_before_capacity_is_free_belongs_to_nobodys_clock() -> None:
    """A step that took over its predecessor's slot and waits for capacity has no worker that could beat."""
    queue = Harness(replace(RULES, capacity={Family.TABLES: 1}))
    _, first, second = queue.submit_chain("a", "batch", "enrich")
    blocker = queue.submit("b")
    queue.finish(first)
    assert queue.state(second) is JobState.RUNNING
    for _ in range(10):
        queue.settle(blocker)
        queue.pass_seconds(200)
    assert second not in queue.running
    queue.finish(blocker)
    assert queue.running == {second}
    queue.pass_seconds(299)
    assert not [stop for stop in queue.stops if stop.job == second]
