"""Whether a mailbox is to be paused, because too much of what it sends comes back or is reported as spam.

Who goes on writing to addresses that do not exist, or to people who report it, is soon believed by no mail server any
more, and its good mails are lost too. So the last mails are judged, and a person looks before more go out.

The complication is small numbers. A cold mailbox sends a few dozen mails a day: one bounce of ten is 10 %, and chance.
So a share is believed only from a few cases on. For complaints no share is needed: one per thousand is what
providers tolerate, so two among a hundred are too many whatever happens next.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

MAILS: Final = 100
"""So many of the last mails are judged: some days of a mailbox, so that a bad list shows before it is used up."""
BAD_MIN: Final = 5
"""Bounces and complaints together, below which no share is believed."""
BOUNCED_PERCENT_MAX: Final = 5
"""Amazon SES puts senders under review from 5 % of hard bounces on and stops them from 10 % (SES Developer Guide,
"Reputation metrics messages")."""
COMPLAINTS: Final = 2
"""Gmail asks for less than 0.1 % of complaints and never 0.3 % (Google's "Email sender guidelines"); Amazon SES
reviews senders from 0.1 % on and stops them from 0.5 %. One of a hundred may be chance."""


class Fate(StrEnum):
    """What has become of a mail, as far as is known."""

    SENT = "sent"
    BOUNCED = "bounced"
    """It came back for good; a mailbox that was only full is none of these."""
    COMPLAINED = "complained"


class TooMany(Struct, frozen=True, gc=False):
    """Why a mailbox is to be paused."""

    bounced: int
    complained: int
    mails: int
    """Of so many."""


def judge(fates: Sequence[Fate]) -> TooMany | None:
    """Whether to pause a mailbox for what became of its mails, oldest first; None: there is no reason.

    Give those since a person last resumed it: what this person has seen is not held against it again.
    """
    last = fates[-MAILS:]
    bounced, complained = last.count(Fate.BOUNCED), last.count(Fate.COMPLAINED)
    bounces_too_often = bounced + complained >= BAD_MIN and bounced * 100 > BOUNCED_PERCENT_MAX * len(last)
    if bounces_too_often or complained >= COMPLAINTS:
        return TooMany(bounced, complained, len(last))
    return None
