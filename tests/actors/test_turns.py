"""Whoever wants little does not wait behind those that want much, and nobody waits for ever."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from leadline.actors.turns import TURN_COST, FairLine, Turns


def test_one_that_wants_little_goes_before_all_that_flood() -> None:
    line: FairLine[str] = FairLine()
    for turn in range(10):
        for flooder in range(1_000):
            line.put(flooder, 256, f"{flooder}: {turn}")
    for _ in range(1_500):
        line.take()
    line.put("patient", 1, "patient")
    assert line.take() == "patient"


def test_two_that_flood_get_the_same_whatever_the_size_of_their_pieces() -> None:
    line: FairLine[tuple[str, int]] = FairLine()
    for _ in range(100):
        line.put("a", 10, ("a", 10))
    for _ in range(1_000):
        line.put("b", 1, ("b", 1))
    given_to: Counter[str] = Counter()
    for _ in range(550):
        name, cost = line.take()
        given_to[name] += cost
    assert abs(given_to["a"] - given_to["b"]) <= 10


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(1, 50)), max_size=200))
def test_nothing_is_lost_and_what_one_source_sends_keeps_its_order(steps: list[tuple[bool, int, int]]) -> None:
    line: FairLine[tuple[int, int]] = FairLine()
    put: dict[int, list[int]] = {}
    taken: dict[int, list[int]] = {}
    for number, (is_put, source, cost) in enumerate(steps):
        if is_put or not line:
            line.put(source, cost, (source, number))
            put.setdefault(source, []).append(number)
        else:
            first = line.first()
            found, at = line.take()
            assert (found, at) == first
            taken.setdefault(found, []).append(at)
    while line:
        found, at = line.take()
        taken.setdefault(found, []).append(at)
    assert taken == put


def test_those_that_come_and_go_with_little_do_not_starve_one_that_sends_without_end() -> None:
    line: FairLine[str] = FairLine()
    for _ in range(10):
        line.put("flood", 256, "flood")
    for source in range(100):
        line.put(source, 1, f"{source}")
    taken: Counter[str] = Counter()
    for _ in range(100 * 256 * 2):
        item = line.take()
        taken[item] += 1
        line.put("flood" if item == "flood" else int(item), 256 if item == "flood" else 1, item)
    assert taken["flood"] >= 2


def test_sources_that_are_gone_are_forgotten() -> None:
    line: FairLine[int] = FairLine()
    line.put("flood", 1, 0)
    for source in range(10_000):
        line.put("flood", 1, 0)
        line.put(source, 1, source)
        line.take()
        line.take()
    assert len(line._clocks) < 1_000


async def test_the_loop_is_free_again_after_each_turn_and_a_small_wish_is_met_in_the_next() -> None:
    turns = Turns()
    order: list[str] = []
    for number in range(100):
        turns.ask(number, TURN_COST, lambda number=number: order.append(f"flood {number}"))  # type: ignore[misc]
    assert order == ["flood 0"], "the rest has to wait"
    await asyncio.sleep(0)
    turns.ask("patient", 100, lambda: order.append("patient"))
    await asyncio.sleep(0)
    assert "patient" in order[:4]
    while len(order) < 101:
        await asyncio.sleep(0)


async def test_where_nobody_waits_a_turn_comes_at_once() -> None:
    turns = Turns()
    met: list[int] = []
    for number in range(3):
        turns.ask(number, 1, lambda number=number: met.append(number))  # type: ignore[misc]
    assert met == [0, 1, 2]
