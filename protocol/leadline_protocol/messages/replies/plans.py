"""Limits in force, and where they come from."""

from typing import Literal

from msgspec import Struct

from leadline_protocol.messages.replies.base import Reply
from leadline_protocol.messages.words import (
    Ref,
)


class PlanLimit(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One limit in force and where its value comes from."""

    key: str
    value: bool | int | float | str | list[str] | None
    source: Literal["override", "plan", "toml", "built-in"]
    about: str | None = None
    """What it means, in a sentence; absent of a provider's, whose keys say it."""
    unit: str | None = None
    """What a number counts, such as `s` or `jobs`; absent where the sentence says it."""


class PlanView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The limits of a plan, of a teamspace, or of a provider account."""

    plan: str | None = None
    """Absent where they are a provider's."""
    teamspace: str | None = None
    provider: str | None = None
    limits: list[PlanLimit]


class PlansReply(Reply, frozen=True, kw_only=True):
    """Plans by name, or the one asked for."""

    plans: list[PlanView]
    ref: Ref = None
