"""What all replies have, and those that say no more than that."""

from typing import Annotated

from msgspec import Meta, Struct, field

from leadline_protocol.errors import ErrorCode
from leadline_protocol.messages.words import (
    Ref,
)


def _true() -> bool:
    return True


def _false() -> bool:
    return False


class Reply(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The answer to the request on line `line` of this connection, counted from 1."""

    # A factory is the one default that omit_defaults keeps: `ok` stands on every line.
    ok: Annotated[bool, Meta(extra_json_schema={"const": True})] = field(default_factory=_true)
    line: int


class Fault(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What is wrong with a request."""

    code: ErrorCode
    message: str
    at: str | None = None
    """A field, such as `steps[1].where`, and for an expression `field:character`, counted from 1."""
    retry_after: float | None = None
    """Seconds; only with the codes after which the same request may succeed later."""


class Refusal(Struct, frozen=True, gc=False, kw_only=True):
    """The request on line `line` was not carried out, and nothing of it was kept."""

    ok: Annotated[bool, Meta(extra_json_schema={"const": False})] = field(default_factory=_false)
    line: int
    error: Fault
    ref: Ref = None


class JobWarning(Struct, frozen=True, gc=False, kw_only=True):
    """What the submitter should know although the job was accepted or ended well."""

    code: str
    message: str


class Done(Reply, frozen=True, kw_only=True):
    """It was done; of `follow` and `watch`: notices come from here on."""

    message: str | None = None
    ref: Ref = None
