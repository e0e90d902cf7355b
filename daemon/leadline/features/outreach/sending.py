"""What is checked once more before a mail leaves: between queueing and sending, anything may have changed.

One function over facts that one transaction has read. The order of the checks is the order of what they cost when they
are wrong. First whatever makes a mail unwanted for good: it is not this job's any more, the contact is suppressed, has
written back, cannot have that address, or the associate is gone. Then a paused mailbox, which holds everything as it
is, so that a person who looks finds it untouched. Then what makes the mail impossible: no script, no step, missing
fields. Last what only delays it: the domain's limit, and the mailbox's line. So nothing is put off that is not to be
sent at all, and a contact that asked for silence is told so whatever else is wrong.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from leadline.features.outreach.addresses import is_plausible
from leadline.features.outreach.line import Never, Why, budget, earliest, place
from leadline.features.outreach.model import Associate, FollowUp, Line, Place, Reason, Script, Status
from leadline_protocol.ids import Instant, JobId


class Facts(Struct, frozen=True, kw_only=True):
    """All that the decision rests on, as of one moment."""

    follow_up: FollowUp
    job: JobId
    """The one that asks."""
    associate: Associate | None
    script: Script | None
    suppressed: Reason | None
    """Why the contact's address, or its domain, is on the suppression list; None: it is not."""
    replied: Instant | None
    """When the contact last wrote by itself; an automatic reply is none."""
    missing: Sequence[str]
    """Fields that the step's texts name and the contact does not have."""
    domain_sent: int
    """Mails of the teamspace to the contact's domain that have begun today."""
    domain_limit: int | None
    """So many of these a day; None: any number."""
    next_day: Instant
    """When the day is over for which these are counted."""
    line: Line
    """The mailbox's."""
    first: bool
    """Nothing was ever sent to the contact."""
    held: Place | None
    """The mail's own place in the line."""


class Send(Struct, frozen=True, gc=False):
    """The mail may begin."""


class NotBefore(Struct, frozen=True):
    """It may not begin yet; it is to be asked again."""

    at: Instant
    why: Why
    numbers: Mapping[str, int]
    """What a person needs to judge it."""
    place: Place | None
    """The one to keep for it in the line; None: it has none any more."""


class Drop(Struct, frozen=True, gc=False):
    """It is not sent, nor is any later one."""

    reason: Reason


class Held(StrEnum):
    """Why a mail waits for a person."""

    PAUSED = "paused"
    NEVER = "never"
    """The mailbox's hours and caps leave no moment for it within a year."""


class Hold(Struct, frozen=True, gc=False):
    """It waits until a person has changed something."""

    why: Held


class Stale(Struct, frozen=True, gc=False):
    """The job has nothing to send any more, and the follow-up stays as it is."""

    status: Status
    """What it is. `sending`, where the job is still its own: a mail of an earlier attempt may have left."""


Decision: TypeAlias = Send | NotBefore | Drop | Hold | Stale


def decide(facts: Facts, now: Instant) -> Decision:
    """What becomes of a queued mail now."""
    follow_up, associate = facts.follow_up, facts.associate
    if follow_up.status is not Status.QUEUED or follow_up.job != facts.job:
        return Stale(follow_up.status)
    if facts.suppressed is not None:
        return Drop(facts.suppressed)
    if facts.replied is not None and facts.replied >= follow_up.created:
        return Drop(Reason.REPLIED)
    if not is_plausible(follow_up.address):
        return Drop(Reason.BAD_ADDRESS)
    if associate is None or not associate.active:
        return Drop(Reason.NO_ASSOCIATE)
    if associate.paused is not None:
        return Hold(Held.PAUSED)
    if facts.script is None or not 1 <= follow_up.step <= len(facts.script.steps):
        return Drop(Reason.NO_SCRIPT)
    if facts.missing:
        return Drop(Reason.MISSING_FIELDS)
    if facts.domain_limit is not None and facts.domain_sent >= facts.domain_limit:
        numbers = {"sent": facts.domain_sent, "limit": facts.domain_limit}
        return NotBefore(facts.next_day, Why.DOMAIN_LIMIT, numbers, None)
    begin = earliest(associate, facts.line, follow_up.zone, now, first=facts.first, held=facts.held)
    if isinstance(begin, Never):
        return Hold(Held.NEVER)
    if begin.why is None:
        return Send()
    taken = place(begin.at, first=facts.first, held=facts.held)
    return NotBefore(begin.at, begin.why, _numbers(begin.why, associate, facts.line, now), taken)


def _numbers(why: Why, associate: Associate, line: Line, now: Instant) -> dict[str, int]:
    match why:
        case Why.GAP | Why.IN_FLIGHT:
            return {"gap_seconds": associate.gap_seconds}
        case Why.DAILY_CAP | Why.FOLLOW_UPS_FIRST:
            sent, cap = budget(associate, line, now)
            return {"sent": sent, "cap": cap}
        case _:
            return {}
