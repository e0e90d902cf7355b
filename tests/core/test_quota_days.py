"""A day goes from local midnight to local midnight, whatever clocks do, and every instant is in exactly one."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leadline.core.calendar.zones import wall_at
from leadline.core.model import SECOND
from leadline.core.quota.days import day_of
from leadline_protocol.ids import Instant

HOUR = 3_600 * SECOND

DAYS = [
    ("Europe/Berlin", "2026-06-01 00:00", 24),
    ("Europe/Berlin", "2026-03-29 00:00", 23),
    ("Europe/Berlin", "2026-10-25 00:00", 25),
    ("America/New_York", "2026-03-08 00:00", 23),
    ("America/New_York", "2026-11-01 00:00", 25),
    ("Australia/Lord_Howe", "2026-10-04 00:00", 23.5),
    ("Australia/Lord_Howe", "2026-04-05 00:00", 24.5),
    ("Pacific/Chatham", "2026-09-27 00:00", 23),
    ("Pacific/Chatham", "2026-04-05 00:00", 25),
    ("Antarctica/Troll", "2026-03-29 00:00", 22),
    ("Antarctica/Troll", "2026-10-25 00:00", 26),
    ("America/Santiago", "2026-09-06 01:00", 23),  # clocks jump from 24:00 to 01:00: there is no midnight
    ("America/Santiago", "2026-04-04 00:00", 25),  # from 24:00 back to 23:00
    ("America/Havana", "2026-11-01 00:00", 25),  # from 01:00 back to 00:00: midnight comes twice
    ("America/St_Johns", "2010-11-06 00:00", 24),  # from 00:01 back to 23:01 of the day before,
    ("America/St_Johns", "2010-11-07 00:00", 25),  # which is no longer that day
    ("America/Toronto", "1919-03-31 00:30", 23.5),  # from 23:30 to 00:30
    ("Pacific/Apia", "2011-12-29 00:00", 24),  # the 30th was left out
    ("Pacific/Apia", "2011-12-31 00:00", 24),
]


def instant_of(moment: datetime) -> Instant:
    return Instant((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))


@pytest.mark.parametrize(("name", "begins", "hours"), DAYS)
def test_a_day_begins_at_midnight_and_has_the_hours_that_clocks_show(name: str, begins: str, hours: float) -> None:
    zone = ZoneInfo(name)
    noon = datetime.fromisoformat(begins).replace(hour=12, minute=0, tzinfo=zone)
    day = day_of(instant_of(noon), zone)
    assert f"{wall_at(day.begins, zone):%Y-%m-%d %H:%M:%S.%f}" == f"{begins}:00.000000"
    assert day.ends - day.begins == hours * HOUR


def test_a_minute_that_comes_again_after_midnight_is_of_the_new_day() -> None:
    zone = ZoneInfo("America/St_Johns")
    again = datetime(2010, 11, 6, 23, 30, fold=1, tzinfo=zone)
    assert wall_at(day_of(instant_of(again), zone).begins, zone) == datetime(2010, 11, 7, tzinfo=zone)
    assert wall_at(day_of(instant_of(again.replace(fold=0)), zone).begins, zone) == datetime(2010, 11, 6, tzinfo=zone)


CHANGES = [instant_of(datetime.fromisoformat(begins).replace(tzinfo=ZoneInfo(name))) for name, begins, _ in DAYS]


@given(
    st.sampled_from(sorted({name for name, _, _ in DAYS})),
    st.sampled_from(CHANGES),
    st.integers(-60 * HOUR, 60 * HOUR) | st.integers(-60, 60).map(lambda hours: hours * HOUR),
)
@example("America/St_Johns", CHANGES[15], 30 * 60 * SECOND)
def test_a_new_day_begins_when_clocks_first_show_a_later_date(name: str, change: Instant, after: int) -> None:
    zone = ZoneInfo(name)
    instant = Instant(change + after)
    day = day_of(instant, zone)
    assert instant in day
    assert Instant(day.begins - 1) not in day
    assert day.ends not in day
    assert day_of(day.begins, zone) == day_of(Instant(day.ends - 1), zone) == day
    assert day_of(Instant(day.begins - 1), zone).ends == day.begins
    assert day_of(day.ends, zone).begins == day.ends
    date = wall_at(day.begins, zone).date()
    earlier = [Instant(day.begins - 1), *(Instant(day.begins - quarter * HOUR // 4) for quarter in range(1, 200))]
    assert all(wall_at(each, zone).date() < date for each in earlier), "it has begun before"
    later = [Instant(each) for each in range(day.begins, day.ends, HOUR // 4)]
    assert all(wall_at(each, zone).date() <= date for each in [*later, Instant(day.ends - 1)]), (
        "another has begun in it"
    )


def test_in_every_zone_a_day_begins_with_a_quarter_of_an_hour() -> None:
    """By which the store adds up what runs have used."""
    dates = [
        datetime(year, month, day, tzinfo=UTC) for year in (2026, 2031) for month in range(1, 13) for day in (1, 28)
    ]
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        changes = [date for date in dates if day_of(instant_of(date.replace(tzinfo=zone)), zone).begins % (HOUR // 4)]
        assert changes == [], name
    for name, begins, _ in DAYS:
        zone = ZoneInfo(name)
        assert day_of(instant_of(datetime.fromisoformat(begins).replace(tzinfo=zone)), zone).begins % (HOUR // 4) == 0
