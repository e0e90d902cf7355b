"""Limits are kept as the provider sees them: an oracle on its side counts, and a naive model says what must fit."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from leadline.core.meters import Window
from leadline.core.provider_account import ProviderAccount
from leadline.core.rate_limit import (
    BucketLimit,
    ConcurrentLimit,
    Cost,
    DailyLimit,
    Limit,
    LimitState,
    PastCall,
    RateLimiter,
    Unit,
    WindowLimit,
)
from leadline_protocol.ids import AccountName, CallId, Instant
from tests.core.provider_side import SECOND, START, Asked, Seen, Trip, World, worst_window

FLIGHT = 5 * SECOND
DAY = 86_400 * SECOND


def instant(seconds: float) -> Instant:
    return Instant(START + round(seconds * SECOND))


def next_midnight(_: DailyLimit, after: Instant) -> Instant:
    return Instant((after // DAY + 1) * DAY)


# --- what the provider sees


class History(Struct, frozen=True):
    """A limit, and calls with their trips."""

    amount: int
    seconds: int
    asked: tuple[Asked, ...]
    crashes: tuple[int, ...] = ()


@st.composite
def histories(draw: st.DrawFn, *, crashes: int = 0) -> History:
    amount = draw(st.integers(1, 6))
    seconds = draw(st.integers(1, 10))
    microseconds = st.sampled_from([0, 1, 400_000, SECOND, 2 * SECOND, 4_999_999])
    trips = st.builds(
        Trip,
        to_send=st.sampled_from([0, 1, SECOND, 7 * SECOND]),
        to_arrival=st.one_of(microseconds, st.just(FLIGHT)),
        to_answer=st.one_of(st.none(), st.sampled_from([0, 1, SECOND, 20 * SECOND])),
        to_end=st.sampled_from([0, SECOND]),
    )
    asked = st.builds(
        Asked,
        at=st.integers(0, 30).map(lambda half_seconds: half_seconds * SECOND // 2),
        teamspace=st.integers(1, 3),
        cost=st.integers(1, amount).map(lambda units: Cost(request=units)),
        trip=trips,
    )
    moments = st.lists(st.integers(0, 60 * SECOND), max_size=crashes)
    return History(amount, seconds, tuple(draw(st.lists(asked, max_size=25))), tuple(draw(moments)))


Limiter = Callable[[tuple[Limit, ...]], RateLimiter]


def played(history: History, limiter: Limiter = RateLimiter) -> World:
    """The history over an account that keeps its limit by that limiter."""
    limits = (WindowLimit(history.amount, history.seconds),)

    def build() -> ProviderAccount:
        account = ProviderAccount(AccountName("x"), limits)
        account._limiter = limiter(limits)
        return account

    world = World(build(), history.asked)
    for crash in history.crashes:
        world.at(crash, lambda: world.crash(build))
    return world.run()


def most_seen(history: History, limiter: Limiter = RateLimiter) -> int:
    return worst_window(played(history, limiter).log, history.seconds)


@settings(max_examples=200)
@given(histories())
def test_no_window_ever_sees_more_than_its_amount(history: History) -> None:
    world = played(history)
    assert worst_window(world.log, history.seconds) <= history.amount
    assert len(world.log) == len(history.asked), "every call went out in the end"


@settings(max_examples=200)
@given(histories(crashes=3))
def test_no_window_ever_sees_more_than_its_amount_across_crashes(history: History) -> None:
    assert most_seen(history) <= history.amount


class FreedAfterTheSend(RateLimiter):
    """A log of send times: what the rule is there to prevent."""

    def sent(self, call: CallId, instant: Instant) -> None:
        super().sent(call, instant)
        if call in self._on_the_way:
            self._arrived(self._on_the_way.pop(call), instant)


class FreedAfterTheGrant(RateLimiter):
    """Takes the grant for the send."""

    def charge(self, call: CallId, cost: Cost, instant: Instant) -> None:
        super().charge(call, cost, instant)
        super().sent(call, instant)


class Forgetful(RateLimiter):
    """Knows nothing of the calls before it."""

    def restore(self, calls: object, levels: object, at: object, instant: object) -> None:
        """Start with empty windows."""


class TokenBucket(RateLimiter):
    """The amount at once, refilled at the rate of the window."""

    def __init__(self, limits: tuple[WindowLimit, ...]) -> None:
        super().__init__([BucketLimit(each.amount, each.per_seconds, each.amount, each.unit) for each in limits])


class FixedWindow(RateLimiter):
    """The amount anew whenever the clock begins another window."""

    def __init__(self, limits: tuple[WindowLimit, ...]) -> None:
        (limit,) = limits
        width = round(limit.per_seconds * SECOND)
        days = [DailyLimit(limit.amount, limit.unit)]
        super().__init__(days, next_reset=lambda _, after: Instant((after // width + 1) * width))


@pytest.mark.parametrize("limiter", [FreedAfterTheSend, FreedAfterTheGrant, Forgetful, TokenBucket, FixedWindow])
def test_each_part_of_the_rule_is_needed(limiter: type[RateLimiter]) -> None:
    """The negative control: the same check, over limiters that each break the rule in one place, must fail."""
    found = find(
        histories(crashes=3 if limiter is Forgetful else 0),
        lambda history: most_seen(history, limiter) > history.amount,
        settings=settings(max_examples=5_000, database=None, derandomize=True, phases=[Phase.generate]),
    )
    assert most_seen(found) <= found.amount


class Ways(Struct, frozen=True):
    """How 90 leads get to a provider that allows 15 in 60 s: when each arrives and is answered, when daemons die."""

    trips: tuple[Trip, ...]
    crashes: tuple[int, ...]


ways = st.builds(
    Ways,
    trips=st.lists(
        st.builds(
            Trip,
            to_send=st.sampled_from([0, 40_000, 3 * SECOND]),
            to_arrival=st.integers(0, FLIGHT),
            to_answer=st.one_of(st.none(), st.integers(0, 20 * SECOND)),
            to_end=st.sampled_from([0, SECOND]),
        ),
        min_size=90,
        max_size=90,
    ).map(tuple),
    crashes=st.lists(st.integers(0, 400 * SECOND), max_size=4).map(tuple),
)


def fifteen_a_minute(way: Ways, limiter: Limiter) -> int:
    """The worst 60 s of a provider, wherever between send and send + flight its requests arrive."""
    limits = (WindowLimit(15, 60, Unit.LEAD),)

    def build() -> ProviderAccount:
        account = ProviderAccount(AccountName("snov"), limits)
        account._limiter = limiter(limits)
        return account

    asked = [Asked(0, number % 7, Cost(lead=1), trip) for number, trip in enumerate(way.trips)]
    world = World(build(), asked, audited=False)
    for crash in way.crashes:
        world.at(crash, lambda: world.crash(build))
    world.run()
    assert way.crashes or len(world.log) == 90, "without a crash between grant and send all of them go in the end"
    return worst_window(world.log, 60, Unit.LEAD)


@settings(max_examples=40)
@given(way=ways)
def test_no_60_seconds_see_more_than_15_wherever_requests_arrive_and_whenever_daemons_die(way: Ways) -> None:
    assert fifteen_a_minute(way, RateLimiter) <= 15


@pytest.mark.parametrize("limiter", [FreedAfterTheSend, Forgetful, TokenBucket, FixedWindow])
def test_what_others_do_lets_60_seconds_see_more_than_15(limiter: type[RateLimiter]) -> None:
    found = find(
        ways,
        lambda way: fifteen_a_minute(way, limiter) > 15,
        settings=settings(max_examples=500, database=None, derandomize=True, phases=[Phase.generate]),
    )
    assert fifteen_a_minute(found, RateLimiter) <= 15


def test_15_in_60_seconds_are_at_most_15_in_any_60_seconds_and_not_one_fewer() -> None:
    trips = [
        Trip(to_arrival=(7 * call) % 4 * SECOND + 900_000, to_answer=(3 * call) % 11 * SECOND) for call in range(200)
    ]
    asked = [Asked(0, 1, Cost(lead=1), trip) for trip in trips]
    world = World(ProviderAccount(AccountName("snov"), [WindowLimit(15, 60, Unit.LEAD)]), asked).run()
    assert worst_window(world.log, 60, Unit.LEAD) == 15
    assert len(world.log) == 200


def test_an_unanswered_call_counts_until_it_can_no_longer_arrive_and_a_window_after_that() -> None:
    limiter = RateLimiter([WindowLimit(1, 60)])
    limiter.charge(CallId(1), Cost(request=1), instant(0))
    assert limiter.earliest(Cost(request=1), instant(10)) is None, "it has not even been sent"
    limiter.sent(CallId(1), instant(10))
    assert limiter.earliest(Cost(request=1), instant(10)) == instant(75)
    limiter.response_began(CallId(1), instant(12))
    assert limiter.earliest(Cost(request=1), instant(12)) == instant(72)


def test_an_answer_after_the_flight_changes_nothing() -> None:
    limiter = RateLimiter([WindowLimit(1, 60)])
    limiter.charge(CallId(1), Cost(request=1), instant(0))
    limiter.sent(CallId(1), instant(0))
    limiter.response_began(CallId(1), instant(40))
    assert limiter.earliest(Cost(request=1), instant(40)) == instant(65)
    limiter.ended(CallId(1), instant(41))
    limiter.check()


# --- what must fit: a naive model, that keeps every charge for ever and adds up


class NaiveCharge(Struct):
    amount: int
    sent: int | None = None
    began: int | None = None

    def last_arrival(self) -> int | None:
        known = [
            moment for moment in (self.began, None if self.sent is None else self.sent + FLIGHT) if moment is not None
        ]
        return min(known, default=None)


class Step(Struct, frozen=True):
    """After `wait` microseconds, something is tried with a call."""

    wait: int
    action: str
    amount: int
    which: int


steps = st.lists(
    st.builds(
        Step,
        wait=st.sampled_from([0, 1, SECOND // 3, SECOND, 4 * SECOND, FLIGHT, 11 * SECOND]),
        action=st.sampled_from(["charge", "charge", "send", "send", "answer", "answer", "end", "withdraw", "probe"]),
        amount=st.integers(1, 9),
        which=st.integers(0, 5),
    ),
    min_size=10,
    max_size=60,
)


@pytest.mark.parametrize("factor", [1, 1_000])
@pytest.mark.parametrize("daily", [False, True])
@settings(max_examples=150)
@given(amount=st.integers(4, 12), seconds=st.integers(1, 20), script=steps)
def test_exactly_that_fits_which_the_charges_leave_room_for(
    factor: int, daily: bool, amount: int, seconds: int, script: list[Step]
) -> None:
    """`factor` 1,000 is the case of large amounts: charges may then be kept for W/1024 longer, and never shorter."""
    amount *= factor
    limit: Limit = DailyLimit(amount) if daily else WindowLimit(amount, seconds)
    limiter = RateLimiter([limit], next_reset=next_midnight)
    slack = seconds * SECOND // 1_024 if factor > 1 and not daily else 0
    now = START + DAY - 20 * SECOND
    naive: dict[CallId, NaiveCharge] = {}
    extra: list[tuple[int, int]] = []
    running: list[CallId] = []

    def expiry(arrival: int) -> int:
        return next_midnight(DailyLimit(1), Instant(arrival)) if daily else arrival + seconds * SECOND

    def counted(at: int, slack: int = 0) -> int:
        total = sum(more for since, more in extra if at < expiry(since) + slack)
        for charge in naive.values():
            arrival = charge.last_arrival()
            if arrival is None or at < expiry(arrival) + slack:
                total += charge.amount
        return total

    for number, step in enumerate(script):
        now += step.wait
        cost = Cost(request=step.amount * factor)
        limiter.advance(Instant(now))
        fits = limiter.fits(cost)
        never = cost.request > amount
        if fits:
            assert counted(now) + cost.request <= amount
        elif not never:
            assert counted(now, slack) + cost.request > amount
            at = limiter.earliest(cost, Instant(now))
            if at is not None:
                assert counted(at) + cost.request <= amount, "at that moment it does fit"
                assert slack or counted(at - 1) + cost.request > amount, "and not before"
                if step.action == "probe" and not slack:
                    now = at - 1
                    limiter.advance(Instant(now))
                    assert not limiter.fits(cost), "not one microsecond before"
        call = running[step.which % len(running)] if running else None
        match step.action:
            case "charge" if fits:
                call = CallId(number)
                limiter.charge(call, cost, Instant(now))
                naive[call] = NaiveCharge(cost.request)
                running.append(call)
            case "send" if call is not None and naive[call].sent is None and naive[call].began is None:
                limiter.sent(call, Instant(now))
                naive[call].sent = now
            case "answer" if call is not None and naive[call].sent is not None and naive[call].began is None:
                limiter.response_began(call, Instant(now))
                naive[call].began = now
            case "end" if call is not None:
                charge = naive[call]
                actual = Cost(request=step.amount * factor)
                limiter.ended(call, Instant(now), actual=actual)
                running.remove(call)
                charge.sent = now if charge.sent is None else charge.sent
                if charge.began is not None:
                    extra.append((now, max(0, actual.request - charge.amount)))
                    charge.amount = min(charge.amount, actual.request)
            case "withdraw" if call is not None and naive[call].began is None:
                limiter.withdraw(call)
                running.remove(call)
                del naive[call]
        limiter.check()
        assert len(limiter._bounds[0].meter._slots) <= 4_096  # type: ignore[attr-defined]


# --- several limits, and what is counted


def test_a_call_is_charged_on_all_limits_or_on_none() -> None:
    limiter = RateLimiter([WindowLimit(60, 60), WindowLimit(15, 60, Unit.LEAD)])
    for call in range(15):
        limiter.charge(CallId(call), Cost(request=1, lead=1), instant(0))
    assert not limiter.fits(Cost(request=1, lead=1))
    assert limiter.fits(Cost(request=1)), "a poll costs no lead"
    assert [state.charged for state in limiter.state(instant(0))] == [15, 15]
    with pytest.raises(AssertionError, match="call 15"):
        limiter.charge(CallId(15), Cost(request=1, lead=1), instant(0))


def test_a_cost_above_a_limit_never_fits_and_is_told_which() -> None:
    bucket = BucketLimit(10, 60, burst=5)
    limits: list[Limit] = [WindowLimit(60, 60), WindowLimit(1_000, 60, Unit.TOKEN), ConcurrentLimit(1), bucket]
    limiter = RateLimiter(limits)
    assert limiter.never_fits(Cost(request=60, token=1_000, record=5)) is None
    assert limiter.never_fits(Cost(request=1, token=1_001)) == limits[1]
    assert limiter.never_fits(Cost(record=6)) == bucket


def test_tokens_are_settled_by_what_the_answer_says() -> None:
    limiter = RateLimiter([WindowLimit(1_000, 60, Unit.TOKEN)])
    for call in (1, 2):
        limiter.charge(CallId(call), Cost(request=1, token=400), instant(0))
        limiter.sent(CallId(call), instant(0))
        limiter.response_began(CallId(call), instant(1))
    limiter.ended(CallId(1), instant(2), actual=Cost(request=1, token=100))
    limiter.ended(CallId(2), instant(2), actual=Cost(request=1, token=450))
    assert limiter.state(instant(2))[0].charged == 550
    assert limiter.state(instant(61))[0].charged == 50, "what was missing counts from when it was known"
    assert limiter.state(instant(62))[0].charged == 0


def test_a_failed_call_is_free_where_only_successes_count_and_only_once_it_is_answered() -> None:
    limiter = RateLimiter([WindowLimit(2, 60)], failed_count=False)
    for call in (1, 2):
        limiter.charge(CallId(call), Cost(request=1), instant(0))
        limiter.sent(CallId(call), instant(0))
    limiter.response_began(CallId(1), instant(1))
    assert limiter.state(instant(1))[0].charged == 2, "it is not yet known to have failed"
    limiter.ended(CallId(1), instant(1), failed=True)
    limiter.ended(CallId(2), instant(60), failed=True)
    assert limiter.state(instant(60))[0].charged == 1, "the one without an answer may have succeeded over there"
    limiter.check()


def test_a_storm_of_failures_that_cost_nothing_takes_no_memory() -> None:
    limiter = RateLimiter([WindowLimit(2, 86_400)], failed_count=False)
    for call in range(20_000):
        limiter.charge(CallId(call), Cost(request=1), instant(call))
        limiter.sent(CallId(call), instant(call))
        limiter.response_began(CallId(call), instant(call))
        limiter.ended(CallId(call), instant(call), failed=True)
    limiter.check()
    assert limiter.in_flight == 0


def test_a_million_units_in_a_window_take_the_memory_of_a_thousand_slots() -> None:
    limiter = RateLimiter([WindowLimit(1_000_000, 3_600)])
    for call in range(20_000):
        moment = instant(call * 0.36)
        limiter.charge(CallId(call), Cost(request=50), moment)
        limiter.sent(CallId(call), moment)
        limiter.response_began(CallId(call), moment)
        limiter.ended(CallId(call), moment)
    (bound,) = limiter._bounds
    assert isinstance(bound.meter, Window)
    assert len(bound.meter._slots) <= 1_026
    assert bound.meter.charged == pytest.approx(500_000, rel=0.002)
    limiter.check()


def test_a_concurrent_place_is_held_from_the_grant_to_the_end() -> None:
    limiter = RateLimiter([ConcurrentLimit(2)])
    limiter.charge(CallId(1), Cost(request=1), instant(0))
    limiter.charge(CallId(2), Cost(request=1), instant(0))
    assert not limiter.fits(Cost(request=1))
    assert limiter.earliest(Cost(request=1), instant(0)) is None
    limiter.sent(CallId(1), instant(0))
    limiter.response_began(CallId(1), instant(1))
    assert not limiter.fits(Cost(request=1))
    limiter.ended(CallId(1), instant(2))
    assert limiter.fits(Cost(request=1))
    limiter.check()


def test_a_call_in_flight_over_the_reset_counts_in_both_days() -> None:
    limiter = RateLimiter([DailyLimit(2)], next_reset=next_midnight)
    midnight = next_midnight(DailyLimit(1), Instant(START))
    for call, sent in ((1, midnight - 20 * SECOND), (2, midnight - 2 * SECOND)):
        limiter.charge(CallId(call), Cost(request=1), Instant(sent))
        limiter.sent(CallId(call), Instant(sent))
    assert limiter.earliest(Cost(request=1), Instant(midnight - SECOND)) == midnight
    assert limiter.state(Instant(midnight))[0].charged == 1
    limiter.response_began(CallId(2), Instant(midnight + SECOND))
    assert limiter.state(Instant(midnight + 2 * SECOND))[0].charged == 1
    assert limiter.state(Instant(midnight + DAY))[0].charged == 0


# --- the database's bucket


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 30 * SECOND), st.integers(1, 16_667)), max_size=40))
def test_the_database_never_takes_more_than_its_burst_and_its_rate(script: list[tuple[int, int]]) -> None:
    limiter = RateLimiter([BucketLimit(1_000_000, 3_600, burst=16_667)])
    now, done = START, [(START, 0)]
    for call, (wait, records) in enumerate(script):
        now += wait
        cost = Cost(record=records)
        at = limiter.earliest(cost, Instant(now))
        assert at is not None
        if at > now:
            limiter.advance(Instant(at - 1))
            assert not limiter.fits(cost), "not a microsecond too late"
        now = at
        limiter.charge(CallId(call), cost, Instant(now))
        done.append((now, records))
        limiter.check()
    for first in range(1, len(done)):
        total = 0
        for then, records in done[first:]:
            total += records
            assert (total - 16_667) * 3_600 * SECOND <= (then - done[first][0]) * 1_000_000


def test_5000_records_take_18_seconds_without_burst_and_no_time_with_it() -> None:
    limiter = RateLimiter([BucketLimit(1_000_000, 3_600, burst=16_667)])
    assert limiter.earliest(Cost(record=5_000), instant(0)) == instant(0)
    limiter.charge(CallId(1), Cost(record=16_667), instant(0))
    assert limiter.earliest(Cost(record=5_000), instant(0)) == instant(18)


def test_a_level_outlives_a_restart() -> None:
    limiter = RateLimiter([BucketLimit(1_000_000, 3_600, burst=16_667)])
    limiter.charge(CallId(1), Cost(record=16_667), instant(0))
    assert limiter.levels(instant(18)) == {Unit.RECORD: 5_000}
    after = RateLimiter(limiter.limits)
    after.restore([], limiter.levels(instant(18)), instant(18), instant(36))
    assert after.levels(instant(36)) == {Unit.RECORD: 10_000}


# --- limits that change


def test_15_to_60_and_60_to_15_bind_from_the_next_call_and_forget_nothing() -> None:
    limiter = RateLimiter([WindowLimit(15, 60)])
    for call in range(15):
        limiter.charge(CallId(call), Cost(request=1), instant(0))
        limiter.sent(CallId(call), instant(0))
        limiter.response_began(CallId(call), instant(1))
    assert not limiter.fits(Cost(request=1))
    limiter.replace([WindowLimit(60, 60)], instant(10))
    assert limiter.state(instant(10)) == (LimitState(WindowLimit(60, 60), 15, free=45, frees_at=instant(61)),)
    for call in range(15, 60):
        limiter.charge(CallId(call), Cost(request=1), instant(10))
        limiter.sent(CallId(call), instant(10))
        limiter.response_began(CallId(call), instant(11))
    limiter.replace([WindowLimit(15, 60)], instant(20))
    limiter.check()
    assert limiter.state(instant(20)) == (LimitState(WindowLimit(15, 60), 60, free=0, frees_at=instant(71)),)
    assert limiter.earliest(Cost(request=1), instant(20)) == instant(71)


def test_a_window_of_another_period_takes_over_what_is_known() -> None:
    limiter = RateLimiter([WindowLimit(100, 60), WindowLimit(5, 1)])
    for call in range(4):
        limiter.charge(CallId(call), Cost(request=1), instant(call))
        limiter.sent(CallId(call), instant(call))
        if call < 3:
            limiter.response_began(CallId(call), instant(call))
    limiter.replace([WindowLimit(10, 30), ConcurrentLimit(9)], instant(4))
    assert [state.charged for state in limiter.state(instant(4))] == [4, 4]
    assert [state.charged for state in limiter.state(instant(31))] == [2, 4]
    for call in range(4):
        limiter.ended(CallId(call), instant(32), actual=Cost(request=1))
        limiter.check()
    assert [state.charged for state in limiter.state(instant(70))] == [0, 0]


def test_two_limits_that_differ_only_in_their_amount_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in nothing"):
        RateLimiter([WindowLimit(15, 60), WindowLimit(60, 60)])


# --- restart


def test_restored_calls_count_until_they_were_answered_or_can_no_longer_arrive_and_a_window_after() -> None:
    limiter = RateLimiter([WindowLimit(10, 60), ConcurrentLimit(5)])
    calls = [
        PastCall(CallId(1), Cost(request=1), instant(-100), instant(-90)),
        PastCall(CallId(2), Cost(request=1), instant(-50), instant(-49)),
        PastCall(CallId(3), Cost(request=1), instant(-2), None),
        PastCall(CallId(4), Cost(request=1), instant(-20), None),
        PastCall(CallId(5), Cost(request=1), instant(-30), instant(-3)),
    ]
    limiter.restore(calls, {}, instant(0), instant(0))
    limiter.check()
    charged = {at: [state.charged for state in limiter.state(instant(at))] for at in (0, 3, 10, 11, 45, 57, 63)}
    assert charged == {0: [4, 1], 3: [4, 0], 10: [4, 0], 11: [3, 0], 45: [2, 0], 57: [1, 0], 63: [0, 0]}


def test_a_place_that_a_call_of_a_dead_process_holds_is_free_when_its_request_cannot_arrive_any_more() -> None:
    """And whoever waits for it is told so: no event will come of it."""
    limiter = RateLimiter([ConcurrentLimit(2)])
    limiter.restore([PastCall(CallId(1), Cost(request=1), instant(0), None)], {}, instant(0), instant(0))
    limiter.charge(CallId(2), Cost(request=1), instant(0))
    limiter.sent(CallId(2), instant(0))
    assert limiter.earliest(Cost(request=1), instant(1)) == instant(5)
    limiter.advance(instant(5))
    assert limiter.fits(Cost(request=1))
    limiter.charge(CallId(3), Cost(request=1), instant(5))
    assert limiter.earliest(Cost(request=1), instant(6)) is None, "nobody knows when the others end"


# --- as data


@pytest.mark.parametrize(
    "limit",
    [
        WindowLimit(15, 60, Unit.LEAD),
        ConcurrentLimit(300),
        DailyLimit(2_000, Unit.RECORD, "03:30", "Europe/Berlin"),
        BucketLimit(1_000_000, 3_600, burst=16_667),
    ],
)
def test_limits_are_data(limit: Limit) -> None:
    shapes = WindowLimit | ConcurrentLimit | DailyLimit | BucketLimit
    assert msgspec.json.decode(msgspec.json.encode(limit), type=shapes) == limit


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"shape":"window","amount":0,"per_seconds":60}', "amount"),
        ('{"shape":"window","amount":1,"per_seconds":0}', "per_seconds"),
        ('{"shape":"window","amount":1,"per_seconds":1,"unit":"row"}', "unit"),
        ('{"shape":"daily","amount":1,"resets_at":"24:00"}', "resets_at"),
        ('{"shape":"window","amount":1,"per_seconds":1,"burst":3}', "burst"),
        ('{"shape":"sliding","amount":1}', "shape"),
    ],
)
def test_a_bad_limit_is_refused_with_its_place(text: str, where: str) -> None:
    shapes = WindowLimit | ConcurrentLimit | DailyLimit | BucketLimit
    with pytest.raises(msgspec.ValidationError, match=where):
        msgspec.json.decode(text, type=shapes)


def test_a_negative_cost_is_refused() -> None:
    with pytest.raises(ValueError, match="never negative"):
        Cost(request=1, lead=-1)


def test_the_oracle_sees_a_window_across_any_border() -> None:
    """The judge judged: two full minutes back to back, as a fixed window allows them, are 29 or 30 in one."""
    log = [Seen(START + (59 * SECOND if call < 15 else 61 * SECOND), call, Cost(request=1)) for call in range(30)]
    assert worst_window(log, 60) == 30
    assert worst_window(log, 2) == 15
