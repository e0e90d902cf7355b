"""Whose turn it is, where many want to go on and only so much can be done at once.

Two things are shared by everybody who is connected: the event loop, which reads and decodes for one of them at a time,
and the dispatcher, which takes so many jobs into one decision. Whoever sends without waiting must not make another wait
behind all that it has sent, so neither is first come, first served.

The intuition: each source has a clock that runs by what it was given, and the one whose clock would stand lowest
*after* its turn goes first. So a source that wants little goes before those that want much, however many they are.
Whoever was idle begins at the present, so that nobody saves up turns, and a clock is remembered until the present has
reached it, so that nobody gets more by coming and going; clocks only run forward, so nobody waits for ever.

The present is where the turn that was taken last began (as in `core.fair_share`), and not where it ended: else a
newcomer would find itself behind one piece of everybody.
"""

import asyncio
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from typing import Final, Generic, TypeVar

T = TypeVar("T")

CLOCKS_MIN: Final = 64
"""Clocks that may be remembered without asking whether they are past."""


class FairLine(Generic[T]):
    """What waits, by source; whatever is taken next is fair. Items of one source keep their order."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, float, Hashable, T]] = []
        """(end of the turn, number, its start, source, item)."""
        self._clocks: dict[Hashable, float] = {}
        """Where the last turn of a source ends, where that is not past."""
        self._waiting: dict[Hashable, int] = {}
        self._clocks_max = CLOCKS_MIN
        """With more of them the past ones are forgotten."""
        self._present = 0.0
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, source: Hashable, cost: float, item: T) -> None:
        """Something of a source begins to wait; its turn will take `cost`, which is more than 0."""
        start = max(self._clocks.get(source, 0.0), self._present)
        self._clocks[source] = start + cost
        self._waiting[source] = self._waiting.get(source, 0) + 1
        self._count += 1
        heappush(self._heap, (start + cost, self._count, start, source, item))

    @property
    def sources(self) -> int:
        """How many of them have anything that waits."""
        return len(self._waiting)

    def has(self, source: Hashable) -> bool:
        """Whether anything of a source waits."""
        return source in self._waiting

    def first(self) -> T:
        """What `take` would give."""
        return self._heap[0][4]

    def take(self) -> T:
        """Whatever goes next. Raises IndexError where nothing waits."""
        _, _, start, source, item = heappop(self._heap)
        self._waiting[source] -= 1
        if not self._waiting[source]:
            del self._waiting[source]
        if not self._heap:  # nobody waits, so nobody was kept from anything: all clocks begin anew
            self._clocks.clear()
            self._present = 0.0
            return item
        self._present = max(self._present, start)
        if len(self._clocks) > self._clocks_max:
            self._clocks = {source: clock for source, clock in self._clocks.items() if clock > self._present}
            self._clocks_max = max(CLOCKS_MIN, 2 * len(self._clocks))
        return item


TURN_COST: Final = 49_152
"""What may be done in one turn of the event loop: about as much as decoding so many bytes, two milliseconds."""


class Turns:
    """Shares the event loop out: in each of its turns so much is done for sources, and then all else has its own."""

    def __init__(self) -> None:
        self._line: FairLine[tuple[float, Callable[[], None]]] = FairLine()
        self._spent = 0.0
        self._armed = False

    def ask(self, source: Hashable, cost: float, go: Callable[[], None]) -> None:
        """Have `go` called when it is the source's turn: at once, where nobody waits and the loop has time."""
        if not self._line and self._spent + cost <= TURN_COST:
            self._spend(cost)
            go()
            return
        self._line.put(source, cost, (cost, go))
        self._arm()

    def _next(self) -> None:
        self._armed = False
        self._spent = 0.0
        while self._line and (not self._spent or self._spent + self._line.first()[0] <= TURN_COST):
            cost, go = self._line.take()
            self._spend(cost)
            go()
        if self._line:
            self._arm()

    def _spend(self, cost: float) -> None:
        self._spent += cost
        self._arm()

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._next)
