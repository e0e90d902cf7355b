"""The instants at which a schedule fires, one after the other, and what people are shown of them.

An occurrence is an instant. Each wall time of the timetable has one, and several have the same one where they fall into
one gap of the clocks, or where the end of the gap is a wall time of the timetable itself: that is one occurrence.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby, islice, pairwise
from operator import itemgetter
from typing import Final

from msgspec import Struct

from leadline.core.calendar import cycle
from leadline.core.calendar.schedules import Timetable
from leadline.core.calendar.zones import Mark, instant_of, wall_at
from leadline_protocol.ids import Instant

_DAY: Final = timedelta(days=1)
_PREVAILING: Final = list(Mark)


class Occurrence(Struct, frozen=True, gc=False):
    """One firing of a schedule."""

    instant: Instant
    """Wall time, in microseconds of Unix time."""
    mark: Mark = Mark.NORMAL
    """`moved` only where it would not fire at this instant without the change of clocks."""


class Shown(Struct, frozen=True, gc=False):
    """An occurrence for people."""

    instant: Instant
    local: str
    """ISO 8601 with the offset that is in force then, to the minute: `2026-10-25T02:30+02:00`."""
    mark: Mark


def occurrences(timetable: Timetable, after: Instant, until: Instant | None = None) -> Iterator[Occurrence]:
    """Those later than an instant and no later than another, strictly increasing, found as they are asked for.

    Without an `until` they go on to the end of the year 9998.
    """
    met = (instant_of(wall, timetable.zone) for wall in _walls(timetable, wall_at(after, timetable.zone)))
    for instant, walls in groupby(met, key=itemgetter(0)):
        if until is not None and instant > until:
            return
        if instant > after:
            yield Occurrence(instant, min((mark for _, mark in walls), key=_PREVAILING.index))


def preview(timetable: Timetable, after: Instant, count: int) -> list[Shown]:
    """The next `count` occurrences after an instant."""
    return [
        Shown(each.instant, wall_at(each.instant, timetable.zone).isoformat(timespec="minutes"), each.mark)
        for each in islice(occurrences(timetable, after), count)
    ]


def counts(timetable: Timetable, bounds: Sequence[Instant]) -> list[int]:
    """How many occurrences each interval has, from one bound on and before the next; bounds are increasing.

    An interval is a day or so: nowhere are clocks changed there and back in that time. While they are not changed, the
    wall times that pass are the occurrences, and are counted without being looked at.
    """
    walls = [wall_at(bound, timetable.zone) for bound in bounds]
    passed = _passed(timetable, walls)
    found = []
    for number, (start, end) in enumerate(pairwise(bounds)):
        before = wall_at(Instant(start - 1), timetable.zone)
        if before.utcoffset() == walls[number].utcoffset() == walls[number + 1].utcoffset():
            found.append(passed[number + 1] - passed[number])
        else:
            found.append(sum(1 for _ in occurrences(timetable, Instant(start - 1), Instant(end - 1))))
    return found


def _passed(timetable: Timetable, walls: Sequence[datetime]) -> list[int]:
    """How many wall times of the timetable are before each of these, from the day of the first on."""
    first, last = walls[0].date(), walls[-1].date()
    days = cycle.window(timetable.days, first, (last - first).days + 1)
    passed = []
    for wall in walls:
        number = (wall.date() - first).days
        whole_days = (days & (1 << number) - 1).bit_count()
        today = bisect_left(timetable.minutes, _minute(wall)) if days >> number & 1 else 0
        passed.append(whole_days * len(timetable.minutes) + today)
    return passed


def _walls(timetable: Timetable, start: datetime) -> Iterator[datetime]:
    """The wall times of the timetable from the minute of `start` on, without a zone."""
    minutes = timetable.minutes
    day = start.date()
    while (met := cycle.first(timetable.days, day)) is not None:
        midnight = datetime(met.year, met.month, met.day)  # noqa: DTZ001 - a wall time
        passed = _minute(start) if met == start.date() else 0
        for minute in minutes[bisect_left(minutes, passed) :]:
            yield midnight + timedelta(minutes=minute)
        day = met + _DAY


def _minute(wall: datetime) -> int:
    return 60 * wall.hour + wall.minute
