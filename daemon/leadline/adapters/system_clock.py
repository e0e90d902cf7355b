"""The daemon's time, from the clocks of the kernel.

Two clocks, because one cannot do both: what the wall says may be set back by three hours, and a rate limit reckoned in
it would then be broken or stand still. So windows, ages and deadlines are reckoned in *instants*, which only ever grow,
also from one life of the daemon to the next: the first one is handed in (the later of the last one stored and the
database's clock), and from there CLOCK_BOOTTIME carries on, which unlike CLOCK_MONOTONIC counts suspended time.

The event loop's timers do follow CLOCK_MONOTONIC: one armed before a suspension fires late by as long as that was.
"""

import time

from leadline.core.model import Now
from leadline_protocol.ids import Instant


class SystemClock:
    """Tells the time in microseconds; `start` is the present instant at the time of the call."""

    def __init__(self, start: Instant):
        self._ahead = start - _since_boot()

    def now(self) -> Now:
        """The present moment, on both clocks."""
        return Now(instant=Instant(self._ahead + _since_boot()), wall=Instant(time.time_ns() // 1000))

    def seconds_until(self, deadline: Instant) -> float:
        """How long to wait for a deadline; 0.0 for one that has passed."""
        return max(0, deadline - self._ahead - _since_boot()) / 1_000_000


def _since_boot() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
