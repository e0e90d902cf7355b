"""Two starts of a job are never closer than its plan allows, on no day of the calendar, and what is refused is so."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.core.calendar.gaps import Gap, Start, check_gap, closest
from leadline.core.calendar.schedules import read_schedule
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.schedules import Cron, Daily, Monthly, Schedule, Weekday, Weekly
from tests.core.minute_walk import wanted

BERLIN = "Europe/Berlin"
SUNDAY, MONDAY, TUESDAY = Weekday.SUNDAY, Weekday.MONDAY, Weekday.TUESDAY
TODAY = date(2026, 11, 27)


def daily(at: str) -> Daily:
    return Daily(at, BERLIN)


def weekly(day: Weekday, at: str) -> Weekly:
    return Weekly((day,), at, BERLIN)


def monthly(day: int | Literal["last"], at: str) -> Monthly:
    return Monthly(day, at, BERLIN)


def cron(line: str) -> Cron:
    return Cron(line, BERLIN)


def smallest(*schedules: Schedule, under: int = 60) -> Gap | None:
    return closest([read_schedule(each) for each in schedules], under, TODAY)


def gap(minutes: int, earlier: tuple[int, str], later: tuple[int, str]) -> Gap:
    return Gap(minutes, *(Start(each, datetime.fromisoformat(wall)) for each, wall in (earlier, later)))


@pytest.mark.parametrize(
    ("schedules", "found"),
    [
        ([daily("23:30"), daily("00:15")], gap(45, (0, "2026-11-27 23:30"), (1, "2026-11-28 00:15"))),
        (
            [weekly(SUNDAY, "23:30"), weekly(MONDAY, "00:15")],
            gap(45, (0, "2026-11-29 23:30"), (1, "2026-11-30 00:15")),
        ),
        ([monthly(31, "23:30"), monthly(1, "00:15")], gap(45, (0, "2026-12-31 23:30"), (1, "2027-01-01 00:15"))),
        ([monthly(30, "23:30"), monthly(1, "00:15")], gap(45, (0, "2026-11-30 23:30"), (1, "2026-12-01 00:15"))),
        ([monthly(29, "23:30"), monthly(1, "00:15")], gap(45, (0, "2028-02-29 23:30"), (1, "2028-03-01 00:15"))),
        ([monthly(28, "23:30"), monthly(1, "00:15")], gap(45, (0, "2027-02-28 23:30"), (1, "2027-03-01 00:15"))),
        ([monthly(1, "00:15"), monthly("last", "23:30")], gap(45, (1, "2026-11-30 23:30"), (0, "2026-12-01 00:15"))),
        ([daily("12:00"), daily("12:59")], gap(59, (0, "2026-11-27 12:00"), (1, "2026-11-27 12:59"))),
        ([daily("12:00"), daily("12:00")], gap(0, (0, "2026-11-27 12:00"), (1, "2026-11-27 12:00"))),
        ([cron("*/30 * * * *")], gap(30, (0, "2026-11-27 00:00"), (0, "2026-11-27 00:30"))),
        ([cron("59 23 * * *"), cron("0 0 1 1 *")], gap(1, (0, "2026-12-31 23:59"), (1, "2027-01-01 00:00"))),
        ([cron("5,59 0,23 * * *")], gap(6, (0, "2026-11-27 23:59"), (0, "2026-11-28 00:05"))),
        ([cron("15,30 0,23 * * *")], gap(15, (0, "2026-11-27 00:15"), (0, "2026-11-27 00:30"))),
        ([cron("30 0,23 * * *"), cron("30 23 29 2 */7")], gap(0, (0, "2032-02-29 23:30"), (1, "2032-02-29 23:30"))),
    ],
)
def test_starts_that_are_too_close_are_found_with_the_next_of_their_dates(
    schedules: list[Schedule], found: Gap
) -> None:
    assert smallest(*schedules) == found


@pytest.mark.parametrize(
    "schedules",
    [
        [],
        [daily("23:30")],
        [daily("23:30"), daily("00:30")],
        [weekly(SUNDAY, "23:30"), weekly(TUESDAY, "00:15")],
        [weekly(MONDAY, "23:30"), weekly(MONDAY, "00:15")],
        [monthly(27, "23:30"), monthly(1, "00:15")],
        [monthly(31, "00:15"), monthly(1, "23:30")],
        [monthly("last", "12:00"), weekly(MONDAY, "13:00")],
        [cron("30 23 30 4 *"), monthly(2, "00:15")],
        [cron("0 * * * *")],
        [cron("0 12 * * MON#5"), cron("30 12 1-28 * *")],
    ],
)
def test_starts_that_are_far_enough_apart_are_fine(schedules: list[Schedule]) -> None:
    assert smallest(*schedules) is None
    check_gap([(f"s{number}", read_schedule(each)) for number, each in enumerate(schedules)], 60, TODAY, "timetable")


def test_exactly_the_gap_is_allowed_and_a_minute_less_is_not() -> None:
    schedules = [("late", read_schedule(daily("23:30"))), ("early", read_schedule(daily("00:15")))]
    check_gap(schedules, 45, TODAY, "timetable")
    with pytest.raises(Refused) as refused:
        check_gap(schedules, 46, TODAY, "timetable")
    told = refused.value
    assert (told.code, told.at) == (ErrorCode.BAD_SCHEDULE, "timetable")
    assert told.message == (
        "late at 2026-11-27 23:30 and early at 2026-11-28 00:15 are 45 minutes apart; the plan wants 46 at least"
    )


def test_a_gap_of_nothing_allows_everything() -> None:
    schedules = [("s", read_schedule(each)) for each in (daily("12:00"), daily("12:00"), Daily("12:00", "UTC"))]
    check_gap(schedules, 0, TODAY, "timetable")


def test_a_gap_of_days_reaches_over_days() -> None:
    mondays = weekly(MONDAY, "12:00")
    assert smallest(mondays, under=7 * 1_440) is None
    assert smallest(mondays, under=7 * 1_440 + 1) == gap(7 * 1_440, (0, "2026-11-30 12:00"), (0, "2026-12-07 12:00"))


def test_there_is_no_gap_between_the_walls_of_two_zones() -> None:
    schedules = [("here", read_schedule(daily("01:00"))), ("there", read_schedule(Daily("12:00", "UTC")))]
    with pytest.raises(Refused) as refused:
        check_gap(schedules, 60, TODAY, "timetable")
    assert (refused.value.code, refused.value.at) == (ErrorCode.BAD_SCHEDULE, "timetable.zone")


# --- against all starts of 28 years, in which every month has begun on every day of the week, leap years too


def times() -> st.SearchStrategy[str]:
    return st.sampled_from(["00:00", "00:15", "00:30", "01:00", "12:00", "22:59", "23:00", "23:30", "23:59"])


def rare_schedules() -> st.SearchStrategy[Schedule]:
    zone = st.just(BERLIN)
    lines = st.builds(
        "{} {} {} {} {}".format,
        st.sampled_from(["0", "30", "59", "0,45"]),
        st.sampled_from(["0", "23", "0,23", "12"]),
        st.sampled_from(["*/5", "1", "28,29", "29-31", "L", "LW", "1-7"]),
        st.sampled_from(["*", "1", "2", "3", "12", "2,3"]),
        st.sampled_from(["*", "*/7", "MON", "5L", "1#5", "1#1", "SAT,SUN"]),
    )
    days = st.lists(st.sampled_from(Weekday), min_size=1, max_size=2).map(tuple)
    return st.one_of(
        st.builds(Weekly, days, times(), zone),
        st.builds(Monthly, st.sampled_from([1, 2, 15, 27, 28, 29, 30, 31, "last"]), times(), zone),
        st.builds(Cron, lines, zone).filter(fires),
    )


def fires(schedule: Schedule) -> bool:
    """Whether it ever does: on no Sunday is there a last working day."""
    try:
        read_schedule(schedule)
    except Refused:
        return False
    return True


def all_starts(schedules: Sequence[Schedule], first: date, years: int) -> list[tuple[datetime, int]]:
    """Every start, by trying each minute that any of them has on each day."""
    minutes = sorted({minute for each in schedules for minute in read_schedule(each).minutes})
    due = [wanted(each) for each in schedules]
    day = datetime(first.year, first.month, first.day)  # noqa: DTZ001 - a wall time
    end = day.replace(year=day.year + years)
    starts = []
    while day < end:
        for minute in minutes:
            wall = day + timedelta(minutes=minute)
            starts += [(wall, number) for number, is_due in enumerate(due) if is_due(wall)]
        day += timedelta(days=1)
    return starts


def closest_of(starts: list[tuple[datetime, int]]) -> int | None:
    return min(
        ((later - earlier) // timedelta(minutes=1) for (earlier, _), (later, _) in pairwise(starts)), default=None
    )


@settings(max_examples=20)
@given(st.lists(rare_schedules(), min_size=1, max_size=3), st.sampled_from([30, 60, 61, 1_440, 5_000]))
def test_the_closest_starts_are_those_of_all_starts_of_28_years(schedules: list[Schedule], under: int) -> None:
    starts = all_starts(schedules, date(2001, 1, 1), 28)
    expected = closest_of(starts)
    found = smallest(*schedules, under=under)
    if expected is None or expected >= under:
        assert found is None
    else:
        assert found is not None
        assert found.minutes == expected


@settings(max_examples=60)
@given(st.lists(rare_schedules(), min_size=1, max_size=3), st.dates(date(2001, 1, 1), date(2200, 1, 1)))
def test_the_two_starts_that_are_named_are_starts_that_far_apart(schedules: list[Schedule], today: date) -> None:
    found = closest([read_schedule(each) for each in schedules], 10_000, today)
    if found is not None:
        assert found.later.wall - found.earlier.wall == timedelta(minutes=found.minutes)
        assert found.earlier.wall.date() >= today
        for start in (found.earlier, found.later):
            assert wanted(schedules[start.schedule])(start.wall)
