"""What every operation is, and what those of the control socket may say besides."""

from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct, field

from leadline_protocol.messages.replies.base import Reply
from leadline_protocol.messages.words import Ref, Role

R_co = TypeVar("R_co", bound=Reply, covariant=True)


class Operation(
    Struct,
    Generic[R_co],
    tag_field="op",
    frozen=True,
    gc=False,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
):
    """A request that is no submission, answered by an `R_co` where it is not refused."""

    ref: Ref = None


class Person(Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """On whose behalf a request is made; the peer vouches for it."""

    person: Annotated[str, Meta(min_length=1, max_length=200)]
    role: Role


class ControlOperation(Operation[R_co], frozen=True, kw_only=True):
    """An operation of the control socket."""

    as_: Person | None = field(default=None, name="as")
    """Absent: the operator."""
