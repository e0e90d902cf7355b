"""What the schedules can ask of a day is what falls between its two midnights, however many hours it has."""

from collections import Counter
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.core.calendar.day_load import DayLimits, DayLoad, Overrun, Scheduled, day_loads, overrun
from leadline.core.calendar.schedules import read_schedule
from leadline.core.calendar.zones import zone
from leadline_protocol.schedules import Cron, Daily, Monthly, Schedule
from tests.core.any_schedule import NIGHTS, ZONES, schedules
from tests.core.minute_walk import DAY, changes, firings, wall, wanted

BERLIN = "Europe/Berlin"
TODAY = date(2026, 11, 27)


def scheduled(schedule: Schedule, milliseconds: int = 10) -> Scheduled:
    return Scheduled(read_schedule(schedule), milliseconds)


def loads(name: str, today: date, days: int, *schedules: Schedule) -> list[int]:
    return [each.executions for each in day_loads([scheduled(each) for each in schedules], zone(name), today, days)]


def test_the_hours_of_a_day_are_counted_where_clocks_change() -> None:
    """An hourly schedule of its own zone has each wall time once; one of UTC has each hour that passes."""
    spring, autumn = date(2027, 3, 27), date(2027, 10, 30)
    assert loads(BERLIN, spring, 3, Cron("0 * * * *", BERLIN)) == [24, 23, 24]
    assert loads(BERLIN, autumn, 3, Cron("0 * * * *", BERLIN)) == [24, 24, 24]
    assert loads(BERLIN, spring, 3, Cron("0 * * * *", "UTC")) == [24, 23, 24]
    assert loads(BERLIN, autumn, 3, Cron("0 * * * *", "UTC")) == [24, 25, 24]


@pytest.mark.parametrize(
    ("name", "day", "half_hours"),
    [
        ("Australia/Lord_Howe", date(2026, 10, 4), 47),
        ("Australia/Lord_Howe", date(2027, 4, 4), 49),
        ("Antarctica/Troll", date(2027, 3, 28), 44),
        ("Antarctica/Troll", date(2026, 10, 25), 52),
        ("America/Santiago", date(2026, 9, 6), 46),
        ("America/Santiago", date(2027, 4, 3), 50),
        ("America/New_York", date(2026, 11, 1), 50),
    ],
)
def test_a_day_has_the_half_hours_that_its_clocks_leave_it(name: str, day: date, half_hours: int) -> None:
    assert loads(name, day - timedelta(days=1), 3, Cron("*/30 * * * *", "UTC")) == [48, half_hours, 48]


def test_what_moves_to_the_first_instant_of_a_day_belongs_to_it() -> None:
    """Midnight does not exist in Santiago on that day."""
    day = date(2026, 9, 6)
    assert loads("America/Santiago", day - timedelta(days=1), 3, Daily("00:15", "America/Santiago")) == [1, 1, 1]


def test_schedules_that_just_fill_the_day_do_not_overrun_it() -> None:
    plans = [scheduled(Daily("01:00", BERLIN), 60), scheduled(Cron("0 12,18,23 * * *", BERLIN), 60)]
    assert overrun(plans, zone(BERLIN), DayLimits(executions=4, milliseconds=240), TODAY) is None


def test_a_minute_more_than_the_day_has_overruns_it() -> None:
    plans = [scheduled(Daily("01:00", BERLIN), 60), scheduled(Cron("0 12,18,23 * * *", BERLIN), 60)]
    worst = DayLoad(TODAY, executions=4, milliseconds=240)
    found = overrun(plans, zone(BERLIN), DayLimits(executions=4, milliseconds=239), TODAY, days=30)
    assert found == Overrun(first=worst, most_executions=worst, most_time=worst, days=30)


def test_an_execution_more_than_the_day_has_overruns_it() -> None:
    hourly = [scheduled(Cron("0 * * * *", BERLIN), 1)] * 3
    found = overrun(hourly, zone(BERLIN), DayLimits(executions=24, milliseconds=240), TODAY, days=1)
    assert found is not None
    assert found.first == DayLoad(TODAY, executions=72, milliseconds=72)


def test_a_day_on_which_rare_schedules_meet_is_found() -> None:
    plans = [
        scheduled(Monthly(29, "01:00", BERLIN), 100),
        scheduled(Cron("0 5 * 2 *", BERLIN), 30),
        scheduled(Cron("0 5-7 1 1 *", BERLIN), 30),
    ]
    found = overrun(plans, zone(BERLIN), DayLimits(executions=2, milliseconds=100), TODAY)
    assert found is not None
    leap_day, new_year = DayLoad(date(2028, 2, 29), 2, 130), DayLoad(date(2027, 1, 1), 3, 90)
    assert found == Overrun(first=new_year, most_executions=new_year, most_time=leap_day, days=5)


def test_no_schedules_ask_for_nothing() -> None:
    assert overrun([], zone(BERLIN), DayLimits(executions=0, milliseconds=0), TODAY) is None


@settings(max_examples=25)
@given(
    st.sampled_from(NIGHTS),
    st.lists(schedules(st.sampled_from(ZONES)), min_size=1, max_size=2),
    st.integers(-1, 0),
)
def test_a_day_is_asked_for_what_one_sees_on_its_date(
    night: tuple[str, int], schedules: list[Schedule], days_on: int
) -> None:
    name, number = night
    change = changes(name, 2027)[number] // DAY * DAY
    seen = Counter(
        wall(firing.at, zone(name)).date()
        for schedule in schedules
        for firing in firings(schedule.zone, change - 3 * DAY, change + 3 * DAY, wanted(schedule))
    )
    today = wall(change, zone(name)).date() + timedelta(days=days_on)
    assert loads(name, today, 2, *schedules) == [seen[today + timedelta(days=n)] for n in range(2)]
