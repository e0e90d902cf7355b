"""Over any time, a mailbox keeps its gap, its cap, its hours and the order of its mails, whatever comes when."""

from collections import Counter
from datetime import date, time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.core.calendar.zones import wall_at, zone
from leadline.core.quota.days import day_of
from leadline.features.outreach.line import cap_after, date_of, gap_of
from leadline.features.outreach.model import SECOND, Associate, Hours, Line, Ramp, Whose
from leadline_protocol.ids import Instant
from tests.features.outreach.people import associate, at
from tests.features.outreach.virtual_mailbox import Begun, Mail, Mailbox

MINUTE = 60 * SECOND
LEAD_LOCAL = Hours(whose=Whose.LEAD)
BERLIN = "Europe/Berlin"


def due(how_many: int, begin: Instant, *, lasts: int = 0, name: str | None = BERLIN) -> list[Mail]:
    """Follow-ups that were queued together: each a minute after the one before."""
    return [Mail(number=k, asked=Instant(begin + k * MINUTE), lasts=lasts, zone=name) for k in range(how_many)]


def walls(log: list[Begun], name: str = BERLIN) -> list[str]:
    return [f"{wall_at(one.at, zone(name)):%a %H:%M:%S}" for one in log]


def test_a_new_mailbox_sends_ten_then_twelve_then_twelve_of_thirty_four() -> None:
    mailbox = Mailbox(associate(zone=BERLIN, hours=LEAD_LOCAL, daily_cap=20, ramp=Ramp(10, 2)))
    log = mailbox.send(*due(34, at("2026-09-21 10:00", BERLIN)))
    assert Counter(wall[:3] for wall in walls(log)) == {"Mon": 10, "Tue": 12, "Wed": 12}
    assert [one.mail.number for one in log] == list(range(34))
    assert walls(log)[9:11] == ["Mon 10:09:00", "Tue 09:00:00"]
    assert mailbox.times_asked == 34 + 24, "who gets a place is asked once more, and then goes"


def test_of_ten_due_on_friday_at_two_to_five_two_go_and_eight_on_monday() -> None:
    mailbox = Mailbox(
        associate(zone=BERLIN, hours=LEAD_LOCAL, daily_cap=20, ramp=Ramp(10, 2)),
        Line(sent={date(2026, 9, 24): 20}, days_sent=9, last_end=None, in_flight=False, places=()),
    )
    log = mailbox.send(*due(10, at("2026-09-25 16:58", BERLIN)))
    monday = [f"Mon 09:{minute:02}:00" for minute in range(8)]
    assert walls(log) == ["Fri 16:58:00", "Fri 16:59:00", *monday]
    assert [one.mail.number for one in log] == list(range(10))


@pytest.mark.parametrize("lasts", [SECOND, 20 * SECOND, 61 * SECOND, 150 * SECOND])
def test_mails_that_take_time_stay_in_order_to_the_next_day_and_beyond(lasts: int) -> None:
    hours = Hours(end=time(9, 30), whose=Whose.LEAD)
    mailbox = Mailbox(associate(zone=BERLIN, hours=hours, daily_cap=28))
    log = mailbox.send(*due(100, at("2026-09-21 09:00", BERLIN), lasts=lasts))
    assert [one.mail.number for one in log] == list(range(100))
    for before, after in pairwise(log):
        assert after.at - before.at >= lasts + MINUTE
    assert mailbox.times_asked < 100 * 25


def test_a_follow_up_that_comes_later_takes_the_day_from_first_mails() -> None:
    mailbox = Mailbox(associate(hours=Hours(), daily_cap=4))
    begin = at("2026-09-21 08:00")
    firsts = [Mail(number=k, asked=Instant(begin + k), first=True) for k in range(4)]
    follow_ups = [Mail(number=k, asked=Instant(begin + MINUTE + k)) for k in range(10, 13)]
    log = mailbox.send(*firsts, *follow_ups)
    assert [one.mail.number for one in log] == [10, 11, 12, 0, 1, 2, 3]
    assert [wall[:3] for wall in walls(log, "UTC")] == ["Mon"] * 4 + ["Tue"] * 3


# -- whatever comes when ----------------------------------------------------------------------------------------------

NIGHTS = [
    (BERLIN, "2026-03-28 18:00"),
    (BERLIN, "2026-10-24 18:00"),
    ("America/New_York", "2026-10-31 18:00"),
    ("Australia/Lord_Howe", "2026-04-04 18:00"),
    ("Antarctica/Troll", "2026-10-24 18:00"),
    ("America/Santiago", "2026-04-04 18:00"),
    ("America/Santiago", "2026-09-05 18:00"),
    ("America/Havana", "2026-10-31 18:00"),
    ("Asia/Kolkata", "2026-10-24 18:00"),
]
"""Evenings before clocks are changed: by one hour, half an hour, two hours, at midnight, over it, and not at all."""

quarters = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30, 45]))


@st.composite
def offices(draw: st.DrawFn, whose: st.SearchStrategy[Whose]) -> tuple[Associate, Instant]:
    """An associate that may write at least for a quarter of an hour a week, and when its story begins."""
    name, evening = draw(st.sampled_from(NIGHTS))
    begin, end = sorted(draw(st.lists(quarters, min_size=2, max_size=2, unique=True)))
    hours = Hours(
        days=draw(st.frozensets(st.integers(0, 6), min_size=1)),
        begin=begin,
        end=draw(st.sampled_from([end, time()])),
        whose=draw(whose),
    )
    ramp = draw(st.none() | st.builds(Ramp, st.integers(1, 3), st.integers(0, 2)))
    someone = associate(
        zone=name,
        hours=hours,
        ramp=ramp,
        daily_cap=draw(st.integers(1, 6)),
        gap_seconds=draw(st.sampled_from([-1, 0, 1, 60, 700])),
    )
    return someone, at(evening, name)


def mails(names: st.SearchStrategy[str | None], first: st.SearchStrategy[bool]) -> st.SearchStrategy[list[Mail]]:
    one = st.tuples(st.integers(0, 40 * 3_600) | st.integers(0, 90), st.sampled_from([0, 1, 59, 61, 400]), names, first)
    return st.lists(one, max_size=25).map(
        lambda drawn: [
            Mail(number=k, asked=Instant(after * SECOND), lasts=lasts * SECOND, zone=name, first=first)
            for k, (after, lasts, name, first) in enumerate(sorted(drawn, key=lambda one: one[0]))
        ]
    )


def begun(someone: Associate, begin: Instant, waiting: list[Mail]) -> tuple[Mailbox, list[Begun]]:
    mailbox = Mailbox(someone)
    shifted = [
        Mail(number=one.number, asked=Instant(begin + one.asked), lasts=one.lasts, zone=one.zone, first=one.first)
        for one in waiting
    ]
    return mailbox, mailbox.send(*shifted)


other_zones = st.sampled_from([None, "nowhere", *(name for name, _ in NIGHTS)])


@settings(max_examples=200)
@given(offices(st.sampled_from(Whose)), mails(other_zones, st.booleans()))
def test_gap_cap_hours_and_what_was_asked_always_hold(office: tuple[Associate, Instant], waiting: list[Mail]) -> None:
    someone, begin = office
    mailbox, log = begun(someone, begin, waiting)
    assert len(log) == len(waiting)
    assert not mailbox.never
    assert not mailbox.line.places
    for before, after in pairwise(log):
        assert after.at >= before.at + before.mail.lasts + gap_of(someone)
    sender = zone(someone.zone)
    days = Counter(date_of(day_of(one.at, sender), sender) for one in log)
    for earlier, day in enumerate(sorted(days)):
        assert days[day] <= cap_after(someone, earlier)
    hours = someone.hours
    for one in log:
        assert one.at >= one.mail.asked
        theirs = one.mail.zone if hours.whose is Whose.LEAD and one.mail.zone not in {None, "nowhere"} else None
        wall = wall_at(one.at, zone(theirs or someone.zone))
        assert wall.weekday() in hours.days
        assert hours.begin <= wall.time()
        assert wall.time() < hours.end or hours.end == time()
    in_flight = sum(one.lasts for one in waiting) // gap_of(someone)
    assert mailbox.times_asked <= len(waiting) * (len(waiting) + 3 + in_flight), "nobody asks again and again"


@given(offices(st.just(Whose.SENDER)), mails(st.none(), st.booleans()))
def test_mails_of_one_kind_begin_in_the_order_in_which_they_asked(
    office: tuple[Associate, Instant], waiting: list[Mail]
) -> None:
    _, log = begun(*office, waiting)
    for kind in (True, False):
        numbers = [one.mail.number for one in log if one.mail.first is kind]
        assert numbers == sorted(numbers)


@given(offices(st.just(Whose.SENDER)), mails(st.none(), st.booleans()))
def test_no_first_mail_begins_while_a_follow_up_s_place_has_come(
    office: tuple[Associate, Instant], waiting: list[Mail]
) -> None:
    for one in begun(*office, waiting)[1]:
        if one.mail.first:
            assert not [other for other in one.line.places if other.at <= one.at and not other.first]
