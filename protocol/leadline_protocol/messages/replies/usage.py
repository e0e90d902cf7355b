"""What calls have cost."""

from decimal import Decimal

from msgspec import Struct

from leadline_protocol.messages.replies.base import Reply
from leadline_protocol.messages.words import (
    Ref,
)


class Spent(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What a job's leads have cost at one provider account. Credits are exact decimals, written as strings."""

    provider: str
    """`snov` for the shared key, `snov@acme` for the own key of acme."""
    calls: int
    """Answers that cost something."""
    credits: Decimal
    perhaps: Decimal | None = None
    """What calls may have cost besides of which nobody learnt how they ended."""


class UsageRow(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What a month has cost, of one teamspace, provider account, or both. Credits are exact decimals, as strings."""

    teamspace: str | None = None
    """Absent where teamspaces are summed up."""
    provider: str | None = None
    """`snov` for the shared key, `snov@acme` for the own key of acme; absent where providers are summed up."""
    calls: int
    """Answers that cost something."""
    credits: Decimal
    perhaps: Decimal | None = None
    """What calls may have cost besides of which nobody learnt how they ended."""


class UsageReply(Reply, frozen=True, kw_only=True):
    """A page of what a month has cost, by teamspace and provider."""

    usage: list[UsageRow]
    next: str | None = None
    """To be sent as `after` for the next page; absent on the last."""
    ref: Ref = None
