"""Schedules: what fires when, and what became of it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any, Final
from zoneinfo import available_timezones

import msgspec
from aiohttp import web
from msgspec import Struct

from leadline.adapters.http.pages import foreign
from leadline.adapters.http.pages.typed import Typed, whole
from leadline.adapters.http.pages.visit import Visit, in_path
from leadline_protocol import messages as wire
from leadline_protocol.errors import JOB_REASONS, ErrorCode, JobReason, Refused
from leadline_protocol.schedules import Schedule

SHOWN: Final = 100
"""Schedules on one page."""

COMING_SHOWN: Final = 10
"""Next times of one schedule, as far as they are looked at."""

CALENDAR_DAYS: Final = 7

CALENDAR_SHOWN: Final = 500
"""Next times of all schedules together."""

APART_MAX: Final = 3
"""Times of one schedule in a day that are shown one by one; of more, from when to when, and how many."""

DAYS: Final = {"mon": "Mon", "tue": "Tue", "wed": "Wed", "thu": "Thu", "fri": "Fri", "sat": "Sat", "sun": "Sun"}
SHAPES: Final = {"daily": "every day", "weekly": "on some days of the week", "monthly": "once a month", "cron": "cron"}
MARKS: Final = {
    "first": "this wall time comes twice that day; it fires the first time",
    "moved": "this wall time does not exist that day; it fires when the clocks have been put forward",
}
VERDICTS: Final = {
    "run": "ran",
    "missed": "missed: nobody was there for it",
    "still_running": "skipped: the run before was still at work",
    "refused": "refused",
}


class Firing(Struct, frozen=True):
    """When a schedule fires on a day: once, or several times that are shown together."""

    schedule: str
    times: Sequence[wire.DueOccurrence]

    @property
    def sent(self) -> str:
        """Its times for a script, which may have to part them by other days."""
        return " ".join(f"{each.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for each in self.times)

    @property
    def quota(self) -> JobReason | None:
        """Why some of them may be skipped."""
        return next((each.quota for each in self.times if each.quota is not None), None)

    @property
    def mark(self) -> str:
        """What is special about one of them."""
        return next((each.mark for each in self.times if each.mark != "normal"), "normal")


class CalendarDay(Struct, frozen=True):
    """What fires on a day, in UTC; a script moves it to the days of the viewer's zone."""

    date: date
    firing: Sequence[Firing]
    today: bool
    shown: bool
    """The others are there for zones in which it is yesterday still, or tomorrow already."""


async def overview(visit: Visit) -> web.StreamResponse:
    """The schedules of a teamspace, and what fires in the next days of all of them."""
    teamspace, after = visit.certain_teamspace, visit.query.get("after")
    listed = await visit.ask(
        wire.Schedules(teamspace=teamspace, count=1, limit=SHOWN, after=None if after is None else (teamspace, after))
    )
    due: Sequence[wire.DueOccurrence] = ()
    if after is None and listed.schedules:
        asked = wire.Schedules(action="due", teamspace=teamspace, days=CALENDAR_DAYS, limit=CALENDAR_SHOWN + 1)
        due = (await visit.ask(asked)).due
    return visit.page(
        "schedules.html",
        schedules=listed.schedules,
        calendar=calendar_of(due[:CALENDAR_SHOWN], datetime.now(UTC).date()) if due else [],
        calendar_days=CALENDAR_DAYS,
        apart_max=APART_MAX,
        cut_at=due[CALENDAR_SHOWN].at if len(due) > CALENDAR_SHOWN else None,
        next=None if listed.next is None else listed.next[1],
        timetable=timetable_in_words,
        task=task_in_words,
        marks=MARKS,
        reasons=JOB_REASONS,
        schedule_path=path_of,
    )


def calendar_of(due: Sequence[wire.DueOccurrence], today: date) -> list[CalendarDay]:
    """The days from yesterday on, with what fires on them; `due` soonest first."""
    by_day: dict[date, dict[str, list[wire.DueOccurrence]]] = {}
    for each in due:
        by_day.setdefault(each.at.astimezone(UTC).date(), {}).setdefault(each.schedule, []).append(each)
    days = []
    for ahead in range(-1, CALENDAR_DAYS + 2):
        on_day = by_day.get(day := today + timedelta(days=ahead), {})
        firing = [
            Firing(schedule, together)
            for schedule, times in on_day.items()
            for together in ([times] if len(times) > APART_MAX else [[each] for each in times])
        ]
        firing.sort(key=lambda fire: (fire.times[0].at, fire.schedule))
        days.append(CalendarDay(day, firing, today=ahead == 0, shown=0 <= ahead < CALENDAR_DAYS))
    return days


async def new(visit: Visit) -> web.StreamResponse:
    """The form for a new one."""
    return _form(visit, Typed({"repeat": "daily", "at": "02:30", "zone": "UTC", **visit.query}))


def _form(visit: Visit, form: Typed, tried: wire.SchedulesReply | None = None) -> web.StreamResponse:
    return visit.page(
        "schedule_new.html",
        status=form.status,
        form=form,
        tried=tried,
        days=DAYS,
        shapes=SHAPES,
        marks=MARKS,
        reasons=JOB_REASONS,
        zones=_zones(),
    )


@cache
def _zones() -> Sequence[str]:
    """All zones by name, which are looked for once: that opens a file for each."""
    return sorted(available_timezones())


async def add(visit: Visit) -> web.StreamResponse:
    """Show when it would fire; or, where somebody has seen that, make it."""
    fields = visit.form.fields
    try:
        timetable, submission = _timetable(fields), _submission(fields)
        if "sure" not in fields:
            tried = await visit.ask(
                wire.Schedules(
                    action="preview",
                    teamspace=visit.certain_teamspace,
                    timetable=timetable,
                    submission=submission,
                    count=COMING_SHOWN,
                )
            )
            return _form(visit, Typed(fields), tried)
        name = fields.get("name", "").strip()
        await visit.ask(
            wire.Schedules(
                action="add",
                teamspace=visit.certain_teamspace,
                name=name,
                timetable=timetable,
                submission=submission,
                missed=fields.get("missed", "skip"),  # type: ignore[arg-type]  # the codec says what it may be
                overlap="overlap" in fields,
            )
        )
    except Refused as no:
        return _form(visit, Typed(fields, _at_its_field(no, fields)))
    return visit.see(path_of(name), said="scheduled")


def _at_its_field(no: Refused, fields: Mapping[str, str]) -> Refused:
    """The same at the field of the form that what is wrong was typed into."""
    part, _, place = (no.at or "").partition(".")
    match part:
        case "timetable":
            return Refused(no.code, no.message, at=place or "repeat")
        case "submission" if fields.get("batch_job", "").strip():
            return Refused(no.code, no.message, at="batch_job")
        case "submission":
            return Refused(no.code, f"{no.message} ({place})" if place else no.message, at="submission")
        case _:
            return no


def _timetable(fields: Mapping[str, str]) -> Schedule:
    """What a form says about when. Raises Refused."""
    said: dict[str, Any] = {"repeat": fields.get("repeat", ""), "zone": fields.get("zone", "").strip()}
    match said["repeat"]:
        case "weekly":
            said |= {"days": [day for day in DAYS if f"day_{day}" in fields], "at": fields.get("at", "")}
        case "monthly":
            day = fields.get("day", "").strip()
            said |= {"day": "last" if day == "last" else whole(day, "timetable.day"), "at": fields.get("at", "")}
        case "cron":
            said |= {"line": fields.get("line", "").strip()}
        case _:
            said |= {"at": fields.get("at", "")}
    try:
        timetable: Schedule = msgspec.convert(said, Schedule)
    except msgspec.ValidationError as error:
        raise Refused(ErrorCode.BAD_SCHEDULE, str(error), at="timetable") from None
    return timetable


def _submission(fields: Mapping[str, str]) -> dict[str, Any]:
    """What a form says about what. Raises Refused."""
    batch_job, text = fields.get("batch_job", "").strip(), fields.get("submission", "").strip()
    if batch_job:
        return {"kind": "batch", "batch_job": batch_job}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        message = "name a batch job, or give the job that is submitted each time as JSON"
        raise Refused(ErrorCode.BAD_JSON, message if not text else f"{message}: {error}", at="submission") from None


async def one(visit: Visit) -> web.StreamResponse:
    """One schedule: when it fires next, and what became of the last times."""
    (name,) = visit.values
    found = await visit.ask(
        wire.Schedules(action="describe", teamspace=visit.certain_teamspace, name=name, count=COMING_SHOWN)
    )
    (view,) = found.schedules
    return visit.page(
        "schedule.html",
        schedule=view,
        path=path_of(name),
        timetable=timetable_in_words,
        submission=foreign.submitted(view.submission),
        task=task_in_words,
        marks=MARKS,
        verdicts=VERDICTS,
        reasons=JOB_REASONS,
    )


async def pause(visit: Visit) -> web.StreamResponse:
    """Have it not fire."""
    await visit.ask(wire.Schedules(action="pause", teamspace=visit.certain_teamspace, name=visit.values[0]))
    return visit.see(path_of(visit.values[0]), said="schedule_paused")


async def resume(visit: Visit) -> web.StreamResponse:
    """Have it fire again."""
    await visit.ask(wire.Schedules(action="resume", teamspace=visit.certain_teamspace, name=visit.values[0]))
    return visit.see(path_of(visit.values[0]), said="resumed")


async def delete(visit: Visit) -> web.StreamResponse:
    """Delete it; its jobs stay."""
    await visit.ask(wire.Schedules(action="delete", teamspace=visit.certain_teamspace, name=visit.values[0]))
    return visit.see("/schedules", said="deleted")


def path_of(name: str) -> str:
    """The page of a schedule."""
    return f"/schedules/{in_path(name)}"


def timetable_in_words(timetable: Schedule) -> str:
    """When it fires: `Every day at 02:30, Europe/Berlin`."""
    said: dict[str, Any] = msgspec.to_builtins(timetable)
    match said["repeat"]:
        case "daily":
            when = f"Every day at {said['at']}"
        case "weekly":
            when = f"{', '.join(DAYS[day] for day in said['days'])} at {said['at']}"
        case "monthly":
            day = "the last day" if said["day"] == "last" else f"day {said['day']}"
            when = f"On {day} of each month at {said['at']}"
        case _:
            when = f"Cron {said['line']}"
    return f"{when}, {said['zone']}"


def task_in_words(submission: Mapping[str, Any]) -> str:
    """What it submits: `batch job nightly`, `formula on prospects`."""
    kind = str(submission.get("kind", "job"))
    match kind:
        case "batch":
            return f"batch job {submission.get('batch_job', '')}"
        case "outreach":
            return {"first_mails": "first mails", "queue": "follow-ups that are due"}.get(
                str(submission.get("do", "queue")), "outreach"
            )
        case _:
            table = submission.get("table")
            return kind if table is None else f"{kind} on {table}"
