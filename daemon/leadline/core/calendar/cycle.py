"""Sets of days, for all time: the calendar repeats itself, so a set of its days is a number of 146,097 bits.

The Gregorian calendar has a cycle of 400 years, and its 146,097 days are 20,871 whole weeks: dates and days of the week
come again together. Whatever asks for the month, the day in it and the day of the week is therefore known for good by
the days of one cycle on which it is so. Bit n stands for the n-th day of the cycle; bit 0 is a Monday, 1 January of
the years 1, 401, ..., 2001. On such numbers "is there ever a day of the one right before a day of the other" is a shift
and an AND of 18 kB: exact, and a matter of microseconds.
"""

from calendar import isleap
from collections.abc import Iterable, Iterator
from datetime import date
from functools import cache, reduce
from itertools import accumulate
from operator import or_
from typing import Final, NewType

from msgspec import Struct

Days = NewType("Days", int)
"""A set of days of the cycle."""

CYCLE_DAYS: Final = 146_097
"""Days in 400 years."""

_EVERY_DAY: Final = (1 << CYCLE_DAYS) - 1
_LAST_DAY: Final = date(9998, 12, 31).toordinal()
"""A year before the dates end, so that the days round it have their dates in all zones."""


class Parts(Struct, frozen=True, gc=False):
    """The sets that all others are made of."""

    months: tuple[Days, ...]
    """The days of January, of February, ..."""
    days: tuple[Days, ...]
    """All first days of a month, all second ones, ..., all 31st."""
    weekdays: tuple[Days, ...]
    """All Mondays, all Tuesdays, ..."""
    lasts: Days
    """The last days of all months."""


@cache
def parts() -> Parts:
    """The parts of the cycle; made when they are first asked for, in some milliseconds."""
    marks, starts = [bytearray(CYCLE_DAYS) for _ in range(12)], accumulate(_month_lengths(), initial=0)
    for number, start in zip(range(4_800), starts, strict=False):
        marks[number % 12][start] = 1
    firsts = [_from_bytes(mark) for mark in marks]
    januaries_to_come = firsts[0] - 1 + (1 << CYCLE_DAYS)  # the first one follows the last December
    lasts = [first >> 1 for first in (*firsts[1:], januaries_to_come)]
    days, months = [0] * 31, list(firsts)
    for month, (opening, last) in enumerate(zip(firsts, lasts, strict=True)):
        day = opening
        for number in range(31):
            days[number] |= day
            months[month] |= day
            day = (day & ~last) << 1
    mondays = _EVERY_DAY // 0b111_1111
    return Parts(
        tuple(map(Days, months)),
        tuple(map(Days, days)),
        tuple(Days(mondays << day) for day in range(7)),
        union(map(Days, lasts)),
    )


def _month_lengths() -> Iterator[int]:
    for year in range(1, 401):
        yield from (31, 29 if isleap(year) else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _from_bytes(mark: bytearray) -> int:
    """The number that has a bit where there is a 1."""
    return int(mark[::-1].translate(bytes([48, 49]) + bytes(254)), 2)


def union(sets: Iterable[Days]) -> Days:
    """The days that are in any of them."""
    return Days(reduce(or_, sets, 0))


def window(days: Days, start: date, count: int) -> int:
    """Which of `count` days from `start` on are in the set, as bits; less than a cycle."""
    place = _place(start)
    return (days >> place | days << CYCLE_DAYS - place) & (1 << count) - 1


def earlier(days: Days, by: int) -> Days:
    """The days that are `by` days before those of the set; less than a cycle."""
    return Days(days >> by | (days & (1 << by) - 1) << CYCLE_DAYS - by)


def first(days: Days, start: date) -> date | None:
    """The first date of the set, from `start` on; None where the set is empty or the year 9998 is over."""
    place = _place(start)
    ahead = days >> place or days << CYCLE_DAYS - place
    if not ahead:
        return None
    ordinal = start.toordinal() + (ahead & -ahead).bit_length() - 1
    return date.fromordinal(ordinal) if ordinal <= _LAST_DAY else None


def _place(day: date) -> int:
    return (day.toordinal() - 1) % CYCLE_DAYS
