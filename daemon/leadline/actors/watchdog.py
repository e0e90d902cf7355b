"""Collects the signs of life of everything that runs, and the daemon's own.

While attempts run, one pulse every ten seconds reports for each whose task is still there; whether somebody is
overdue is decided by the scheduler, at the deadline itself and not at a pulse. With nothing running there is no
pulse.
"""

from collections.abc import Callable
from typing import Final

import anyio

PULSE_SECONDS: Final = 10.0
"""How often an attempt gives a sign of life."""


class Watchdog:
    """The pulse."""

    def __init__(self, beat: Callable[[], bool]) -> None:
        """`beat` reports for everything that runs, and says whether there was anything."""
        self._beat = beat
        self._wanted = anyio.Event()

    def watch(self) -> None:
        """Something has started to run."""
        self._wanted.set()

    async def run(self) -> None:
        """Pulse until cancelled."""
        while True:
            await self._wanted.wait()
            await anyio.sleep(PULSE_SECONDS)
            if not self._beat():
                self._wanted = anyio.Event()
