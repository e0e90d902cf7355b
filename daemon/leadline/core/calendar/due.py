"""What to do about the occurrences that have come: run each, or skip it with the reason.

All schedules of a job are looked at together: a run is the job's, whichever of them it is due by. An occurrence is
decided once, when somebody looks, and what has been decided is never looked at again: only what is later than the last
decided occurrence of its schedule and has come by now. So a wall clock that is set back decides nothing until it
is past that occurrence again, and one that is set forward decides what it has jumped over, once.

Whoever looks may come late: the daemon was down, or its machine asleep. Up to the lateness allowed, the very
microsecond included, an occurrence is on time, and runs. What is later was missed, and the policy says what becomes of
that:

    skip   nothing: it is skipped as missed
    once   one run makes up for all that was missed: the newest of all that have come, so if that one is on time no
           other is added to it; the rest is skipped as missed
    all    each runs, however late

Where runs must not overlap, one that is to run while the previous run goes on is skipped as still running. Those that
are decided together are looked at oldest first, and the first that runs is still running for all after it: `all` is
therefore of use only where overlap is allowed. A missed one that the policy gives up is missed, whatever runs.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from heapq import merge
from itertools import chain, pairwise

from msgspec import Struct

from leadline.core.calendar.occurrences import Occurrence, occurrences
from leadline.core.calendar.schedules import Timetable
from leadline.core.model import SECOND
from leadline_protocol.ids import Instant


class Missed(StrEnum):
    """What becomes of occurrences that were missed."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


class Verdict(StrEnum):
    """What becomes of one occurrence."""

    RUN = "run"
    MISSED = "missed"
    """Skipped: nobody looked in time."""
    STILL_RUNNING = "still_running"
    """Skipped: the run before it goes on, and they may not overlap."""


class Conduct(Struct, frozen=True, gc=False):
    """How a scheduled job wants its occurrences to be taken."""

    missed: Missed = Missed.SKIP
    late_seconds_max: int = 300
    """How late an occurrence is still on time."""
    overlap: bool = False
    """Whether a run may start while another goes on."""


class Pending(Struct, frozen=True, gc=False):
    """A schedule of a job, and how far it has been decided."""

    timetable: Timetable
    decided: Instant
    """Its last occurrence that was decided; before the first, the moment from which it is in force."""


class Decided(Struct, frozen=True, gc=False):
    """An occurrence and what becomes of it."""

    schedule: int
    """Its index among the job's schedules."""
    occurrence: Occurrence
    verdict: Verdict


def decide(schedules: Sequence[Pending], conduct: Conduct, wall: Instant, *, running: bool) -> Iterator[Decided]:
    """What becomes of each occurrence of a job that has come by `wall`, oldest first, found as it is asked for.

    `running`: a run of the job goes on. Whoever stops early, as after a year of downtime there may be many, can go on
    from the last ones taken: the rest is decided alike.
    """
    due = merge(*(_due(number, each, wall) for number, each in enumerate(schedules)))
    on_time_from = wall - conduct.late_seconds_max * SECOND
    for present, newer in pairwise(chain(due, [None])):
        assert present is not None
        instant, schedule, occurrence = present
        makes_up = conduct.missed is Missed.ALL or (conduct.missed is Missed.ONCE and newer is None)
        if instant >= on_time_from or makes_up:
            verdict = Verdict.STILL_RUNNING if running and not conduct.overlap else Verdict.RUN
            running = True
        else:
            verdict = Verdict.MISSED
        yield Decided(schedule, occurrence, verdict)


def _due(schedule: int, pending: Pending, wall: Instant) -> Iterator[tuple[Instant, int, Occurrence]]:
    """The occurrences of a schedule that are to be decided, to be merged with those of others: no two compare equal."""
    for occurrence in occurrences(pending.timetable, pending.decided, wall):
        yield occurrence.instant, schedule, occurrence
