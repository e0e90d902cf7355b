"""Tells those who listen what happens to jobs: their end, and how they get on.

Listeners hear of a job's end exactly when it is durable. Progress is told at most once a second for each job and only
while somebody listens to it; with no listeners nothing is collected at all. What a listener does not take in time it
misses: it is told how much, and the queue does not wait for it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from leadline.core.effects import EndedJob, Records, StartAttempt
from leadline_protocol.ids import JobId

PROGRESS_SECONDS: Final = 1.0
"""Least time between two notices of progress for one job."""


class Listener:
    """Somebody who wants to hear of some jobs, or of all."""

    def __init__(
        self,
        *,
        ended: Callable[[EndedJob], None],
        progressed: Callable[[JobId], None] | None = None,
        started: Callable[[StartAttempt], None] | None = None,
        queued: Callable[[JobId], None] | None = None,
    ) -> None:
        self.ended = ended
        self.queued = queued
        self.progressed = progressed
        self.started = started


class Announcer:
    """Who listens to what."""

    def __init__(self) -> None:
        self._by_job: dict[JobId, list[Listener]] = {}
        self._to_all: list[Listener] = []
        self._due: set[JobId] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.decided: Callable[[], None] | None = None
        """Called whenever something was decided, or a reign began or ended, for who does not care what."""

    def listen(self, listener: Listener, job: JobId | None) -> None:
        """Hear of one job until it has ended, or of all."""
        if job is None:
            self._to_all.append(listener)
        else:
            self._by_job.setdefault(job, []).append(listener)

    def forget(self, listener: Listener) -> None:
        """Hear nothing more; costs the number of jobs that anybody listens to."""
        if listener in self._to_all:
            self._to_all.remove(listener)
        for job, listeners in list(self._by_job.items()):
            if listener in listeners:
                listeners.remove(listener)
                if not listeners:
                    del self._by_job[job]

    def recorded(self, records: Records) -> None:
        """A decision is durable: tell which jobs have entered the queue by it, or gone back there, and which ended."""
        if self.decided is not None and records:
            self.decided()
        if not self._by_job and not self._to_all:
            return
        queued = [row.id for row in records.admitted] + [row.job for row in records.history if row.event == "queued"]
        for job_id in queued:
            for listener in (*self._by_job.get(job_id, ()), *self._to_all):
                if listener.queued is not None:
                    listener.queued(job_id)
        for job in records.ended:
            for listener in (*self._by_job.pop(job.id, ()), *self._to_all):
                listener.ended(job)

    def reign_changed(self) -> None:
        """A reign has begun or ended."""
        if self.decided is not None:
            self.decided()

    def started(self, order: StartAttempt) -> None:
        """An attempt has begun."""
        for listener in (*self._by_job.get(order.job, ()), *self._to_all):
            if listener.started is not None:
                listener.started(order)

    def progressed(self, job: JobId) -> None:
        """Counts, waits or the activity of a job have changed."""
        if job not in self._by_job and not self._to_all:
            return
        self._due.add(job)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PROGRESS_SECONDS, self._tell_progress)

    def _tell_progress(self) -> None:
        self._timer = None
        due, self._due = self._due, set()
        for job in due:
            for listener in (*self._by_job.get(job, ()), *self._to_all):
                if listener.progressed is not None:
                    listener.progressed(job)
