"""Which job takes the daemon down, judged by what each was at when that happened.

A job's work runs in the daemon's process, so a job may end it: by memory, by a fault of some library. At the next start
it begins again, and ends it again. After three times it is quarantined: it waits for a person, and the others go on.

The complication is that a dead daemon tells nothing, and that many jobs ran when it died. Four things keep the innocent
out. Who has brought a lead to its end since, or has lived on for a while, is suspected no more. Who was only waiting
has not done it; of a suspect, and of nobody else, it is stored when it begins to wait, so that this costs the others no
commit. Who had calls out most likely waited for their answers, as a job that sends a mail does, and gets little of the
blame: a job that dies of an answer takes ten crashes, as there is no telling it from one that is killed from outside
again and again before its first answers are stored. And who is one crash away from the end runs while no other suspect
does, so that the last one hits exactly one.

An end that was ordered (a stop, a drain, a take-over) is no crash, nor is the loss of the database. A kill from
outside is taken for one, because it cannot be told from the kernel's when memory runs out.
"""

from typing import Final

from msgspec import Struct

AT_WORK: Final = 10
"""The weight of a crash at which a job was at work."""
IN_FLIGHT: Final = 3
"""The weight of one at which calls of it were out."""
CONVICTING: Final = 3 * AT_WORK
"""From this weight on a job is quarantined."""

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

    crashes: int = 0
    """How often in a row."""
    weight: int = 0
    """What these crashes weigh together."""
    settled: int = 0
    """Leads in a final state at the last of them."""
    outside: bool = False
    """It only waits at present."""


def after_crash(before: Suspicion | None, crashed: Crashed, *, mostly_asks: bool = False) -> Suspicion:
    """What to think of a job that ran when the daemon died.

    One that `mostly_asks` is judged as if calls of it were out, whenever it was at work.
    """
    if before is None or cleared(before, crashed.settled):
        before = Suspicion()
    elif before.outside and not crashed.in_flight:
        return Suspicion(before.crashes, before.weight, crashed.settled)
    weight = IN_FLIGHT if crashed.in_flight or mostly_asks else AT_WORK
    return Suspicion(before.crashes + 1, before.weight + weight, crashed.settled)


def cleared(suspicion: Suspicion, settled: int) -> bool:
    """Whether a job with so many leads in a final state has gone beyond where it was at the crash."""
    return settled > suspicion.settled


def convicted(suspicion: Suspicion) -> bool:
    """Whether it has taken the daemon down too often."""
    return suspicion.weight >= CONVICTING


def alone(suspicion: Suspicion) -> bool:
    """Whether the next crash may convict it, so that it may run only while no other suspect does."""
    return CONVICTING - AT_WORK <= suspicion.weight < CONVICTING
