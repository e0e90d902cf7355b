"""How close the starts of one job come to each other, on the wall.

The rule of a plan is a minimal gap from one start to the next, in wall-clock time, over all schedules of the job
together and of each with itself: what the clocks do in two nights of the year is left out of it. A start is a day and a
minute. Of two schedules, `a` may start and `b` follow k days later iff the days of `a` and the days of `b`, moved k
days back, have one in common; on the cycle that is one AND (`cycle`). If they have, their gap is that of the latest
minute of `a` and the earliest of `b`, and k days; within one day it is the smallest difference of two of their
minutes. All gaps that can be shorter than some bound are so found without walking through the days: none is missed,
however rare, and none is imagined.
"""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from itertools import product
from typing import Final

from msgspec import Struct

from leadline.core.calendar import cycle
from leadline.core.calendar.cycle import Days
from leadline.core.calendar.schedules import Timetable
from leadline_protocol.errors import ErrorCode, Refused

DAY_MINUTES: Final = 1_440


class Start(Struct, frozen=True, gc=False):
    """A moment at which a schedule starts its job."""

    schedule: int
    """Its index among the job's schedules."""
    wall: datetime
    """Without a zone."""


class Gap(Struct, frozen=True, gc=False):
    """Two starts, and the minutes from the one to the other."""

    minutes: int
    earlier: Start
    later: Start


def check_gap(schedules: Sequence[tuple[str, Timetable]], minutes_min: int, today: date, at: str) -> None:
    """Refuse the schedules of one job, each with its name, if two starts can be less than these minutes apart.

    Raises:
        Refused: `bad_schedule`, `at` this field, with the closest two starts there are, the next of their kind from
            `today` on. Also where the schedules are of several zones: there is no one wall then.

    """
    timetables = [timetable for _, timetable in schedules]
    for timetable in timetables:
        if minutes_min and timetable.zone is not timetables[0].zone:
            message = f"all schedules of a job need the same zone, for the gap between its starts: {timetables[0].zone}"
            raise Refused(ErrorCode.BAD_SCHEDULE, message, at=f"{at}.zone")
    gap = closest(timetables, minutes_min, today)
    if gap is not None:
        earlier, later = (
            f"{schedules[each.schedule][0]} at {each.wall:%Y-%m-%d %H:%M}" for each in (gap.earlier, gap.later)
        )
        message = f"{earlier} and {later} are {gap.minutes} minutes apart; the plan wants {minutes_min} at least"
        raise Refused(ErrorCode.BAD_SCHEDULE, message, at=at)


def closest(timetables: Sequence[Timetable], minutes: int, today: date) -> Gap | None:
    """The smallest gap under this many minutes between two starts; None: there is none.

    Two schedules that start at the same minute are 0 apart. The dates are the next such ones from `today` on.
    """
    for gap, days_between, earlier, later, minute in sorted(_candidates(timetables, minutes)):
        both = Days(timetables[earlier].days & cycle.earlier(timetables[later].days, days_between))
        day = cycle.first(both, today)
        if day is not None:
            wall = datetime(day.year, day.month, day.day) + timedelta(minutes=minute)  # noqa: DTZ001 - a wall time
            return Gap(gap, Start(earlier, wall), Start(later, wall + timedelta(minutes=gap)))
    return None


def _candidates(timetables: Sequence[Timetable], minutes: int) -> Iterator[tuple[int, int, int, int, int]]:
    """The smallest gap of each two schedules and each number of days between, if it is under these minutes.

    As (gap, days between, earlier, later, minute of the earlier start); whether there are such days is left open.
    """
    on_the_day = [sum(1 << minute for minute in each.minutes) for each in timetables]
    for earlier, later in product(range(len(timetables)), repeat=2):
        for gap in range(earlier >= later, min(minutes, DAY_MINUTES)):
            met = on_the_day[earlier] & on_the_day[later] >> gap
            if met:
                yield gap, 0, earlier, later, (met & -met).bit_length() - 1
                break
        for days_between in range(1, (minutes + DAY_MINUTES - 1) // DAY_MINUTES + 1):
            minute = timetables[earlier].minutes[-1]
            gap = days_between * DAY_MINUTES + timetables[later].minutes[0] - minute
            if gap < minutes:
                yield gap, days_between, earlier, later, minute
