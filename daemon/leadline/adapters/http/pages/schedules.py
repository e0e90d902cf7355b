"""Schedules: what fires when, and what became of it."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final
from zoneinfo import available_timezones

import msgspec
from aiohttp import web
from msgspec import Struct

from leadline.adapters.http.pages import foreign
from leadline.adapters.http.pages.typed import whole
from leadline.adapters.http.pages.visit import Visit, in_path
from leadline.adapters.http.problems import STATUS
from leadline_protocol import messages as wire
from leadline_protocol.errors import JOB_REASONS, ErrorCode, Refused
from leadline_protocol.schedules import Schedule

SHOWN: Final = 100
"""Schedules on one page."""

COMING_SHOWN: Final = 10
"""Next times of one schedule, as far as they are looked at."""

FIRING_SHOWN: Final = 30
"""Next times of all schedules together."""

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
    """One time at which something fires."""

    schedule: str
    coming: wire.ComingOccurrence


async def overview(visit: Visit) -> web.StreamResponse:
    """The schedules of a teamspace, and what fires next of all of them."""
    teamspace, after = visit.certain_teamspace, visit.query.get("after")
    listed = await visit.ask(
        wire.Schedules(
            teamspace=teamspace,
            count=COMING_SHOWN,
            limit=SHOWN,
            after=None if after is None else (teamspace, after),
        )
    )
    whole_list = after is None and listed.next is None
    return visit.page(
        "schedules.html",
        schedules=listed.schedules,
        firing=next_of(listed.schedules) if whole_list else [],
        next=None if listed.next is None else listed.next[1],
        timetable=timetable_in_words,
        task=task_in_words,
        marks=MARKS,
        reasons=JOB_REASONS,
        schedule_path=path_of,
    )


def next_of(schedules: Sequence[wire.ScheduleView]) -> list[Firing]:
    """The next times of all schedules together, in order; no more than are certain to be without gaps.

    Of each schedule only its next few times are known; behind the last of them nothing is said of any.
    """
    firing = [Firing(each.schedule, coming) for each in schedules for coming in each.coming]
    end = min((each.coming[-1].at for each in schedules if each.coming), default=None)
    certain = (each for each in firing if end is None or each.coming.at <= end)
    return sorted(certain, key=lambda each: each.coming.at)[:FIRING_SHOWN]


async def new(visit: Visit) -> web.StreamResponse:
    """The form for a new one."""
    return _form(visit, {"repeat": "daily", "at": "02:30", "zone": "UTC", **visit.query})


def _form(
    visit: Visit,
    typed: Mapping[str, str],
    tried: wire.SchedulesReply | None = None,
    refused: Refused | None = None,
) -> web.StreamResponse:
    return visit.page(
        "schedule_new.html",
        status=200 if refused is None else STATUS[refused.code],
        refused=refused,
        typed=typed,
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
            return _form(visit, fields, tried)
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
        return _form(visit, fields, refused=no)
    return visit.see(path_of(name), said="scheduled")


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
