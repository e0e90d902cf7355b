"""Q1 to Q3: one queue, one tables job per teamspace, and a capacity that only work in hand takes."""

import pytest
from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core.admission import INSTANT_JOBS_PER_DECISION
from leadline.core.effects import Receipt
from leadline.core.model import SECOND, Family, JobState
from leadline.core.rate_limit import Cost, Unit, WindowLimit
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId
from tests.core.harness import CAPACITY, RULES, START, Harness, new
from tests.world.windows import worst_window


def with_capacity(tables: int | None) -> Harness:
    return Harness(replace(RULES, capacity={**CAPACITY, Family.TABLES: tables}))


def test_a_job_starts_in_the_decision_that_admits_it(queue: Harness) -> None:
    job = queue.submit("a")
    assert queue.running == {job}
    assert queue.state(job) is JobState.RUNNING


def test_ids_are_given_out_in_order_of_admission(queue: Harness) -> None:
    assert [queue.submit("a"), queue.submit("b"), queue.submit("a")] == [1, 2, 3]


def test_j1_and_j3_run_and_j2_waits_although_older() -> None:
    queue = with_capacity(2)
    j1, j2, j3 = queue.submit("a"), queue.submit("a"), queue.submit("b")
    assert queue.running == {j1, j3}
    assert queue.state(j2) is JobState.QUEUED
    queue.finish(j1)
    assert queue.running == {j2, j3}


def test_a_teamspace_runs_one_tables_job_at_a_time(queue: Harness) -> None:
    jobs = [queue.submit("a") for _ in range(4)]
    for job in jobs:
        assert queue.running == {job}
        queue.finish(job)


def test_the_oldest_eligible_job_of_all_teamspaces_is_the_next() -> None:
    queue = with_capacity(1)
    first = queue.submit("a")
    waiting = [queue.submit(teamspace) for teamspace in ("c", "b", "d", "b")]
    ran = []
    while queue.running:
        (job,) = queue.running
        ran.append(job)
        queue.finish(job)
    assert ran == [first, *waiting]


def test_a_blocked_teamspace_never_blocks_the_line() -> None:
    queue = with_capacity(2)
    first = queue.submit("a")
    for _ in range(50):
        queue.submit("a")
    others = [queue.submit(f"b{number}") for number in range(5)]
    for other in others:
        assert queue.running == {first, other}
        queue.finish(other)


def test_families_have_slots_of_their_own(queue: Harness) -> None:
    jobs = {queue.submit("a", kind) for kind in ("enrich", "batch", "batch", "mail")}
    assert queue.running == jobs


def test_five_batch_jobs_of_a_teamspace_run_and_the_sixth_waits() -> None:
    queue = Harness(replace(RULES, capacity={}))
    jobs = [queue.submit("a", "batch") for _ in range(6)]
    assert queue.running == set(jobs[:5])
    queue.finish(jobs[2])
    assert queue.running == {*jobs[:2], *jobs[3:]}


def test_no_more_jobs_of_a_family_have_work_in_hand_than_its_capacity() -> None:
    queue = with_capacity(3)
    jobs = [queue.submit(f"t{number}") for number in range(10)]
    assert queue.running == set(jobs[:3])
    queue.finish(jobs[1])
    assert queue.running == {jobs[0], jobs[2], jobs[3]}


def test_noops_start_and_end_in_the_decision_that_admits_them(queue: Harness) -> None:
    answers = queue.answers_to(*(new("a", "noop") for _ in range(10)))
    assert all(isinstance(answer, Receipt) for answer in answers)
    assert all(queue.state(JobId(number)) is JobState.COMPLETED for number in range(1, 11))
    assert not queue.starts
    assert not queue.scheduler.backlog.lanes


def test_a_flood_of_noops_is_taken_in_pieces(queue: Harness) -> None:
    queue.limit("a", max_queued=100_000)
    queue.pause("family", "noop")
    queue.answers_to(*(new("a", "noop") for _ in range(INSTANT_JOBS_PER_DECISION + 1000)))
    events: list[ev.Event] = [ev.PauseSet("family", "noop", paused=False)]
    ended = []
    while True:
        effects = queue.scheduler.handle(events, queue.now)
        queue.carry_out(effects)
        ended.append(len(effects.records.ended))
        events = []
        if not effects.more:
            break
    assert ended == [INSTANT_JOBS_PER_DECISION, 1000]


def test_eight_jobs_that_wait_five_hours_for_a_provider_stop_nobody() -> None:
    queue = with_capacity(8)
    queue.provider("snov", WindowLimit(15, 60, Unit.LEAD))
    slow = [queue.submit(f"slow{number}") for number in range(8)]
    for job in (*slow, *slow):
        queue.ask(job, cost=Cost(request=1, lead=1))
    answered = quick = 0
    for minute in range(5 * 60):
        for instant, call in queue.sent[answered:]:
            assert queue.instant - instant <= 60 * SECOND
            job = queue.database.calls[call].row.job
            queue.answer(job, call)
            queue.ask(job, cost=Cost(request=1, lead=1))
        answered = len(queue.sent)
        assert queue.busy() == 0, "whoever only waits has given its capacity back"
        if minute % 10 == 0:
            job = queue.submit("quick")
            assert job in queue.running, "with capacity free a job starts at once"
            queue.finish(job)
            quick += 1
        queue.pass_seconds(60)
    assert quick == 30
    assert answered == 15 * 5 * 60
    assert worst_window([instant for instant, _ in queue.sent], 60) == 15


def test_code_keeps_its_share_of_the_capacity_while_a_call_of_it_waits() -> None:
    queue = Harness(replace(RULES, capacity={Family.BATCH: 1}))
    queue.provider("snov", WindowLimit(1, 60))
    running, waiting = queue.submit("a", "batch"), queue.submit("b", "batch")
    queue.answer(running, queue.ask(running))
    call = queue.ask(running)
    assert queue.waits(running) == {JobReason.LIMIT}
    assert queue.running == {running}
    queue.pass_seconds(66)
    assert queue.sent[-1][1] == call, "it goes at once: there is no share to be waited for"
    queue.finish(running)
    assert queue.running == {waiting}


def test_a_job_that_wakes_goes_ahead_of_those_that_have_not_started() -> None:
    queue = with_capacity(1)
    queue.provider("snov", WindowLimit(1, 60))
    sleeper = queue.submit("a")
    queue.answer(sleeper, queue.ask(sleeper))
    call = queue.ask(sleeper)
    assert queue.busy() == 0
    runner, unstarted = queue.submit("b"), queue.submit("c")
    assert queue.running == {sleeper, runner}, "what the sleeper gave back went to another"
    queue.pass_seconds(61)
    assert queue.busy() == 1
    assert queue.waits(sleeper) == {JobReason.CAPACITY}, "it may call, but has no share of the capacity"
    queue.finish(runner)
    assert call in {sent for _, sent in queue.sent}
    assert unstarted not in queue.running
    queue.finish(sleeper)
    assert queue.running == {unstarted}


def test_every_call_of_a_job_that_wakes_goes_out_together() -> None:
    """One that stayed behind another job in line would keep its own job busy, and that one from ever waking."""
    queue = with_capacity(1)
    queue.provider("x", WindowLimit(2, 60))
    queue.provider("y", WindowLimit(1, 60))
    one, other = queue.submit("a"), JobId(2)
    queue.answer(one, queue.ask(one, "x"))
    queue.answer(one, queue.ask(one, "x"))
    calls = [queue.ask(one, "x"), queue.ask(one, "x")]
    assert queue.submit("b") == other
    queue.answer(other, queue.ask(other, "y"))
    calls.append(queue.ask(other, "y"))
    runner = queue.submit("c")
    queue.pass_seconds(70)
    assert queue.waits(one) == queue.waits(other) == {JobReason.CAPACITY}
    queue.finish(runner)
    assert set(queue.actors[one].out) == set(calls[:2])
    for call in calls[:2]:
        queue.answer(one, call)
    queue.finish(one)
    assert set(queue.actors[other].out) == {calls[2]}


def test_a_job_that_wakes_goes_ahead_of_a_step_that_takes_over_its_predecessors_slot() -> None:
    queue = with_capacity(1)
    sleeper = queue.submit("a")
    queue.wait(sleeper, JobReason.BACKOFF, 5)
    _, first, second = queue.submit_chain("b", "enrich", "enrich")
    queue.wait_over(sleeper, JobReason.BACKOFF)
    queue.finish(first)
    assert queue.waits(sleeper) == set()
    assert queue.waits(second) == {JobReason.CAPACITY}


@pytest.mark.parametrize("how", ["pause", "cancel"])
def test_a_lane_that_stood_ready_with_a_job_that_is_gone_goes_on_with_the_next(how: str) -> None:
    queue = with_capacity(1)
    running, gone, other = queue.submit("a"), queue.submit("b"), queue.submit("b")
    queue.pause("job", gone) if how == "pause" else queue.cancel(gone)
    queue.finish(running)
    assert queue.running == {other}


def test_a_job_whose_last_wait_closes_needs_its_share_again() -> None:
    queue = with_capacity(1)
    sleeper = queue.submit("a")
    queue.wait(sleeper, JobReason.BACKOFF, 5)
    assert queue.busy() == 0
    runner = queue.submit("b")
    queue.wait_over(sleeper, JobReason.BACKOFF)
    assert queue.waits(sleeper) == {JobReason.CAPACITY}
    queue.wait(sleeper, JobReason.POLL, 5)
    queue.finish(runner)
    assert queue.busy() == 0, "meanwhile it waits for something else again"
    queue.wait_over(sleeper, JobReason.POLL)
    assert queue.busy() == 1
    assert queue.waits(sleeper) == set()


def test_receipts_tell_how_many_jobs_of_the_teamspace_come_before(queue: Harness) -> None:
    assert [queue.receipt(new("a")).jobs_ahead for _ in range(4)] == [0, 1, 2, 3]
    assert queue.receipt(new("a", priority=60)).jobs_ahead == 1
    assert queue.receipt(new("b")).jobs_ahead == 0


def test_order_survives_clocks_that_are_set(queue: Harness) -> None:
    running, older = queue.submit("a"), queue.submit("a")
    queue.pass_seconds(1)
    queue.set_wall(-3 * 3600)
    younger = queue.submit("a")
    queue.finish(running)
    assert queue.running == {older}
    assert queue.job(younger).order > queue.job(older).order


def test_idle_teamspaces_cost_nothing(queue: Harness) -> None:
    for number in range(100):
        queue.finish(queue.submit(f"t{number}"))
        queue.submit(f"t{number}", "noop")
        queue.cancel(queue.submit(f"t{number}", delay=5))
    assert not queue.scheduler.jobs
    assert not queue.scheduler.backlog.lanes
    assert not queue.scheduler.teamspaces.pending
    queue.pass_seconds(10)
    assert queue.scheduler.next_deadline(queue.now) is None


def test_limits_changed_live_bind_the_next_start_and_nothing_that_runs(queue: Harness) -> None:
    jobs = [queue.submit("a") for _ in range(5)]
    queue.limit("a", tables=3)
    assert queue.running == set(jobs[:3])
    queue.limit("a", tables=1)
    assert queue.running == set(jobs[:3])
    queue.finish(jobs[0])
    queue.finish(jobs[1])
    assert queue.running == {jobs[2]}
    queue.finish(jobs[2])
    assert queue.running == {jobs[3]}


def test_limits_of_a_teamspace_that_has_never_submitted_bind_its_first_job(queue: Harness) -> None:
    queue.limit("new", tables=2)
    jobs = {queue.submit("new"), queue.submit("new")}
    assert queue.running == jobs


def test_capacity_changed_live_binds_the_next_start() -> None:
    queue = with_capacity(1)
    jobs = [queue.submit(f"t{number}") for number in range(4)]
    assert queue.running == set(jobs[:1])
    queue.rules = with_capacity(3).rules
    queue.tell(ev.RulesSet(queue.rules))
    assert queue.running == set(jobs[:3])
    queue.tell(ev.RulesSet(with_capacity(1).rules))
    queue.finish(jobs[0])
    queue.finish(jobs[1])
    assert queue.running == {jobs[2]}
    queue.finish(jobs[2])
    assert queue.running == {jobs[3]}


def test_default_slots_changed_live_bind_every_teamspace(queue: Harness) -> None:
    jobs = {queue.submit("a"), queue.submit("a")}
    limits = replace(RULES.default_limits, slots={**RULES.default_limits.slots, Family.TABLES: 2})
    queue.tell(ev.RulesSet(replace(RULES, default_limits=limits)))
    assert queue.running == jobs


def test_slots_are_numbered_from_zero_without_gaps_and_stored_until_they_are_free(queue: Harness) -> None:
    jobs = [queue.submit("a", "batch") for _ in range(3)]
    assert queue.database.slots == {(1, Family.BATCH, slot): job for slot, job in enumerate(jobs)}
    queue.finish(jobs[0])
    fourth = queue.submit("a", "batch")
    assert queue.database.slots[1, Family.BATCH, 0] == fourth


def test_time_is_only_what_it_is_told(queue: Harness) -> None:
    job = queue.submit("a")
    assert queue.database.ended == {}
    assert queue.details(job).started == START
    queue.pass_seconds(5)
    queue.finish(job)
    assert queue.database.ended[job].ended == START + 5 * SECOND
