"""The day of a teamspace: from one midnight of its zone to the next.

Most days have 24 hours. Where clocks change they have 23 or 25, on Lord Howe Island 23.5 or 24.5, at Troll 22 or 26.
The complication is a change at midnight itself. Where clocks jump over it, the day begins with the jump; where they go
back over it, with the first of the two. So days follow each other without a hole or an overlap, whatever a zone does,
and each instant is in exactly one. The zone is an argument: to look one up is to read files, which the core does not
do.
"""

from bisect import bisect_left
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

from msgspec import Struct

from leadline_protocol.ids import Instant

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)


class Day(Struct, frozen=True, gc=False):
    """One day, as wall instants."""

    begins: Instant
    ends: Instant
    """The first instant of the next day."""

    def __contains__(self, instant: Instant) -> bool:
        return self.begins <= instant < self.ends


def day_of(instant: Instant, zone: tzinfo) -> Day:
    """The day that a wall instant is in."""
    today = local(instant, zone).date()
    begins, ends = _midnight(today, zone), _midnight(today + _DAY, zone)
    if instant >= ends:  # clocks went back over midnight: its date is yesterday's for the second time
        begins, ends = ends, _midnight(today + 2 * _DAY, zone)
    return Day(begins, ends)


def local(instant: Instant, zone: tzinfo) -> datetime:
    """What the clocks of the zone show, exact to the microsecond."""
    return (_EPOCH + timedelta(microseconds=instant)).astimezone(zone)


def _midnight(day: date, zone: tzinfo) -> Instant:
    """The first instant at which clocks show this date, or a later one where they skip it."""
    midnight = datetime.combine(day, time(), zone)
    before, after = (_instant(midnight.replace(fold=fold)) for fold in (0, 1))
    if before <= after:
        return before
    # There is no such midnight: read by the offsets after and before the jump it lies on both sides of the jump.
    instants = range(after, before + 1)
    return Instant(after + bisect_left(instants, day, key=lambda each: local(Instant(each), zone).date()))


def _instant(moment: datetime) -> Instant:
    return Instant((moment - _EPOCH) // _MICROSECOND)
