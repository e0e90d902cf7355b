"""The sets of days are the calendar's own, on each day of the 400 years, and so are the days of a cron line."""

from calendar import monthrange
from datetime import date, timedelta

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.core.calendar import cycle
from leadline.core.calendar.cycle import CYCLE_DAYS, Days
from leadline.core.calendar.schedules import read_schedule
from leadline_protocol.errors import Refused
from leadline_protocol.schedules import Cron
from tests.core.minute_walk import ANY_TIME

FIRST = date(2001, 1, 1)
EVERY_DAY = [FIRST + timedelta(days=number) for number in range(CYCLE_DAYS)]
TRICKY_YEARS = [day for day in EVERY_DAY if day.year in range(2001, 2029) or day.year in range(2095, 2105)]


def bits(days: int) -> str:
    """Its n-th character is 1 where the n-th day of the cycle is in the set."""
    return f"{days:0{CYCLE_DAYS}b}"[::-1]


def test_each_day_of_the_cycle_is_in_the_sets_that_it_belongs_to_and_in_no_other() -> None:
    parts = cycle.parts()
    months, days, weekdays = ([bits(each) for each in sets] for sets in (parts.months, parts.days, parts.weekdays))
    lasts = bits(parts.lasts)
    for number, day in enumerate(EVERY_DAY):
        assert months[day.month - 1][number] == days[day.day - 1][number] == weekdays[day.weekday()][number] == "1"
        assert (lasts[number] == "1") == (day.day == monthrange(day.year, day.month)[1])
    for sets in (parts.months, parts.days, parts.weekdays):
        assert sum(each.bit_count() for each in sets) == CYCLE_DAYS


def sets_of_days() -> st.SearchStrategy[Days]:
    """Any few days, with those at the ends of the cycle among them more often."""
    places = st.one_of(st.integers(0, CYCLE_DAYS - 1), st.sampled_from([0, 1, CYCLE_DAYS - 2, CYCLE_DAYS - 1]))
    return st.sets(places, max_size=6).map(lambda places: Days(sum(1 << place for place in places)))


def is_in(days: Days, day: date) -> bool:
    return bool(days >> (day - FIRST).days % CYCLE_DAYS & 1)


DATES = st.dates(date(1900, 1, 1), date(3000, 1, 1)) | st.sampled_from([date(2000, 12, 31), FIRST, date(2400, 12, 31)])


@given(sets_of_days(), DATES)
def test_the_first_day_of_a_set_is_in_it_and_none_before_is(days: Days, start: date) -> None:
    found = cycle.first(days, start)
    if found is None:
        assert days == 0
    else:
        assert found >= start
        assert is_in(days, found)
        passed = cycle.window(days, start, min((found - start).days, CYCLE_DAYS - 1))
        assert passed == 0


@given(sets_of_days(), DATES, st.integers(1, 40))
def test_a_window_has_the_days_that_are_in_the_set(days: Days, start: date, count: int) -> None:
    seen = cycle.window(days, start, count)
    assert [bool(seen >> n & 1) for n in range(count)] == [is_in(days, start + timedelta(days=n)) for n in range(count)]
    assert seen >> count == 0


@given(sets_of_days(), DATES, st.integers(0, 400))
def test_a_set_moved_back_has_the_days_before_those_it_had(days: Days, day: date, by: int) -> None:
    moved = cycle.earlier(days, by)
    assert is_in(moved, day) == is_in(days, day + timedelta(days=by))
    assert moved.bit_count() == days.bit_count()
    assert moved >> CYCLE_DAYS == 0


DAY_FIELDS = st.sampled_from(["*", "*/3", "1", "31", "30", "L", "LW", "1-7", "8-14", "15,L", "LW,3", "29,30", "*,L"])
MONTHS = st.sampled_from(["*", "2", "FEB", "*/2", "4,6,9,11", "JAN-MAR", "12"])
WEEKDAYS = st.sampled_from(["*", "0", "7", "5L", "1L,3L", "MON#1", "2#5", "*/2", "1-5", "SUN,SAT", "*/8,MON#5", "0-7"])


def matched_by_cronsim(line: str) -> list[date]:
    try:
        cron = CronSim(line, ANY_TIME)
    except CronSimError:  # it sees of some lines that they never match
        return []
    return [day for day in TRICKY_YEARS if day.month in cron.months and cron.match_day(day)]


def read(line: str) -> list[date]:
    try:
        shown = bits(read_schedule(Cron(line, "UTC")).days)
    except Refused:
        return []
    return [day for day in TRICKY_YEARS if shown[(day - FIRST).days] == "1"]


@settings(max_examples=100)
@given(DAY_FIELDS, MONTHS, WEEKDAYS)
def test_the_days_of_a_cron_line_are_those_that_cronsim_matches(day: str, month: str, weekday: str) -> None:
    line = f"0 0 {day} {month} {weekday}"
    assert read(line) == matched_by_cronsim(line)


@pytest.mark.parametrize(
    ("line", "in_400_years"),
    [
        ("0 0 29 2 *", 97),
        ("0 0 31 * *", 7 * 400),
        ("0 0 L * *", 4_800),
        ("0 0 LW * *", 4_800),
        ("0 0 * * 5L", 4_800),
    ],
)
def test_a_cron_line_has_as_many_days_as_the_calendar(line: str, in_400_years: int) -> None:
    assert read_schedule(Cron(line, "UTC")).days.bit_count() == in_400_years
