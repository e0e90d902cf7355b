"""The operation `schedules`: what is due when, and what has become of it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from heapq import merge
from itertools import accumulate, islice
from typing import Any, Final, assert_never

import msgspec

from leadline.actors import views
from leadline.actors.peers import Peer
from leadline.core.calendar.occurrences import Shown, occurrences, preview
from leadline.core.calendar.schedules import read_schedule
from leadline.core.model import SECOND
from leadline.ports.schedules import NewSchedule, ScheduleRules, ScheduleStore, StoredOccurrence, StoredSchedule
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import Instant

PAGE_BYTES_MAX: Final = 16 << 20
"""So much of what schedules submit is on one page: 1,000 of the longest would be more than a client reads."""

PAST_SHOWN: Final = 20
"""So many of the times that were decided are shown of a schedule."""

DAY_SECONDS: Final = 86_400

OF_ONE_TIME: Final = ("idempotency_key", "run_at", "delay", "notify", "dry_run", "ref", "op")
"""What a submission says of one time only."""

Record = Callable[[str, str], Awaitable[None]]
"""Writes down what is about to be done: to what, and what exactly."""


class ScheduleOperations:
    """Carries out `schedules`."""

    def __init__(
        self,
        schedules: ScheduleStore,
        wall: Callable[[], Instant],
        decode: Callable[[bytes], wire.Submission],
        rules: ScheduleRules,
        changed: Callable[[str, str], None],
        soonest: Callable[[str | None, int], Awaitable[Sequence[StoredSchedule]]],
    ) -> None:
        """`decode` reads a submission; `changed` is told which schedule may not be as it was.

        `soonest` gives so many schedules of a teamspace, or of all, that fire next.
        """
        self._soonest = soonest
        self._rules = rules
        self._schedules = schedules
        self._wall = wall
        self._decode = decode
        self._changed = changed

    async def perform(self, operation: wire.Schedules, peer: Peer, record: Record, line: int) -> wire.SchedulesReply:
        """Carry out one operation. Raises Refused."""
        if operation.action == "list":
            return await self._list(operation, line)
        if operation.action == "due":
            return await self._due(operation, line)
        if operation.action == "preview":
            return await self._previewed(operation, line)
        target = f"schedule {operation.teamspace}/{operation.name}"
        warnings: list[wire.JobWarning] = []
        if operation.action != "describe":
            try:
                view = await self._change(operation, peer, record, target, warnings)
            finally:  # also where nobody can say whether it is stored
                assert operation.teamspace is not None
                assert operation.name is not None
                self._changed(operation.teamspace, operation.name)
            if view is not None:
                return wire.SchedulesReply(line=line, schedules=[view], ref=operation.ref)
        described = await self._described(operation)
        return wire.SchedulesReply(line=line, schedules=[described], warnings=warnings, ref=operation.ref)

    async def _change(
        self, operation: wire.Schedules, peer: Peer, record: Record, target: str, warnings: list[wire.JobWarning]
    ) -> wire.ScheduleView | None:
        """Store a change; what was deleted is answered, as it was. Raises Refused."""
        assert operation.teamspace is not None
        assert operation.name is not None
        teamspace, name = operation.teamspace, operation.name
        now = self._wall()
        view = None
        match operation.action:
            case "add":
                new, submission = self._new(operation, peer)
                timetable = read_schedule(new.timetable, "timetable")
                warnings += await self._rules.check(name, timetable, submission, now)
                await record(target, "add")
                if not await self._schedules.add(new, now):
                    message = f"{teamspace} has a schedule {name} already: delete it first, or take another name"
                    raise Refused(ErrorCode.BAD_STATE, message, at="name")
            case "pause":
                await record(target, "pause")
                self._check_found(operation, found=await self._schedules.pause(teamspace, name))
            case "resume":
                await record(target, "resume")
                self._check_found(operation, found=await self._schedules.resume(teamspace, name, now))
            case "delete":
                view = await self._described(operation)
                await record(target, "delete")
                self._check_found(operation, found=await self._schedules.delete(teamspace, name))
            case "list" | "preview" | "describe" | "due":
                raise AssertionError(operation.action)
            case _:
                assert_never(operation.action)
        return view

    async def _list(self, operation: wire.Schedules, line: int) -> wire.SchedulesReply:
        found = list(
            await self._schedules.page(operation.teamspace, operation.name, operation.after, operation.limit + 1)
        )
        ends = accumulate(len(each.submission) for each in found)
        page = found[: min(operation.limit, max(1, sum(end <= PAGE_BYTES_MAX for end in ends)))]
        following = (page[-1].teamspace, page[-1].name) if len(found) > len(page) else None
        views_of_page = []
        for each in page:
            views_of_page.append(await self._view(each, operation.count))
            await asyncio.sleep(0)  # a page with all that was asked for takes seconds, in which others are served
        return wire.SchedulesReply(line=line, schedules=views_of_page, next=following, ref=operation.ref)

    async def _previewed(self, operation: wire.Schedules, line: int) -> wire.SchedulesReply:
        """The next times, as they would be if there were such a schedule. Raises Refused."""
        assert operation.timetable is not None
        timetable, now = read_schedule(operation.timetable, "timetable"), self._wall()
        shown = preview(timetable, now, operation.count)
        marks: Sequence[JobReason | None] = [None] * len(shown)
        warnings: Sequence[wire.JobWarning] = []
        if operation.submission is not None:
            _, submission = self._submission(operation)
            warnings = await self._rules.check("", timetable, submission, now)
            marks = await self._rules.marks(submission, [each.instant for each in shown], now, timetable)
        coming = [_coming(each, mark) for each, mark in zip(shown, marks, strict=True)]
        return wire.SchedulesReply(line=line, schedules=[], coming=coming, warnings=list(warnings), ref=operation.ref)

    async def _due(self, operation: wire.Schedules, line: int) -> wire.SchedulesReply:
        """When any of the schedules fires within so many days.

        Schedules beyond the first `limit` in line have no part in the first `limit` times.
        """
        now = self._wall()
        end = Instant(now + operation.days * DAY_SECONDS * SECOND)
        stored = await self._soonest(operation.teamspace, operation.limit)
        times = [_numbered(number, each, now, end) for number, each in enumerate(stored)]
        per_schedule = Counter(number for _, number in islice(merge(*times), operation.limit))
        due: list[wire.DueOccurrence] = []
        for number, count in per_schedule.items():
            each = stored[number]
            for coming in await self._coming_of(each, count):
                fields = msgspec.structs.asdict(coming)
                due.append(wire.DueOccurrence(teamspace=each.teamspace, schedule=each.name, **fields))
        due.sort(key=lambda each: (each.at, each.teamspace, each.schedule))
        return wire.SchedulesReply(line=line, schedules=[], due=due, ref=operation.ref)

    async def _described(self, operation: wire.Schedules) -> wire.ScheduleView:
        found = await self._schedules.page(operation.teamspace, operation.name, None, 1)
        self._check_found(operation, found=bool(found))
        past = [_past(each) for each in await self._schedules.occurrences(found[0].id, PAST_SHOWN)]
        return msgspec.structs.replace(await self._view(found[0], operation.count), past=past)

    def _check_found(self, operation: wire.Schedules, *, found: bool) -> None:
        if not found:
            message = f"{operation.teamspace} has no schedule {operation.name}"
            raise Refused(ErrorCode.NOT_FOUND, message, at="name")

    def _new(self, operation: wire.Schedules, peer: Peer) -> tuple[NewSchedule, wire.Submission]:
        """A schedule that can be stored, and what it submits. Raises Refused."""
        assert operation.timetable is not None
        assert operation.teamspace is not None
        assert operation.name is not None
        text, submission = self._submission(operation)
        new = NewSchedule(
            operation.teamspace,
            operation.name,
            operation.timetable,
            text,
            operation.missed,
            operation.overlap,
            peer.uid,
        )
        return new, submission

    def _submission(self, operation: wire.Schedules) -> tuple[bytes, wire.Submission]:
        """What is submitted each time, as it is stored and as it is read. Raises Refused."""
        assert operation.submission is not None
        submission: dict[str, Any] = {"teamspace": operation.teamspace, **operation.submission}
        if submission["teamspace"] != operation.teamspace:
            message = f"the schedule is of {operation.teamspace}, and so must be what it submits"
            raise Refused(ErrorCode.BAD_REQUEST, message, at="submission.teamspace")
        for word in OF_ONE_TIME:
            if word in submission:
                raise Refused(ErrorCode.BAD_REQUEST, f"{word} is of one time only", at=f"submission.{word}")
        text = msgspec.json.encode(submission)
        try:
            return text, self._decode(text)
        except Refused as refused:
            at = "submission" if refused.at is None else f"submission.{refused.at}"
            raise Refused(refused.code, refused.message, at=at) from refused

    async def _view(self, stored: StoredSchedule, count: int) -> wire.ScheduleView:
        return wire.ScheduleView(
            teamspace=stored.teamspace,
            schedule=stored.name,
            timetable=stored.timetable,
            submission=msgspec.json.decode(stored.submission),
            missed=stored.missed,
            overlap=stored.overlap,
            paused=stored.paused,
            created_at=stored.created,
            coming=[] if stored.paused else await self._coming_of(stored, count),
        )

    async def _coming_of(self, stored: StoredSchedule, count: int) -> list[wire.ComingOccurrence]:
        """None of one that can be read no more: it is not fired, and must not keep the others from being listed."""
        with suppress(Refused):
            now = self._wall()
            shown = preview(read_schedule(stored.timetable, "timetable"), now, count)
            submission = self._decode(stored.submission)
            marks = await self._rules.marks(submission, [each.instant for each in shown], now)
            return [_coming(each, mark) for each, mark in zip(shown, marks, strict=True)]
        return []


def _numbered(number: int, stored: StoredSchedule, now: Instant, end: Instant) -> Iterator[tuple[Instant, int]]:
    """When a schedule fires, each time with its number."""
    return ((each.instant, number) for each in occurrences(read_schedule(stored.timetable, "timetable"), now, end))


def _coming(occurrence: Shown, quota: JobReason | None) -> wire.ComingOccurrence:
    at = views.certain_moment(occurrence.instant)
    return wire.ComingOccurrence(at=at, local=occurrence.local, mark=occurrence.mark.value, quota=quota)


def _past(occurrence: StoredOccurrence) -> wire.PastOccurrence:
    return wire.PastOccurrence(
        at=views.certain_moment(occurrence.at),
        verdict=occurrence.verdict,
        job=occurrence.job,
        message=occurrence.message or None,
    )
