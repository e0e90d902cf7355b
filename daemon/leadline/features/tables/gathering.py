"""Leads that come one by one to providers that take many at a time: they wait for each other there.

A waterfall follows each lead for itself, and a provider of bulk orders wants them together. So a lead that comes to
such a provider joins what gathers there, and is ordered with the others: as soon as the order is full, or when nobody
else will come. That makes as few orders as there can be, and needs no patience that somebody would have to choose.

Whether anybody will come is known. The places are numbered in the order in which a lead goes through them, and of each
who is on its way it is known at which place it can arrive next at the earliest. As long as the list has more leads,
everybody who ends one begins another, so all may come but those who have gathered themselves, and those who wait, for
nobody knows how long, for the only provider that can be asked. Whoever is told to stop leaves the way, so that then,
too, there is an end to waiting.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import anyio

from leadline.features.tables.columns import Cells
from leadline.features.tables.lead_course import Settle
from leadline.ports.work import Stopped
from leadline_protocol.ids import LeadId

TOGETHER_MAX: Final = 2_000
"""So many leads of a job wait at such places, or are ordered, at a time."""


class Together:
    """A lead that is ordered, or to be ordered, with others."""

    def __init__(self, lead: LeadId, cells: Cells) -> None:
        self.lead: Final = lead
        self.cells: Final = cells
        self._ended: Final = anyio.Event()
        self._end: Settle | None = None
        self._stopped = False

    def came_to(self, end: Settle | None) -> None:
        """This is what its order brought; None: it could not be ordered. Only the first that is said counts."""
        if not self._ended.is_set():
            self._end = end
            self._ended.set()

    def stop(self) -> None:
        """Nobody will say, because the attempt was told to stop."""
        self._stopped = not self._ended.is_set()
        self._ended.set()

    async def end(self) -> Settle | None:
        """Wait for it. Raises Stopped."""
        await self._ended.wait()
        if self._stopped:
            raise Stopped("told to stop")
        return self._end


class Gathering:
    """Who is on the way, and who has gathered where."""

    def __init__(self, places: int, begin: Callable[[int, Sequence[Together]], None]) -> None:
        """Behind so many places come as many once more, for those who wait until one can be asked.

        `begin` has those who have gathered at a place ordered.
        """
        self._places = places
        self._begin = begin
        self._next: Counter[int] = Counter()
        """Place → how many can arrive there next at the earliest; behind the last there is nothing to arrive at."""
        self._gathered: dict[int, list[Together]] = {}
        self._more = True

    @property
    def end(self) -> int:
        """Where a way leads that comes to no other place."""
        return 2 * self._places

    def way(self) -> "Way":
        """One more is on the way, from the beginning."""
        return Way(self)

    def join(self, place: int, together: Together, size: int) -> None:
        """Gather at a place, where orders have this size; its way leads on from there after that."""
        gathered = self._gathered.setdefault(place, [])
        gathered.append(together)
        if len(gathered) >= size:
            self._begin(place, self._gathered.pop(place))

    def no_more(self) -> None:
        """The list has no more leads, or none is begun any more."""
        self._more = False
        self._look()

    def count(self, before: int | None, place: int | None) -> None:
        """One who could arrive at the one place next can arrive at the other; None: it was, or is, not on the way."""
        self._next[place or 0] += place is not None
        self._next[before or 0] -= before is not None
        self._look()

    def _look(self) -> None:
        """Have those ordered whom nobody will join."""
        while self._gathered and not (self._more and self._come_back()):
            place = min(self._gathered)
            if any(count for arriving, count in self._next.items() if arriving <= place):
                return
            self._begin(place, self._gathered.pop(place))

    def _come_back(self) -> int:
        """How many will begin another lead, whatever they are at."""
        waiting = sum(len(gathered) for place, gathered in self._gathered.items() if place < self._places)
        return sum(count for place, count in self._next.items() if place < self.end) - waiting


class Way:
    """Where somebody is on the way."""

    def __init__(self, gathering: Gathering) -> None:
        self._gathering = gathering
        self._place: int | None = None
        self.leads_to(0)

    def leads_to(self, place: int) -> None:
        """The place at which it can arrive next, at the earliest."""
        before, self._place = self._place, place
        if before != place:
            self._gathering.count(before, place)

    def ends(self) -> None:
        """It is on the way no more."""
        self._gathering.count(self._place, None)
