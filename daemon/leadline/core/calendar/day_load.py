"""How much several schedules can ask of one day, and whether that is more than the day has.

A plan counts executions and time by the local day of the teamspace's zone. A run belongs to the day in which it
starts, and is reckoned with the longest that it may take. A local day has 23, 24 or 25 hours, or where the clocks
change by half an hour or two so much more or less; and schedules of another zone have their change of clocks in another
night. So the days are not taken from a pattern: each is bounded by its own two midnights, and what falls between them
is counted.
"""

from collections.abc import Sequence
from datetime import date, timedelta, tzinfo
from typing import Final

from msgspec import Struct

from leadline.core.calendar.occurrences import counts
from leadline.core.calendar.schedules import Timetable
from leadline.core.calendar.zones import day_start

DAYS_AHEAD: Final = 1_462
"""Four years and a day: a 29 February is among them, except about the year 2100."""


class Scheduled(Struct, frozen=True, gc=False):
    """A schedule and what each of its runs can take."""

    timetable: Timetable
    milliseconds_max: int


class DayLimits(Struct, frozen=True, gc=False):
    """What a day has."""

    executions: int
    milliseconds: int


class DayLoad(Struct, frozen=True, gc=False):
    """What the schedules ask of a day at most."""

    day: date
    executions: int
    milliseconds: int


class Overrun(Struct, frozen=True, gc=False):
    """The days of which the schedules together can ask more than there is."""

    first: DayLoad
    most_executions: DayLoad
    """Of the days in question the first with the most executions."""
    most_time: DayLoad
    days: int
    """How many days they are."""


def overrun(
    plans: Sequence[Scheduled], zone: tzinfo, limits: DayLimits, today: date, days: int = DAYS_AHEAD
) -> Overrun | None:
    """Which of the days from `today` on the schedules can overrun, in executions or in time; None: none of them.

    A limit that is just reached is not overrun.
    """
    beyond = [
        load
        for load in day_loads(plans, zone, today, days)
        if load.executions > limits.executions or load.milliseconds > limits.milliseconds
    ]
    if not beyond:
        return None
    return Overrun(
        beyond[0],
        max(beyond, key=lambda load: load.executions),
        max(beyond, key=lambda load: load.milliseconds),
        len(beyond),
    )


def day_loads(plans: Sequence[Scheduled], zone: tzinfo, today: date, days: int) -> list[DayLoad]:
    """What the schedules ask of each of so many days from `today` on."""
    midnights = [day_start(today + timedelta(days=number), zone) for number in range(days + 1)]
    executions, milliseconds = [0] * days, [0] * days
    for plan in plans:
        for number, count in enumerate(counts(plan.timetable, midnights)):
            executions[number] += count
            milliseconds[number] += count * plan.milliseconds_max
    return [DayLoad(today + timedelta(days=number), executions[number], milliseconds[number]) for number in range(days)]
