"""When a job will be at its end: by its pace, never faster than its limits let it, and not at all if nobody knows."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.core import events as ev
from leadline.core.estimate import Share, Tempo, ends, seconds_left
from leadline.core.model import SECOND, Counts
from leadline.core.rate_limit import BucketLimit, ConcurrentLimit, Cost, DailyLimit, Limit, Unit, WindowLimit
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import Instant, JobId
from tests.core.harness import Harness

SNOV = WindowLimit(15, 60, Unit.LEAD)
LEAD = Cost(request=1, lead=1)

tempos = st.builds(Tempo, leads=st.integers(1, 10_000), seconds=st.floats(0.01, 100_000))
limits: st.SearchStrategy[Limit] = st.one_of(
    st.builds(WindowLimit, amount=st.integers(1, 1_000), per_seconds=st.floats(1, 3_600)),
    st.builds(BucketLimit, amount=st.integers(1, 1_000), per_seconds=st.floats(1, 3_600), burst=st.integers(1, 1_000)),
    st.builds(DailyLimit, amount=st.integers(1, 1_000)),
    st.builds(ConcurrentLimit, amount=st.integers(1, 100)),
)
shares = st.builds(Share, limit=limits, per_lead=st.sampled_from([0.002, 1.0, 4.0]), part=st.floats(0.001, 1.0))


def test_a_job_that_began_with_a_burst_goes_on_as_its_provider_lets_it() -> None:
    burst = Tempo(15, 1.0)
    assert seconds_left(85, burst, [Share(SNOV, 1, 1)]) == (300, 360), "6 windows, of which the first may be there"
    assert seconds_left(85, burst, [Share(SNOV, 1, 1 / 4)]) == (300, 1_380), "4 share 15 a minute: 23 windows"


def test_without_limits_the_pace_decides_and_the_range_narrows_as_it_is_known() -> None:
    assert seconds_left(100, Tempo(1, 2.0), []) == (100, 400)
    assert seconds_left(100, Tempo(10_000, 20_000.0), []) == pytest.approx((200 / 1.01, 202))


@given(left=st.integers(0, 100_000), tempo=tempos, under=st.lists(shares, max_size=4), more=shares)
def test_a_limit_makes_no_end_sooner_and_a_smaller_part_none_either(
    left: int, tempo: Tempo, under: list[Share], more: Share
) -> None:
    soonest, latest = seconds_left(left, tempo, under)
    assert 0 <= soonest <= latest < math.inf
    limited = seconds_left(left, tempo, [*under, more])
    assert limited[0] >= soonest
    assert limited[1] >= latest
    halved = seconds_left(left, tempo, [*under, Share(more.limit, more.per_lead, more.part / 2)])
    assert halved[0] == limited[0]
    assert halved[1] >= limited[1]


# --- of a job in the queue


def estimate(queue: Harness, job: JobId, tempo: Tempo) -> tuple[float, float] | None:
    """Seconds from now."""
    found = ends(queue.scheduler, queue.scheduler.jobs[job], tempo, queue.now)
    return None if found is None else ((found[0] - queue.instant) / SECOND, (found[1] - queue.instant) / SECOND)


def bring(queue: Harness, job: JobId) -> None:
    """15 of its 100 leads are done."""
    queue.tell(ev.Progressed(job, queue.actors[job].number, Counts(total=100, done=15), ""))


def at_work(queue: Harness, teamspace: str, calls: int = 20) -> JobId:
    """A job with 15 of 100 leads done, and calls that ask."""
    job = queue.submit(teamspace)
    for _ in range(calls):
        queue.ask(job, cost=LEAD)
    bring(queue, job)
    return job


@pytest.fixture
def snov(queue: Harness) -> Harness:
    queue.provider("snov", SNOV)
    return queue


def test_who_shares_a_provider_with_three_others_has_a_quarter_of_it(snov: Harness) -> None:
    job = at_work(snov, "a")
    assert estimate(snov, job, Tempo(15, 1.0)) == (300, 360)
    for other in ("b", "c", "d"):
        at_work(snov, other)
    assert estimate(snov, job, Tempo(15, 1.0)) == (300, 1_380)


def test_a_job_that_has_only_begun_takes_a_step_for_every_lead_that_is_left(queue: Harness) -> None:
    queue.provider("snov", pace_per_second=0.1)
    job = at_work(queue, "a")
    assert estimate(queue, job, Tempo(1, 0.2)) == (830, 850), "85 are left, and one of them is being asked for"
    for other in ("b", "c", "d"):
        at_work(queue, other)
    assert estimate(queue, job, Tempo(1, 0.2)) == (830, 3_400)


def test_a_hint_of_the_provider_comes_on_top(snov: Harness) -> None:
    job = at_work(snov, "a", calls=15)
    call = next(iter(snov.actors[job].out))
    snov.answer(job, call, throttled=True, retry_after=Instant(snov.instant + 90 * SECOND))
    snov.ask(job, cost=LEAD)
    assert estimate(snov, job, Tempo(15, 1.0)) == (390, 450)


def test_nobody_knows_the_end_of_what_has_not_begun_or_waits_for_a_person(snov: Harness) -> None:
    job = at_work(snov, "a")
    assert estimate(snov, job, Tempo(0, 1.0)) is None
    assert estimate(snov, snov.submit("a"), Tempo(15, 1.0)) is None, "it is queued"
    snov.wait(job, JobReason.POLL, 30)
    assert estimate(snov, job, Tempo(15, 1.0)) is not None
    snov.pause("provider", "snov")
    assert estimate(snov, job, Tempo(15, 1.0)) is None
    snov.resume("provider", "snov")
    assert estimate(snov, job, Tempo(15, 1.0)) is not None
    snov.pause("queue")
    assert estimate(snov, job, Tempo(15, 1.0)) is None


@pytest.mark.parametrize(
    ("cost", "seconds"),
    [
        (Cost(request=1, lead=5, record=5), (160, 170)),  # an order for five leads: 17 requests
        (Cost(request=1), (840, 850)),  # a module that counts requests alone
    ],
)
def test_what_a_lead_takes_is_seen_from_the_calls(queue: Harness, cost: Cost, seconds: tuple[float, float]) -> None:
    queue.provider("snov", WindowLimit(1, 10))
    job = queue.submit("a")
    for _ in range(3):
        queue.ask(job, cost=cost)
    bring(queue, job)
    assert estimate(queue, job, Tempo(15, 1.0)) == seconds


def test_of_our_own_database_a_lead_takes_a_record(queue: Harness) -> None:
    queue.provider("database", BucketLimit(10, 1, burst=1_000))
    job = queue.submit("a")
    for _ in range(2):
        queue.ask(job, "database", cost=Cost(record=1_000))
    bring(queue, job)
    assert estimate(queue, job, Tempo(15, 0.015)) == pytest.approx((0.0675, 8.5), rel=0.01)
