"""What a month has cost."""

from typing import Annotated, Literal, get_args

from msgspec import Meta, field

from leadline_protocol.messages.operations.base import ControlOperation
from leadline_protocol.messages.replies.usage import UsageReply
from leadline_protocol.messages.words import Name

UsageBy = Literal["teamspace", "provider"]
"""What usage may be told apart by."""


class Usage(ControlOperation[UsageReply], tag="usage", frozen=True, kw_only=True):
    """What a month has cost: the sums of the ledger."""

    month: Annotated[str, Meta(pattern=r"^(19[7-9]\d|2\d\d\d)-(0[1-9]|1[0-2])$")]
    """Such as `2026-11`; it begins and ends in UTC."""
    by: Annotated[list[UsageBy], Meta(min_length=1, max_length=2)] = field(default_factory=lambda: [*get_args(UsageBy)])
    teamspace: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    after: Annotated[str, Meta(max_length=1000)] | None = None
    """The `next` of the page before."""
