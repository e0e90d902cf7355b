"""P22: a job that takes the daemon down three times is quarantined, and no other is."""

import pytest

from leadline.core.model import JobState
from leadline.core.quarantine import LIVED_SECONDS, Crashed, Suspicion, after_crash, alone, cleared, convicted
from leadline.core.rate_limit import WindowLimit
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId
from tests.core.harness import Harness

AT_WORK = Crashed(0, in_flight=False)


# -- the rule ---------------------------------------------------------------------------------------------------------


def test_three_crashes_at_work_convict() -> None:
    suspicion = None
    for crashes in (1, 2, 3):
        assert suspicion is None or not convicted(suspicion)
        suspicion = after_crash(suspicion, AT_WORK)
        assert suspicion.crashes == crashes
        assert alone(suspicion) == (crashes == 2)
    assert suspicion is not None
    assert convicted(suspicion)


@pytest.mark.parametrize(
    ("crashed", "mostly_asks"), [(Crashed(0, in_flight=True), False), (AT_WORK, True)], ids=["calls out", "a mail"]
)
def test_with_calls_out_it_takes_ten_and_so_it_does_where_a_mail_is_sent(crashed: Crashed, mostly_asks: bool) -> None:
    suspicion = None
    for crashes in range(1, 11):
        assert suspicion is None or not convicted(suspicion)
        suspicion = after_crash(suspicion, crashed, mostly_asks=mostly_asks)
        assert suspicion.crashes == crashes
        assert alone(suspicion) == (7 <= crashes <= 9)
    assert suspicion is not None
    assert convicted(suspicion)


def test_a_lead_that_was_settled_since_begins_the_count_anew() -> None:
    twice = after_crash(after_crash(None, AT_WORK), AT_WORK)
    assert after_crash(twice, Crashed(1, in_flight=False)) == after_crash(None, Crashed(1, in_flight=False))
    assert cleared(twice, 1)
    assert not cleared(after_crash(twice, Crashed(1, in_flight=False)), 1)


def test_a_crash_while_it_only_waited_weighs_nothing() -> None:
    waiting = Suspicion(2, 20, outside=True)
    assert after_crash(waiting, AT_WORK) == after_crash(waiting, AT_WORK, mostly_asks=True) == Suspicion(2, 20)


# -- in the queue -----------------------------------------------------------------------------------------------------


@pytest.fixture
def asking(queue: Harness) -> Harness:
    queue.provider("snov", WindowLimit(2, 60))
    return queue


def crashes(queue: Harness, job: JobId) -> int:
    suspicion = queue.details(job).suspicion
    return 0 if suspicion is None else suspicion.crashes


def test_a_job_that_kills_at_once_is_quarantined_at_the_third_time_and_the_others_go_on(queue: Harness) -> None:
    deadly, other = queue.submit("a"), queue.submit("b")
    for _ in range(2):
        assert {deadly, other} >= queue.running
        queue.crash()
    assert len(queue.running) == 1, "now either would be the last"
    while deadly in queue.running:
        queue.crash()
    assert queue.waits(deadly) == {JobReason.QUARANTINED}
    assert queue.story(deadly)[-1] == "quarantined"
    assert queue.running == {other}
    assert crashes(queue, other) == 2
    queue.settle(other)
    assert crashes(queue, other) == 0
    queue.finish(other)
    assert queue.state(deadly) is JobState.QUEUED


def test_the_innocent_that_comes_first_clears_itself_before_the_deadly_one_runs(queue: Harness) -> None:
    innocent, deadly = queue.submit("a"), queue.submit("b")
    queue.crash()
    queue.crash()
    assert queue.running == {innocent}
    assert queue.waits(deadly) == {JobReason.BACKOFF}
    queue.settle(innocent)
    assert queue.running == {innocent, deadly}, "it is suspected no more"
    queue.crash()
    assert queue.waits(deadly) == {JobReason.QUARANTINED}
    assert queue.running == {innocent}
    assert crashes(queue, innocent) == 1


def test_a_suspect_that_ends_lets_the_next_one_run(queue: Harness) -> None:
    jobs = [queue.submit(teamspace) for teamspace in "abc"]
    queue.crash()
    queue.crash()
    for job in jobs:
        assert queue.running == {job}
        queue.finish(job)
    assert not queue.scheduler.jobs


def test_who_keeps_away_is_not_forgotten_over_a_restart(queue: Harness) -> None:
    first, second = queue.submit("a"), queue.submit("b")
    queue.crash()
    queue.crash()
    queue.restart()
    queue.finish(*queue.running)
    assert queue.running | set(queue.database.ended) == {first, second}


def test_an_ordered_restart_is_no_crash(queue: Harness) -> None:
    job = queue.submit("a")
    for _ in range(5):
        queue.crash()
        queue.restart()
        queue.settle(job)
    assert queue.running == {job}


def test_a_job_that_gets_on_is_never_quarantined(queue: Harness) -> None:
    job = queue.submit("a")
    for _ in range(20):
        queue.crash()
        queue.crash()
        queue.settle(job)
    assert queue.running == {job}


def test_who_has_lived_on_for_long_enough_is_suspected_no_more(queue: Harness) -> None:
    job, other = queue.submit("a"), queue.submit("b")
    queue.crash()
    queue.crash()
    queue.wait(job, JobReason.POLL, 800)
    queue.pass_seconds(LIVED_SECONDS - 1)
    assert queue.running == {job}
    queue.pass_seconds(1)
    assert queue.running == {job, other}
    queue.restart()
    assert crashes(queue, job) == 0, "which is stored"


def test_a_suspect_that_waits_for_a_permit_when_the_daemon_dies_is_not_blamed(asking: Harness) -> None:
    job = asking.submit("a")
    asking.crash()
    for call in (asking.ask(job), asking.ask(job)):
        asking.answer(job, call)
    for _ in range(20):
        asking.ask(job)
        assert asking.waits(job) == {JobReason.LIMIT}
        asking.crash()
    assert asking.running == {job}
    assert crashes(asking, job) == 1


def test_a_job_that_dies_of_its_answers_is_quarantined_in_the_end(asking: Harness) -> None:
    job = asking.submit("a")
    for _ in range(10):
        assert asking.running == {job}
        asking.ask(job)
        asking.crash()
        asking.pass_seconds(70)
    assert asking.waits(job) == {JobReason.QUARANTINED}


def test_a_person_lets_a_quarantined_job_go(queue: Harness) -> None:
    job = queue.submit("a")
    for _ in range(3):
        queue.crash()
    assert not queue.running
    queue.restart()
    assert not queue.running, "also after a restart"
    queue.resume("job", job)
    assert queue.running == {job}
    assert queue.story(job)[-2:] == ["resumed", "started"]
    queue.crash()
    assert queue.running == {job}, "it has three tries again"


def test_a_quarantined_job_can_be_cancelled(queue: Harness) -> None:
    job = queue.submit("a")
    for _ in range(3):
        queue.crash()
    queue.cancel(job)
    assert queue.state(job) is JobState.CANCELLED


def test_a_quarantined_step_holds_its_chain_and_nobody_else(queue: Harness) -> None:
    chain, first, second = queue.submit_chain("a", "enrich", "enrich")
    for _ in range(3):
        queue.crash()
    assert queue.waits(first) == {JobReason.QUARANTINED}
    later = queue.submit("a")
    assert queue.running == {later}
    queue.finish(later)
    queue.resume("job", chain)
    assert queue.running == {first}
    queue.finish(first)
    assert queue.running == {second}


def test_noops_are_nobodys_concern(queue: Harness) -> None:
    queue.crash()
    queue.submit("a", "noop")
    assert not queue.scheduler.suspects
    assert not queue.database.live
