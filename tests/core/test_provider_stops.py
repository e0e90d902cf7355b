"""Accounts that are throttled, parked or paused: who calls, and when."""

import pytest

from leadline.core.model import Wait
from leadline.core.provider_account import FLOWING, Standing
from leadline.core.rate_limit import (
    WindowLimit,
)
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import CallId, Instant
from tests.core.accounts import A, B, account, asking, flying, instant
from tests.core.provider_side import SECOND

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
