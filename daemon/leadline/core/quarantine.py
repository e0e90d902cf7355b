"""Which job takes the daemon down, judged by what each was at when that happened.

A job's work runs in the daemon's process, so a job may end it: by memory, by a fault of some library. At the next start
it begins again, and ends it again. After three times it is quarantined: it waits for a person, and the others go on.

The complication is that a dead daemon tells nothing, and that many jobs ran when it died. Three things keep the
innocent out. Who has brought a lead to its end since, or has lived on for a while, is suspected no more. Who was only
waiting, for a permit or for a provider's answer, has not done it; of a suspect, and of nobody else, it is written down
before it goes back to work, so that this costs the others no commit. And who is a strike away from the end runs
while no other suspect does, so that the last strike hits exactly one.

An end that was ordered (a stop, a drain, a take-over) is no crash, nor is the loss of the database. A kill from
outside is taken for one, because it cannot be told from the kernel's when memory runs out.
"""

from typing import Final

from msgspec import Struct

STRIKES_MAX: Final = 3
"""Crashes at work, in a row, after which a job is quarantined."""

LIVED_SECONDS: Final = 300
"""An attempt that the daemon has survived for so long is suspected no more: the patience that there is with a job
that stands still."""


class Crashed(Struct, frozen=True, gc=False):
    """A job that ran when the daemon died, as the database shows it."""

    settled: int
    """Leads in a final state."""
    in_flight: bool
    """Whether calls of it were out and had brought nothing yet."""


class Suspicion(Struct, frozen=True, gc=False, omit_defaults=True):
    """Why a job is watched: it ran when the daemon died, and has not cleared itself."""

    strikes: int = 0
    """Crashes in a row at which it was at work."""
    settled: int = 0
    """Leads in a final state at the last of them."""
    outside: bool = False
    """What it does now it does outside: it waits for a permit or for answers."""


def after_crash(before: Suspicion | None, crashed: Crashed) -> Suspicion:
    """What to think of a job that ran when the daemon died.

    Nobody has written down what one that was not suspected was at, so its calls decide that.
    """
    if before is None or cleared(before, crashed.settled):
        return Suspicion(0 if crashed.in_flight else 1, crashed.settled)
    return Suspicion(before.strikes + (not before.outside), crashed.settled)


def cleared(suspicion: Suspicion, settled: int) -> bool:
    """Whether a job with so many leads in a final state has gone beyond where it was at the crash."""
    return settled > suspicion.settled


def convicted(suspicion: Suspicion) -> bool:
    """Whether it has taken the daemon down too often."""
    return suspicion.strikes >= STRIKES_MAX


def alone(suspicion: Suspicion) -> bool:
    """Whether it may run only while no other suspect does."""
    return suspicion.strikes == STRIKES_MAX - 1
