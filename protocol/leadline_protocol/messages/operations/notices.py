"""Mails and webhooks about jobs."""

from typing import Annotated
from uuid import UUID

from msgspec import Meta

from leadline_protocol.messages.operations.base import ControlOperation
from leadline_protocol.messages.replies.notices import NoticesReply
from leadline_protocol.messages.words import Id, Name


class Notices(ControlOperation[NoticesReply], tag="notices", frozen=True, kw_only=True):
    """Mails and webhooks about jobs, newest first: those that are not delivered, or all."""

    job: Id | None = None
    teamspace: Name | None = None
    all: bool = False
    """Also those that were sent."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    again: UUID | None = None
    """First send this one once more, which was given up or is held."""
