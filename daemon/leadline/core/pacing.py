"""Even pacing: an account's calls leave one after the other, a step apart, however many wait and however much is free.

A provider may want that beside its limits, or count in a way that nobody knows. A step that was not used is lost: a
call that comes late does not let two go at once after it. What counts is when a call was sent, not when it was granted:
between the two lie a commit, and perhaps a wait until its job may work again. So the next call is granted when the one
before has left, or never will.

Steps shorter than a hundredth of a second are shorter than a decision and its commit take, so calls go together then,
as many as that time has steps; over a longer time they are as even as ever (the generic cell rate algorithm, with that
tolerance).

It is no limit: a call that waits for nothing but its step takes nothing of what others wait for, so it neither counts
for fairness nor keeps others from passing. And it is decided here, not by each call sleeping before it asks, so that
teamspaces have their turns, and that everybody is told what a call waits for: the watchdog first of all.
"""

from typing import Final

from leadline.core.model import SECOND
from leadline_protocol.ids import CallId, Instant

_TOGETHER_MICROSECONDS: Final = SECOND // 100


class Pacing:
    """When the next call of an account may go, as far as that depends on those before."""

    def __init__(self, per_second: float | None = None) -> None:
        """`per_second`: calls per second, from the last call on that has left; None: as many as there are."""
        self.per_second = per_second
        self._last: Instant | None = None
        """When the last of those that have left did, or would have if all kept to their steps."""
        self._unsent: set[CallId] = set()
        """Calls that were granted and may still leave."""

    @property
    def due(self) -> Instant | None:
        """When the next call goes if all keep to their steps; None: not before one that was granted has left."""
        if self.per_second is None:
            return Instant(0)
        step = self._step
        if len(self._unsent) > _together(step):
            return None
        last = -step if self._last is None else self._last
        return Instant(last + (1 + len(self._unsent)) * step)

    def may_go(self, instant: Instant) -> bool:
        """Whether a call may go."""
        due = self.due
        return due is not None and instant >= due - _together(self._step) * self._step

    def granted(self, call: CallId) -> None:
        """A call goes."""
        self._unsent.add(call)

    def sent(self, call: CallId, instant: Instant) -> None:
        """It has left, at that instant or before; of one that has left before nothing is new."""
        if call in self._unsent:
            self._unsent.remove(call)
            self.left(instant)

    def withdrawn(self, call: CallId) -> None:
        """It has not left and never will."""
        self._unsent.discard(call)

    def left(self, instant: Instant) -> None:
        """A call has left, of this daemon or of one before."""
        self._last = instant if self._last is None else Instant(max(self._last + self._step, instant))

    @property
    def _step(self) -> int:
        return round(SECOND / self.per_second) if self.per_second else 0


def _together(step: int) -> int:
    """So many calls go together with one that goes at its time."""
    return max(0, _TOGETHER_MICROSECONDS - step) // step if step else 0
