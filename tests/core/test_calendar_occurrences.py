"""A schedule fires when the wall of its zone says so, as one sees who watches that wall minute by minute."""

from datetime import datetime
from itertools import islice, pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.core.calendar.cycle import Days
from leadline.core.calendar.occurrences import occurrences, preview
from leadline.core.calendar.schedules import Timetable, read_schedule
from leadline.core.calendar.zones import Mark, zone, zone_names
from leadline_protocol.ids import Instant
from leadline_protocol.schedules import Cron, Daily, Monthly, Schedule, Weekday, Weekly
from tests.core.any_schedule import NIGHTS, ZONES, schedules
from tests.core.minute_walk import DAY, HOUR, MINUTE, Firing, changes, firings, glances, instant, shift, wanted

NOVEMBER = instant("2026-11-27T21:00+00:00")


def fired(timetable: Timetable, start: int, end: int) -> list[Firing]:
    """From one instant on and before another."""
    found = occurrences(timetable, Instant(start - 1), Instant(end - 1))
    return [Firing(each.instant, each.mark) for each in found]


# --- the nights in which the clocks are changed


@pytest.mark.parametrize(
    ("name", "at", "local"),
    [
        ("Australia/Lord_Howe", "2026-10-04 02:10", "2026-10-04T02:30+11:00"),
        ("Pacific/Chatham", "2026-09-27 03:00", "2026-09-27T03:45+13:45"),
        ("Antarctica/Troll", "2027-03-28 01:30", "2027-03-28T03:00+02:00"),
        ("America/Santiago", "2026-09-06 00:00", "2026-09-06T01:00-03:00"),
        ("America/New_York", "2027-03-14 02:30", "2027-03-14T03:00-04:00"),
        ("Europe/Berlin", "2027-03-28 02:30", "2027-03-28T03:00+02:00"),
    ],
)
def test_a_wall_time_that_does_not_exist_fires_once_at_the_end_of_the_gap(name: str, at: str, local: str) -> None:
    timetable = read_schedule(Daily(at[-5:], name))
    end = instant(local)
    assert [(each.local, each.mark) for each in preview(timetable, Instant(end - 12 * HOUR), 1)] == [(local, "moved")]
    assert fired(timetable, end - 12 * HOUR, end + 12 * HOUR) == [Firing(end, "moved")]


@pytest.mark.parametrize(
    ("name", "at", "local"),
    [
        ("Australia/Lord_Howe", "2027-04-04 01:30", "2027-04-04T01:30+11:00"),
        ("Pacific/Chatham", "2027-04-04 02:45", "2027-04-04T02:45+13:45"),
        ("Antarctica/Troll", "2026-10-25 01:00", "2026-10-25T01:00+02:00"),
        ("America/Santiago", "2027-04-03 23:30", "2027-04-03T23:30-03:00"),
        ("America/New_York", "2026-11-01 01:59", "2026-11-01T01:59-04:00"),
        ("Europe/Berlin", "2026-10-25 02:30", "2026-10-25T02:30+02:00"),
    ],
)
def test_a_wall_time_that_comes_twice_fires_the_first_time(name: str, at: str, local: str) -> None:
    timetable = read_schedule(Daily(at[-5:], name))
    first = instant(local)
    assert [(each.local, each.mark) for each in preview(timetable, Instant(first - 12 * HOUR), 1)] == [(local, "first")]
    assert fired(timetable, first - 12 * HOUR, first + 12 * HOUR) == [Firing(first, "first")]


@pytest.mark.parametrize(("name", "number"), NIGHTS)
def test_every_minute_of_the_nights_of_a_change_fires_as_the_wall_shows(name: str, number: int) -> None:
    change = changes(name, 2027)[number]
    start, end = change - 6 * HOUR, change + 6 * HOUR
    every_day = read_schedule(Daily("00:00", name))
    wall_times = 0
    for glance in glances(name, start, end):
        shown = Firing(glance.at, "first" if glance.twice else "normal")
        for at in (glance.shown, *glance.skipped):
            alone = msgspec.structs.replace(every_day, minutes=(60 * at.hour + at.minute,))
            assert fired(alone, start, end) == [shown if at == glance.shown else Firing(glance.at, "moved")], at
            wall_times += 1
    gap = shift(change, zone(name)) > shift(change - MINUTE, zone(name))
    assert (wall_times > 720) if gap else (wall_times < 720)


@pytest.mark.parametrize(("name", "number"), NIGHTS)
@pytest.mark.parametrize("line", ["* * * * *", "*/10 * * * *", "0 * * * *", "15 */2 * * *", "30 0-3 * * *"])
def test_a_cron_line_fires_once_for_each_instant_across_a_change(name: str, number: int, line: str) -> None:
    change = changes(name, 2027)[number]
    schedule = Cron(line, name)
    start, end = change - DAY, change + DAY
    assert fired(read_schedule(schedule), start, end) == firings(name, start, end, wanted(schedule))


def test_all_that_falls_into_a_gap_is_one_occurrence() -> None:
    start, end = instant("2027-03-28T01:45+01:00"), instant("2027-03-28T03:15+02:00")
    assert fired(read_schedule(Cron("5/10 * * * *", "Europe/Berlin")), start, end) == [
        Firing(instant("2027-03-28T01:45+01:00"), "normal"),
        Firing(instant("2027-03-28T01:55+01:00"), "normal"),
        Firing(instant("2027-03-28T03:00+02:00"), "moved"),
        Firing(instant("2027-03-28T03:05+02:00"), "normal"),
    ]


def test_what_fires_at_the_end_of_a_gap_anyway_is_not_moved() -> None:
    end = instant("2027-03-28T03:00+02:00")
    assert fired(read_schedule(Cron("0 * * * *", "Europe/Berlin")), end - 30 * MINUTE, end + 30 * MINUTE) == [
        Firing(end, "normal")
    ]


def test_looking_from_within_a_repeated_hour_finds_nothing_of_it_again() -> None:
    timetable = read_schedule(Cron("*/30 * * * *", "Europe/Berlin"))
    second_time = instant("2026-10-25T02:10+01:00")
    assert [each.local for each in preview(timetable, second_time, 2)] == [
        "2026-10-25T03:00+01:00",
        "2026-10-25T03:30+01:00",
    ]


def test_an_occurrence_is_later_than_the_one_bound_and_may_be_at_the_other() -> None:
    timetable = read_schedule(Cron("0 * * * *", "Europe/Berlin"))
    nine, ten = instant("2026-11-27T21:00+01:00"), instant("2026-11-27T22:00+01:00")
    assert [each.instant for each in occurrences(timetable, nine, ten)] == [ten]
    assert [each.instant for each in occurrences(timetable, nine, Instant(ten - 1))] == []


# --- any schedule, any night


@st.composite
def beside_a_change(draw: st.DrawFn) -> tuple[Schedule, int]:
    """A schedule of any zone, and a minute not far from a change of its clocks, where it has any."""
    schedule = draw(schedules(st.one_of(st.sampled_from(ZONES), st.sampled_from(sorted(zone_names())))))
    found = changes(schedule.zone, draw(st.integers(2020, 2037))) or (NOVEMBER,)
    return schedule, draw(st.sampled_from(found)) + draw(st.integers(-2_000, 2_000)) * MINUTE


@settings(max_examples=80)
@given(beside_a_change(), st.integers(0, MINUTE - 1))
def test_a_schedule_fires_as_one_sees_who_watches_the_wall(given: tuple[Schedule, int], into_minute: int) -> None:
    schedule, minute = given
    end = minute + DAY + 12 * HOUR
    seen = firings(schedule.zone, minute, end, wanted(schedule))
    timetable = read_schedule(schedule)
    assert fired(timetable, minute, end) == seen
    later = [each for each in seen if each.at > minute + into_minute]
    assert fired(timetable, minute + into_minute + 1, end) == later


@settings(max_examples=50)
@given(beside_a_change())
def test_occurrences_only_ever_grow_later(given: tuple[Schedule, int]) -> None:
    schedule, start = given
    found = [start, *(each.instant for each in islice(occurrences(read_schedule(schedule), Instant(start)), 200))]
    assert all(earlier < later for earlier, later in pairwise(found))


@settings(max_examples=30)
@given(beside_a_change())
def test_going_on_from_an_occurrence_finds_what_follows_it(given: tuple[Schedule, int]) -> None:
    schedule, start = given
    timetable = read_schedule(schedule)
    found = list(islice(occurrences(timetable, Instant(start)), 40))
    for number, each in enumerate(found[:-1]):
        assert next(occurrences(timetable, each.instant)) == found[number + 1]


# --- rare ones


def test_the_29th_of_february_is_found_across_the_year_2100_that_has_none() -> None:
    shown = preview(read_schedule(Cron("0 12 29 2 *", "Europe/Berlin")), instant("2091-01-01T00:00+00:00"), 4)
    assert [each.local[:10] for each in shown] == ["2092-02-29", "2096-02-29", "2104-02-29", "2108-02-29"]


def test_a_sunday_the_29th_of_february_is_found_forty_years_on() -> None:
    timetable = read_schedule(Cron("0 0 29 FEB */7", "UTC"))
    shown = preview(timetable, instant("2072-03-01T00:00+00:00"), 2)
    assert [datetime.fromisoformat(each.local).date().isoformat() for each in shown] == ["2088-02-29", "2128-02-29"]


def test_a_day_that_a_month_does_not_have_is_passed_over() -> None:
    shown = preview(read_schedule(Monthly(31, "23:30", "Europe/Berlin")), NOVEMBER, 4)
    assert [each.local[:10] for each in shown] == ["2026-12-31", "2027-01-31", "2027-03-31", "2027-05-31"]


def test_the_last_day_is_there_in_each_month() -> None:
    shown = preview(read_schedule(Monthly("last", "23:30", "Europe/Berlin")), NOVEMBER, 4)
    assert [each.local[:10] for each in shown] == ["2026-11-30", "2026-12-31", "2027-01-31", "2027-02-28"]


def test_a_timetable_without_days_ends_at_once() -> None:
    assert list(occurrences(Timetable(Days(0), (0,), zone("UTC")), NOVEMBER)) == []


@pytest.mark.parametrize("name", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_occurrences_end_with_the_last_year_but_one_that_has_dates(name: str) -> None:
    timetable = read_schedule(Daily("23:59", name))
    found = [each.local for each in preview(timetable, instant("9998-12-30T00:00+00:00"), 9)]
    assert found[-1].startswith("9998-12-31T23:59")


def test_an_occurrence_is_shown_with_the_offset_of_its_own_time() -> None:
    shown = preview(read_schedule(Weekly((Weekday.SUNDAY,), "02:30", "Europe/Berlin")), instant("2026-10-18T12:00Z"), 2)
    assert [(each.local, each.mark) for each in shown] == [
        ("2026-10-25T02:30+02:00", Mark.FIRST),
        ("2026-11-01T02:30+01:00", Mark.NORMAL),
    ]
    assert shown[0].instant == instant("2026-10-25T00:30Z")
