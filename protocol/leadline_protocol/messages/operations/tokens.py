"""Tokens for the API over HTTP."""

from typing import Annotated, Literal

from msgspec import Meta, field

from leadline_protocol.messages.operations.base import ControlOperation
from leadline_protocol.messages.replies.tokens import TokensReply
from leadline_protocol.messages.words import AwareTime, Name, Role, TokenScope


class Tokens(ControlOperation[TokensReply], tag="tokens", frozen=True, kw_only=True):
    """The API tokens by which HTTP is used; with another `action` than `list`, something about one of them."""

    action: Literal["list", "create", "rotate", "revoke"] = "list"
    """`rotate`: a new secret; the one before is taken for a while longer."""
    name: Name | None = None
    """What it is called in lists and in the audit trail."""
    scopes: Annotated[list[TokenScope], Meta(max_length=3)] = field(default_factory=list)
    """Of `create`: what it may do."""
    teamspace: Name | None = None
    """Of `create`: the only one that it can be used for; absent: all of them."""
    role: Role = "member"
    """Of `create`: as whom its requests are judged."""
    expires_at: AwareTime | None = None
    """Of `create` and `rotate`: it is not taken from then on; absent: until it is revoked, or as before."""
    overlap_seconds: Annotated[int, Meta(ge=0, le=2_678_400)] = 86_400
    """Of `rotate`: so long the secret before is taken."""

    def __post_init__(self) -> None:
        if self.action != "list" and self.name is None:
            raise ValueError("name the token")
        if (self.action == "create") != bool(self.scopes):
            raise ValueError("scopes go with the action create, and it with at least one of them")
        if self.action != "create" and (self.teamspace is not None or self.role != "member"):
            raise ValueError("teamspace and role go with the action create")
        if self.action not in {"create", "rotate"} and self.expires_at is not None:
            raise ValueError("expires_at goes with the actions create and rotate")
