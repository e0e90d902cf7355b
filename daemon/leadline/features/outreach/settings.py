"""How follow-ups are queued and sent, as the configuration says."""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from leadline.features.outreach.ports import MailServer


class Settings(Struct, frozen=True, kw_only=True):
    """What holds for all teamspaces."""

    queue_limit: int
    spacing_seconds: int
    keywords: frozenset[str]
    first_mail_keywords: frozenset[str]
    first_mails: int
    """On a weekday, each time."""
    weekend_share: float
    first_mail_within_days: int
    domain_per_day: int | None
    unsubscribe_url: str | None
    server: MailServer | None
    """Of mailboxes that have none of their own."""


SettingsNow: TypeAlias = Callable[[], Settings]
"""What they are now."""
