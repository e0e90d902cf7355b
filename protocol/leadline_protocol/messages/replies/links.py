"""Links by which people sign in."""

from datetime import datetime

from leadline_protocol.messages.replies.base import Reply
from leadline_protocol.messages.words import Ref


class LinksReply(Reply, frozen=True, kw_only=True):
    """The link that was made, or what was ended."""

    path: str | None = None
    """Of `create`: where the person signs in, once. It is told this once; its hash is kept."""
    url: str | None = None
    """The same as a whole address, where the daemon knows by which one it is reached."""
    expires_at: datetime | None = None
    """Of `create`: until when the link can be taken."""
    ended: int | None = None
    """Of `end`: how many were signed in, and are no more."""
    ref: Ref = None
