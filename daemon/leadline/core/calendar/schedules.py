"""What people write as a schedule, and the wall times that it means.

Four shapes, each in one IANA zone: daily, weekly, monthly, and a cron line for the rest. All four become one thing, a
`Timetable`: a set of days and a set of minutes of the day, which every other question is asked of. The first three are
written as cron lines on the way there, so that there is one reading of days and minutes. It is cronsim's: `*`, `,`, `-`
and `/`; names of months and of days; `L` the last day of the month, `LW` its last working day, `5L` its last
Friday, `5#2` its second one. Where both the day of the month and the day of the week are given, either is enough,
unless one of them begins with `*`, as in Debian's cron.

A day that a month does not have is passed over: a schedule for day 31 has seven days a year.
"""

import re
from datetime import datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from msgspec import Struct

from leadline.core.calendar import cycle
from leadline.core.calendar.cycle import Days
from leadline.core.calendar.zones import zone
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.schedules import Cron, Daily, Monthly, Schedule, Weekly

CRON_CHARACTERS_MAX: Final = 500
"""A line that lists every minute, hour and day has 400."""

_CRON_FIELDS: Final = ("minute", "hour", "day of the month", "month", "day of the week")
_AT: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_ANY_TIME: Final = datetime(2000, 1, 1)  # noqa: DTZ001 - cronsim wants one to start from; only its fields are used


class Timetable(Struct, frozen=True, gc=False):
    """A schedule that was read: it fires at each of the minutes on each of the days, by the zone's wall."""

    days: Days
    """Never empty."""
    minutes: tuple[int, ...]
    """Minutes since midnight, 0 to 1,439, increasing, one at least."""
    zone: ZoneInfo


def read_schedule(schedule: Schedule, field: str = "schedule") -> Timetable:
    """Read a schedule that stands in this field.

    Raises:
        Refused: `bad_schedule`, at the field within the schedule, of a cron line `line:N` with N the 1-based character.

    """
    try:
        known = zone(schedule.zone)
    except KeyError:
        raise _bad(f"there is no zone {schedule.zone[:50]!r} in the IANA list", f"{field}.zone") from None
    match schedule:
        case Daily(at):
            days, minutes = _read_cron(f"{_cron_time(at, field)} * * *")
        case Weekly(weekdays, at):
            if not weekdays:
                raise _bad("a weekly schedule needs a day", f"{field}.days")
            days, minutes = _read_cron(f"{_cron_time(at, field)} * * {','.join(weekdays)}")
        case Monthly(day, at):
            if day != "last" and not 1 <= day <= 31:
                raise _bad(f"a month has days 1 to 31 and a last one, not {day}", f"{field}.day")
            days, minutes = _read_cron(f"{_cron_time(at, field)} {'L' if day == 'last' else day} * *")
        case Cron(line):
            days, minutes = _check_cron(line, f"{field}.line")
    return Timetable(days, minutes, known)


def _bad(message: str, at: str) -> Refused:
    return Refused(ErrorCode.BAD_SCHEDULE, message, at=at)


def _cron_time(at: str, field: str) -> str:
    """HH:MM as the first two fields of a cron line."""
    time = _AT.fullmatch(at)
    if time is None:
        raise _bad(f"a time of day is HH:MM from 00:00 to 23:59, not {at[:50]!r}", f"{field}.at")
    return f"{int(time[2])} {int(time[1])}"


def _check_cron(line: str, at: str) -> tuple[Days, tuple[int, ...]]:
    """Read a line that somebody wrote, and say what is wrong with it where cronsim does not."""
    if len(line) > CRON_CHARACTERS_MAX:
        raise _bad(f"a cron line has at most {CRON_CHARACTERS_MAX} characters", at)
    fields = list(re.finditer(r"\S+", line))
    if len(fields) != len(_CRON_FIELDS):  # cronsim would take a sixth, for seconds
        raise _bad(f"a cron line has five fields ({', '.join(_CRON_FIELDS)}), not {len(fields)}", at)
    try:
        days, minutes = _read_cron(line)
    except CronSimError:
        for number, (name, field) in enumerate(zip(_CRON_FIELDS, fields, strict=True)):
            try:
                CronSim(" ".join(field[0] if each == number else "*" for each in range(len(fields))), _ANY_TIME)
            except CronSimError:
                raise _bad(f"{field[0]!r} is no {name}", f"{at}:{field.start() + 1}") from None
        days, minutes = Days(0), ()  # each field is good by itself, but together they are never met
    if not days:
        raise _bad("no day is ever met by the last three fields", f"{at}:{fields[2].start() + 1}")
    return days, minutes


def _read_cron(line: str) -> tuple[Days, tuple[int, ...]]:
    cron = CronSim(line, _ANY_TIME)
    minutes = tuple(60 * hour + minute for hour in sorted(cron.hours) for minute in sorted(cron.minutes))
    return _days(frozenset(cron.days), frozenset(cron.months), frozenset(cron.weekdays), cron.day_and), minutes


@lru_cache(maxsize=256)
def _days(
    month_days: frozenset[int], months: frozenset[int], weekdays: frozenset[int | tuple[int, int]], both: bool
) -> Days:
    """The days that fields mean which cronsim has read."""
    parts = cycle.parts()
    by_month_day = cycle.union(_month_day(day) for day in month_days)
    by_weekday = cycle.union(_weekday(day) for day in weekdays)
    met = by_month_day & by_weekday if both else by_month_day | by_weekday
    return Days(met & cycle.union(parts.months[month - 1] for month in months))


def _month_day(day: int) -> Days:
    parts = cycle.parts()
    if day == CronSim.LAST:
        return parts.lasts
    if day == CronSim.LAST_WEEKDAY:
        *workdays, saturday, sunday = (Days(parts.lasts & weekday) for weekday in parts.weekdays)
        return cycle.union((*workdays, cycle.earlier(saturday, 1), cycle.earlier(sunday, 2)))
    return parts.days[day - 1]


def _weekday(day: int | tuple[int, int]) -> Days:
    """A day of the week as cron counts them, 0 and 7 Sunday, or the n-th or last of each month."""
    parts = cycle.parts()
    if isinstance(day, int):
        return parts.weekdays[(day - 1) % 7]
    weekday, which = day
    if which == CronSim.LAST:
        week = cycle.union(cycle.earlier(parts.lasts, by) for by in range(7))
    else:
        week = cycle.union(parts.days[7 * (which - 1) : 7 * which])
    return Days(parts.weekdays[(weekday - 1) % 7] & week)
