"""The wall of a zone, watched minute by minute: what a schedule does by that, without any arithmetic of wall times."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from functools import cache, lru_cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from cronsim import CronSim
from msgspec import Struct

from leadline_protocol.ids import Instant
from leadline_protocol.schedules import Cron, Daily, Monthly, Schedule, Weekly

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

ANY_TIME = datetime(2000, 1, 1)  # noqa: DTZ001 - cronsim wants one to start from

Wanted = Callable[[datetime], bool]
"""Whether a schedule is due at a wall time."""


def instant(text: str) -> Instant:
    """ISO 8601 with an offset, to the minute."""
    return Instant(round(datetime.fromisoformat(text).timestamp()) * SECOND)


@cache
def packaged_zone(name: str) -> ZoneInfo:
    with files("tzdata").joinpath("zoneinfo").joinpath(*name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, name)


def wall(at: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at // SECOND, zone).replace(tzinfo=None, fold=0)


@cache
def changes(zone: str, year: int) -> tuple[Instant, ...]:
    """The minutes of a year at which the clocks of a zone are changed."""
    known = packaged_zone(zone)
    start = round(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * SECOND
    found = []
    for day in range(start, start + 366 * DAY, DAY):
        if shift(day, known) != shift(day + DAY, known):
            minutes = range(day, day + DAY, MINUTE)
            found += [Instant(m + MINUTE) for m in minutes if shift(m, known) != shift(m + MINUTE, known)]
    return tuple(found)


def shift(at: int, zone: ZoneInfo) -> timedelta:
    """How far the clocks of the zone are ahead of UTC."""
    offset = datetime.fromtimestamp(at // SECOND, zone).utcoffset()
    assert offset is not None
    return offset


def wanted(schedule: Schedule) -> Wanted:
    """By the fields of a wall time alone."""
    if isinstance(schedule, Cron):
        cron = CronSim(schedule.line, ANY_TIME)
        return lambda wall: (
            wall.minute in cron.minutes
            and wall.hour in cron.hours
            and wall.month in cron.months
            and cron.match_day(wall.date())
        )
    at = time.fromisoformat(schedule.at)
    hour, minute = at.hour, at.minute
    match schedule:
        case Daily():
            return lambda wall: wall.minute == minute and wall.hour == hour
        case Weekly(days):
            return lambda wall: wall.minute == minute and wall.hour == hour and f"{wall:%a}".lower() in days
        case Monthly("last"):
            return lambda wall: (
                wall.minute == minute and wall.hour == hour and (wall + timedelta(days=1)).month != wall.month
            )
        case Monthly(day):
            return lambda wall: wall.minute == minute and wall.hour == hour and wall.day == day


class Firing(Struct, frozen=True):
    at: Instant
    mark: str


class Glance(Struct, frozen=True):
    """A minute in which the wall shows something new."""

    at: Instant
    shown: datetime
    skipped: tuple[datetime, ...]
    """Wall times before it that were not shown."""
    twice: bool
    """It is shown again later."""


@lru_cache(maxsize=32)
def glances(zone: str, start: int, end: int) -> tuple[Glance, ...]:
    """From one whole minute on and before another, to one who watches the wall for a day more on either side."""
    known = packaged_zone(zone)
    minutes = range(start - DAY, end + DAY, MINUTE)
    walls = [wall(at, known) for at in minutes]
    times = Counter(walls)
    seen = []
    latest = walls[0] - timedelta(minutes=1)
    for at, shown in zip(minutes, walls, strict=True):
        if shown > latest:  # else the clocks were put back, and it was shown before
            skipped = tuple(latest + timedelta(minutes=n) for n in range(1, (shown - latest) // timedelta(minutes=1)))
            latest = shown
            if start <= at < end:
                seen.append(Glance(Instant(at), shown, skipped, times[shown] > 1))
    return tuple(seen)


def firings(zone: str, start: int, end: int, due: Wanted) -> list[Firing]:
    """What fires from one whole minute on and before another."""
    fired = []
    for glance in glances(zone, start, end):
        if due(glance.shown):
            fired.append(Firing(glance.at, "first" if glance.twice else "normal"))
        elif any(map(due, glance.skipped)):
            fired.append(Firing(glance.at, "moved"))
    return fired
