"""Even pacing: an account's calls go one after the other, a step apart, however many wait and however much is free.

A provider may want that beside its limits, or count in a way that nobody knows. A step that was not used is lost: a
call that comes late does not let two go at once after it.

Steps are counted from when a call is handed over to be sent. From there to its first byte it takes a commit, and maybe
a new connection: if the next waited for that, ten calls a second would become eight, a hundred would become thirty, and
a connection that nobody answers would stop the account. Who has been granted and waits for his job's share of the
capacity has not been handed over, and keeps the next one back; else all that a job gathers meanwhile would leave at
once.

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
        """`per_second`: calls per second, from the last call on that went; None: as many as there are."""
        self.per_second = per_second
        self._last: Instant | None = None
        """When the last call went, or would have if all kept to their steps."""
        self._latest: tuple[CallId, Instant | None] | None = None
        """Which call that was, and when the one before it went."""
        self._held: set[CallId] = set()

    @property
    def due(self) -> Instant | None:
        """When the next call goes if all keep to their steps; None: not before one that is held has gone."""
        if self.per_second is None or self._last is None:
            return Instant(0)
        return None if self._held else Instant(self._last + self._step)

    @property
    def held(self) -> frozenset[CallId]:
        """The calls that are held."""
        return frozenset(self._held)

    def may_go(self, instant: Instant) -> bool:
        """Whether a call may go."""
        due = self.due
        return due is not None and instant >= due - max(0, _TOGETHER_MICROSECONDS - self._step)

    def take(self, call: CallId, instant: Instant) -> None:
        """A call goes now."""
        self._latest = (call, self._last)
        self._last = instant if self._last is None else Instant(max(self._last + self._step, instant))

    def went(self, instant: Instant) -> None:
        """A call went then for which a step was taken before, or that is of an earlier process."""
        self._last = instant if self._last is None else max(self._last, instant)

    def hold(self, call: CallId) -> None:
        """A call for which a step was taken does not go yet."""
        self._held.add(call)

    def let_go(self, call: CallId, instant: Instant) -> bool:
        """It goes now; returns whether it was held."""
        if call not in self._held:
            return False
        self._held.remove(call)
        self.went(instant)
        return True

    def forget(self, call: CallId) -> None:
        """It has not gone and never will; if it was the last, its step is free."""
        self._held.discard(call)
        if self._latest is not None and self._latest[0] == call:
            self._last, self._latest = self._latest[1], None

    @property
    def _step(self) -> int:
        return round(SECOND / self.per_second) if self.per_second else 0
