"""Schedules."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from leadline_protocol.messages.operations.base import ControlOperation
from leadline_protocol.messages.replies.schedules import SchedulesReply
from leadline_protocol.messages.words import Name
from leadline_protocol.schedules import Schedule


class Schedules(ControlOperation[SchedulesReply], tag="schedules", frozen=True, kw_only=True):
    """The schedules of a teamspace, or of all; with another `action` than `list`, something about one of them."""

    action: Literal["list", "describe", "add", "preview", "due", "pause", "resume", "delete"] = "list"
    """`due`: when any of them fires within `days`, at most `limit` times."""
    teamspace: Name | None = None
    name: Name | None = None
    timetable: Schedule | None = None
    """Of `add` and `preview`: when it fires."""
    submission: dict[str, Any] | None = None
    """Of `add`, and of `preview` with a teamspace: what is submitted each time, without what is of one time only."""
    missed: Literal["skip", "once", "all"] = "skip"
    """Of `add`: what becomes of times that nobody was there for, more than five minutes ago."""
    overlap: bool = False
    """Of `add`: whether it fires while the job of the time before still goes on."""
    count: Annotated[int, Meta(ge=0, le=100)] = 5
    """So many of the next times are shown."""
    days: Annotated[int, Meta(ge=1, le=31)] = 1
    """Of `due`: of 24 hours each, from now on."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    after: tuple[Name, Name] | None = None
    """The `next` of the page before."""

    def __post_init__(self) -> None:
        if self.action not in {"list", "preview", "due"} and (self.teamspace is None or self.name is None):
            raise ValueError("name the teamspace and the schedule")
        if self.action == "due" and self.name is not None:
            raise ValueError("name goes with one schedule")
        if self.action != "due" and self.days != 1:
            raise ValueError("days goes with the action due")
        if (self.timetable is not None) != (self.action in {"add", "preview"}):
            raise ValueError("timetable goes with the actions add and preview, and they with it")
        if (self.submission is not None) != (self.action == "add") and self.action != "preview":
            raise ValueError("submission goes with the actions add and preview, and add with it")
        if self.action == "preview" and (self.submission is None) != (self.teamspace is None):
            raise ValueError("a preview has a teamspace and a submission, or neither")
        if self.action != "add" and (self.overlap or self.missed != "skip"):
            raise ValueError("missed and overlap go with the action add")
