"""Lets go of runs that a schedule wanted started, and that had no slot in time.

Whether a run that has its slot comes too late is decided when it has it (`course`). One that has none would wait until
then and be skipped at last: here somebody is awake when its time is over. Only the next such moment is waited for.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from leadline.core.model import SECOND
from leadline.features.batch.course import LATE_SECONDS_MAX, late_message
from leadline.features.batch.ports import BatchStore
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import Instant, JobId

LOOK_SECONDS_MAX: Final = 60.0
"""So often the wall clock is looked at while a run waits: it may be set."""

Expire = Callable[[JobId, JobReason, str], Awaitable[None]]
"""Has a job skipped that has not started."""


class Punctuality:
    """Awake when the time of a run is over."""

    def __init__(self, store: BatchStore, wall: Callable[[], Instant], expire: Expire) -> None:
        self._store = store
        self._wall = wall
        self._expire = expire
        self._wanted = anyio.Event()

    def wake(self) -> None:
        """There may be a run more that waits."""
        self._wanted.set()

    async def keep(self) -> None:
        """Until cancelled: see to those that wait now, and to those that come."""
        while True:
            self._wanted = anyio.Event()
            pause = LOOK_SECONDS_MAX
            waiting = await self._store.expected()
            for job, due in waiting:
                wall = self._wall()
                left = due + LATE_SECONDS_MAX * SECOND - wall
                if left >= 0:
                    pause = min(pause, (left + 1) / SECOND)
                    break
                await self._expire(job, JobReason.NO_SLOT, late_message(wall - due))
            with anyio.move_on_after(pause if waiting else float("inf")):
                await self._wanted.wait()
