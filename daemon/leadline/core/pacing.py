"""Even pacing: an account's calls go one after the other, a step apart, however many wait and however much is free.

A provider may want that beside its limits, or count in a way that nobody knows. A step that was not used is lost: a
call that comes late does not let two go at once after it. Steps shorter than a hundredth of a second are shorter than
a decision and its commit take, so calls go together then, as many as that time has steps; over a longer time they are
as even as ever (the generic cell rate algorithm, with that tolerance).

It is no limit: a call that waits for nothing but its step takes nothing of what others wait for, so it neither counts
for fairness nor keeps others from passing. And it is decided here, not by each call sleeping before it asks, so that
teamspaces have their turns, and that everybody is told what a call waits for: the watchdog first of all.
"""

from typing import Final

from leadline.core.model import SECOND
from leadline_protocol.ids import Instant

_TOGETHER_MICROSECONDS: Final = SECOND // 100


class Pacing:
    """When the next call of an account may go, as far as that depends on the last one."""

    def __init__(self, per_second: float | None = None) -> None:
        """`per_second`: calls per second; None: as many as there are."""
        self.per_second = per_second
        self._due = Instant(0)

    @property
    def due(self) -> Instant:
        """The instant at which to look again: when the next call goes if all keep to their steps."""
        return self._due if self.per_second else Instant(0)

    def may_go(self, instant: Instant) -> bool:
        """Whether a call may go."""
        return instant >= self.due - max(0, _TOGETHER_MICROSECONDS - self._step)

    def take(self, instant: Instant) -> None:
        """A call goes now, or went then."""
        self._due = Instant(max(self._due, instant) + self._step)

    @property
    def _step(self) -> int:
        return round(SECOND / self.per_second) if self.per_second else 0
