"""`schedule`: what is submitted again and again by the clock, and what has become of it."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter
from msgspec.structs import replace

from leadline.cli import terminal
from leadline.cli.chain import read_toml
from leadline.cli.daemon import Failed, FileOrDash, Misused, Place, Placed, control
from leadline.cli.jobs import Flag, Json
from leadline.cli.words import clock, shown
from leadline_protocol.messages import ComingOccurrence, PastOccurrence, Schedules, SchedulesReply, ScheduleView
from leadline_protocol.schedules import Cron, Daily, Monthly, Schedule, Weekday, Weekly

schedule = App(name="schedule", help="Submit jobs by the clock: list schedules, add, try, pause or delete one.")

Name = Annotated[str, Parameter(name="NAME", help="The name of the schedule.")]
Teamspace = Annotated[str, Parameter(help="The teamspace that it belongs to.")]
Zone = Annotated[str, Parameter(help="The IANA name of the zone whose clocks count, such as Europe/Berlin.")]
Every = Annotated[str | None, Parameter(help="Fire every day at this time, HH:MM.")]
OnDays = Annotated[str | None, Parameter(help="Fire on these days of the week, such as mon,thu; with --at.")]
OnDay = Annotated[str | None, Parameter(help="Fire on this day of each month that has it, 1 to 31 or last; with --at.")]
At = Annotated[str | None, Parameter(help="The time of day of --weekly and --monthly, HH:MM.")]
ByCron = Annotated[
    str | None,
    Parameter(help="Fire by a cron line: minute, hour, day of the month, month, day of the week."),
]
Count = Annotated[int, Parameter(help="Show so many of the next times.")]

_VERDICTS = {
    "run": "ran",
    "missed": "missed: nobody was there in time",
    "still_running": "skipped: the job before it still ran",
    "refused": "refused",
}
_MARKS = {
    "normal": "",
    "first": "the clocks are set back: this time comes twice, and the first counts",
    "moved": "the clocks are set forward: the time does not exist that day",
}


@schedule.command(name="list")
def listing(
    *,
    place: Placed,
    teamspace: Annotated[str | None, Parameter(help="Only this teamspace.")] = None,
    json: Json = False,
) -> None:
    """List the schedules, each with the next time at which it fires."""
    asked = Schedules(teamspace=teamspace, count=1)
    views: list[ScheduleView] = []
    with control(place) as daemon:
        while True:
            page = daemon.client.call(asked)
            views += page.schedules
            if page.next is None:
                break
            asked = replace(asked, after=page.next)
    if json:
        for view in views:
            terminal.json_line(view)
        return
    terminal.columns(
        ("TEAMSPACE", "SCHEDULE", "SUBMITS", "FIRES", "NEXT"),
        [
            (
                shown(view.teamspace),
                shown(view.schedule),
                shown(str(view.submission.get("kind", ""))),
                shown(words(view.timetable)),
                "paused" if view.paused else view.coming[0].local if view.coming else "never",
            )
            for view in views
        ],
    )


@schedule.command
def describe(name: Name, /, *, place: Placed, teamspace: Teamspace, count: Count = 5, json: Json = False) -> None:
    """Show a schedule: when it fires next, and what became of the times before."""
    _show(_told(place, Schedules(action="describe", teamspace=teamspace, name=name, count=count)), json=json)


@schedule.command
def add(
    name: Name,
    file: Annotated[
        FileOrDash, Parameter(name="FILE", help="The job: one JSON object or a TOML file; - is standard input.")
    ],
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    zone: Zone,
    daily: Every = None,
    weekly: OnDays = None,
    monthly: OnDay = None,
    at: At = None,
    cron: ByCron = None,
    missed: Annotated[
        Literal["skip", "once", "all"],
        Parameter(help="What becomes of times that the daemon was not there for: skip, once (one for all), or all."),
    ] = "skip",
    overlap: Annotated[Flag, Parameter(help="Fire also while the job of the time before still goes on.")] = False,
    json: Json = False,
) -> None:
    """Submit a job by the clock from now on."""
    asked = Schedules(
        action="add",
        teamspace=teamspace,
        name=name,
        timetable=_timetable(zone, daily, weekly, monthly, at, cron),
        submission=_job_in(file),
        missed=missed,
        overlap=overlap,
    )
    _show(_told(place, asked), json=json)


@schedule.command
def preview(
    *,
    place: Placed,
    teamspace: Annotated[str | None, Parameter(help="The teamspace of --job.")] = None,
    job: Annotated[
        FileOrDash | None, Parameter(help="The job, as for add: times are marked at which it may be skipped.")
    ] = None,
    zone: Zone,
    daily: Every = None,
    weekly: OnDays = None,
    monthly: OnDay = None,
    at: At = None,
    cron: ByCron = None,
    count: Count = 10,
    json: Json = False,
) -> None:
    """Tell when a schedule would fire, with what changes of the clocks do to it. Nothing is stored."""
    if (job is None) != (teamspace is None):
        raise Misused("--job goes with --teamspace, and it with --job")
    asked = Schedules(
        action="preview",
        teamspace=teamspace,
        timetable=_timetable(zone, daily, weekly, monthly, at, cron),
        submission=None if job is None else _job_in(job),
        count=count,
    )
    reply = _told(place, asked)
    if json:
        for each in reply.coming:
            terminal.json_line(each)
        return
    _show_coming(reply.coming)
    _show_warnings(reply)


@schedule.command
def pause(name: Name, /, *, place: Placed, teamspace: Teamspace) -> None:
    """Have a schedule fire no more, until it is resumed; what it has submitted goes on."""
    _told(place, Schedules(action="pause", teamspace=teamspace, name=name))
    terminal.say(f"{shown(name)} is paused.")


@schedule.command
def resume(name: Name, /, *, place: Placed, teamspace: Teamspace) -> None:
    """Have a schedule fire again, from now on."""
    (view,) = _told(place, Schedules(action="resume", teamspace=teamspace, name=name, count=1)).schedules
    terminal.say(f"{shown(name)} goes on: {_next(view)}.")


@schedule.command
def delete(name: Name, /, *, place: Placed, teamspace: Teamspace) -> None:
    """Delete a schedule with its history; what it has submitted stays."""
    _told(place, Schedules(action="delete", teamspace=teamspace, name=name))
    terminal.say(f"{shown(name)} is deleted.")


def words(timetable: Schedule) -> str:
    """When a schedule fires, for people."""
    match timetable:
        case Daily(at):
            when = f"daily at {at}"
        case Weekly(days, at):
            when = f"{', '.join(days)} at {at}"
        case Monthly("last", at):
            when = f"on the last day of the month at {at}"
        case Monthly(day, at):
            when = f"monthly on day {day} at {at}"
        case Cron(line):
            when = f"cron {line}"
    return f"{when}, {timetable.zone}"


def _timetable(
    zone: str, daily: str | None, weekly: str | None, monthly: str | None, at: str | None, cron: str | None
) -> Schedule:
    given = [each for each in (daily, weekly, monthly, cron) if each is not None]
    if len(given) != 1:
        raise Misused("say when: one of --daily, --weekly, --monthly and --cron")
    if (at is not None) != (weekly is not None or monthly is not None):
        raise Misused("--at goes with --weekly and --monthly, and they with --at")
    if daily is not None:
        return Daily(daily, zone)
    if cron is not None:
        return Cron(cron, zone)
    assert at is not None
    if weekly is not None:
        try:
            return Weekly(tuple(Weekday(day.strip().lower()) for day in weekly.split(",")), at, zone)
        except ValueError:
            raise Misused(f"--weekly names days such as mon,thu, not {weekly}") from None
    assert monthly is not None
    if monthly != "last" and not monthly.isdecimal():
        raise Misused(f"--monthly is a day from 1 to 31, or last, not {monthly}")
    return Monthly("last" if monthly == "last" else int(monthly), at, zone)


def _job_in(file: Path) -> dict[str, Any]:
    if file.suffix == ".toml":
        return {"kind": "chain", **read_toml(file)}
    text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Failed(f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Failed(f"{file} holds no JSON object")
    return found


def _told(place: Place, asked: Schedules) -> SchedulesReply:
    with control(place) as daemon:
        return daemon.client.call(asked)


def _next(view: ScheduleView) -> str:
    return f"next at {view.coming[0].local}" if view.coming else "it never fires again"


def _show(reply: SchedulesReply, *, json: bool) -> None:
    (view,) = reply.schedules
    if json:
        terminal.json_line(view)
        return
    terminal.say(f"Schedule {shown(view.schedule)} of {shown(view.teamspace)}: {shown(words(view.timetable))}.")
    terminal.say(f"  It submits: {shown(msgspec.json.encode(view.submission).decode())}")
    missed = {"skip": "are skipped", "once": "are made up for by one job", "all": "are all made up for"}[view.missed]
    terminal.say(f"  Times that were missed {missed}.")
    if view.overlap:
        terminal.say("  It fires also while the job of the time before still goes on.")
    terminal.say()
    if view.paused:
        terminal.say("It is paused.")
    else:
        _show_coming(view.coming)
    if view.past:
        terminal.say()
        _show_past(view.past)
    _show_warnings(reply)


def _show_warnings(reply: SchedulesReply) -> None:
    for warning in reply.warnings:
        terminal.say()
        terminal.say(f"Warning: {shown(warning.message)}.")


def _show_coming(coming: list[ComingOccurrence]) -> None:
    if not coming:
        terminal.say("It never fires.")
        return
    terminal.columns(("NEXT", "UTC", ""), [(each.local, f"{each.at:%Y-%m-%d %H:%M}", _remark(each)) for each in coming])


def _remark(coming: ComingOccurrence) -> str:
    """What is to be known of a time: what the clocks do then, and that the quota may not allow it."""
    quota = "" if coming.quota is None else f"may be skipped: {coming.quota}"
    return "; ".join(each for each in (_MARKS[coming.mark], quota) if each)


def _show_past(past: list[PastOccurrence]) -> None:
    now = terminal.now()
    terminal.columns(
        ("DUE", "JOB", "WHAT CAME OF IT"),
        [
            (
                clock(each.at, now),
                "" if each.job is None else str(each.job),
                shown(f"{_VERDICTS[each.verdict]}{': ' + each.message if each.message else ''}"),
            )
            for each in past
        ],
        right=("JOB",),
    )
