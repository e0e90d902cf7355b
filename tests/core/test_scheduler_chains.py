"""T4: a step never starts before the one before it has ended, and then it takes over its slot."""

import pytest
from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core.model import Counts, Family, JobState
from leadline.core.rate_limit import WindowLimit
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId
from tests.core.harness import RULES, Harness, new

ENDS = [JobState.COMPLETED, JobState.PARTIAL, JobState.FAILED]


def states(queue: Harness, *jobs: JobId) -> list[JobState]:
    return [queue.state(job) for job in jobs]


def test_a_chains_steps_are_jobs_of_their_own_and_their_ids_follow_its_own(queue: Harness) -> None:
    receipt = queue.receipt(new("a", "chain", steps=(new("a"), new("a"))))
    assert receipt.steps == (receipt.job + 1, receipt.job + 2)
    assert queue.running == {receipt.steps[0]}
    assert queue.waits(receipt.steps[1]) == {JobReason.PREVIOUS_STEP}
    assert queue.state(receipt.job) is JobState.RUNNING


def test_the_next_step_starts_in_the_decision_that_ends_the_one_before(queue: Harness) -> None:
    chain, first, second, third = queue.submit_chain("a")
    waiting = queue.submit("a")
    for ending, starting in ((first, second), (second, third)):
        actor = queue.actors.pop(ending)
        effects = queue.scheduler.handle(
            [ev.AttemptFinished(ending, actor.number, JobState.COMPLETED, Counts())], queue.now
        )
        assert [ended.id for ended in effects.records.ended] == [ending]
        assert [slot.job for slot in effects.records.slots_freed] == [ending]
        assert [slot.job for slot in effects.records.slots_taken] == [starting]
        queue.carry_out(effects)
        assert queue.running == {starting}
    queue.finish(third)
    assert queue.state(chain) is JobState.COMPLETED
    assert queue.running == {waiting}


def test_a_chain_holds_no_slot_itself(queue: Harness) -> None:
    queue.submit_chain("a")
    assert len(queue.database.slots) == 1


@pytest.mark.parametrize("first_end", ENDS)
@pytest.mark.parametrize("second_end", ENDS)
def test_with_continue_every_step_runs_and_the_chain_ends_as_its_worst_step(
    queue: Harness, first_end: JobState, second_end: JobState
) -> None:
    chain, first, second = queue.submit_chain("a", "enrich", "enrich", stop_on_failure=False)
    queue.finish(first, state=first_end)
    queue.finish(second, state=second_end)
    assert states(queue, chain, first, second) == [max(first_end, second_end, key=ENDS.index), first_end, second_end]


def test_the_steps_after_a_failed_one_are_skipped(queue: Harness) -> None:
    chain, first, second, third = queue.submit_chain("a")
    queue.finish(first)
    queue.finish(second, state=JobState.FAILED)
    assert states(queue, chain, third) == [JobState.FAILED, JobState.SKIPPED]
    assert queue.reason(chain) is queue.reason(third) is JobReason.PREVIOUS_STEP_FAILED
    assert queue.running == set()


def test_a_partial_step_stops_nothing(queue: Harness) -> None:
    chain, first, second = queue.submit_chain("a", "enrich", "enrich")
    queue.finish(first, state=JobState.PARTIAL)
    assert queue.running == {second}
    queue.finish(second)
    assert queue.state(chain) is JobState.PARTIAL


def test_the_worst_end_is_remembered_over_a_restart(queue: Harness) -> None:
    chain, first, second = queue.submit_chain("a", "enrich", "enrich", stop_on_failure=False)
    queue.finish(first, state=JobState.FAILED)
    queue.restart(seconds=5)
    queue.finish(second)
    assert queue.state(chain) is JobState.FAILED


def test_a_chain_goes_on_after_a_restart_where_it_was(queue: Harness) -> None:
    chain, *steps = queue.submit_chain("a")
    for step in steps:
        queue.restart(seconds=5)
        assert queue.running == {step}
        queue.finish(step)
        queue.restart(seconds=5)
    assert queue.state(chain) is JobState.COMPLETED


def test_a_whole_chain_of_noops_ends_in_the_decision_that_admits_it(queue: Harness) -> None:
    chain, *steps = queue.submit_chain("a", "noop", "noop", "noop")
    assert states(queue, chain, *steps) == [JobState.COMPLETED] * 4
    assert not queue.database.live


def test_steps_of_different_families_take_their_own_slots(queue: Harness) -> None:
    _, first, second, third = queue.submit_chain("a", "enrich", "noop", "batch")
    other = queue.submit("a")
    queue.finish(first)
    assert queue.state(second) is JobState.COMPLETED
    assert queue.running == {third, other}


def test_a_step_whose_family_has_no_slot_free_waits_in_the_lane(queue: Harness) -> None:
    queue.limit("a", batch=1)
    blocker = queue.submit("a", "batch")
    _, first, second = queue.submit_chain("a", "enrich", "batch")
    queue.finish(first)
    assert queue.state(second) is JobState.QUEUED
    queue.finish(blocker)
    assert queue.running == {second}


def test_a_step_takes_its_slot_and_waits_for_capacity_ahead_of_unstarted_jobs() -> None:
    queue = Harness(replace(RULES, capacity={Family.TABLES: 1}))
    queue.provider("snov", WindowLimit(1, 60))
    chain, first, second = queue.submit_chain("a", "enrich", "enrich")
    queue.answer(first, queue.ask(first))
    queue.ask(first)
    other = queue.submit("b")
    unstarted = queue.submit("c")
    queue.finish(first)
    assert queue.state(second) is JobState.RUNNING
    assert queue.waits(second) == {JobReason.CAPACITY}
    assert queue.running == {other}
    queue.finish(other)
    assert queue.running == {second}
    queue.finish(second)
    assert queue.running == {unstarted}
    assert queue.state(chain) is JobState.COMPLETED


@pytest.mark.parametrize("how", ["cancel", "force", "pause", "restart", "drain"])
def test_a_step_that_waits_for_capacity_can_be_stopped_at_once(how: str) -> None:
    """No actor has heard of it, so there is nobody who could report that it is gone."""
    queue = Harness(replace(RULES, capacity={Family.TABLES: 1}))
    chain, first, second = queue.submit_chain("a", "batch", "enrich")
    other = queue.submit("b")
    queue.finish(first)
    match how:
        case "cancel" | "force":
            queue.cancel(second, force=how == "force")
            assert states(queue, chain, second) == [JobState.FAILED, JobState.CANCELLED]
        case "pause":
            queue.pause("job", chain)
            assert queue.state(second) is JobState.QUEUED
            queue.resume("job", chain)
        case "restart":
            queue.restart()
            assert queue.running == {second}
            return
        case _:
            queue.tell(ev.DrainBegan())
            assert queue.state(second) is JobState.QUEUED
            return
    assert len([job for job in queue.database.slots.values() if job == second]) == 0
    queue.finish(other)
    assert queue.running == ({second} if how == "pause" else set())


def test_a_step_that_starts_and_is_stopped_in_one_decision_leaves_no_trace_of_a_slot(queue: Harness) -> None:
    chain, first, second = queue.submit_chain("a", "enrich", "enrich")
    actor = queue.actors.pop(first)
    queue.tell(
        ev.AttemptFinished(first, actor.number, JobState.COMPLETED, Counts()),
        ev.PauseSet("job", str(chain), paused=True),
    )
    assert queue.running == set()
    assert not queue.database.slots
    assert queue.state(second) is JobState.QUEUED
    queue.resume("job", chain)
    assert queue.running == {second}


# -- cancelling -------------------------------------------------------------------------------------------------------


def test_a_cancelled_chain_cancels_its_running_step_and_all_that_follow(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    chain, first, second, third = queue.submit_chain("a")
    queue.finish(first)
    call = queue.ask(second)
    queue.cancel(chain)
    assert states(queue, chain, second, third) == [JobState.STOPPING, JobState.STOPPING, JobState.QUEUED]
    queue.answer(second, call)
    assert states(queue, chain, first, second, third) == [
        JobState.CANCELLED, JobState.COMPLETED, JobState.CANCELLED, JobState.CANCELLED,
    ]  # fmt: skip


def test_a_chain_being_cancelled_has_been_cancelled_after_a_restart(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    chain, first, second, third = queue.submit_chain("a")
    queue.finish(first)
    queue.ask(second)
    queue.cancel(chain)
    queue.restart(seconds=5)
    assert states(queue, chain, second, third) == [JobState.CANCELLED] * 3
    assert queue.running == set()


def test_cancelling_a_later_step_of_a_chain_that_is_being_cancelled_leaves_the_running_one_to_its_end(
    queue: Harness,
) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    for stop_on_failure in (True, False):
        chain, first, second, third = queue.submit_chain("a", stop_on_failure=stop_on_failure)
        call = queue.ask(first)
        queue.cancel(chain)
        queue.cancel(second)
        assert queue.state(first) is JobState.STOPPING
        queue.answer(first, call)
        assert states(queue, chain, first, second, third) == [JobState.CANCELLED] * 4


@pytest.mark.parametrize("delay", [0, 60])
def test_a_chain_that_has_not_started_is_cancelled_at_once(queue: Harness, delay: int) -> None:
    blocker = queue.submit("a")
    chain, *steps = queue.submit_chain("a", delay=delay)
    queue.cancel(chain)
    assert states(queue, chain, *steps) == [JobState.CANCELLED] * 4
    queue.finish(blocker)
    queue.pass_seconds(100)
    assert queue.running == set()


def test_a_step_that_ends_by_itself_does_not_save_a_chain_that_is_being_cancelled(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    chain, first, second = queue.submit_chain("a", "enrich", "enrich")
    queue.ask(first)
    queue.cancel(chain)
    queue.finish(first)
    assert states(queue, chain, first, second) == [JobState.CANCELLED, JobState.COMPLETED, JobState.CANCELLED]


def test_cancelling_the_running_step_alone_fails_the_chain(queue: Harness) -> None:
    chain, first, second, third = queue.submit_chain("a")
    queue.finish(first)
    queue.cancel(second)
    assert states(queue, chain, second, third) == [JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED]


def test_cancelling_a_later_step_ends_the_chain_before_it(queue: Harness) -> None:
    chain, first, second, third = queue.submit_chain("a")
    queue.cancel(second)
    assert states(queue, chain, first, second, third) == [
        JobState.RUNNING, JobState.RUNNING, JobState.CANCELLED, JobState.SKIPPED,
    ]  # fmt: skip
    queue.restart(seconds=5)
    queue.finish(first)
    assert queue.state(chain) is JobState.FAILED


def test_cancelling_a_later_step_of_a_chain_that_continues_takes_just_that_one_out(queue: Harness) -> None:
    chain, first, second, third = queue.submit_chain("a", stop_on_failure=False)
    queue.cancel(second)
    queue.restart(seconds=5)
    queue.finish(first)
    assert queue.running == {third}
    queue.finish(third)
    assert queue.state(chain) is JobState.FAILED


@pytest.mark.parametrize("delay", [0, 60])
@pytest.mark.parametrize("stop_on_failure", [True, False])
def test_cancelling_the_first_step_of_a_chain_that_has_not_started(
    queue: Harness, delay: int, stop_on_failure: bool
) -> None:
    blocker = queue.submit("a")
    chain, first, second = queue.submit_chain("a", "enrich", "enrich", delay=delay, stop_on_failure=stop_on_failure)
    queue.cancel(first)
    queue.finish(blocker)
    if stop_on_failure:
        assert states(queue, chain, second) == [JobState.CANCELLED, JobState.SKIPPED]
        return
    if delay:
        assert states(queue, chain, second) == [JobState.DELAYED, JobState.QUEUED]
        queue.pass_seconds(60)
    assert queue.running == {second}
    queue.finish(second)
    assert queue.state(chain) is JobState.FAILED


# -- pausing ----------------------------------------------------------------------------------------------------------


def test_a_paused_chain_gives_its_slot_back_and_resumes_its_step(queue: Harness) -> None:
    chain, first, second = queue.submit_chain("a", "enrich", "enrich")
    other = queue.submit("a")
    queue.pause("job", chain)
    assert queue.running == {other}
    queue.finish(other)
    assert queue.running == set()
    queue.resume("job", chain)
    assert queue.running == {first}
    queue.finish(first)
    assert queue.running == {second}


def test_a_chain_paused_while_its_step_ends_does_not_start_the_next(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    chain, first, second = queue.submit_chain("a", "enrich", "enrich")
    queue.ask(first)
    queue.pause("job", chain)
    queue.finish(first)
    assert queue.running == set()
    assert queue.waits(second) == {JobReason.PAUSED}
    queue.restart(seconds=5)
    assert queue.running == set()
    queue.resume("job", chain)
    assert queue.running == {second}


def test_a_later_step_paused_alone_holds_the_chain_at_its_turn(queue: Harness) -> None:
    chain, first, second = queue.submit_chain("a", "enrich", "enrich")
    queue.pause("job", second)
    queue.restart(seconds=5)
    queue.finish(first)
    assert queue.running == set()
    queue.pause("job", chain)
    queue.resume("job", second)
    assert queue.running == set()
    queue.resume("job", chain)
    assert queue.running == {second}


def test_a_later_step_that_was_resumed_while_its_chain_was_paused_runs_in_its_turn(queue: Harness) -> None:
    chain, first, second = queue.submit_chain("a", "enrich", "enrich")
    queue.pause("job", second)
    queue.pause("job", chain)
    queue.resume("job", second)
    queue.resume("job", chain)
    queue.finish(first)
    assert queue.running == {second}


def test_a_paused_chain_whose_first_step_is_cancelled_before_it_is_due_stays_paused(queue: Harness) -> None:
    chain, first, second = queue.submit_chain("a", "enrich", "enrich", delay=60, stop_on_failure=False)
    queue.pause("job", chain)
    queue.cancel(first)
    queue.pass_seconds(61)
    assert queue.running == set()
    queue.resume("job", chain)
    assert queue.running == {second}


def test_a_paused_chain_that_becomes_due_waits(queue: Harness) -> None:
    chain, first, _ = queue.submit_chain("a", "enrich", "enrich", delay=60)
    queue.pause("job", chain)
    queue.restart(seconds=5)
    queue.pass_seconds(60)
    assert queue.state(chain) is JobState.QUEUED
    assert queue.running == set()
    queue.resume("job", chain)
    assert queue.running == {first}


def test_a_step_that_yields_keeps_its_turn(queue: Harness) -> None:
    chain, first, second = queue.submit_chain("a", "enrich", "enrich")
    queue.wait(first, JobReason.POLL, 1000)
    assert queue.running == set()
    assert states(queue, chain, first, second) == [JobState.RUNNING, JobState.QUEUED, JobState.QUEUED]
    queue.pass_seconds(1000)
    assert queue.running == {first}


def test_a_step_that_fails_for_stalls_ends_its_chain(queue: Harness) -> None:
    chain, first, second = queue.submit_chain("a", "enrich", "enrich")
    queue.pass_seconds(600)
    assert states(queue, chain, first, second) == [JobState.FAILED, JobState.FAILED, JobState.SKIPPED]


def test_a_chain_under_a_paused_teamspace_waits_between_its_steps(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(15, 60))
    _, first, second = queue.submit_chain("a", "enrich", "enrich")
    queue.ask(first)
    queue.pause("teamspace", "a")
    queue.finish(first)
    assert queue.running == set()
    queue.resume("teamspace", "a")
    assert queue.running == {second}
