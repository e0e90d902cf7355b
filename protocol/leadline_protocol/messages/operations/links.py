"""Links by which people sign in to the pages."""

from typing import Annotated, Literal

from msgspec import Meta

from leadline_protocol.messages.operations.base import ControlOperation
from leadline_protocol.messages.replies.links import LinksReply
from leadline_protocol.messages.words import Name, Role


class Links(ControlOperation[LinksReply], tag="links", frozen=True, kw_only=True):
    """A link by which one person signs in once, to pages in a browser; or the end of what was begun by such links."""

    action: Literal["create", "end"] = "create"
    """`end`: who has signed in is signed out at once, and links that nobody has taken yet are good no more."""
    person: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    """Whom the link is for, as the audit trail will tell; of `end`: absent: everybody of the teamspace."""
    teamspace: Name | None = None
    """Of `create`: the only one that the person sees; absent: all of them. Of `end`: absent: wherever the person is."""
    role: Role = "member"
    """Of `create`: as whom the person's requests are judged; none above the role of whom asks."""

    def __post_init__(self) -> None:
        if self.person is not None and not self.person.isprintable():
            raise ValueError("person takes printable characters")
        if self.action == "create" and self.person is None:
            raise ValueError("name the person")
        if self.action == "end" and self.person is None and self.teamspace is None:
            raise ValueError("name the person, the teamspace or both")
        if self.action == "end" and self.role != "member":
            raise ValueError("role goes with the action create")
