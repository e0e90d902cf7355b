"""Fair shares: bounds on what any two keys may differ, and a naive model that scans everybody for whose turn it is."""

import random
import sys
from collections import defaultdict
from itertools import count
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from leadline.core.fair_share import FairShare
from leadline_protocol.ids import CallId

ROUNDING = 1e-9


class Rival(Struct, frozen=True):
    """A key that always has something waiting, and the costs of its calls, over and over."""

    weight: float
    costs: tuple[int, ...]


rivals = st.builds(
    Rival,
    weight=st.sampled_from([0.5, 1.0, 2.0, 3.0, 10.0]),
    costs=st.lists(st.integers(1, 40), min_size=1, max_size=5).map(tuple),
)


@settings(max_examples=150)
@given(
    players=st.lists(rivals, min_size=2, max_size=5),
    others=st.lists(st.integers(0, 40), max_size=40),
    returns=st.lists(st.tuples(st.integers(0, 149), st.integers(1, 9)), max_size=5).map(dict),
)
def test_two_keys_that_wait_throughout_never_differ_by_more_than_a_call_each(
    players: list[Rival], others: list[int], returns: dict[int, int]
) -> None:
    """In any stretch of the history in which neither gives a call back, while other keys come, go and do so."""
    fair: FairShare[int] = FairShare()
    numbers = map(CallId, count())
    cost: dict[CallId, tuple[int, int]] = {}
    done = [0] * len(players)
    taken: list[tuple[int, float]] = []

    def ask(key: int) -> None:
        call = next(numbers)
        if key < len(players):
            costs = players[key].costs
            cost[call] = (key, costs[call % len(costs)])
            fair.add(call, key, order=0, weight=players[key].weight)
        else:
            cost[call] = (key, 7)
            fair.add(call, key, order=0)

    for key in range(len(players)):
        ask(key)
    span: dict[tuple[int, int], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for turn in range(150):
        if turn < len(others):
            ask(100 + others[turn])
        _, call = fair.head()
        key, units = cost[call]
        taken.append((key, fair.take(call, units)))
        if key < len(players):
            done[key] += units
            ask(key)
        returned = set()
        for _ in range(min(returns.get(turn, 0), len(taken))):
            key, advance = taken.pop()
            fair.give_back(key, advance)
            returned.add(key)
        for a, first in enumerate(players):
            for b, second in enumerate(players[:a]):
                apart = done[a] / first.weight - done[b] / second.weight
                low, high = span[a, b] if returned.isdisjoint((a, b)) else (apart, apart)
                span[a, b] = low, high = min(low, apart), max(high, apart)
                bound = max(first.costs) / first.weight + max(second.costs) / second.weight
                assert high - low <= bound + ROUNDING
    fair.check()


# --- whose turn it is, by looking at everybody


class Naive:
    """The same rules without any cleverness: a list of everything that waits."""

    def __init__(self, reserve: float) -> None:
        self.ratio = reserve / (1 - reserve)
        self.virtual = 0.0
        self.clocks: dict[str, float] = {}
        self.weights: dict[str, float] = {}
        self.waiting: list[tuple[CallId, str, int]] = []

    def waits(self, key: str) -> bool:
        return any(known == key for _, known, _ in self.waiting)

    def add(self, call: CallId, key: str, order: int, weight: float) -> None:
        if not self.waits(key):
            self.clocks[key] = max(self.clocks.get(key, 0.0), self.virtual)
        self.weights[key] = weight
        self.waiting.append((call, key, order))

    def remove(self, call: CallId) -> None:
        self.waiting = [entry for entry in self.waiting if entry[0] != call]
        if not self.waiting:
            self.clocks.clear()
            self.virtual = 0.0

    def take(self, call: CallId, units: float) -> float:
        key = next(key for known, key, _ in self.waiting if known == call)
        self.virtual = max(self.virtual, self.clocks[key])
        keys = {key for _, key, _ in self.waiting}
        boost = 1.0
        if key.isupper():
            reserved = sum(self.weights[key] for key in sorted(keys) if key.isupper())
            others = sum(self.weights[key] for key in sorted(keys) if not key.isupper())
            boost = max(1.0, self.ratio * others / reserved)
        advance = units / (self.weights[key] * boost)
        self.clocks[key] += advance
        self.remove(call)
        return advance

    def give_back(self, key: str, advance: float) -> None:
        if key in self.clocks:
            self.clocks[key] = max(self.virtual, self.clocks[key] - advance)

    def head(self) -> tuple[int, CallId]:
        _, order, call = min((self.clocks[key], order, call) for call, key, order in self.waiting)
        return order, call

    def line(self) -> list[str]:
        """The keys that wait, in the order of their next calls."""
        turns = sorted((self.clocks[key], order, call, key) for call, key, order in self.waiting)
        return list(dict.fromkeys(key for *_, key in turns))


class Move(Struct, frozen=True):
    """Something happens to some call."""

    action: str
    key: str
    number: int
    weight: float


moves = st.lists(
    st.builds(
        Move,
        action=st.sampled_from(["add", "add", "add", "take", "take", "remove", "give back", "weigh"]),
        key=st.sampled_from("abcXY"),
        number=st.integers(0, 8),
        weight=st.sampled_from([1.0, 2.0, 0.25]),
    ),
    min_size=10,
    max_size=120,
)


@pytest.mark.parametrize("reserve", [0.0, 0.25])
@settings(max_examples=150)
@given(script=moves)
def test_whose_turn_it_is_is_what_a_look_at_everybody_says(reserve: float, script: list[Move]) -> None:
    fair: FairShare[str] = FairShare(reserve=reserve)
    naive = Naive(reserve)
    taken: list[tuple[str, float]] = []
    for number, move in enumerate(script):
        match move.action:
            case "add":
                call = CallId(number)
                fair.add(call, move.key, order=move.number, weight=move.weight, reserved=move.key.isupper())
                naive.add(call, move.key, move.number, move.weight)
            case "take" if naive.waiting:
                _, call = naive.head()
                key = next(key for known, key, _ in naive.waiting if known == call)
                advance = fair.take(call, move.number / 4)
                assert advance == naive.take(call, move.number / 4)
                taken.append((key, advance))
            case "remove" if naive.waiting:
                call = naive.waiting[move.number % len(naive.waiting)][0]
                fair.remove(call)
                naive.remove(call)
            case "give back" if taken:
                key, advance = taken.pop(move.number % len(taken))
                fair.give_back(key, advance)
                naive.give_back(key, advance)
            case "weigh" if naive.waits(move.key):
                fair.weigh(move.key, move.weight)
                naive.weights[move.key] = move.weight
        assert len(fair) == len(naive.waiting)
        if naive.waiting:
            assert fair.head() == naive.head()
        assert {key: fair.place(key) for key in naive.line()} == {
            key: place for place, key in enumerate(naive.line(), start=1)
        }
        for key in "abcXY":
            mine = [(order, call) for call, known, order in naive.waiting if known == key]
            assert fair.waiting(key) == len(mine)
            assert fair.first(key) == min(mine, default=None)
        fair.check()


# --- in words


def test_within_a_key_it_is_first_in_first_out_by_order_then_call() -> None:
    fair: FairShare[str] = FairShare()
    for call, order in ((1, 30), (2, 10), (3, 10), (4, 20)):
        fair.add(CallId(call), "a", order=order)
    taken = []
    while len(fair):
        taken.append(fair.head()[1])
        fair.take(taken[-1], 1)
    assert taken == [2, 3, 4, 1]


def test_a_call_that_is_given_back_is_charged_as_far_as_others_have_gone_meanwhile() -> None:
    """Somebody who came since would otherwise wait for what he had no part in."""
    fair: FairShare[str] = FairShare()
    for call, key in enumerate("aaaabbbb"):
        fair.add(CallId(call), key, order=0)
    advances = [fair.take(CallId(call), 1) for call in (0, 4, 1, 5)]
    fair.add(CallId(8), "c", order=9)
    fair.add(CallId(9), "c", order=9)
    for advance in advances[::2]:
        fair.give_back("a", advance)
    taken = []
    while len(fair):
        taken.append(fair.head()[1])
        fair.take(taken[-1], 1)
    assert taken == [2, 8, 3, 6, 9, 7], "a has its second turn again, and not its first"


def test_who_had_the_place_alone_owes_nothing_to_who_comes_later() -> None:
    fair: FairShare[str] = FairShare()
    numbers = map(CallId, count())
    for _ in range(1_000):
        fair.add(next(numbers), "early", order=0)
    for _ in range(900):
        fair.take(fair.head()[1], 1)
    late = [next(numbers) for _ in range(50)]
    for call in late:
        fair.add(call, "late", order=1)
    taken = []
    for _ in range(100):
        taken.append(fair.head()[1])
        fair.take(taken[-1], 1)
    assert len(set(taken) & set(late)) == 50


@pytest.mark.parametrize("others", [1, 4, 50])
def test_reserved_keys_have_their_part_while_they_wait_and_never_less_than_by_their_weight(others: int) -> None:
    fair: FairShare[str] = FairShare(reserve=0.2)
    numbers = map(CallId, count())
    cost = 5
    for key in range(others):
        for _ in range(1_100):
            fair.add(next(numbers), f"bulk {key}", order=0)
    mine = {next(numbers) for _ in range(1_100)}
    for call in mine:
        fair.add(call, "quick", order=9, reserved=True)
    taken = 0
    for _ in range(1_000):
        call = fair.head()[1]
        taken += call in mine
        fair.take(call, cost)
    assert taken == pytest.approx(1_000 * max(0.2, 1 / (others + 1)), abs=2)


def test_reserved_keys_that_do_not_wait_leave_everything_to_the_others() -> None:
    fair: FairShare[str] = FairShare(reserve=0.2)
    for call in range(100):
        fair.add(CallId(call), "ab"[call % 2], order=0)
    for _ in range(100):
        fair.take(fair.head()[1], 1)
    assert not len(fair)


def test_idle_keys_are_forgotten() -> None:
    """A hundred thousand teamspaces that each made one call are no burden while one goes on."""
    fair: FairShare[int] = FairShare()
    numbers = map(CallId, count())
    fair.add(next(numbers), -1, order=0)
    for key in range(5_000):
        fair.add(next(numbers), -1, order=0)
        fair.add(next(numbers), key, order=0)
        fair.take(fair.head()[1], 1)
        fair.take(fair.head()[1], 1)
    assert len(fair._flows) < 2_600
    fair.check()
    while len(fair):
        fair.take(fair.head()[1], 1)
    assert not fair._flows
    assert not fair._remembered


def test_calls_that_come_and_are_withdrawn_leave_nothing_behind() -> None:
    fair: FairShare[int] = FairShare()
    fair.add(CallId(0), 0, order=0)
    fair.add(CallId(1), 1, order=0)
    for call in range(2, 20_000):
        fair.add(CallId(call), call % 2, order=-call)
        fair.remove(CallId(call))
    assert len(fair._heap) < 100
    assert all(len(flow.calls) < 100 for flow in fair._flows.values())
    fair.check()


def steps_per_turn(keys: int) -> float:
    """Bytecodes executed in one turn (a look, a grant, a new call) while that many keys wait."""
    fair: FairShare[int] = FairShare()
    numbers = map(CallId, count())
    draw = random.Random(7)
    for key in range(keys):
        for _ in range(2):
            fair.add(next(numbers), key, order=draw.randrange(keys))
    steps = 0

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        for _ in range(500):
            fair.take(fair.head()[1], 1 / 15)
            fair.add(next(numbers), draw.randrange(keys), order=0)
    finally:
        sys.settrace(before)
    return steps / 500


def test_a_turn_costs_the_same_with_ten_thousand_keys_waiting_as_with_a_hundred() -> None:
    """Counted in steps, not in time; the heaps of the standard library do their O(log n) in C, beneath the count."""
    assert steps_per_turn(10_000) < 2 * steps_per_turn(100)
