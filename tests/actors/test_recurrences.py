"""Schedules fire when they are due, and never twice: on a wall clock that the test sets."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Literal

import pytest
from msgspec.structs import replace

from leadline.actors import recurrences
from leadline.actors.recurrences import Recurrences
from leadline.core.events import Statement
from leadline.core.model import SECOND
from leadline.ports.schedules import FIRE, ScheduleId, StoredOccurrence, StoredSchedule
from leadline.ports.store import Unavailable
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import Instant, JobId
from leadline_protocol.schedules import Cron, Schedule

NOON = Instant(int(datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()) * SECOND)
MINUTE = 60 * SECOND
EVERY_MINUTE = Cron("* * * * *", "UTC")


class Stored:
    """A store of schedules in memory; the submissions are stored with it."""

    def __init__(self) -> None:
        self.schedules: dict[ScheduleId, StoredSchedule] = {}
        self.skipped: list[tuple[ScheduleId, str, int]] = []
        self.submitted: list[tuple[ScheduleId, int]] = []
        """The schedule, and how many minutes after noon its time was."""
        self.live: set[JobId] = set()
        self.refusal: Refused | None = None
        self.fault: Exception | None = None
        self.refused = 0
        self.read = 0
        """Schedules that were read, all in all."""
        self.lost = False
        self.wall = NOON
        self.gate: asyncio.Event | None = None
        """Submissions are stored when it is set."""
        self._happened = asyncio.Condition()

    def keep(self, number: int, timetable: Schedule, **how: object) -> ScheduleId:
        key = ScheduleId(number)
        made = datetime.fromtimestamp(NOON / SECOND, UTC)
        stored = StoredSchedule(key, "acme", f"s{number}", timetable, b"{}", "skip", False, False, NOON, 7, made, None)
        self.schedules[key] = replace(stored, **how)
        return key

    async def active(self, name: tuple[str, str] | None = None) -> Sequence[StoredSchedule]:
        if self.lost:
            self.lost = False
            raise Unavailable("the test wants it so")
        found = [
            each for each in self.schedules.values() if not each.paused and name in {None, (each.teamspace, each.name)}
        ]
        self.read += len(found)
        return found

    async def skip(self, schedule: ScheduleId, skipped: Sequence[StoredOccurrence]) -> None:
        self.skipped += [(schedule, each.verdict, (each.at - NOON) // MINUTE) for each in skipped]
        self.schedules[schedule] = replace(self.schedules[schedule], decided=skipped[-1].at)
        await self._tell()

    async def submit(self, schedule: StoredSchedule, due: Instant, statement: Statement) -> JobId:
        assert statement.query == FIRE
        number, at, _ = statement.arguments
        assert isinstance(at, int)
        assert number == schedule.id
        await asyncio.sleep(0)  # as a commit takes its time
        if self.refusal is not None:
            self.refused += 1
            await self._tell()
            raise self.refusal
        if self.fault is not None:
            raise self.fault
        self.submitted.append((schedule.id, (at - NOON) // MINUTE))
        job = JobId(len(self.submitted))
        self.schedules[schedule.id] = replace(self.schedules[schedule.id], decided=Instant(at), job=job)
        await self._tell()
        if self.gate is not None:
            await self.gate.wait()
        return job

    async def is_live(self, job: JobId) -> bool:
        return job in self.live

    async def until(self, submitted: int = 0, skipped: int = 0, refused: int = 0) -> None:
        async with self._happened:
            await self._happened.wait_for(
                lambda: len(self.submitted) >= submitted and len(self.skipped) >= skipped and self.refused >= refused
            )

    async def _tell(self) -> None:
        async with self._happened:
            self._happened.notify_all()


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Stored:
    monkeypatch.setattr(recurrences, "LOOK_SECONDS_MAX", 0.001)  # it looks at the wall whenever the test lets it
    monkeypatch.setattr(recurrences, "LOST_SECONDS", 0.001)
    return Stored()


async def _ready() -> None:
    return


@asynccontextmanager
async def firing(stored: Stored) -> AsyncIterator[Recurrences]:
    it = Recurrences(stored, stored.submit, stored.is_live, lambda: stored.wall, _ready)  # type: ignore[arg-type]
    running = asyncio.create_task(it.run())
    try:
        yield it
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_each_time_submits_once_and_none_before_it_has_come(stored: Stored) -> None:
    key = stored.keep(1, EVERY_MINUTE)
    async with firing(stored):
        await asyncio.sleep(0.01)
        assert stored.submitted == []
        for minute in (1, 2, 3):
            stored.wall = Instant(NOON + minute * MINUTE)
            await stored.until(submitted=minute)
        await asyncio.sleep(0.01)
    assert stored.submitted == [(key, 1), (key, 2), (key, 3)]


async def test_what_fires_next_is_told_with_what_was_changed_before_it_was_asked(stored: Stored) -> None:
    stored.keep(1, EVERY_MINUTE)
    async with firing(stored) as it:
        assert [each.name for each in await it.soonest(None, 10)] == ["s1"], "the daemon has just begun"
        for number in (2, 3):
            stored.keep(number, EVERY_MINUTE)
            it.wake("acme", f"s{number}")
        assert {each.name for each in await it.soonest("acme", 10)} == {"s1", "s2", "s3"}


class Gate(asyncio.Event):
    """Tells that somebody has come to it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.reached.set()
        return await super().wait()


async def test_a_schedule_that_is_firing_is_told_with_the_others(stored: Stored) -> None:
    stored.keep(1, EVERY_MINUTE)
    stored.keep(2, Cron("0 0 * * *", "UTC"))
    stored.gate = gate = Gate()
    stored.wall = Instant(NOON + MINUTE)
    async with firing(stored) as it:
        await gate.reached.wait()
        assert [each.name for each in await it.soonest(None, 10)] == ["s1", "s2"]
        gate.set()
        await stored.until(submitted=1)
        assert [each.name for each in await it.soonest(None, 10)] == ["s1", "s2"]


async def test_schedules_that_are_due_together_are_submitted_together(stored: Stored) -> None:
    for number in range(250):
        stored.keep(number, EVERY_MINUTE)
    stored.gate = asyncio.Event()
    stored.wall = Instant(NOON + MINUTE)
    async with firing(stored):
        await stored.until(submitted=recurrences.AT_ONCE)
        stored.gate.set()
        await stored.until(submitted=250)
    assert sorted(stored.submitted) == [(number, 1) for number in range(250)]


async def test_a_wall_clock_that_is_set_back_fires_nothing_again(stored: Stored) -> None:
    key = stored.keep(1, EVERY_MINUTE)
    async with firing(stored):
        stored.wall = Instant(NOON + MINUTE)
        await stored.until(submitted=1)
        stored.wall = Instant(NOON - 60 * MINUTE)
        await asyncio.sleep(0.01)
        stored.wall = Instant(NOON + 2 * MINUTE)
        await stored.until(submitted=2)
    assert stored.submitted == [(key, 1), (key, 2)]


async def test_a_time_is_skipped_while_the_job_before_still_runs_unless_they_may_overlap(stored: Stored) -> None:
    alone, crowd = (
        stored.keep(1, EVERY_MINUTE, job=JobId(77)),
        stored.keep(2, EVERY_MINUTE, job=JobId(77), overlap=True),
    )
    stored.live = {JobId(77)}
    stored.wall = Instant(NOON + MINUTE)
    async with firing(stored):
        await stored.until(submitted=1, skipped=1)
        stored.live = set()
        stored.wall = Instant(NOON + 2 * MINUTE)
        await stored.until(submitted=3)
    assert stored.skipped == [(alone, "still_running", 1)]
    assert sorted(stored.submitted) == [(alone, 2), (crowd, 1), (crowd, 2)]


async def test_what_nobody_was_there_for_is_missed_or_made_up_for_as_the_schedule_wants(stored: Stored) -> None:
    hourly = Cron("0 * * * *", "UTC")
    skip, once = stored.keep(1, hourly), stored.keep(2, hourly, missed="once")
    every = stored.keep(3, hourly, missed="all", overlap=True)
    stored.wall = Instant(NOON + 150 * MINUTE)
    async with firing(stored):
        await stored.until(submitted=3, skipped=3)
        await asyncio.sleep(0.01)
    assert sorted(stored.skipped) == [(skip, "missed", 60), (skip, "missed", 120), (once, "missed", 60)]
    assert sorted(stored.submitted) == [(once, 120), (every, 60), (every, 120)]


async def test_what_is_refused_for_good_is_noted_and_what_is_refused_for_now_is_tried_again(stored: Stored) -> None:
    key = stored.keep(1, EVERY_MINUTE)
    stored.refusal = Refused(ErrorCode.UNKNOWN_TABLE, "acme has no table people")
    async with firing(stored):
        stored.wall = Instant(NOON + MINUTE)
        await stored.until(skipped=1)
        assert stored.skipped == [(key, "refused", 1)]
        stored.refusal = Refused(ErrorCode.QUEUE_FULL, "too many", retry_after=2.0)
        stored.wall = Instant(NOON + 2 * MINUTE)
        await stored.until(refused=2)
        stored.refusal = None
        await asyncio.sleep(0.01)
        assert stored.submitted == [], "it is not tried before two seconds have passed on the wall"
        stored.wall = Instant(NOON + 2 * MINUTE + 2 * SECOND)
        await stored.until(submitted=1)
    assert stored.submitted == [(key, 2)]


async def test_a_kind_that_breaks_costs_its_own_time_and_nothing_else(stored: Stored) -> None:
    key = stored.keep(1, EVERY_MINUTE)
    stored.fault = RuntimeError("a bug")
    async with firing(stored):
        stored.wall = Instant(NOON + MINUTE)
        await stored.until(skipped=1)
        stored.fault = None
        stored.wall = Instant(NOON + 2 * MINUTE)
        await stored.until(submitted=1)
    assert (stored.skipped, stored.submitted) == ([(key, "refused", 1)], [(key, 2)])


async def test_a_schedule_that_is_added_or_paused_is_seen_to_at_once(stored: Stored) -> None:
    stored.wall = Instant(NOON + MINUTE)
    async with firing(stored) as it:
        await asyncio.sleep(0.01)
        key = stored.keep(1, EVERY_MINUTE)
        it.wake("acme", "s1")
        await stored.until(submitted=1)
        stored.schedules[key] = replace(stored.schedules[key], paused=True)
        it.wake("acme", "s1")
        await asyncio.sleep(0.01)
        stored.wall = Instant(NOON + 2 * MINUTE)
        await asyncio.sleep(0.01)
    assert stored.submitted == [(key, 1)]


async def test_a_change_of_one_schedule_reads_no_other(stored: Stored) -> None:
    for number in range(1, 101):
        stored.keep(number, EVERY_MINUTE)
    async with firing(stored) as it:
        while stored.read < 100:
            await asyncio.sleep(0)
        it.wake("acme", "s1")
        stored.wall = Instant(NOON + MINUTE)
        await stored.until(submitted=100)
    assert stored.read == 101


async def test_a_database_that_is_lost_and_a_schedule_that_cannot_be_read_keep_no_other_from_firing(
    stored: Stored,
) -> None:
    stored.keep(1, Cron("* * * * *", "Mars/Olympus"))
    key = stored.keep(2, EVERY_MINUTE)
    stored.lost = True
    stored.wall = Instant(NOON + MINUTE)
    async with firing(stored):
        await stored.until(submitted=1)
    assert stored.submitted == [(key, 1)]


async def test_a_schedule_with_much_to_make_up_for_keeps_no_other_from_firing(stored: Stored) -> None:
    behind = stored.keep(1, EVERY_MINUTE, missed="all", overlap=True)
    other = stored.keep(2, EVERY_MINUTE, decided=Instant(NOON + 5_000 * MINUTE))
    stored.wall = Instant(NOON + 5_001 * MINUTE)
    async with firing(stored):
        await stored.until(submitted=recurrences.SUBMITTED_AT_ONCE + 1)
        assert (other, 5_001) in stored.submitted
        await stored.until(submitted=2_000)
        stored.wall = Instant(NOON + 5_002 * MINUTE)
        await stored.until(submitted=2_000 + 2 * recurrences.SUBMITTED_AT_ONCE)
        assert (other, 5_002) in stored.submitted
        await stored.until(submitted=5_002 + 2)
    made_up = [minute for schedule, minute in stored.submitted if schedule == behind]
    assert made_up == list(range(1, 5_003))


async def test_a_schedule_that_is_paused_while_it_makes_up_for_much_submits_no_more(stored: Stored) -> None:
    key = stored.keep(1, EVERY_MINUTE, missed="all", overlap=True)
    stored.wall = Instant(NOON + 5_000 * MINUTE)
    async with firing(stored) as it:
        await stored.until(submitted=7)
        stored.schedules[key] = replace(stored.schedules[key], paused=True)
        paused_at = len(stored.submitted)
        it.wake("acme", "s1")
        await asyncio.sleep(0.01)
    assert len(stored.submitted) <= paused_at + 1, "the one that is on its way"


async def test_what_was_refused_does_not_run_while_the_next_is_due(stored: Stored) -> None:
    key = stored.keep(1, EVERY_MINUTE)
    stored.refusal = Refused(ErrorCode.UNKNOWN_TABLE, "acme has no table people")
    stored.wall = Instant(NOON + 2 * MINUTE)
    async with firing(stored):
        await stored.until(skipped=2)
    assert stored.skipped == [(key, "refused", 1), (key, "refused", 2)]
