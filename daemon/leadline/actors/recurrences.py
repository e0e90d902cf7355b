"""Submits what schedules want submitted, when it is due.

Which times are due and what becomes of each is decided by `core.calendar.due`; here somebody is awake then. A time that
runs is stored with the job that it submits, in one transaction; so however the daemon ends, no time is submitted twice,
and one that was not decided yet is decided by the next reign, late, as the schedule wants it.

Only the next time of each schedule is waited for. As wall clocks are set, it is looked at once a minute whether it has
come; without schedules nobody wakes.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Sequence
from heapq import heappop, heappush, nsmallest
from itertools import chain, count, islice
from typing import Final

import anyio
import structlog
from msgspec.structs import replace

from leadline.actors.losses import STORE_LOST
from leadline.core.calendar.due import Conduct, Missed, Pending, Verdict, decide
from leadline.core.calendar.occurrences import occurrences
from leadline.core.calendar.schedules import Timetable, read_schedule
from leadline.core.events import Statement
from leadline.core.model import SECOND
from leadline.ports.schedules import FIRE, ScheduleStore, StoredOccurrence, StoredSchedule
from leadline.ports.store import THIS_JOB
from leadline_protocol.errors import Refused
from leadline_protocol.ids import Instant, JobId

LOOK_SECONDS_MAX: Final = 60.0
"""So often the wall clock is looked at while a schedule waits."""

PATIENCE_SECONDS: Final = 5.0
"""How long whoever wants to know what fires next waits for the newest changes."""

LOST_SECONDS: Final = 1.0
"""How long to wait when the database was lost."""

DECIDED_AT_ONCE: Final = 1_000
"""Times of one schedule that are decided before others have their turn: after a year of downtime there are many."""

SUBMITTED_AT_ONCE: Final = 10
"""So many of them at most are submitted: each waits for its commit, and others are due within a second."""

AT_ONCE: Final = 100
"""Schedules that are seen to at the same time: at midnight everybody's are due."""

Submit = Callable[[StoredSchedule, Instant, Statement], Awaitable[JobId]]
"""Submits what a schedule wants submitted at a time, with a statement of its admission. Raises Refused."""

IsLive = Callable[[JobId], Awaitable[bool]]
"""Whether a job has not ended."""

log = structlog.get_logger(__name__)


Name = tuple[str, str]
"""A schedule's teamspace, and its own name."""


class _Waiting:
    """A schedule that waits for its next time."""

    def __init__(self, stored: StoredSchedule) -> None:
        self.stored = stored
        self.name: Final[Name] = (stored.teamspace, stored.name)
        self.timetable: Final[Timetable] = read_schedule(stored.timetable)
        self.conduct: Final = Conduct(Missed(stored.missed), overlap=stored.overlap)

    def next(self) -> Instant | None:
        """Its first time that is not decided; None: it never fires again."""
        found = next(occurrences(self.timetable, self.stored.decided), None)
        return None if found is None else found.instant


class _Line:
    """Schedules in the order of their next times."""

    def __init__(self) -> None:
        self._heap: list[tuple[Instant, int, _Waiting]] = []
        self._numbers = count()
        """Which of two goes first that are due together."""
        self._named: dict[Name, _Waiting] = {}
        """What is in the line and is not here any more was replaced: it is passed over."""
        self._taken: dict[Name, _Waiting] = {}
        """What is being decided."""

    def set(self, name: Name, each: _Waiting | None) -> None:
        """Have the schedule of that name wait as it is now; None: not at all."""
        self._named.pop(name, None)
        if each is not None:
            self._named[name] = each
            self.put(each, each.next())

    def put(self, each: _Waiting, at: Instant | None) -> None:
        """Have one wait until then; None: never again."""
        self._taken.pop(each.name, None)
        if at is not None:
            heappush(self._heap, (at, next(self._numbers), each))

    def first(self) -> Instant | None:
        """When the next one is due; None: nobody waits."""
        while self._heap and self._named.get(self._heap[0][2].name) is not self._heap[0][2]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def soonest(self, teamspace: str | None, limit: int) -> list[_Waiting]:
        """Those of a teamspace, or of all, whose next times are the first; costs the number of schedules."""
        taken = ((at, next(self._numbers), each) for each in self._taken.values() if (at := each.next()) is not None)
        waiting = (
            entry
            for entry in chain(self._heap, taken)
            if self._named.get(entry[2].name) is entry[2] and teamspace in {None, entry[2].stored.teamspace}
        )
        return [each for *_, each in nsmallest(limit, waiting)]

    def take(self, now: Instant) -> list[_Waiting]:
        """All that are due by now, each once."""
        taken: list[_Waiting] = []
        while (first := self.first()) is not None and first <= now:
            taken.append(heappop(self._heap)[2])
        self._taken = {each.name: each for each in taken}
        return taken


class Recurrences:
    """All schedules, awake when one is due."""

    def __init__(
        self,
        store: ScheduleStore,
        submit: Submit,
        is_live: IsLive,
        wall: Callable[[], Instant],
        ready: Callable[[], Awaitable[None]],
    ) -> None:
        """`wall`: the time on the wall; `ready` waits until the database is there and ours."""
        self._store = store
        self._submit = submit
        self._is_live = is_live
        self._wall = wall
        self._ready = ready
        self._line = _Line()
        self._changes: set[Name] = set()
        """Schedules that are not in the line as they are stored."""
        self._wanted = anyio.Event()
        self._up_to_date = anyio.Event()

    async def soonest(self, teamspace: str | None, limit: int) -> list[StoredSchedule]:
        """So many schedules of a teamspace, or of all, that fire next: as they were stored when it was asked, unless
        the database is lost or much is fired just then.
        """
        with anyio.move_on_after(PATIENCE_SECONDS):
            await self._up_to_date.wait()
        return [each.stored for each in self._line.soonest(teamspace, limit)]

    def wake(self, teamspace: str, name: str) -> None:
        """A schedule was changed, or may have been."""
        self._changes.add((teamspace, name))
        self._wanted.set()
        if self._up_to_date.is_set():
            self._up_to_date = anyio.Event()

    async def run(self) -> None:
        """Submit what is due until cancelled."""
        while True:
            await self._ready()
            self._changes.clear()
            try:
                line = _Line()
                for name, each in _readable(await self._store.active()).items():
                    line.set(name, each)
                self._line = line
                await self._keep(line)
            except (*STORE_LOST, Refused) as lost:
                log.warning("schedules_lost", error=str(lost))
                await anyio.sleep(LOST_SECONDS)

    async def _keep(self, line: _Line) -> None:
        """See to these schedules, and to their changes."""
        while True:
            self._wanted = anyio.Event()
            await self._take_changes(line)
            now = self._wall()
            come = line.take(now)
            for start in range(0, len(come), AT_ONCE):
                await self._decide_together(line, come[start : start + AT_ONCE], now)
                await self._take_changes(line)
            with anyio.move_on_after(_pause(line.first(), self._wall())):
                await self._wanted.wait()

    async def _take_changes(self, line: _Line) -> None:
        """Have the schedules that were changed wait as they are now."""
        while self._changes:
            name = self._changes.pop()
            line.set(name, _readable(await self._store.active(name)).get(name))
        self._up_to_date.set()

    async def _decide_together(self, line: _Line, due: Sequence[_Waiting], now: Instant) -> None:
        """Decide what has come of several, so that their jobs share commits; each waits for its next time then."""
        found = await asyncio.gather(*(self._decide(each, now) for each in due), return_exceptions=True)
        for each, at in zip(due, found, strict=True):
            if isinstance(at, BaseException):
                raise at
            line.put(each, at)

    async def _decide(self, each: _Waiting, now: Instant) -> Instant | None:
        """Decide what has come, and say when to look again; None: never, or not before it is read again."""
        stored = each.stored
        running = stored.job is not None and await self._is_live(stored.job)
        pending = Pending(each.timetable, stored.decided)
        skipped: list[StoredOccurrence] = []
        submitted = 0
        for decided in islice(decide([pending], each.conduct, now, running=running), DECIDED_AT_ONCE):
            at = decided.occurrence.instant
            if decided.verdict is not Verdict.RUN:
                skipped.append(StoredOccurrence(at, "missed" if decided.verdict is Verdict.MISSED else "still_running"))
                continue
            await self._skip(each, skipped)
            skipped = []
            if each.name in self._changes:  # it may have been paused or deleted
                return None
            try:
                job = await self._submit(each.stored, at, Statement(FIRE, (stored.id, at, THIS_JOB)))
            except Refused as refused:
                if refused.retry_after is not None:
                    return Instant(now + int(max(LOST_SECONDS, refused.retry_after) * SECOND))
                log.warning("schedule_refused", teamspace=stored.teamspace, schedule=stored.name, why=refused.message)
                skipped.append(StoredOccurrence(at, "refused", message=refused.message))
                if not stored.overlap:  # what comes after it is decided as if this one ran
                    break
            except STORE_LOST:
                raise
            except Exception:  # noqa: BLE001  a bug in a kind costs this time, and neither the others nor the daemon
                log.error("schedule_failed", schedule=stored.name, error=traceback.format_exc())
                skipped.append(StoredOccurrence(at, "refused", message="the daemon failed: its log says how"))
                break
            else:
                each.stored = replace(each.stored, decided=at, job=job)
                submitted += 1
                if submitted == SUBMITTED_AT_ONCE:
                    break
        await self._skip(each, skipped)
        return each.next()

    async def _skip(self, each: _Waiting, skipped: Sequence[StoredOccurrence]) -> None:
        if skipped:
            await self._store.skip(each.stored.id, skipped)
            each.stored = replace(each.stored, decided=skipped[-1].at)


def _readable(stored: Sequence[StoredSchedule]) -> dict[Name, _Waiting]:
    """Those that can be read; one whose zone is known no more, say, does not keep the others from firing."""
    waiting: dict[Name, _Waiting] = {}
    for each in stored:
        try:
            waiting[each.teamspace, each.name] = _Waiting(each)
        except Refused as fault:
            log.error("schedule_unreadable", teamspace=each.teamspace, schedule=each.name, why=fault.message)
    return waiting


def _pause(first: Instant | None, wall: Instant) -> float | None:
    """Seconds to wait; None: until something is changed."""
    return None if first is None else min(LOOK_SECONDS_MAX, max(0.0, (first - wall) / SECOND))
