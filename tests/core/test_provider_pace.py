"""Calls that are spread evenly, on virtual time against the provider's log."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.core.model import Wait
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import CallId
from tests.core.accounts import LEAD, REQUEST, SNOV, A, B, account, asking, instant, leaving, paced
from tests.core.provider_side import SECOND, START, Asked, Trip, World, worst_window


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
