"""The one armed timer: calls the dispatcher when the scheduler's next deadline has come.

A timer that goes off much later than it was armed for tells that the whole process stood still: the machine was
suspended, the process was stopped, or the loop was blocked. Then silence in that time proves nothing, and `slept` is
called first, so that no worker is taken for dead on account of the daemon's own pause.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from leadline.core.model import SECOND
from leadline.ports.clock import Clock
from leadline_protocol.ids import Instant

LATE_SECONDS: Final = 1.0
"""A loop that is later than this was not merely busy."""

WALL_CHECK_SECONDS: Final = 60.0
"""Longest sleep: a clock that is set forward makes a delayed job due, and no timer tells of it."""


class Timekeeper:
    """Arms one timer of the event loop."""

    def __init__(self, clock: Clock, ticked: Callable[[], None], slept: Callable[[int], None]) -> None:
        self._clock = clock
        self._ticked = ticked
        self._slept = slept
        self._timer: asyncio.TimerHandle | None = None
        self._due: Instant | None = None

    def arm(self, deadline: Instant | None) -> None:
        """Be woken at this instant instead of whatever was armed before; None: not at all."""
        if deadline == self._due and self._timer is not None:
            return
        self.disarm()
        self._due = deadline
        if deadline is None:
            return
        seconds = (deadline - self._clock.now().instant) / SECOND
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(min(max(seconds, 0.0), WALL_CHECK_SECONDS), self._go_off)

    def disarm(self) -> None:
        """Forget what was armed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = None

    def _go_off(self) -> None:
        self._timer = None
        due, self._due = self._due, None
        if due is not None:
            late = self._clock.now().instant - due
            if late > LATE_SECONDS * SECOND:
                self._slept(late)
        self._ticked()
