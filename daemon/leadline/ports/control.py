"""What people change by hand in a running daemon, and the record of who did.

An override outlives restarts and reloads until it is taken back. An act is written down before it is carried out, so
that the record may hold something that then failed, and never lacks something that took place.
"""

from typing import Literal

from msgspec import Struct

from leadline_protocol.ids import Instant

Scope = Literal["plan", "teamspace", "provider"]


class Override(Struct, frozen=True, gc=False):
    """A limit that was set live, for a plan, for one teamspace or for one provider account."""

    scope: Scope
    name: str
    key: str
    """As in the configuration, below the plan: `slots.tables`, `max_queued`; of a provider: see `plans.limit_key`."""
    value: bool | int | float | str | list[str]


class Act(Struct, frozen=True, gc=False):
    """One operation that changes something, and who asked for it."""

    at: Instant
    """Wall time."""
    uid: int
    pid: int
    person: str | None
    """On whose behalf, as the peer says; None: the operator."""
    role: str | None
    op: str
    target: str
    """`job 41`, `teamspace acme`, `queue`; empty where there is but one thing."""
    detail: str = ""
