"""Q8: `why` names all blockers with their numbers, and gives a range where everything that blocks has an end."""

from msgspec.structs import replace

from leadline.core.forecast import Why, why
from leadline.core.model import SECOND, Family
from leadline.core.rate_limit import FLIGHT_SECONDS, WindowLimit
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import Instant, JobId
from tests.core.harness import CAPACITY, RULES, Harness


def ask(queue: Harness, job: JobId) -> Why:
    return why(queue.scheduler, job, queue.now)


def reasons(queue: Harness, job: JobId) -> list[JobReason]:
    return [wait.reason for wait in ask(queue, job).blockers]


def test_a_job_at_work_is_held_by_nothing(queue: Harness) -> None:
    job = queue.submit("a")
    assert ask(queue, job) == Why((), 0, Instant(queue.instant), Instant(queue.instant))


def test_a_job_behind_another_names_who_holds_the_slot(queue: Harness) -> None:
    first, second, third = (queue.submit("a") for _ in range(3))
    told = ask(queue, third)
    (slot,) = told.blockers
    assert slot.reason is JobReason.SLOT
    assert slot.numbers == {"slots": 1, "held": 1, "job": first}
    assert told.jobs_ahead == 2
    assert ask(queue, second).jobs_ahead == 1
    assert (told.earliest, told.latest) == (None, None), "nobody knows how long the first takes"


def test_all_blockers_are_named_at_once() -> None:
    queue = Harness(replace(RULES, capacity={**CAPACITY, Family.TABLES: 1}))
    running = queue.submit("a")
    job = queue.submit("a")
    queue.pause("job", job)
    queue.submit("b")
    told = ask(queue, job)
    assert [wait.reason for wait in told.blockers] == [JobReason.PAUSED, JobReason.SLOT, JobReason.CAPACITY]
    paused, slot, capacity = told.blockers
    assert paused.numbers == {"scope": "job", "name": str(job)}
    assert slot.numbers["job"] == running
    assert capacity.numbers == {"capacity": 1, "in_hand": 1, "waking": 0}


def test_every_scope_that_is_paused_is_named(queue: Harness) -> None:
    chain, step, _ = queue.submit_chain("a", "enrich", "enrich")
    for scope, name in (("queue", ""), ("family", "tables"), ("teamspace", "a"), ("job", chain), ("job", step)):
        queue.pause(scope, name)
    assert [wait.numbers for wait in ask(queue, step).blockers] == [
        {"scope": "queue"},
        {"scope": "family", "name": "tables"},
        {"scope": "teamspace", "name": "a"},
        {"scope": "job", "name": str(step)},
        {"scope": "job", "name": str(chain)},
    ]


def test_a_delayed_job_has_a_range_of_one_instant(queue: Harness) -> None:
    job = queue.submit("a", delay=60)
    told = ask(queue, job)
    assert [wait.reason for wait in told.blockers] == [JobReason.DELAYED]
    assert told.earliest == told.latest == queue.wall + 60 * SECOND


def test_a_job_that_waits_for_a_provider_tells_its_limit_and_when_there_is_room(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(1, 60))
    job = queue.submit("a")
    queue.answer(job, queue.ask(job))
    queue.ask(job)
    (wait,) = ask(queue, job).blockers
    assert wait.reason is JobReason.LIMIT
    assert wait.numbers["provider"] == "snov"
    assert wait.numbers["amount"] == 1
    told = ask(queue, job)
    assert (told.earliest, told.latest) == (queue.instant, queue.instant + 120 * SECOND)
    queue.pass_seconds(60)
    assert queue.sent[-1][0] <= told.latest  # type: ignore[operator]  # not None, as just seen


def test_a_job_that_waits_for_a_shared_limit_tells_its_teamspaces_place_in_line(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(1, 60))
    jobs = [queue.submit(teamspace) for teamspace in ("a", "b", "c")]
    for job in jobs:
        for _ in range(3):
            queue.ask(job)

    def places() -> list[object]:
        return [ask(queue, job).blockers[0].numbers.get("position") for job in jobs]

    assert places() == [1, 2, 3], "the first call went while nobody else was there"
    queue.pass_seconds(60 + FLIGHT_SECONDS)
    assert places() == [3, 1, 2]
    queue.pass_seconds(60 + FLIGHT_SECONDS)
    assert places() == [2, 3, 1]


def test_who_waits_for_what_is_no_limit_stands_in_no_line(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(5, 60))
    job = queue.submit("a")
    queue.answer(job, queue.ask(job), throttled=True, retry_after=Instant(queue.instant + 90 * SECOND))
    queue.ask(job)
    (wait,) = ask(queue, job).blockers
    assert wait.reason is JobReason.RETRY_AFTER
    assert "position" not in wait.numbers


def test_a_job_that_waits_for_several_reasons_tells_them_all(queue: Harness) -> None:
    queue.provider("snov", WindowLimit(1, 60))
    job = queue.submit("a")
    queue.answer(job, queue.ask(job), throttled=True, retry_after=Instant(queue.instant + 90 * SECOND))
    queue.ask(job)
    queue.wait(job, JobReason.POLL, 30)
    assert set(reasons(queue, job)) == {JobReason.POLL, JobReason.RETRY_AFTER, JobReason.LIMIT}
    told = ask(queue, job)
    assert (told.earliest, told.latest) == (queue.instant + 90 * SECOND, queue.instant + 120 * SECOND)


def test_a_step_before_its_turn_waits_for_the_one_before(queue: Harness) -> None:
    chain, first, second = queue.submit_chain("a", "enrich", "enrich")
    assert reasons(queue, second) == [JobReason.PREVIOUS_STEP, JobReason.SLOT]
    queue.wait(first, JobReason.POLL, 30)
    assert reasons(queue, chain) == [JobReason.POLL], "a chain waits for what its step waits for"


def test_a_job_that_woke_and_finds_no_capacity_says_so() -> None:
    queue = Harness(replace(RULES, capacity={**CAPACITY, Family.TABLES: 1}))
    job = queue.submit("a")
    queue.wait(job, JobReason.BACKOFF, 5)
    queue.submit("b")
    queue.wait_over(job, JobReason.BACKOFF)
    (wait,) = ask(queue, job).blockers
    assert wait.numbers == {"capacity": 1, "in_hand": 1, "waking": 1}
    blocked = queue.submit("c")
    assert ask(queue, blocked).jobs_ahead == 1


def test_older_jobs_of_other_teamspaces_count_where_capacity_is_used_up() -> None:
    queue = Harness(replace(RULES, capacity={**CAPACITY, Family.TABLES: 1}))
    for teamspace in ("a", "b", "c"):
        queue.submit(teamspace)
    job = queue.submit("d")
    assert ask(queue, job).jobs_ahead == 2


def test_a_job_that_is_not_live_is_held_by_nothing(queue: Harness) -> None:
    assert ask(queue, JobId(9)) == Why((), 0, None, None)
