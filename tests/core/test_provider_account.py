"""One provider account as a whole: shares, turns, throttling, restarts, on virtual time against the provider's log."""

from collections import Counter
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from leadline.core.model import Wait
from leadline.core.provider_account import FLOWING, NeverFits, ProviderAccount, Snapshot, Standing
from leadline.core.rate_limit import (
    BucketLimit,
    ConcurrentLimit,
    Cost,
    DailyLimit,
    Limit,
    PastCall,
    RateLimiter,
    Unit,
    WindowLimit,
)
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant, TeamspaceId
from tests.core.provider_side import SECOND, START, Asked, Trip, World, worst_window

A, B = TeamspaceId(1), TeamspaceId(2)
REQUEST = Cost(request=1)
LEAD = Cost(request=1, lead=1)
SNOV = (WindowLimit(60, 60), WindowLimit(15, 60, Unit.LEAD))


def instant(seconds: float) -> Instant:
    return Instant(START + round(seconds * SECOND))


def account(*limits: Limit, interactive_share: float = 0.0, pace_per_second: float | None = None) -> ProviderAccount:
    return ProviderAccount(
        AccountName("x"), limits, interactive_share=interactive_share, pace_per_second=pace_per_second
    )


def paced(per_second: float) -> ProviderAccount:
    return account(pace_per_second=per_second)


def leaving(account: ProviderAccount, second: float) -> list[CallId]:
    """The calls that are granted at that time, and leave at once."""
    granted = account.grants(instant(second))
    for call in granted:
        account.sent(call, instant(second))
    return granted


def asking(account: ProviderAccount, *calls: int, teamspace: TeamspaceId = A, cost: Cost = REQUEST) -> None:
    for call in calls:
        assert account.ask(CallId(call), teamspace=teamspace, order=0, cost=cost) is None


def flying(*calls: int) -> ProviderAccount:
    """An account without limits and with these calls sent."""
    fresh = account()
    asking(fresh, *calls)
    for call in fresh.grants(instant(0)):
        fresh.sent(call, instant(0))
    return fresh


# --- shares


def test_300_leads_and_30_leads_share_15_a_minute_and_the_30_are_done_between_3_and_4_2_minutes() -> None:
    asked = [Asked(0, 1, LEAD)] * 300 + [Asked(0, 2, LEAD)] * 30
    world = World(account(*SNOV), asked).run()
    assert 3 * 60 <= max(world.seconds_of(2)) <= 4.2 * 60
    assert max(world.seconds_of(1)) >= 21 * 60
    assert len(world.ended) == 330
    assert worst_window(world.log, 60, Unit.LEAD) == 15


def test_alone_a_teamspace_has_all_of_it() -> None:
    world = World(account(*SNOV), [Asked(0, 1, LEAD)] * 150).run()
    assert max(world.seconds_of(1)) == 9 * 61 + 1


def test_weights_are_shares() -> None:
    asked = [Asked(0, 1, REQUEST, weight=3.0)] * 300 + [Asked(0, 2, REQUEST)] * 300
    world = World(account(WindowLimit(20, 10)), asked).run(until=100 * SECOND)
    assert len(world.seconds_of(1)) == pytest.approx(3 * len(world.seconds_of(2)), abs=4)


costs = st.integers(1, 8).map(lambda units: Cost(request=units))


@settings(max_examples=60)
@given(
    first=st.lists(costs, min_size=1, max_size=3),
    second=st.lists(costs, min_size=1, max_size=3),
    weight=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_two_teamspaces_on_one_limit_are_never_further_apart_than_a_call_each(
    first: list[Cost], second: list[Cost], weight: float
) -> None:
    asked = [Asked(0, 1, first[turn % len(first)], weight=weight) for turn in range(80)]
    asked += [Asked(0, 2, second[turn % len(second)]) for turn in range(80)]
    world = World(account(WindowLimit(10, 5)), asked).run()
    bound = max(cost.request for cost in first) / weight + max(cost.request for cost in second)
    left = {1: 80, 2: 80}
    apart = 0.0
    for _, call in world.granted:
        ask = world.asked[call]
        apart += ask.cost.request / weight if ask.teamspace == 1 else -ask.cost.request
        assert abs(apart) <= bound + 1e-9
        left[ask.teamspace] -= 1
        if not left[ask.teamspace]:
            break


@settings(max_examples=60)
@given(
    amount=st.sampled_from([8, 15, 60, 3_000]),
    units=st.lists(st.integers(1, 8), min_size=1, max_size=6),
    latency=st.sampled_from([0, 200_000, SECOND, 9 * SECOND]),
    teamspaces=st.integers(1, 7),
)
def test_while_calls_wait_the_rate_is_what_the_window_allows(
    amount: int, units: list[int], latency: int, teamspaces: int
) -> None:
    """At least (N - max cost) / (W + latency), at any moment; the latency counts for at most the flight."""
    seconds = 10
    enough = 5 * amount // min(units)
    asked = [
        Asked(0, number % teamspaces, Cost(request=units[number % len(units)]), Trip(to_answer=latency))
        for number in range(enough)
    ]
    world = World(account(WindowLimit(amount, seconds)), asked).run()
    last = world.granted[-1][0]
    period = seconds * SECOND + min(latency, 5 * SECOND)
    period += seconds * SECOND // 1_024 if amount > 1_024 else 0
    granted = list(accumulate(asked[call].cost.request for _, call in world.granted))
    for (at, _), (after, _), total in zip(world.granted, world.granted[1:], granted, strict=False):
        if after > at:
            assert total * period >= (amount - max(units)) * (after - START)
    assert last > START
    assert world.wakeups <= len(world.log), "woken for grants only"


class HeldToTheEnd(RateLimiter):
    """Lets a charge count from the end of its call on, and not from its arrival."""

    def response_began(self, call: CallId, instant: Instant) -> None:
        """Only the end counts."""

    def sent(self, call: CallId, instant: Instant) -> None:
        """Only the end counts."""

    def ended(self, call: CallId, instant: Instant, *, actual: Cost | None = None, failed: bool = False) -> Cost | None:
        super().sent(call, instant)
        super().response_began(call, instant)
        return super().ended(call, instant, actual=actual, failed=failed)


def rate_of_bound(teamspaces: int, limiter: type[RateLimiter] = RateLimiter) -> float:
    """Units in a second while that many wait throughout, as a part of (N - max cost) / (W + latency)."""
    amount, seconds, costs, latency, body = 1_000, 10, (1, 2, 3, 8), 1, 3
    limits = (WindowLimit(amount, seconds),)
    busy = account(*limits)
    busy._limiter = limiter(limits)
    trip = Trip(to_answer=latency * SECOND, to_end=body * SECOND)
    calls = max(4_000, 2 * teamspaces)
    asked = [
        Asked(0, number % teamspaces, Cost(request=costs[number // teamspaces % 4]), trip, weight=1.0 + number % 3)
        for number in range(calls)
    ]
    world = World(busy, asked, audited=False).run()
    units = [asked[call].cost.request for _, call in world.granted]
    elapsed = (world.granted[-1][0] - START) / SECOND
    return sum(units) / elapsed / ((amount - max(costs)) / (seconds + latency))


@pytest.mark.parametrize("teamspaces", [1, 10, 100, 1_000, 10_000])
def test_a_provider_at_its_limit_is_used_to_98_percent_and_more_however_many_wait(teamspaces: int) -> None:
    assert rate_of_bound(teamspaces) >= 0.98


def test_a_charge_that_is_held_to_the_end_of_its_call_would_cost_a_fifth_of_the_rate() -> None:
    """The negative control."""
    assert rate_of_bound(100, HeldToTheEnd) < 0.9


class Stream(Struct, frozen=True):
    """A teamspace that has leads, and perhaps polls, waiting throughout."""

    weight: float
    leads: tuple[int, ...]
    """What its leads cost, over and over."""
    polls: tuple[int, ...]


streams = st.builds(
    Stream,
    weight=st.sampled_from([0.5, 1.0, 3.0]),
    leads=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    polls=st.lists(st.integers(1, 3), max_size=2).map(tuple),
)


@settings(max_examples=60)
@given(playing=st.lists(streams, min_size=2, max_size=4), latency=st.sampled_from([0, 700_000, 4 * SECOND]))
def test_leads_are_shared_by_weight_to_a_call_each_while_polls_pass_them(playing: list[Stream], latency: int) -> None:
    """And polls are, too: at every instant, with mixed costs, in what each costs of its scarcest limit."""
    trip = Trip(to_answer=latency)
    asked = []
    for teamspace, stream in enumerate(playing):
        for lane in (stream.leads, stream.polls):
            for turn in range(60 if lane else 0):
                units = lane[turn % len(lane)]
                cost = Cost(request=1, lead=units) if lane is stream.leads else Cost(request=units)
                asked.append(Asked(0, teamspace, cost, trip, stream.weight))
    world = World(account(WindowLimit(40, 10), WindowLimit(12, 10, Unit.LEAD)), asked).run()
    left = Counter((ask.teamspace, ask.cost.lead > 0) for ask in asked)
    done: Counter[tuple[int, bool]] = Counter()
    together = {False: True, True: True}
    for _, call in world.granted:
        ask = asked[call]
        lane = (ask.teamspace, ask.cost.lead > 0)
        done[lane] += ask.cost.lead or ask.cost.request
        left[lane] -= 1
        for leads, all_wait in together.items():
            if not all_wait:
                continue
            costs = [stream.leads if leads else stream.polls for stream in playing]
            for a, first in enumerate(playing):
                for b, second in enumerate(playing[:a]):
                    if costs[a] and costs[b]:
                        apart = abs(done[a, leads] / first.weight - done[b, leads] / second.weight)
                        assert apart <= max(costs[a]) / first.weight + max(costs[b]) / second.weight + 1e-9
        if not left[lane]:
            together[lane[1]] = False


# --- the head keeps its turn


def test_polls_pass_a_lead_that_waits_for_its_minute() -> None:
    snov = account(*SNOV)
    asking(snov, *range(16), cost=LEAD)
    assert snov.grants(instant(0)) == list(range(15))
    asking(snov, *range(100, 110), teamspace=B)
    assert snov.grants(instant(1)) == list(range(100, 110))
    asking(snov, 200)
    assert snov.grants(instant(1)) == [200], "its own poll too"
    assert snov.waiting(A) == 1
    snov.check()


def test_a_costly_call_is_not_starved_by_cheap_ones() -> None:
    asked = [Asked(0, 1, Cost(request=10))] * 5 + [Asked(0, 2, REQUEST)] * 200
    world = World(account(WindowLimit(10, 10)), asked).run()
    costly = world.seconds_of(1)
    assert len(costly) == 5
    assert max(costly) <= 11 * 10 + 1, "every second window is its own"


def test_nobody_passes_who_would_take_what_the_head_waits_for() -> None:
    """Tokens are short, requests nearly so: a cheap request may go only while the head's own request keeps its room."""
    ai = account(WindowLimit(3, 60), WindowLimit(100, 60, Unit.TOKEN))
    asking(ai, 1, cost=Cost(request=1, token=100))
    assert ai.grants(instant(0)) == [1]
    asking(ai, 2, cost=Cost(request=1, token=100))
    asking(ai, 3, 4, teamspace=B)
    assert ai.grants(instant(0)) == [3]
    assert ai.grants(instant(1)) == []
    ai.sent(CallId(1), instant(1))
    ai.response_began(CallId(1), instant(2))
    assert ai.next_deadline(instant(2)) == instant(62)
    assert ai.grants(instant(62)) == [2, 4]


some_costs = st.builds(Cost, request=st.integers(1, 4), lead=st.integers(0, 3), record=st.integers(0, 2))
some_trips = st.builds(Trip, to_answer=st.sampled_from([0, SECOND, 3 * SECOND, None]), timeout=st.just(9 * SECOND))


@settings(max_examples=150)
@given(
    before=st.lists(st.tuples(st.integers(0, 4), some_costs, some_trips), max_size=8),
    head=some_costs,
    after=st.lists(st.tuples(st.integers(0, 6), some_costs, some_trips), min_size=1, max_size=12),
)
def test_who_passes_never_delays_the_head(
    before: list[tuple[int, Cost, Trip]], head: Cost, after: list[tuple[int, Cost, Trip]]
) -> None:
    """The head goes at the very moment at which it goes with nobody behind it."""
    limits = (WindowLimit(6, 4), WindowLimit(4, 6, Unit.LEAD), WindowLimit(3, 9, Unit.RECORD), ConcurrentLimit(4))
    asked = [Asked(at * SECOND, 1, cost, trip) for at, cost, trip in before]
    gone = World(account(*limits), asked).run().granted
    comes = gone[-1][0] - START + 1 if gone else 0
    asked.append(Asked(comes, 1, head))
    late = [Asked(comes + at * SECOND // 2, 2, cost, trip) for at, cost, trip in after]
    alone = World(account(*limits), asked).run()
    together = World(account(*limits), asked + late).run()
    assert alone.granted == [(at, call) for at, call in together.granted if call < len(asked)]
    assert len(together.granted) == len(asked) + len(late), "and everybody goes in the end"


# --- spread evenly


@settings(max_examples=60)
@given(
    asks=st.lists(st.integers(0, 40 * SECOND), min_size=1, max_size=40),
    crashes=st.lists(st.integers(0, 60 * SECOND), max_size=3),
    per_second=st.sampled_from([0.3, 1.0, 7.0, 100.0]),
)
def test_paced_calls_are_a_step_apart_however_they_are_asked_and_however_often_the_daemon_dies(
    asks: list[int], crashes: list[int], per_second: float
) -> None:
    world = World(paced(per_second), [Asked(at, at % 3, REQUEST) for at in asks])
    for crash in crashes:
        world.at(crash, lambda: world.crash(lambda: paced(per_second)))
    world.run()
    assert worst_window(world.log, 1 / per_second - 1e-6) == 1
    assert len(world.log) == len(asks)
    longest = max(asks) / SECOND + (len(asks) + len(crashes)) / per_second
    assert max(seen.at for seen in world.log) <= START + (longest + 1) * SECOND


@pytest.mark.parametrize("per_second", [1, 10, 50, 200, 1_000])
def test_a_pace_is_kept_up_to_however_long_calls_take_to_leave(per_second: int) -> None:
    late = Trip(to_send=SECOND // 5)  # a commit, a new connection
    calls = 20 * per_second
    world = World(paced(per_second), [Asked(0, call % 3, REQUEST, late) for call in range(calls)], audited=False).run()
    first, last = world.granted[0][0], world.granted[-1][0]
    assert (calls - 1) * SECOND / (last - first) >= 0.98 * per_second


def test_steps_below_a_hundredth_of_a_second_are_taken_together_and_even_over_any_longer_time() -> None:
    world = World(paced(1_000), [Asked(0, call % 3, REQUEST) for call in range(2_000)]).run()
    assert worst_window(world.log, 0.01) <= 2 * 10
    assert worst_window(world.log, 1) <= 1_000 + 10
    assert max(seen.at for seen in world.log) <= START + 2 * SECOND
    assert world.wakeups < 1_000, "one for each call would be a decision and a commit for each"


def test_polls_and_leads_of_all_teamspaces_take_turns_at_a_pace() -> None:
    snov = account(*SNOV, pace_per_second=1)
    asking(snov, *range(16), cost=LEAD)
    asking(snov, *range(100, 103), teamspace=B)
    granted = [call for second in range(20) for call in leaving(snov, second)]
    assert granted == [0, 100, 101, 102, *range(1, 15)], "a poll costs a quarter of a lead; the last lead has no minute"
    asking(snov, 200, teamspace=B)
    assert leaving(snov, 20) == [200], "it takes nothing that the lead waits for"


def test_who_waits_for_the_pace_is_told_of_it() -> None:
    api = paced(0.5)
    asking(api, 1, 2)
    assert leaving(api, 0) == [1]
    assert api.binding(A, instant(0.5)) == Wait(JobReason.LIMIT, instant(2), {"pace_per_second": 0.5})
    assert api.next_deadline(instant(0.5)) == instant(2)
    assert api.state(instant(1)).pace_per_second == 0.5
    assert api.grants(instant(1.999999)) == []
    assert api.grants(instant(2)) == [2]


@pytest.mark.parametrize(("before", "after", "due"), [(0.01, 4, 0.25), (4, 0.5, 2), (None, 0.5, 2)])
def test_another_pace_binds_from_the_last_call_on(before: float | None, after: float, due: float) -> None:
    api = account(pace_per_second=before)
    asking(api, 1)
    assert leaving(api, 0) == [1]
    api.judge(flight_seconds=5, failed_count=True, interactive_share=0, pace_per_second=after)
    asking(api, 2, 3)
    assert api.next_deadline(instant(0.1)) == instant(due)
    assert [leaving(api, at) for at in (due - 0.000001, due, 2 * due)] == [[], [2], [3]]


def test_a_pace_that_is_taken_away_keeps_nobody_any_more() -> None:
    api = paced(0.5)
    asking(api, 1, 2, 3)
    assert leaving(api, 0) == [1]
    api.judge(flight_seconds=5, failed_count=True, interactive_share=0, pace_per_second=None)
    assert leaving(api, 0) == [2, 3]


def test_nobody_goes_before_a_call_that_is_held_has_gone_or_never_will() -> None:
    api = paced(1)
    asking(api, 1, 2, 3)
    assert api.grants(instant(0)) == [1]
    api.hold(CallId(1))
    assert api.grants(instant(5)) == []
    assert api.next_deadline(instant(5)) is None, "what comes next is told, not waited for"
    assert api.binding(A, instant(5)) == Wait(JobReason.LIMIT, None, {"pace_per_second": 1})
    api.withdraw(CallId(1))
    assert api.grants(instant(5)) == [2], "it has cost nothing"
    api.hold(CallId(2))
    assert api.let_go(CallId(2), instant(6))
    assert api.next_deadline(instant(6)) == instant(7)
    assert [api.grants(instant(second)) for second in (6.5, 7)] == [[], [3]]


# --- limits that change, costs that never fit


def test_15_to_60_in_the_middle_binds_from_the_next_call() -> None:
    world = World(account(WindowLimit(15, 60)), [Asked(0, 1, REQUEST)] * 200)
    for at, amount in ((30, 60), (100, 15)):
        limits = [WindowLimit(amount, 60)]
        world.at(at * SECOND, lambda limits=limits: world.account.replace_limits(limits, Instant(world.now)))  # type: ignore[misc]
    world.run(until=30 * SECOND)
    assert [at for at, _ in world.granted] == [START] * 15 + [START + 30 * SECOND] * 45
    world.run()
    assert worst_window(world.log, 60) == 60
    assert worst_window([seen for seen in world.log if seen.at >= START + 100 * SECOND], 60) == 15


def test_a_cost_above_the_limit_is_told_so_at_once() -> None:
    snov = account(*SNOV)
    answer = snov.ask(CallId(1), teamspace=A, order=0, cost=Cost(request=1, lead=16))
    assert answer == NeverFits(SNOV[1], Cost(request=1, lead=16))
    assert snov.grants(instant(0)) == []
    assert snov.replace_limits([WindowLimit(20, 60, Unit.LEAD)], instant(0)) == []
    asking(snov, 2, cost=Cost(request=1, lead=16))
    assert snov.replace_limits(SNOV, instant(0)) == [2], "a lowered limit says so of those that wait"
    assert snov.waiting(A) == 0
    snov.check()


# --- throttled


def test_retry_after_stops_everyone_until_then_and_exactly_one_canary_goes() -> None:
    api = flying(1, 2, 3)
    asking(api, 4, 5)
    asking(api, 6, teamspace=B)
    api.throttled(CallId(1), instant(30), instant(1))
    assert api.grants(instant(2)) == []
    assert api.next_deadline(instant(2)) == instant(30)
    assert api.grants(instant(29.999999)) == []
    assert api.grants(instant(30)) == [4]
    assert api.grants(instant(31)) == []
    assert api.next_deadline(instant(31)) is None
    api.ended(CallId(2), instant(31))
    assert api.grants(instant(31)) == [], "an old call's good answer says nothing about now"
    api.sent(CallId(4), instant(31))
    api.response_began(CallId(4), instant(32))
    assert api.grants(instant(32)) == [], "its body may still say no"
    api.ended(CallId(4), instant(33))
    assert api.grants(instant(33)) == [6, 5]
    assert api.standing is FLOWING
    api.check()


def test_without_a_hint_it_waits_1_second_and_twice_as_long_each_time_up_to_5_minutes() -> None:
    api = flying(1)
    api.throttled(CallId(1), None, instant(0))
    now, waits = 0.0, []
    for call in range(2, 14):
        asking(api, call)
        at = api.next_deadline(instant(now))
        assert at is not None
        waits.append((at - instant(now)) // SECOND)
        now += waits[-1]
        assert api.grants(instant(now)) == [call]
        api.sent(CallId(call), instant(now))
        api.throttled(CallId(call), None, instant(now))
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    api.check()


@pytest.mark.parametrize(
    ("hint", "until"),
    [(None, 11), (-5.0, 11), (10.0, 11), (10.000001, 10.000001), (600.0, 600), (10 + 86_400.0, 86_410), (1e9, 86_410)],
)
def test_hints_are_bounded(hint: float | None, until: float) -> None:
    api = flying(1)
    api.throttled(CallId(1), None if hint is None else instant(hint), instant(10))
    assert api.standing.throttled_until == instant(until)


def test_calls_thrown_back_together_are_one_refusal_and_a_later_hint_counts() -> None:
    api = flying(*range(10))
    for call in range(9):
        api.throttled(CallId(call), None, instant(0.1 * call))
    assert api.standing == Standing(throttled_until=instant(1), refusals=1)
    api.throttled(CallId(9), instant(20), instant(0.9))
    assert api.standing == Standing(throttled_until=instant(20), refusals=1, hinted=True)


def test_a_hint_that_proves_too_short_gives_way_to_the_backoff() -> None:
    api = flying(1)
    now = 0.0
    for call in range(1, 6):
        api.throttled(CallId(call), instant(now + 1), instant(now))
        asking(api, call + 1)
        until = api.standing.throttled_until
        assert until == instant(now + 2 ** (call - 1))
        now += 2 ** (call - 1)
        assert api.grants(Instant(until)) == [call + 1]
        api.sent(CallId(call + 1), Instant(until))


@pytest.mark.parametrize("how", ["withdrawn", "lost", "failed"])
def test_a_canary_that_brings_no_good_answer_is_followed_by_another(how: str) -> None:
    api = flying(1)
    asking(api, 2, 3, 4)
    api.throttled(CallId(1), None, instant(0))
    assert api.grants(instant(1)) == [2]
    if how == "withdrawn":
        api.withdraw(CallId(2))
    else:
        api.sent(CallId(2), instant(1))
        if how == "failed":
            api.response_began(CallId(2), instant(2))
        api.ended(CallId(2), instant(2), failed=True)
    assert api.grants(instant(2)) == [3]
    assert api.grants(instant(2)) == []
    api.check()


def test_a_granted_call_that_is_not_sent_yet_stays_at_home_when_the_account_stops() -> None:
    api = flying(1)
    asking(api, 2, 3)
    assert api.grants(instant(0)) == [2, 3]
    assert api.may_send(CallId(2), instant(0))
    api.throttled(CallId(1), instant(5), instant(0))
    assert not api.may_send(CallId(2), instant(0))
    assert not api.may_send(CallId(2), instant(6)), "nor as a second canary"
    api.withdraw(CallId(2))
    api.withdraw(CallId(3))
    asking(api, 4)
    assert api.grants(instant(6)) == [4]
    assert api.may_send(CallId(4), instant(6))
    api.pause(paused=True)
    assert not api.may_send(CallId(4), instant(6))
    api.check()


def test_a_withdrawn_grant_costs_nothing() -> None:
    api = account(WindowLimit(1, 60))
    asking(api, 1, 2)
    assert api.grants(instant(0)) == [1]
    api.sent(CallId(1), instant(0))
    api.withdraw(CallId(1))
    assert api.grants(instant(0)) == [2]
    api.check()


# --- parked, paused


def test_a_parked_account_waits_for_its_time_and_comes_back_with_a_canary() -> None:
    api = flying(1)
    asking(api, 2, 3)
    api.ended(CallId(1), instant(0), failed=True)
    api.park(JobReason.CREDITS, instant(3_600))
    assert api.grants(instant(1)) == []
    assert api.binding(A, instant(1)) == Wait(JobReason.CREDITS, instant(3_600))
    assert api.next_deadline(instant(1)) == instant(3_600)
    assert api.grants(instant(3_600)) == [2]
    assert api.grants(instant(3_600)) == []
    api.ended(CallId(2), instant(3_601))
    assert api.grants(instant(3_601)) == [3]
    api.check()


def test_a_parked_account_waits_for_a_person() -> None:
    api = flying(1)
    asking(api, 2)
    api.park(JobReason.INVALID_KEY, None)
    api.ended(CallId(1), instant(1))
    assert api.grants(instant(10**6)) == []
    assert api.next_deadline(instant(10**6)) is None
    api.pause(paused=False)
    assert api.grants(instant(10**6)) == [2]
    api.check()


def test_a_good_answer_of_a_canary_does_not_undo_a_parking() -> None:
    api = flying(1, 2)
    asking(api, 3, 4)
    api.throttled(CallId(1), None, instant(0))
    assert api.grants(instant(1)) == [3]
    api.ended(CallId(2), instant(1), failed=True)
    api.park(JobReason.QUOTA, None)
    api.ended(CallId(3), instant(2))
    assert api.grants(instant(2)) == []
    api.check()


def test_a_paused_account_stands_still_and_keeps_its_line() -> None:
    api = account()
    asking(api, 1, 2)
    api.pause(paused=True)
    assert api.grants(instant(0)) == []
    assert api.binding(A, instant(0)) == Wait(JobReason.PAUSED)
    api.pause(paused=False)
    assert api.grants(instant(1)) == [1, 2]


# --- why


def test_why_names_every_blocker_with_its_numbers_longest_first() -> None:
    api = ProviderAccount(
        AccountName("x"),
        [WindowLimit(1, 60), DailyLimit(1)],
        next_reset=lambda _, after: Instant(after + 9_000 * SECOND),
    )
    asking(api, 1, 2)
    assert api.binding(B, instant(0)) is None
    assert api.grants(instant(0)) == [1]
    api.sent(CallId(1), instant(0))
    api.response_began(CallId(1), instant(1))
    api.throttled(CallId(1), instant(100), instant(2))
    assert [(wait.reason, wait.until) for wait in api.waits(A, instant(3))] == [
        (JobReason.DAILY_CAP, instant(9_001)),
        (JobReason.RETRY_AFTER, instant(100)),
        (JobReason.LIMIT, instant(61)),
    ]
    numbers = api.waits(A, instant(3))[2].numbers
    assert numbers == {"amount": 1, "charged": 1, "cost": 1, "unit": "request", "per_seconds": 60}
    api.pause(paused=True)
    binding = api.binding(A, instant(3))
    assert binding is not None
    assert binding.reason is JobReason.PAUSED


def test_who_only_waits_for_its_turn_is_told_what_the_head_waits_for() -> None:
    api = account(WindowLimit(10, 60))
    asking(api, 1, cost=Cost(request=4))
    assert api.grants(instant(0)) == [1]
    asking(api, 2, cost=Cost(request=10))
    asking(api, 3, teamspace=B)
    assert api.grants(instant(0)) == []
    binding = api.binding(B, instant(0))
    assert binding is not None
    assert binding.reason is JobReason.LIMIT
    assert binding.numbers["cost"] == 10


def test_a_half_open_account_says_circuit() -> None:
    api = flying(1)
    asking(api, 2, 3)
    api.throttled(CallId(1), None, instant(0))
    assert api.binding(A, instant(0)) == Wait(JobReason.CIRCUIT, instant(1), {"refusals": 1})
    assert api.grants(instant(1)) == [2]
    assert api.binding(A, instant(1)) == Wait(JobReason.CIRCUIT, None, {"refusals": 1})


def test_a_listing_shows_what_is_charged_and_who_waits() -> None:
    snov = account(*SNOV)
    asking(snov, *range(20), cost=LEAD)
    snov.grants(instant(0))
    state = snov.state(instant(0))
    assert [(limit.charged, limit.free) for limit in state.limits] == [(15, 45), (15, 0)]
    assert (state.waiting, state.in_flight, state.paused, state.standing) == (5, 15, False, FLOWING)
    assert snov.cost_of(CallId(0)) == snov.cost_of(CallId(19)) == LEAD


# --- restart


def test_a_throttled_account_is_throttled_after_a_restart() -> None:
    api = flying(1)
    api.throttled(CallId(1), instant(60), instant(0))
    after = account()
    after.restore([], api.snapshot(instant(1)), instant(10))
    asking(after, 2, 3)
    assert after.grants(instant(59)) == []
    assert after.grants(instant(60)) == [2]
    assert after.grants(instant(60)) == []
    after.check()


def test_a_snapshot_of_an_account_that_flows_restores_one_that_flows() -> None:
    after = account(WindowLimit(1, 60))
    past = [PastCall(CallId(1), REQUEST, instant(0), instant(1))]
    after.restore(past, Snapshot(Standing(), {}, instant(2)), instant(3))
    assert after.standing is FLOWING
    asking(after, 2)
    assert after.grants(instant(3)) == []
    assert after.grants(instant(61)) == [2]


@settings(max_examples=40)
@given(crashes=st.lists(st.integers(0, 300 * SECOND), max_size=6), latency=st.sampled_from([0, SECOND, 8 * SECOND]))
def test_15_leads_a_minute_stay_15_however_often_the_daemon_dies(crashes: list[int], latency: int) -> None:
    trip = Trip(to_send=50_000, to_arrival=min(latency, 4 * SECOND), to_answer=latency // 2)
    world = World(account(*SNOV), [Asked(0, call % 3, LEAD, trip) for call in range(60)])
    for crash in crashes:
        world.at(crash, lambda: world.crash(lambda: account(*SNOV)))
    world.run()
    assert worst_window(world.log, 60, Unit.LEAD) <= 15
    assert worst_window(world.log, 60) <= 60
    assert len(world.granted) == 60


# --- the database


def test_a_small_job_has_a_fifth_of_the_database_beside_any_number_of_large_ones() -> None:
    bulk = [Asked(0, teamspace, Cost(record=1_000), Trip(to_answer=0)) for teamspace in range(1, 21) for _ in range(40)]
    small = [Asked(60 * SECOND, 99, Cost(record=1_000), Trip(to_answer=0), interactive=True)] * 5
    limits = BucketLimit(1_000_000, 3_600, burst=16_667)
    world = World(account(limits, interactive_share=0.2), bulk + small).run(until=600 * SECOND)
    assert max(world.seconds_of(99)) - 60 <= 5_000 / (0.2 * 1_000_000 / 3_600) + 2 * 3.6
    without = World(account(limits), bulk + small).run(until=600 * SECOND)
    assert max(without.seconds_of(99)) - 60 > 300, "the negative control"


def test_a_small_job_alone_finishes_at_once_and_large_ones_alone_have_everything() -> None:
    limits = BucketLimit(1_000_000, 3_600, burst=16_667)
    small = [Asked(0, 1, Cost(record=1_000), Trip(to_answer=0), interactive=True)] * 5
    assert max(World(account(limits, interactive_share=0.2), small).run().seconds_of(1)) < 2
    bulk = [Asked(0, 1, Cost(record=1_000), Trip(to_answer=0))] * 100
    done = max(World(account(limits, interactive_share=0.2), bulk).run().seconds_of(1))
    assert done == pytest.approx((100_000 - 16_667) * 3.6 / 1_000, abs=0.001)


def test_under_a_full_backlog_an_hour_holds_a_million_records_and_the_burst_and_small_jobs_have_their_share() -> None:
    hour = 3_600 * SECOND
    bulk = [Asked(0, 1 + call % 20, Cost(record=1_000), Trip(to_answer=0)) for call in range(3_000)]
    small = [
        Asked(at, 99, Cost(record=1_000), Trip(to_answer=0), interactive=True)
        for at in range(600 * SECOND, hour, 600 * SECOND)
        for _ in range(5)
    ]
    limits = BucketLimit(1_000_000, 3_600, burst=16_667)
    world = World(account(limits, interactive_share=0.2), bulk + small, audited=False).run(until=2 * hour)
    assert 1_000_000 <= worst_window(world.log, 3_600, Unit.RECORD) <= 1_016_667
    assert sum(seen.cost.record for seen in world.log) >= 2_000_000, "nothing is left unused"
    for first in range(0, len(small), 5):
        asked = small[first].at / SECOND
        done = max(each for each in world.seconds_of(99)[first : first + 5])
        assert done - asked <= 5_000 / (0.2 * 1_000_000 / 3_600) + 2 * 3.6


# --- many


def test_ten_thousand_teamspaces_each_get_their_turn() -> None:
    asked = [Asked(0, teamspace, REQUEST, Trip(to_answer=0)) for teamspace in range(10_000)]
    crowd = account(WindowLimit(5_000, 10), ConcurrentLimit(100_000))
    for call, ask in enumerate(asked):
        crowd.ask(CallId(call), teamspace=TeamspaceId(ask.teamspace), order=call, cost=ask.cost)
    assert crowd.grants(instant(0)) == list(range(5_000))
    for call in range(5_000):
        crowd.sent(CallId(call), instant(0))
        crowd.response_began(CallId(call), instant(0))
        crowd.ended(CallId(call), instant(0))
    assert crowd.next_deadline(instant(1)) == instant(10)
    assert crowd.grants(instant(10)) == list(range(5_000, 10_000))
    crowd.check()
