"""Mails and webhooks about jobs, and what has become of them."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from leadline_protocol.ids import JobId
from leadline_protocol.messages.replies.base import Reply
from leadline_protocol.messages.words import (
    Ref,
)


class NoticeView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A mail or webhook about a job, and what has become of it."""

    notice: UUID
    job: JobId
    teamspace: str
    event: str
    medium: Literal["webhook", "mail"]
    target: str
    state: Literal["due", "sending", "sent", "failed", "unknown"]
    """`failed`: given up; `unknown`: nobody knows whether the mail left, and it is not sent again by itself."""
    tries: int
    made_at: datetime
    next_try_at: datetime | None = None
    detail: str | None = None
    """Why it was not taken."""


class NoticesReply(Reply, frozen=True, kw_only=True):
    """Notices, newest first."""

    notices: list[NoticeView]
    ref: Ref = None
