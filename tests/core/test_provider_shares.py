"""Whose turn it is at a provider, and what everybody gets of it, on virtual time against the provider's log."""

from collections import Counter
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from leadline.core.rate_limit import (
    BucketLimit,
    ConcurrentLimit,
    Cost,
    RateLimiter,
    Unit,
    WindowLimit,
)
from leadline_protocol.ids import CallId, Instant, TeamspaceId
from tests.core.accounts import LEAD, REQUEST, SNOV, A, B, account, asking, instant
from tests.core.provider_side import SECOND, START, Asked, Trip, World, worst_window


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
