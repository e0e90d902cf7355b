"""A mailbox's line: when one more mail may begin, so that the mailbox never sends too fast, too much, or at night.

Four limits bind. A mail begins within hours, on the sender's wall or the contact's. It begins no sooner than a gap
after the END of the mail before. A day, from midnight to midnight of the sender's zone, has a cap; while a mailbox is
new, the cap grows with each day on which it sends. And first mails give way to follow-ups.

Intuition: a mail that may not begin now takes a place in the line, a moment that the others keep clear of. It is asked
again when that moment has come, and only what the mailbox has really sent decides then; places are a forecast, and
are what keeps a hundred waiting mails from being asked again each minute.

Complications, and what was chosen:

- *Mails take time*, so whoever comes to a place may have to wait a little more, and so may all behind. Nothing is moved
  in advance. Each mail keeps its **turn**, the place it was given first, and sees only who has an earlier one: it may
  be moved onto the place of somebody behind it, who then finds it ahead and moves in turn. So the order stays, within
  the day and where the rest of a day is carried over to the next.
- *A place that has come* and whose mail has not begun is about to: others begin as many gaps later as there are such
  mails ahead of them. After some minutes it is not believed any more; its job may be stopped.
- *Follow-ups* do not see first mails at all. First mails see all follow-ups, whatever their turn, and take what these
  leave of a day's cap.
- *Clocks that are changed.* An hour that is missing is met at the end of the gap. Where one comes twice, hours begin
  with its second pass and end with its first: no mail begins while the wall shows a time outside of the hours.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from leadline.core.calendar.zones import Mark, day_start, instant_of, wall_at, zone, zone_names
from leadline.core.quota.days import Day, day_of
from leadline.features.outreach.model import SECOND, Associate, Hours, Line, Place, Whose
from leadline_protocol.ids import Instant

DAYS_AHEAD_MAX: Final = 366
"""Days that are looked at, today included: a mail that finds no place in a year is not planned at all."""
LATE: Final = 600 * SECOND
"""After so much time a place that has come is not believed any more."""

_MICROSECOND: Final = timedelta(microseconds=1)
_at: Final = attrgetter("at")


class Why(StrEnum):
    """What keeps a mail from beginning now: a closed list."""

    HOURS = "hours"
    DAILY_CAP = "daily_cap"
    GAP = "gap"
    """The mail before is over, or others in the line begin, less than the gap away."""
    IN_FLIGHT = "in_flight"
    FOLLOW_UPS_FIRST = "follow_ups_first"
    """It is a first mail, and without the follow-ups in the line it would begin sooner."""
    DOMAIN_LIMIT = "domain_limit"
    """Not the mailbox's: the teamspace has sent enough to the contact's domain today."""


class Begin(Struct, frozen=True, gc=False):
    """When a mail may begin."""

    at: Instant
    why: Why | None
    """What keeps it from beginning today; where nothing does, the last thing that delays it; None: it may begin now."""


class Never(Struct, frozen=True, gc=False):
    """It may not begin on any day that is looked at."""

    why: Why
    """What keeps it from beginning today."""


def earliest(
    associate: Associate, line: Line, contact_zone: str | None, now: Instant, *, first: bool, held: Place | None = None
) -> Begin | Never:
    """The first instant from now on at which one more mail may begin, as far as can be told now.

    `held` is the place that the mail has had so far, whether or not it is still in the line. A `KeyError` where the
    associate's zone is none; a contact's zone that is none counts as not known.
    """
    sender = zone(associate.zone)
    wall = zone(contact_zone) if associate.hours.whose is Whose.LEAD and contact_zone in zone_names() else sender
    others = _Others(line.places, first=first, held=held)
    gap = gap_of(associate)
    start, delayed = _start(line, others, now, gap)
    why: Why | None = None
    kept: Why | None
    day = day_of(now, sender)
    before = _sending_days(line, date_of(day, sender))
    for _ in range(DAYS_AHEAD_MAX):
        since = min(day.begins, Instant(now - LATE)) if now in day else day.begins
        sent = line.sent.get(date_of(day, sender), 0)
        cap = cap_after(associate, before)
        if sent + others.ahead_on(since, day.ends) >= cap:
            kept = Why.FOLLOW_UPS_FIRST if sent + others.alike_on(since, day.ends) < cap else Why.DAILY_CAP
        else:
            at, kept = _within(day, _windows(day, associate.hours, wall), max(start, day.begins), others, gap)
            if at is not None:
                return Begin(at, None if at == now else why or kept or delayed)
            assert kept is not None
        why = why or kept
        before += sent > 0 or _count(line.places, since, day.ends) > 0
        day = day_of(day.ends, sender)
    assert why is not None
    return Never(why)


def place(at: Instant, *, first: bool, held: Place | None = None) -> Place:
    """The place of a mail that is to begin at an instant: it keeps the turn of the one it has had so far."""
    return Place(at, first, at if held is None else held.turn)


def with_place(line: Line, taken: Place, held: Place | None = None) -> Line:
    """The line with one more place, and without the one that its mail has had so far."""
    places = [one for one in line.places if one != held]
    places.insert(bisect_right(places, taken.at, key=_at), taken)
    return replace(line, places=tuple(places))


def gap_of(associate: Associate) -> int:
    """Microseconds from the end of a mail to the next; at least a second, so that no two mails have one moment."""
    return max(1, associate.gap_seconds) * SECOND


def cap_after(associate: Associate, sending_days: int) -> int:
    """How many mails may begin on a day, after so many days on which the mailbox has sent."""
    ramp = associate.ramp
    return associate.daily_cap if ramp is None else min(associate.daily_cap, ramp.first + ramp.more * sending_days)


def budget(associate: Associate, line: Line, now: Instant) -> tuple[int, int]:
    """What a mailbox has sent today, and how much it may."""
    today = today_of(associate, now)
    return line.sent.get(today, 0), cap_after(associate, _sending_days(line, today))


def today_of(associate: Associate, now: Instant) -> date:
    """What day it is for the associate, as `Line.sent` counts days."""
    sender = zone(associate.zone)
    return date_of(day_of(now, sender), sender)


def date_of(day: Day, sender: tzinfo) -> date:
    """By what `Line.sent` counts a day."""
    return wall_at(day.begins, sender).date()


class _Others:
    """The places that a mail keeps clear of, those ahead of it: by instants, in order."""

    def __init__(self, places: Sequence[Place], *, first: bool, held: Place | None) -> None:
        mine = [one for one in places if one.first is first and (held is None or one.turn < held.turn)]
        self._before_all = [one.at for one in places if not one.first] if first else []
        self.ahead = sorted([*map(_at, mine), *self._before_all])

    def ahead_on(self, begins: Instant, ends: Instant) -> int:
        """How many of them are on a day."""
        return bisect_left(self.ahead, ends) - bisect_left(self.ahead, begins)

    def alike_on(self, begins: Instant, ends: Instant) -> int:
        """Those of the mail's own kind."""
        follow_ups = bisect_left(self._before_all, ends) - bisect_left(self._before_all, begins)
        return self.ahead_on(begins, ends) - follow_ups

    def clear(self, at: Instant, gap: int) -> tuple[Instant, Why | None]:
        """The first instant from here on that no place is closer to than the gap, and what is the last in the way."""
        moved: Why | None = None
        for index in range(bisect_right(self.ahead, at - gap), len(self.ahead)):
            if self.ahead[index] >= at + gap:
                break
            at = Instant(self.ahead[index] + gap)
            moved = self.named(at - gap, at)
        return at, moved

    def named(self, begins: int, ends: int) -> Why:
        """What it is that is ahead from one instant to another."""
        low = bisect_left(self._before_all, begins)
        is_follow_up = low < len(self._before_all) and self._before_all[low] < ends
        return Why.FOLLOW_UPS_FIRST if is_follow_up else Why.GAP


def _start(line: Line, others: _Others, now: Instant, gap: int) -> tuple[Instant, Why | None]:
    """Before when no mail of this mailbox begins on any day, and why."""
    start, why = now, None
    if line.last_end is not None and line.last_end + gap > now:
        start, why = Instant(line.last_end + gap), Why.GAP
    if line.in_flight and now + gap > start:
        start, why = Instant(now + gap), Why.IN_FLIGHT
    due = others.ahead_on(Instant(now - LATE), Instant(now + 1))
    if due:
        start, why = Instant(start + due * gap), others.named(now - LATE, now + 1)
    return start, why


def _within(
    day: Day, windows: Sequence[Day], start: Instant, others: _Others, gap: int
) -> tuple[Instant | None, Why | None]:
    """The first instant of a day at which a mail may begin, and what moved it there from the start."""
    kept = Why.HOURS
    for window in windows:
        opened = max(start, window.begins)
        at, moved = others.clear(opened, gap)
        if at < min(window.ends, day.ends):
            return at, moved or (Why.HOURS if opened > start else None)
        if at < window.ends:
            kept = moved or Why.GAP
    return None, kept


def _windows(day: Day, hours: Hours, wall: tzinfo) -> list[Day]:
    """The hours that a day of the sender meets, in order; of another zone's days it may meet two or three."""
    on = wall_at(day.begins, wall).date()
    last = wall_at(Instant(day.ends - 1), wall).date()
    found = []
    while on <= last:
        if on.weekday() in hours.days:
            window = _window(on, hours.begin, hours.end, wall)
            if max(window.begins, day.begins) < min(window.ends, day.ends):
                found.append(window)
        on += timedelta(days=1)
    return found


@lru_cache(maxsize=8_192)
def _window(on: date, begin: time, end: time, wall: tzinfo) -> Day:
    """The hours of one date, from their first instant to the first after them; empty where it is not later."""
    begins, mark = instant_of(datetime.combine(on, begin), wall)
    if mark is Mark.FIRST:
        passes = [datetime.combine(on, begin, wall).replace(fold=fold).astimezone(UTC) for fold in (0, 1)]
        begins = Instant(begins + (passes[1] - passes[0]) // _MICROSECOND)
    midnight = on + timedelta(days=1)
    ends = day_start(midnight, wall) if end == time() else instant_of(datetime.combine(on, end), wall)[0]
    return Day(begins, ends)


def _sending_days(line: Line, today: date) -> int:
    """Days before today on which the mailbox has sent."""
    return line.days_sent - sum(count > 0 for on, count in line.sent.items() if on >= today)


def _count(places: Sequence[Place], begins: Instant, ends: Instant) -> int:
    return bisect_left(places, ends, key=_at) - bisect_left(places, begins, key=_at)
