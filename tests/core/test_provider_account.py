"""One provider account: limits that change, what is told of it, and what outlives a restart."""

from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.core.model import Wait
from leadline.core.provider_account import FLOWING, NeverFits, ProviderAccount, Snapshot, Standing
from leadline.core.rate_limit import (
    Cost,
    DailyLimit,
    PastCall,
    Unit,
    WindowLimit,
)
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant
from tests.core.accounts import LEAD, REQUEST, SNOV, A, B, account, asking, flying, instant
from tests.core.provider_side import SECOND, START, Asked, Trip, World, worst_window

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
