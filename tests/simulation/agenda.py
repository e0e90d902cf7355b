"""Virtual time: what is to happen when, and who stands still meanwhile.

Whatever happens belongs to a process or to the world. A process that has died does nothing any more; one that is
frozen (suspended, stopped by a signal) does everything that fell due meanwhile when it wakes, in the old order. The
world knows neither.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from msgspec import Struct


class Process(Struct):
    """Something that can die or stand still."""

    alive: bool = True
    frozen_until: int = 0


WORLD = Process()


class Agenda:
    """A clock that jumps from one thing to the next; things of one instant happen in the order of their planning."""

    def __init__(self, now: int) -> None:
        self.now = now
        self._things: list[tuple[int, int, Process, Callable[..., None], tuple[Any, ...]]] = []
        self._planned = 0

    def at(self, instant: int, process: Process, do: Callable[..., None], *arguments: Any) -> None:
        """Do it at that instant, or now where that has passed."""
        self._planned += 1
        heappush(self._things, (max(instant, self.now), self._planned, process, do, arguments))

    def after(self, delay: int, process: Process, do: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + delay, process, do, *arguments)

    def step(self) -> bool:
        """Let the next thing happen; False: there is none."""
        while self._things:
            instant, planned, process, do, arguments = heappop(self._things)
            if not process.alive:
                continue
            if process.frozen_until > instant:
                heappush(self._things, (process.frozen_until, planned, process, do, arguments))
                continue
            self.now = instant
            do(*arguments)
            return True
        return False
