"""Two chunks at a time are carried out, and stored one after the other; what fails takes nothing else along."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.features.tables import overlap
from leadline.features.tables.overlap import Turn, overlapped
from leadline.ports.store import Contended


class Bench:
    """Carries out chunks that take so many turns of the loop each, and keeps what happens."""

    def __init__(self, turns: Sequence[int]) -> None:
        self.turns = turns
        self.stored: list[int] = []
        self.under_way: set[int] = set()
        self.most = 0
        self._next = 0

    async def following(self) -> int | None:
        if self._next == len(self.turns):
            return None
        self._next += 1
        return self._next - 1

    async def carry_out(self, chunk: int, turn: Turn) -> None:
        self.under_way.add(chunk)
        self.most = max(self.most, len(self.under_way))
        try:
            for _ in range(self.turns[chunk]):
                await asyncio.sleep(0)
            await turn()
            self.stored.append(chunk)
        finally:
            self.under_way.discard(chunk)


@given(st.lists(st.integers(0, 9), max_size=12))
async def test_chunks_are_stored_in_their_order_however_long_each_takes(turns: list[int]) -> None:
    bench = Bench(turns)
    await overlapped(bench.following, bench.carry_out)
    assert bench.stored == list(range(len(turns)))
    assert bench.most <= 2


async def test_the_next_chunk_is_begun_while_the_one_before_it_is_carried_out() -> None:
    bench = Bench([5, 5, 5, 5])
    await overlapped(bench.following, bench.carry_out)
    assert bench.most == 2


async def test_a_chunk_that_the_database_took_back_is_done_again_once_in_its_turn() -> None:
    bench = Bench([3, 0, 1, 0])
    refused: list[int] = []

    async def carry_out(chunk: int, turn: Turn) -> None:
        if chunk in {0, 2} and chunk not in refused:
            refused.append(chunk)
            raise Contended("deadlock detected")
        await bench.carry_out(chunk, turn)

    await overlapped(bench.following, carry_out)
    assert bench.stored == [0, 1, 2, 3]
    assert refused == [0, 2]

    async def never(chunk: int, turn: Turn) -> None:
        raise Contended("deadlock detected")

    with pytest.raises(Contended):
        await overlapped(Bench([0]).following, never)


async def test_nothing_behind_a_chunk_that_fails_is_stored() -> None:
    bench = Bench([3, 3, 0, 0])

    async def carry_out(chunk: int, turn: Turn) -> None:
        if chunk == 1:
            for _ in range(9):
                await asyncio.sleep(0)
            raise LookupError("chunk 1")
        await bench.carry_out(chunk, turn)

    with pytest.raises(LookupError, match="chunk 1"):
        await overlapped(bench.following, carry_out)
    assert bench.stored == [0]
    assert not bench.under_way, "nothing goes on behind one's back"


async def test_what_was_begun_is_stored_where_there_is_nothing_more_to_begin() -> None:
    bench = Bench([5, 5, 5])

    async def following() -> int | None:
        chunk = await bench.following()
        if chunk == 2:
            raise LookupError("told to stop")
        return chunk

    with pytest.raises(LookupError, match="told to stop"):
        await overlapped(following, bench.carry_out)
    assert bench.stored == [0, 1]


async def test_whoever_is_cancelled_leaves_nothing_behind() -> None:
    bench = Bench([0, 0])
    under_way: list[int] = []
    both = asyncio.Event()

    async def carry_out(chunk: int, turn: Turn) -> None:
        under_way.append(chunk)
        if len(under_way) == 2:
            both.set()
        try:
            await asyncio.Event().wait()
        finally:
            under_way.remove(chunk)

    overlapping = asyncio.create_task(overlapped(bench.following, carry_out))
    await both.wait()
    overlapping.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(30):
            await overlapping
    assert not under_way


async def test_a_chunk_that_holds_what_the_one_before_needs_lets_go_of_it_and_is_done_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As two transactions whose leads others want as well: the first waits for somebody who waits for the second."""
    monkeypatch.setattr(overlap, "PATIENCE_SECONDS", 0.01)
    bench = Bench([0, 0])
    leads, taken = asyncio.Lock(), asyncio.Event()
    tries: list[int] = []

    async def carry_out(chunk: int, turn: Turn) -> None:
        tries.append(chunk)
        if chunk == 0:
            await taken.wait()
        async with leads:
            taken.set()
            await bench.carry_out(chunk, turn)

    async with asyncio.timeout(30):
        await overlapped(bench.following, carry_out)
    assert bench.stored == [0, 1]
    assert tries == [0, 1, 1]
