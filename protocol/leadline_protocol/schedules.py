"""What people write as a schedule: four shapes, each by the clock on a wall in one IANA zone."""

from enum import StrEnum
from typing import Literal, TypeAlias

from msgspec import Struct


class Weekday(StrEnum):
    """A day of the week."""

    MONDAY = "mon"
    TUESDAY = "tue"
    WEDNESDAY = "wed"
    THURSDAY = "thu"
    FRIDAY = "fri"
    SATURDAY = "sat"
    SUNDAY = "sun"


class Daily(Struct, frozen=True, gc=False, tag="daily", tag_field="repeat", forbid_unknown_fields=True):
    """Every day."""

    at: str
    """The wall time, HH:MM."""
    zone: str
    """The IANA name of the zone whose wall it is, as in all shapes."""


class Weekly(Struct, frozen=True, gc=False, tag="weekly", tag_field="repeat", forbid_unknown_fields=True):
    """On some days of the week, one at least."""

    days: tuple[Weekday, ...]
    at: str
    zone: str


class Monthly(Struct, frozen=True, gc=False, tag="monthly", tag_field="repeat", forbid_unknown_fields=True):
    """On one day of each month that has it."""

    day: int | Literal["last"]
    """1 to 31, or the last one whichever that is."""
    at: str
    zone: str


class Cron(Struct, frozen=True, gc=False, tag="cron", tag_field="repeat", forbid_unknown_fields=True):
    """On what a cron line says."""

    line: str
    """Five fields: minute, hour, day of the month, month, day of the week."""
    zone: str


Schedule: TypeAlias = Daily | Weekly | Monthly | Cron
