"""What the clock on the wall of a zone shows, and when it will show something.

A wall time is a datetime without a zone. Where clocks are put forward some wall times never come: such a one is met at
the end of the gap, the first instant that is later on that wall. Where they are put back some come twice: the first
one counts. So each wall time has exactly one instant, and a later wall time never has an earlier one.

The zones are those of the tzdata package, not of the machine: everywhere, and for a whole run of the daemon, the same.
"""

from bisect import bisect_left
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

from leadline_protocol.ids import Instant

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Mark(StrEnum):
    """What a change of clocks has to do with an instant; where wall times of several meet, the first in this order."""

    NORMAL = "normal"
    FIRST = "first"
    """The wall time comes twice; this is the first of them."""
    MOVED = "moved"
    """The wall time does not exist on that day; this is the end of the gap."""


@cache
def zone_names() -> frozenset[str]:
    """Every name that the IANA list has, links included."""
    return frozenset((files("tzdata") / "zones").read_text(encoding="ascii").split())


@cache
def zone(name: str) -> ZoneInfo:
    """The zone of that name; a `KeyError` where the IANA list has none."""
    if name not in zone_names():
        raise KeyError(name)
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, name)


def wall_at(instant: Instant, zone: tzinfo) -> datetime:
    """What the clocks of the zone show at an instant, with the zone."""
    return (_EPOCH + timedelta(microseconds=instant)).astimezone(zone)


def instant_of(wall: datetime, zone: tzinfo) -> tuple[Instant, Mark]:
    """The instant of a wall time, and whether a change of clocks has to do with it."""
    first = wall.replace(tzinfo=zone, fold=0)
    before, after = _offset(first), _offset(first.replace(fold=1))
    as_utc = wall.replace(tzinfo=UTC)
    if before >= after:
        return Instant((as_utc - before - _EPOCH) // _MICROSECOND), Mark.FIRST if before > after else Mark.NORMAL
    # The clocks were changed after (wall - after) and no later than (wall - before), on a whole second.
    start = (as_utc - after - _EPOCH) // timedelta(seconds=1)
    seconds = range(start + 1, start + 1 + -((before - after) // timedelta(seconds=1)))
    changed = bisect_left(seconds, True, key=lambda second: _offset(datetime.fromtimestamp(second, zone)) != before)
    return Instant(seconds[changed] * 1_000_000), Mark.MOVED


def day_start(day: date, zone: tzinfo) -> Instant:
    """The first instant of a day on the zone's wall: midnight, or where that does not exist the end of the gap."""
    return instant_of(datetime(day.year, day.month, day.day), zone)[0]  # noqa: DTZ001 - a wall time


def _offset(moment: datetime) -> timedelta:
    offset = moment.utcoffset()
    assert offset is not None
    return offset
