"""The day of a teamspace: from one midnight of its zone to the next.

Most days have 24 hours. Where clocks change they have 23 or 25, on Lord Howe Island 23.5 or 24.5, at Troll 22 or 26.
The complication is a change at midnight itself. Where clocks jump over it, the day begins with the jump; where they go
back over it, with the first of the two. So days follow each other without a hole or an overlap, whatever a zone does,
and each instant is in exactly one.
"""

from datetime import timedelta, tzinfo
from typing import Final

from msgspec import Struct

from leadline.core.calendar.zones import day_start, wall_at
from leadline_protocol.ids import Instant

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
    today = wall_at(instant, zone).date()
    begins, ends = day_start(today, zone), day_start(today + _DAY, zone)
    if instant >= ends:  # clocks went back over midnight: its date is yesterday's for the second time
        begins, ends = ends, day_start(today + 2 * _DAY, zone)
    return Day(begins, ends)
