"""When one more mail may begin: each limit alone, at its boundaries, and what is told of it."""

from datetime import date, time, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from leadline.features.outreach.line import (
    LATE,
    Begin,
    Never,
    Why,
    budget,
    earliest,
    place,
    with_place,
)
from leadline.features.outreach.model import SECOND, Associate, Hours, Line, Place, Ramp, Whose
from leadline_protocol.ids import Instant
from tests.features.outreach.people import EMPTY, associate, at

MONDAY = date(2026, 9, 21)
NINE = at("2026-09-21 09:00")
TEN = at("2026-09-21 10:00")
TUESDAY_NINE = at("2026-09-22 09:00")
GAP = 60 * SECOND
ALWAYS = Hours(days=frozenset(range(7)), begin=time(), end=time())


def after(instant: Instant, seconds: float) -> Instant:
    return Instant(instant + int(seconds * SECOND))


def kept(*moments: Instant, first: bool = False) -> tuple[Place, ...]:
    return tuple(place(moment, first=first) for moment in sorted(moments))


def line(**different: Any) -> Line:
    return Line(**{"sent": {}, "days_sent": 0, "last_end": None, "in_flight": False, "places": (), **different})


def when(
    now: Instant,
    line: Line = EMPTY,
    someone: Associate | None = None,
    *,
    first: bool = False,
    held: Place | None = None,
    lead: str | None = None,
) -> Begin | Never:
    return earliest(someone or associate(), line, lead, now, first=first, held=held)


# -- hours ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "begins"),
    [
        ("2026-09-21 08:59:59.999999", "2026-09-21 09:00"),
        ("2026-09-21 09:00", "2026-09-21 09:00"),
        ("2026-09-21 16:59:59.999999", "2026-09-21 16:59:59.999999"),
        ("2026-09-21 17:00", "2026-09-22 09:00"),
        ("2026-09-25 17:00", "2026-09-28 09:00"),
        ("2026-09-26 12:00", "2026-09-28 09:00"),
    ],
)
def test_hours_begin_inclusively_and_end_exclusively_on_the_days_named(now: str, begins: str) -> None:
    assert when(at(now)) == Begin(at(begins), None if begins == now else Why.HOURS)


def test_hours_are_on_the_wall_of_the_lead_where_its_zone_is_known() -> None:
    someone = associate(zone="Europe/Berlin", hours=Hours(whose=Whose.LEAD))
    assert when(TEN, EMPTY, someone, lead="Asia/Tokyo") == Begin(at("2026-09-22 09:00", "Asia/Tokyo"), Why.HOURS)
    for unknown in (None, "Mars/Olympus"):
        assert when(TEN, EMPTY, someone, lead=unknown) == Begin(TEN, None)
    assert when(TEN, EMPTY, associate(zone="Europe/Berlin"), lead="Asia/Tokyo") == Begin(TEN, None)


def test_a_zone_of_the_sender_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError):
        when(TEN, EMPTY, associate(zone="Mars/Olympus"))


def test_midnight_as_the_end_is_the_end_of_the_day() -> None:
    someone = associate(hours=Hours(begin=time(9), end=time()))
    assert when(at("2026-09-21 23:59:59"), EMPTY, someone) == Begin(at("2026-09-21 23:59:59"), None)
    assert when(at("2026-09-22 00:00"), EMPTY, someone) == Begin(TUESDAY_NINE, Why.HOURS)


def test_hours_that_are_missing_or_come_twice_are_kept_on_the_wall() -> None:
    someone = associate(zone="Europe/Berlin", hours=Hours(days=frozenset(range(7)), begin=time(2, 30), end=time(4)))
    assert when(at("2026-03-29 00:30", "Europe/Berlin"), EMPTY, someone) == Begin(
        at("2026-03-29 03:00", "Europe/Berlin"), Why.HOURS
    )
    second_pass = after(at("2026-10-25 02:30", "Europe/Berlin"), 3_600)
    assert when(at("2026-10-25 02:30", "Europe/Berlin"), EMPTY, someone) == Begin(second_pass, Why.HOURS)


@pytest.mark.parametrize(
    "hours",
    [Hours(days=frozenset()), Hours(begin=time(9), end=time(9)), Hours(begin=time(17), end=time(9))],
)
def test_hours_that_never_come_end_the_search(hours: Hours) -> None:
    assert when(TEN, EMPTY, associate(hours=hours)) == Never(Why.HOURS)


# -- the daily cap ----------------------------------------------------------------------------------------------------


def test_a_full_day_puts_a_mail_off_to_the_next_in_the_sender_s_zone() -> None:
    full = line(sent={MONDAY: 50}, days_sent=1)
    assert when(TEN, full) == Begin(TUESDAY_NINE, Why.DAILY_CAP)
    assert when(TEN, line(sent={MONDAY: 49}, days_sent=1)) == Begin(TEN, None)
    someone = associate(zone="Asia/Tokyo", hours=ALWAYS)
    assert when(TEN, full, someone) == Begin(at("2026-09-22", "Asia/Tokyo"), Why.DAILY_CAP)


@pytest.mark.parametrize(("days_before", "cap"), [(0, 10), (1, 12), (4, 18), (5, 20), (50, 20)])
def test_the_cap_grows_by_the_days_on_which_the_mailbox_has_sent(days_before: int, cap: int) -> None:
    someone = associate(daily_cap=20, ramp=Ramp(10, 2))
    assert budget(someone, line(days_sent=days_before), TEN) == (0, cap)
    today = line(sent={MONDAY: cap - 1, MONDAY - timedelta(days=1): 3}, days_sent=days_before + 1)
    assert budget(someone, today, TEN) == (cap - 1, cap), "today is no day before today"
    assert when(TEN, today, someone) == Begin(TEN, None)
    assert when(TEN, line(sent={MONDAY: cap}, days_sent=days_before + 1), someone) != Begin(TEN, None)


def test_places_of_the_days_between_let_the_cap_grow_and_fill_it() -> None:
    someone = associate(daily_cap=20, ramp=Ramp(1, 1))
    tomorrow = kept(TUESDAY_NINE, after(TUESDAY_NINE, 60))
    mailbox = line(sent={MONDAY: 1}, days_sent=1, places=tomorrow)
    assert when(TEN, mailbox, someone) == Begin(at("2026-09-23 09:00"), Why.DAILY_CAP)
    after_tomorrow = kept(*(after(at("2026-09-23 09:00"), 60 * k) for k in range(2)))
    found = when(TEN, line(sent={MONDAY: 1}, days_sent=1, places=tomorrow + after_tomorrow), someone)
    assert found == Begin(at("2026-09-23 09:02"), Why.DAILY_CAP), "of three on the third day two are taken"


@pytest.mark.parametrize("someone", [associate(daily_cap=0), associate(daily_cap=-1), associate(ramp=Ramp(0, 5))])
def test_a_mailbox_that_may_send_nothing_never_does(someone: Associate) -> None:
    assert when(TEN, EMPTY, someone) == Never(Why.DAILY_CAP)


def test_a_line_of_thousands_is_gone_through_and_a_year_is_the_end_of_it() -> None:
    someone = associate(hours=ALWAYS, daily_cap=20)

    def full(days: int) -> Line:
        midnight = at("2026-09-21")
        return line(places=kept(*(after(midnight, 86_400 * day + 60 * k) for day in range(days) for k in range(20))))

    last = 365
    begin = at("2026-09-21")
    assert when(begin, full(last), someone) == Begin(after(begin, 86_400 * last), Why.DAILY_CAP)
    assert when(begin, full(last + 1), someone) == Never(Why.DAILY_CAP)


# -- the gap ----------------------------------------------------------------------------------------------------------


def test_the_gap_counts_from_the_end_of_the_mail_before() -> None:
    assert when(TEN, line(last_end=after(TEN, -59))) == Begin(after(TEN, 1), Why.GAP)
    assert when(TEN, line(last_end=after(TEN, -60))) == Begin(TEN, None)


def test_while_a_mail_is_on_its_way_none_begins_sooner_than_a_gap_from_now() -> None:
    assert when(TEN, line(in_flight=True, last_end=after(TEN, -300))) == Begin(after(TEN, 60), Why.IN_FLIGHT)


def test_a_clock_that_was_set_back_makes_no_mail_begin_sooner() -> None:
    ended = after(TEN, 300)
    for in_flight in (False, True):
        assert when(TEN, line(last_end=ended, in_flight=in_flight)) == Begin(after(ended, 60), Why.GAP)


@pytest.mark.parametrize("gap", [0, -5])
def test_a_mailbox_without_a_gap_still_sends_one_mail_at_a_time(gap: int) -> None:
    someone = associate(gap_seconds=gap)
    assert when(TEN, line(in_flight=True), someone) == Begin(after(TEN, 1), Why.IN_FLIGHT)


def test_a_gap_that_reaches_beyond_the_hours_waits_for_the_next_day() -> None:
    now = at("2026-09-21 16:59:30")
    assert when(now, line(last_end=now)) == Begin(TUESDAY_NINE, Why.HOURS)


def test_a_gap_that_reaches_beyond_midnight_counts_in_the_next_day_s_cap() -> None:
    someone = associate(hours=replace(ALWAYS, whose=Whose.LEAD), daily_cap=1)
    now = at("2026-09-21 23:59:30")
    assert when(now, line(last_end=now), someone, lead="Asia/Tokyo") == Begin(after(now, 60), Why.GAP)
    tomorrow = line(last_end=now, places=kept(at("2026-09-22 12:00")))
    assert when(now, tomorrow, someone, lead="Asia/Tokyo") == Begin(at("2026-09-23"), Why.GAP)


def test_a_place_is_no_closer_than_the_gap_to_any_other() -> None:
    places = kept(after(TEN, 59), after(TEN, 119), after(TEN, 238))
    assert when(TEN, line(places=places)) == Begin(after(TEN, 298), Why.GAP)
    assert when(TEN, line(places=kept(after(TEN, 60), after(TEN, 180)))) == Begin(TEN, None)
    assert when(after(TEN, 1), line(places=kept(after(TEN, 60), after(TEN, 180)))).at == after(TEN, 120)  # type: ignore[union-attr]


# -- turns ------------------------------------------------------------------------------------------------------------


def test_a_mail_that_comes_to_its_place_sees_only_who_is_ahead_of_it() -> None:
    held = place(TEN, first=False)
    ahead, behind = Place(after(TEN, 30), False, after(TEN, -9)), Place(after(TEN, 20), False, after(TEN, 1))
    assert when(TEN, line(places=(held, behind)), held=held) == Begin(TEN, None)
    assert when(TEN, line(places=(held, behind, ahead)), held=held) == Begin(after(TEN, 90), Why.GAP)


def test_a_mail_goes_as_many_gaps_later_as_others_ahead_are_about_to_begin() -> None:
    due = kept(after(TEN, -2), after(TEN, -1), TEN)
    assert when(TEN, line(places=due)) == Begin(after(TEN, 180), Why.GAP)
    assert when(TEN, line(places=due), held=due[1]) == Begin(after(TEN, 60), Why.GAP)
    assert when(TEN, line(places=due), held=due[0]) == Begin(TEN, None)


def test_a_place_that_nobody_takes_is_not_waited_for_any_longer_than_some_minutes() -> None:
    assert when(TEN, line(places=kept(Instant(TEN - LATE)))) == Begin(after(TEN, 60), Why.GAP)
    assert when(TEN, line(places=kept(Instant(TEN - LATE - 1)))) == Begin(TEN, None)


def test_who_is_about_to_begin_after_midnight_counts_in_the_new_day_s_cap() -> None:
    midnight = at("2026-09-22")
    due = line(places=kept(after(midnight, -120)))
    someone = associate(hours=ALWAYS, daily_cap=2)
    assert when(midnight, due, someone) == Begin(after(midnight, 60), Why.GAP)
    assert when(midnight, due, associate(hours=ALWAYS, daily_cap=1)) == Begin(at("2026-09-23"), Why.DAILY_CAP)


def test_a_mail_that_is_moved_keeps_its_turn_and_gives_its_place_up() -> None:
    held, other = place(TEN, first=False), place(after(TEN, 60), first=True)
    moved = place(after(TEN, 90), first=False, held=held)
    assert moved == Place(after(TEN, 90), False, TEN)
    assert with_place(line(places=(held, other)), moved, held).places == (other, moved)
    assert with_place(line(places=(other,)), held).places == (held, other)


# -- follow-ups first -------------------------------------------------------------------------------------------------


def test_a_first_mail_takes_only_what_the_follow_ups_of_a_day_leave() -> None:
    someone = associate(daily_cap=3)
    two = kept(at("2026-09-21 15:00"), at("2026-09-21 15:01"))
    assert when(TEN, line(places=two), someone, first=True) == Begin(TEN, None)
    three = kept(at("2026-09-21 14:00"), at("2026-09-21 15:00"), at("2026-09-21 15:01"))
    assert when(TEN, line(places=three), someone, first=True) == Begin(TUESDAY_NINE, Why.FOLLOW_UPS_FIRST)
    full = line(sent={MONDAY: 3}, days_sent=1, places=two)
    assert when(TEN, full, someone, first=True) == Begin(TUESDAY_NINE, Why.DAILY_CAP)


def test_a_first_mail_gives_way_to_a_follow_up_whose_place_has_come_whatever_its_turn() -> None:
    held = place(after(TEN, -30), first=True)
    due = Place(TEN, False, TEN)
    assert when(TEN, line(places=(held, due)), first=True, held=held) == Begin(after(TEN, 60), Why.FOLLOW_UPS_FIRST)
    soon = Place(after(TEN, 59), False, TEN)
    assert when(TEN, line(places=(held, soon)), first=True, held=held) == Begin(after(TEN, 119), Why.FOLLOW_UPS_FIRST)


def test_a_follow_up_takes_no_heed_of_first_mails() -> None:
    firsts = kept(TEN, after(TEN, 30), after(TEN, 90), first=True)
    assert when(TEN, line(places=firsts), associate(daily_cap=2)) == Begin(TEN, None)
    assert when(TEN, line(places=firsts), first=True) == Begin(after(TEN, 150), Why.GAP)
