"""Which follow-ups of an associate are queued now, and how far apart.

One call takes what is due, oldest first, up to a limit. A follow-up whose script cannot be used is passed over: it
stays as it is and takes neither a share of the limit nor a place in the spacing, so that others do not wait for it.
The spacing begins anew with each call; what keeps the mails of two calls apart is the mailbox's line.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Final

from msgspec import Struct

from leadline.features.outreach.chance import Draw, drawn
from leadline.features.outreach.model import FollowUp, Status
from leadline_protocol.ids import Instant

KEYWORDS: Final = frozenset({"Long Term", "Follow Up"})
"""What a script is for, where its mails are queued by themselves."""


class Skip(StrEnum):
    """Why a follow-up that is due is passed over: a closed list."""

    SCRIPT_UNSET = "script_unset"
    """It names no script, or one that does not exist."""
    KEYWORD = "keyword"
    """Its script's keyword is none of those that are queued; case and spaces count."""


class Queued(Struct, frozen=True):
    """A follow-up that becomes a job."""

    follow_up: FollowUp
    delay_seconds: int
    """After the call."""


class Skipped(Struct, frozen=True):
    """A follow-up that is passed over."""

    follow_up: FollowUp
    reason: Skip


class Queueing(Struct, frozen=True):
    """What one call does."""

    queued: tuple[Queued, ...]
    skipped: tuple[Skipped, ...]
    left: int
    """Follow-ups that are due and were not looked at, as the limit was reached before."""


def queue(
    follow_ups: Iterable[FollowUp],
    now: Instant,
    *,
    keywords_by_script: Mapping[str, str],
    keywords: AbstractSet[str],
    limit: int,
    spacing_seconds: int,
    variability_seconds: int | None,
) -> Queueing:
    """What to do with an associate's follow-ups; those that are not due, or not pending, are left alone.

    A limit of 0 or less queues nothing. A variability that is None or negative adds nothing to a delay.
    """
    due = sorted((one for one in follow_ups if is_due(one, now)), key=age)
    queued: list[Queued] = []
    skipped: list[Skipped] = []
    for follow_up in due:
        if len(queued) >= limit:
            break
        keyword = None if follow_up.script is None else keywords_by_script.get(follow_up.script)
        if keyword is None:
            skipped.append(Skipped(follow_up, Skip.SCRIPT_UNSET))
        elif keyword not in keywords:
            skipped.append(Skipped(follow_up, Skip.KEYWORD))
        else:
            base = len(queued) * spacing_seconds
            queued.append(Queued(follow_up, base + variance_seconds(follow_up, variability_seconds)))
    return Queueing(tuple(queued), tuple(skipped), len(due) - len(queued) - len(skipped))


def is_due(follow_up: FollowUp, now: Instant) -> bool:
    """Whether its next mail waits for nothing but being queued."""
    return follow_up.status is Status.PENDING and follow_up.due <= now


def age(follow_up: FollowUp) -> tuple[Instant, int]:
    """By this they are taken in order: the oldest first."""
    return follow_up.created, follow_up.id


def variance_seconds(follow_up: FollowUp, variability_seconds: int | None) -> int:
    """By how much a mail is later than its turn: whole seconds in [0, variability], always the same for one step."""
    variability = max(0, variability_seconds or 0)
    return drawn(follow_up.seed, Draw.VARIANCE, follow_up.step, variability + 1)
