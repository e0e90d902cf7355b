"""Tells those who listen what happens to jobs: their end, and how they get on.

Listeners hear of a job's end exactly when it is durable. Progress is told at most once a second for each job and only
while somebody listens to it; with no listeners nothing is collected at all. What a listener does not take in time it
misses: it is told how much, and the queue does not wait for it.

Each listener costs memory, and those to everything cost time at every decision, so there may only be so many.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from leadline.core.effects import EndedJob, Records, StartAttempt
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId

PROGRESS_SECONDS: Final = 1.0
"""Least time between two notices of progress for one job."""

LISTENERS_TO_ALL_MAX: Final = 200
LISTENERS_TO_JOBS_MAX: Final = 100_000

FACTS_MAX: Final = 100_000
"""Facts that wait to be told, to all peers together."""

RETRY_SECONDS: Final = 10.0


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
        self._by_job: dict[JobId, dict[Listener, None]] = {}
        self._to_jobs = 0
        self._to_all: dict[Listener, None] = {}
        self._due: set[JobId] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.facts = 0
        """Facts that wait to be told, at all listeners; they do the counting."""
        self.decided: Callable[[], None] | None = None
        """Called whenever something was decided, or a reign began or ended, for who does not care what."""

    def listen(self, listener: Listener, job: JobId | None) -> None:
        """Hear of one job until it has ended, or of all. Raises Refused with `busy` where too many listen already."""
        if job is None:
            if len(self._to_all) >= LISTENERS_TO_ALL_MAX:
                raise Refused(ErrorCode.BUSY, "too many listen to everything already", retry_after=RETRY_SECONDS)
            self._to_all[listener] = None
            return
        if self._to_jobs >= LISTENERS_TO_JOBS_MAX:
            raise Refused(ErrorCode.BUSY, "too many listen already", at="job", retry_after=RETRY_SECONDS)
        self._to_jobs += 1
        self._by_job.setdefault(job, {})[listener] = None

    @contextmanager
    def ending(self, job: JobId, then: Callable[[], None]) -> Iterator[None]:
        """Have something done when a job ends, as long as one is in here. Raises Refused as `listen` does."""
        listener = Listener(ended=lambda _: then())
        self.listen(listener, job)
        try:
            yield
        finally:
            self.forget(listener, job)

    def forget(self, listener: Listener, job: JobId | None) -> None:
        """Hear nothing more of what was listened to."""
        if job is None:
            self._to_all.pop(listener, None)
        elif listener in self._by_job.get(job, ()):
            del self._by_job[job][listener]
            self._to_jobs -= 1
            if not self._by_job[job]:
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
            listeners = self._by_job.pop(job.id, {})
            self._to_jobs -= len(listeners)
            for listener in (*listeners, *self._to_all):
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
