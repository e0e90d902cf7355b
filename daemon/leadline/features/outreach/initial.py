"""First mails: which contacts are written to today, and from which mailbox.

Contacts that nobody has written to have no associate. A run takes the oldest, so many as a day's volume allows, and
deals them to the mailboxes in turn: it goes on after the mailbox that took the last one, also in the next run. Each
mailbox begins at a moment of its own within the hour, as a person would, and keeps its spacing from there. Who has
waited too long is not written to at all: such a lead is cold, and the address may be somebody else's by now.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from decimal import Decimal
from math import floor
from typing import Final

from msgspec import Struct

from leadline.features.outreach.chance import Draw, drawn
from leadline.features.outreach.model import SECOND, AssociateId, FollowUp
from leadline.features.outreach.queueing import age, is_due
from leadline_protocol.ids import Instant

START_WITHIN_SECONDS: Final = 3_600
"""A mailbox begins at random within this time after the run."""

_DAY: Final = 86_400 * SECOND


class Taken(Struct, frozen=True):
    """A contact that gets its first mail."""

    follow_up: FollowUp
    associate: AssociateId
    delay_seconds: int
    """After the run."""


class Taking(Struct, frozen=True):
    """What one run does."""

    taken: tuple[Taken, ...]
    expired: tuple[FollowUp, ...]
    """They are stopped, with the reason `expired`."""
    cursor: AssociateId | None
    """The mailbox that took the last contact of all; the next run goes on after it."""


def take(
    waiting: Iterable[FollowUp],
    mailboxes: Sequence[AssociateId],
    cursor: AssociateId | None,
    volume: int,
    now: Instant,
    *,
    spacing_seconds: int,
    expiry_days: int = 30,
) -> Taking:
    """Deal waiting contacts to the mailboxes, which come by id; without any, only the expired ones are told.

    All that have expired are stopped, whatever the volume, and do not count in it. The cursor names a mailbox that may
    be gone by now. Of those that wait, the ones that have an associate or are not due are left alone.
    """
    assert list(mailboxes) == sorted(set(mailboxes)), "in turn"
    mine = sorted((one for one in waiting if one.associate is None and is_due(one, now)), key=age)
    expired = tuple(one for one in mine if is_expired(one, now, expiry_days))
    alive = [one for one in mine if not is_expired(one, now, expiry_days)]
    if not mailboxes:
        return Taking((), expired, cursor)
    turn = 0 if cursor is None else bisect_right(mailboxes, cursor)
    next_delay: dict[AssociateId, int] = {}
    taken = []
    for number, follow_up in enumerate(alive[: max(0, volume)]):
        mailbox = mailboxes[(turn + number) % len(mailboxes)]
        if mailbox not in next_delay:
            next_delay[mailbox] = drawn(follow_up.seed, Draw.START, follow_up.step, START_WITHIN_SECONDS)
        taken.append(Taken(follow_up, mailbox, next_delay[mailbox]))
        next_delay[mailbox] += spacing_seconds
    return Taking(tuple(taken), expired, taken[-1].associate if taken else cursor)


def is_expired(follow_up: FollowUp, now: Instant, expiry_days: int) -> bool:
    """Whether it has waited for longer than so many times 24 hours; after exactly so many it is still alive.

    It has waited since it was there and due: one that is meant for next month does not expire before.
    """
    return now - max(follow_up.created, follow_up.due) > expiry_days * _DAY


def weekend_volume(weekday_volume: int, ratio: float) -> int:
    """First mails on a day of the weekend: the share of a weekday's that the ratio is in decimals, rounded down.

    As binary fractions 0.29 of 100 would be 28.
    """
    return floor(Decimal(repr(ratio)) * weekday_volume)
