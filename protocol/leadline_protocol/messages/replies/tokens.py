"""API tokens."""

from datetime import datetime
from typing import Annotated, get_args

from msgspec import Meta, Struct

from leadline_protocol.messages.replies.base import Reply
from leadline_protocol.messages.words import (
    Ref,
    Role,
    TokenScope,
)


class TokenView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """An API token, without the secret by which it is known."""

    name: str
    scopes: list[Annotated[str, Meta(extra_json_schema={"enum": [*get_args(TokenScope)]})]]
    teamspace: str | None = None
    """The only one that it can be used for; absent: all of them."""
    role: Annotated[str, Meta(extra_json_schema={"enum": [*get_args(Role)]})]
    created_at: datetime
    """When its present secret was made."""
    expires_at: datetime | None = None
    """It is not taken from then on; absent: until it is revoked."""
    older_until: datetime | None = None
    """It was rotated, and the secret before is taken until then."""


class TokensReply(Reply, frozen=True, kw_only=True):
    """API tokens by name, or the one that something was done to."""

    tokens: list[TokenView]
    secret: str | None = None
    """Of `create` and `rotate`: what to send as `Authorization: Bearer …`. It is told this once; its hash is kept."""
    ref: Ref = None
