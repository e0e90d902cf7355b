"""A schedule that cannot be read is refused at the field that is wrong; one that can says what it means."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.core.calendar.schedules import CRON_CHARACTERS_MAX, Timetable, read_schedule
from leadline.core.calendar.zones import zone, zone_names
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.schedules import Cron, Daily, Monthly, Schedule, Weekday, Weekly

BERLIN = "Europe/Berlin"


def refusal(schedule: Schedule) -> tuple[str | None, str]:
    """The field and the message."""
    with pytest.raises(Refused) as refused:
        read_schedule(schedule)
    assert refused.value.code is ErrorCode.BAD_SCHEDULE
    return refused.value.at, refused.value.message


@pytest.mark.parametrize(
    ("schedule", "at", "says"),
    [
        (Daily("02:30", "Europe/Berlim"), "schedule.zone", "no zone 'Europe/Berlim'"),
        (Daily("02:30", ""), "schedule.zone", "no zone"),
        (Daily("02:30", "../../../etc/passwd"), "schedule.zone", "no zone"),
        (Daily("02:30", "europe/berlin"), "schedule.zone", "no zone"),
        (Daily("24:00", BERLIN), "schedule.at", "not '24:00'"),
        (Daily("02:60", BERLIN), "schedule.at", "HH:MM"),
        (Daily("2:30", BERLIN), "schedule.at", "HH:MM"),
        (Daily("02:30\n", BERLIN), "schedule.at", "HH:MM"),
        (Daily("٠٢:٣٠", BERLIN), "schedule.at", "HH:MM"),
        (Weekly((), "02:30", BERLIN), "schedule.days", "needs a day"),
        (Weekly((Weekday.MONDAY,), "", BERLIN), "schedule.at", "HH:MM"),
        (Monthly(0, "02:30", BERLIN), "schedule.day", "not 0"),
        (Monthly(32, "02:30", BERLIN), "schedule.day", "not 32"),
        (Monthly(31, "2", BERLIN), "schedule.at", "HH:MM"),
        (Cron("* * * * *", "Mars/Olympus"), "schedule.zone", "no zone"),
        (Cron("0 * * * * *", BERLIN), "schedule.line", "not 6"),
        (Cron("* * * *", BERLIN), "schedule.line", "not 4"),
        (Cron("@daily", BERLIN), "schedule.line", "not 1"),
        (Cron("", BERLIN), "schedule.line", "not 0"),
        (Cron("60 * * * *", BERLIN), "schedule.line:1", "'60' is no minute"),
        (Cron("0 24 * * *", BERLIN), "schedule.line:3", "'24' is no hour"),
        (Cron("0  0 32 * *", BERLIN), "schedule.line:6", "'32' is no day of the month"),
        (Cron("0 0 1 13 *", BERLIN), "schedule.line:7", "'13' is no month"),
        (Cron("0 0 1 1 8", BERLIN), "schedule.line:9", "'8' is no day of the week"),
        (Cron("*/0 * * * *", BERLIN), "schedule.line:1", "'*/0' is no minute"),
        (Cron("0 5-1 * * *", BERLIN), "schedule.line:3", "'5-1' is no hour"),
        (Cron("0 0 31 2 *", BERLIN), "schedule.line:5", "no day"),
        (Cron("0 0 31 2,4,6 *", BERLIN), "schedule.line:5", "no day"),
        (Cron("0 0 */30 2 MON#5", BERLIN), "schedule.line:5", "no day"),
        (Cron("1" * CRON_CHARACTERS_MAX + " * * * *", BERLIN), "schedule.line", "at most 500"),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_field(schedule: Schedule, at: str, says: str) -> None:
    found, message = refusal(schedule)
    assert found == at
    assert says in message


def test_a_refusal_is_placed_in_the_field_that_the_schedule_stands_in() -> None:
    with pytest.raises(Refused) as refused:
        read_schedule(Cron("0 0 * * MUN", BERLIN), "schedules[2]")
    assert refused.value.at == "schedules[2].line:9"


@given(st.one_of(st.text(max_size=40), st.text("0123456789*/,-#LW SUNMOJAFEB@", max_size=40)))
def test_whatever_the_line_is_it_is_read_or_refused(line: str) -> None:
    try:
        timetable = read_schedule(Cron(line, "UTC"))
    except Refused:
        return
    assert len(line.split()) == 5
    assert timetable.days
    assert timetable.minutes
    assert set(timetable.minutes) <= set(range(1_440))


def cron(line: str) -> Timetable:
    return read_schedule(Cron(line, BERLIN))


@pytest.mark.parametrize(
    ("schedule", "line"),
    [
        (Daily("23:05", BERLIN), "5 23 * * *"),
        (Weekly((Weekday.SUNDAY, Weekday.MONDAY, Weekday.SUNDAY), "00:15", BERLIN), "15 0 * * 0,1"),
        (Weekly(tuple(Weekday), "08:00", BERLIN), "0 8 * * *"),
        (Monthly(31, "23:30", BERLIN), "30 23 31 * *"),
        (Monthly("last", "23:30", BERLIN), "30 23 L * *"),
    ],
)
def test_each_shape_is_short_for_a_cron_line(schedule: Schedule, line: str) -> None:
    assert read_schedule(schedule) == cron(line)


def test_minutes_are_those_of_every_hour_in_order() -> None:
    assert cron("45,5 1,23 * * *").minutes == (65, 105, 1_385, 1_425)


def test_a_line_that_lists_everything_is_read() -> None:
    numbers = [",".join(map(str, range(low, high))) for low, high in ((0, 60), (0, 24), (1, 32), (1, 13), (0, 8))]
    listed = cron(" ".join(numbers))
    assert (listed.days, listed.minutes) == (cron("* * * * *").days, tuple(range(1_440)))


@pytest.mark.parametrize(
    "schedule",
    [
        Daily("02:30", BERLIN),
        Weekly((Weekday.MONDAY, Weekday.FRIDAY), "02:30", BERLIN),
        Monthly(31, "02:30", BERLIN),
        Monthly("last", "02:30", BERLIN),
        Cron("0 9 * * MON-FRI", BERLIN),
    ],
)
def test_a_schedule_is_written_as_data_and_read_again(schedule: Schedule) -> None:
    assert msgspec.json.decode(msgspec.json.encode(schedule), type=Schedule) == schedule


def test_every_zone_of_the_list_is_there() -> None:
    assert len(zone_names()) > 500
    assert {zone(name).key for name in zone_names()} == zone_names()


def test_zones_are_those_of_the_package_whatever_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoneinfo.TZPATH", ("/nowhere",))
    assert zone.__wrapped__("Asia/Kathmandu").key == "Asia/Kathmandu"
