"""The instants at which somebody must be looked at again, though nothing has happened.

Most deadlines are put off before they come (a worker beats, a call is answered), and moving an entry within a heap is
dear. So a deadline is a promise to look, not a verdict: it may go off too early, never too late. Whoever is looked at
and is not due arms the next one. For each thing there is one deadline in force, the earliest armed; entries of the
heap that an earlier one has overtaken are dropped when they come to the top.
"""

from enum import IntEnum
from heapq import heappop, heappush

from leadline_protocol.ids import Instant


class Alarm(IntEnum):
    """What a deadline is for; those of one instant go off in this order."""

    FORCE = 0
    """An attempt was asked to stop and has had time enough."""
    CHECK = 1
    """An attempt may be overdue."""
    WAIT = 2
    """A wait of a queued job is over."""
    ACCOUNT = 3
    """A provider account may have permits."""
    LIVED = 4
    """An attempt of a suspect has lived on for long enough."""
    PULSE = 5
    """While anything runs it goes off in time, or nobody has been listening."""


Due = tuple[Alarm, int | str, int]
"""What for, whose (a job's id or an account's name), and of which attempt."""


class Deadlines:
    """At most one deadline for each thing, and the earliest of all."""

    def __init__(self) -> None:
        self._heap: list[tuple[Instant, Alarm, int | str, int]] = []
        self._armed: dict[Due, Instant] = {}

    def __contains__(self, due: Due) -> bool:
        return due in self._armed

    def arm(self, instant: Instant, alarm: Alarm, key: int | str, number: int = 0) -> None:
        """Look no later than at this instant; a later one than is armed already changes nothing."""
        due = (alarm, key, number)
        present = self._armed.get(due)
        if present is None or instant < present:
            self._armed[due] = instant
            heappush(self._heap, (instant, *due))

    def forget(self, alarm: Alarm, key: int | str, number: int = 0) -> None:
        """There is nothing to look at any more."""
        self._armed.pop((alarm, key, number), None)

    def first(self) -> Instant | None:
        """The earliest deadline; None: none is armed."""
        heap = self._heap
        while heap:
            instant, alarm, key, number = heap[0]
            if self._armed.get((alarm, key, number)) == instant:
                return instant
            heappop(heap)
        return None

    def pop(self, instant: Instant) -> tuple[Instant, Alarm, int | str, int] | None:
        """The next of those that have come by this instant, which is armed no longer; None: there is none."""
        first = self.first()
        if first is None or first > instant:
            return None
        entry = heappop(self._heap)
        del self._armed[entry[1:]]
        return entry
