"""Turns where calls wait for different things: in each lane fair shares hold, whatever passes whom in the others."""

from collections import defaultdict
from itertools import count
from typing import Any, Protocol

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from leadline.core.turns import Turns
from leadline_protocol.ids import CallId

ROUNDING = 1e-9
LANES = 3


class Player(Struct, frozen=True):
    """A key, the lanes in which it always has something waiting, and what its calls cost in each."""

    weight: float
    since: int
    """The turn at which it comes."""
    costs: tuple[int, ...]
    """By lane; 0: it does not wait there."""


players = st.lists(
    st.builds(
        Player,
        weight=st.sampled_from([0.5, 1.0, 3.0]),
        since=st.sampled_from([0, 0, 0, 20, 60]),
        costs=st.tuples(*[st.sampled_from([0, 1, 2, 7])] * LANES),
    ),
    min_size=2,
    max_size=6,
)


class Game(Struct, frozen=True):
    """Who plays, and whose head goes at each turn: the first that fits, and which fits is up to the limits."""

    players: tuple[Player, ...]
    goes: tuple[int, ...]


games = st.builds(
    Game,
    players=players.map(tuple),
    goes=st.lists(st.sampled_from([0, 0, 1, 2]), min_size=60, max_size=160).map(tuple),
)


class Line(Protocol):
    """Whose turn it is, by any rule."""

    def add(self, call: CallId, key: int, *, order: int, weight: float, lane: int) -> None: ...
    def heads(self) -> list[CallId]: ...
    def take(self, call: CallId, key: int, units: float) -> Any: ...


def furthest_apart(game: Game, line: Line) -> float:
    """How far any two keys that wait in a lane throughout have been apart in it, beyond a call each; below 0: never."""
    numbers = map(CallId, count())
    calls: dict[CallId, tuple[int, int]] = {}
    done: dict[tuple[int, int], float] = defaultdict(float)
    spans: dict[tuple[int, int, int], tuple[float, float]] = {}
    worst = -1.0

    def ask(key: int, lane: int) -> None:
        call = next(numbers)
        calls[call] = (key, lane)
        line.add(call, key, order=0, weight=game.players[key].weight, lane=lane)

    for turn, which in enumerate(game.goes):
        for key, player in enumerate(game.players):
            if player.since == turn:
                for lane, cost in enumerate(player.costs):
                    if cost:
                        ask(key, lane)
                        ask(key, lane)
        heads = line.heads()
        if not heads:
            continue
        call = heads[which % len(heads)]
        key, lane = calls[call]
        cost = game.players[key].costs[lane]
        line.take(call, key, cost)
        done[key, lane] += cost
        ask(key, lane)
        for a, first in enumerate(game.players):
            for b, second in enumerate(game.players[:a]):
                for each in range(LANES):
                    if first.costs[each] and second.costs[each] and max(first.since, second.since) <= turn:
                        apart = done[a, each] / first.weight - done[b, each] / second.weight
                        begun = done_at_start(spans, (a, b, each), apart, key, lane, (a, b), cost, game)
                        low, high = min(begun[0], apart), max(begun[1], apart)
                        spans[a, b, each] = low, high
                        bound = first.costs[each] / first.weight + second.costs[each] / second.weight
                        worst = max(worst, high - low - bound)
    return worst


def done_at_start(
    spans: dict[tuple[int, int, int], tuple[float, float]],
    place: tuple[int, int, int],
    apart: float,
    key: int,
    lane: int,
    pair: tuple[int, int],
    cost: int,
    game: Game,
) -> tuple[float, float]:
    """The span so far; for a pair that has just come together, where it stood before this very call."""
    if place in spans:
        return spans[place]
    before = apart
    if lane == place[2] and key in pair:
        step = cost / game.players[key].weight
        before -= step if key == pair[0] else -step
    return before, before


@settings(max_examples=300)
@given(game=games)
def test_in_a_lane_two_that_wait_throughout_are_never_further_apart_than_a_call_each(game: Game) -> None:
    """At every instant, with calls of other lanes passing as they like, and others coming at any time."""
    turns: Turns[int] = Turns(lag_max=1.0)
    assert furthest_apart(game, turns) <= ROUNDING
    turns.check()


class OneClock:
    """One clock for each key over all lanes, pushed forward where it has fallen behind: simpler, and wrong."""

    def __init__(self, lag_max: float) -> None:
        self.lag_max = lag_max
        self.virtual = 0.0
        self.clocks: dict[int, float] = {}
        self.weights: dict[int, float] = {}
        self.waiting: list[tuple[CallId, int, int]] = []

    def add(self, call: CallId, key: int, *, order: int, weight: float, lane: int) -> None:
        del order
        if not any(known == key for _, known, _ in self.waiting):
            self.clocks[key] = max(self.clocks.get(key, 0.0), self.virtual)
        self.weights[key] = weight
        self.waiting.append((call, key, lane))

    def take(self, call: CallId, key: int, units: float) -> None:
        start = max(self.clocks[key], self.virtual - self.lag_max)
        self.virtual = max(self.virtual, start)
        self.clocks[key] = start + units / self.weights[key]
        self.waiting = [entry for entry in self.waiting if entry[0] != call]

    def heads(self) -> list[CallId]:
        first: dict[int, tuple[float, CallId]] = {}
        for call, key, lane in self.waiting:
            first[lane] = min(first.get(lane, (float("inf"), call)), (self.clocks[key], call))
        return [call for _, call in sorted(first.values())]


@pytest.mark.parametrize("lag_max", [1.0, float("inf")])
def test_with_one_clock_over_all_lanes_it_would_not_be_so(lag_max: float) -> None:
    """The negative control: with debts that are bounded, and without a bound for whoever comes later."""
    found = find(
        games,
        lambda game: furthest_apart(game, OneClock(lag_max)) > ROUNDING,
        settings=settings(max_examples=5_000, database=None, derandomize=True, phases=[Phase.generate]),
    )
    assert furthest_apart(found, Turns(lag_max=1.0)) <= ROUNDING


def test_a_lane_that_was_passed_for_long_makes_up_for_one_limit_at_most() -> None:
    turns: Turns[str] = Turns(lag_max=10.0)
    numbers = map(CallId, count())
    key_of = {}
    for _ in range(2_000):
        for lane, key in ((1, "slow"), (2, "quick")):
            call = next(numbers)
            key_of[call] = key
            turns.add(call, key, order=0, lane=lane)
    turns.take(turns.heads()[0], "slow", 1)
    for _ in range(1_000):
        call = next(each for each in turns.heads() if key_of[each] == "quick")
        turns.take(call, "quick", 1)
    row = 0
    while key_of[turns.heads()[0]] == "slow":
        turns.take(turns.heads()[0], "slow", 1)
        row += 1
    assert 10 <= row <= 12, "about ten units, not the thousand that went by"


def test_what_lanes_compete_for_is_shared_by_keys_and_not_by_lanes() -> None:
    turns: Turns[int] = Turns(lag_max=1.0)
    lane_of = {}
    for call in map(CallId, range(6_000)):
        lane_of[call] = int(call % 6 == 5)
        turns.add(call, call % 6, order=0, lane=lane_of[call])
    taken = []
    for _ in range(600):
        call = turns.heads()[0]
        taken.append(lane_of[call])
        turns.take(call, call % 6, 1)
    assert abs(sum(taken) - 100) <= 1, "one key of six"


def test_a_call_that_did_not_go_costs_its_key_no_turn() -> None:
    turns: Turns[str] = Turns(lag_max=1.0)
    for call, key in enumerate("abababab"):
        turns.add(CallId(call), key, order=0)
    turn = turns.take(CallId(0), "a", 3)
    turns.give_back(turn)
    taken = []
    while len(turns):
        taken += turns.heads()
        turns.take(taken[-1], "ab"[taken[-1] % 2], 1)
    assert taken == [1, 2, 3, 4, 5, 6, 7], "otherwise b would be three calls ahead"
