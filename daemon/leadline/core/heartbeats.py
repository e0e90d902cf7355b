"""Which running attempts are overdue, and for what.

Two silences mean different things. A worker that sends no beat is gone. A worker that beats, but whose job makes no
progress although nothing that is known keeps it waiting, stands still: people call that job stalled. While a wait is
open (a rate limit, a poll, a back-off) standing still is right and no time runs; when the last wait closes, the time
starts anew.

A complication is a call that is out while other leads of the attempt wait. They may be waiting for that very call: it
has the last place at the provider, or is the canary whose answer lets everyone go on. If their waits excused the
attempt, a call that is stuck would never be missed, and nobody would ever go on. So time runs while a call is out,
whatever else waits; it starts anew with each call that goes, and with each wait that opens or closes.

Everything is a function of the attempt and the instant; the caller arms one deadline per attempt, `next_check`.
"""

from enum import StrEnum
from typing import Final

from leadline.core.model import SECOND, Attempt, Rules
from leadline_protocol.ids import Instant

BEAT_SECONDS: Final = 10
"""How often a worker beats."""

LATE_SECONDS: Final = 1
"""Whoever is later than this was not merely busy."""


class Verdict(StrEnum):
    """What the silence of an attempt means."""

    FINE = "fine"
    WARN = "warn"
    """No progress for a while: tell people, do nothing."""
    STALLED = "stalled"
    """It stands still: it is to be killed, or flagged for a person where that is how it is set."""
    WORKER_LOST = "worker_lost"


def waiting(attempt: Attempt) -> bool:
    """Whether a known reason keeps the attempt from going on: something of it waits, and nothing is out."""
    return not attempt.flying and bool(attempt.asking or attempt.waits)


def judge(attempt: Attempt, rules: Rules, instant: Instant) -> Verdict:
    """What to make of an attempt at this instant: a bound is reached in the very microsecond, not before."""
    if instant - attempt.beaten >= rules.beat_seconds_max * SECOND:
        return Verdict.WORKER_LOST
    if waiting(attempt) or not attempt.resumes:
        return Verdict.FINE
    still = instant - attempt.moved
    if still >= rules.stall_after_seconds * SECOND and (rules.auto_kill_stalled or not attempt.flagged):
        return Verdict.STALLED
    if still >= rules.warn_after_seconds * SECOND and not (attempt.warned or attempt.flagged):
        return Verdict.WARN
    return Verdict.FINE


def next_check(attempt: Attempt, rules: Rules) -> Instant:
    """The first instant at which `judge` could say something new, if nothing happens until then."""
    beat = attempt.beaten + rules.beat_seconds_max * SECOND
    if waiting(attempt) or not attempt.resumes or (attempt.flagged and not rules.auto_kill_stalled):
        return Instant(beat)
    patience = rules.stall_after_seconds
    if not (attempt.warned or attempt.flagged):
        patience = min(patience, rules.warn_after_seconds)
    return Instant(min(beat, attempt.moved + patience * SECOND))


def beat(attempt: Attempt, instant: Instant) -> None:
    """Hear a sign of life. One that comes late tells that whoever beats has not run in between: no fault of the job."""
    silence = instant - attempt.beaten
    attempt.beaten = instant
    if silence > (BEAT_SECONDS + LATE_SECONDS) * SECOND:
        attempt.moved = Instant(min(instant, attempt.moved + silence - BEAT_SECONDS * SECOND))


def still_seconds(attempt: Attempt, instant: Instant) -> int:
    """For how many whole seconds the attempt has made no progress without a reason."""
    return 0 if waiting(attempt) or not attempt.resumes else (instant - attempt.moved) // SECOND
