"""API tokens as they are kept: never a secret, only the hash by which one is known again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from leadline_protocol.messages import Role, TokenScope


class StoredToken(Struct, frozen=True, gc=False):
    """One secret of a token: the present one, or one from before a rotation."""

    hash: bytes
    """SHA-256 of the secret, which is long and random enough for a plain hash."""
    name: str
    scopes: frozenset[TokenScope]
    teamspace: str | None
    """None: all of them."""
    role: Role
    created: datetime
    expires: datetime | None = None
    rotated: datetime | None = None
    """When another secret took its place; None: it is the present one."""


class TokenStore(Protocol):
    """Where they are kept. Everything raises Unavailable, Fenced and OutcomeUnknown as the store does."""

    async def tokens(self) -> Sequence[StoredToken]:
        """All of them."""
        ...

    async def add(self, token: StoredToken) -> bool:
        """Keep a new token; False where there is one of its name."""
        ...

    async def rotate(self, token: StoredToken, older_until: datetime) -> bool:
        """Put a new secret in the present one's place, which is taken until then; False where there is none."""
        ...

    async def revoke(self, name: str) -> bool:
        """Forget a token with all its secrets; False where there is none."""
        ...
