"""What a submission is answered: that its job is stored, or what it would take."""

from decimal import Decimal
from typing import Any, Literal

from msgspec import Struct, field

from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import JobId, LeadId
from leadline_protocol.messages.replies.base import JobWarning, Reply
from leadline_protocol.messages.words import (
    Ref,
    StateWord,
)


class Receipt(Reply, frozen=True, kw_only=True):
    """The job is stored durably."""

    job: JobId
    state: StateWord
    jobs_ahead: int
    """So many jobs run before it, as far as can be told now."""
    duplicate: bool = False
    """The idempotency key was known: this is the first job, as it is now."""
    warnings: list[JobWarning] = field(default_factory=list)
    steps: list[JobId] = field(default_factory=list)
    """Of a chain: its steps' own ids, in order."""
    ref: Ref = None


class LimitNeed(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What a step would take of one limit of its provider account, or of the database."""

    shape: Literal["window", "daily", "bucket"]
    unit: str
    amount: float
    """So many units ..."""
    per_seconds: float | None = None
    """... in any so many seconds; absent for `daily`."""
    needed: float


class LeadTrial(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One lead as a formula would leave it."""

    lead: LeadId
    before: Any = None
    after: Any = None
    reason: LeadReason | None = None
    """The formula fails on it, and it keeps what it has."""


class StepPreview(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What a job, or a step of a chain, would take if its turn came now."""

    kind: str
    table: str | None = None
    leads: int | None = None
    """So many match now; absent: known when its turn comes."""
    guard: Literal["skip", "hold"] | None = None
    """What a guard would do about so many."""
    provider: str | None = None
    asked: int | None = None
    """Leads that the provider would be asked about: those with every input, and for which `run_if` is true."""
    sampled: int | None = None
    """`asked` and `units` are estimates from so many leads; absent: they are exact."""
    units: dict[str, float] = field(default_factory=dict)
    """What that takes at least, by unit: a request for each lead, and so on."""
    credits: Decimal | None = None
    """What that costs where every lead has a result: an exact decimal, as a string; of a prompt by its text and the
    longest answer, without repairs. Absent: nothing."""
    limits: list[LimitNeed] = field(default_factory=list)
    seconds_at_least: float = 0.0
    """These limits let it be no shorter, with nobody else in line."""
    size_bytes: int | None = None
    """Of an upload: the file."""
    trials: list[LeadTrial] = field(default_factory=list)
    """Of a formula: the first leads of its list, as it would leave them."""
    warnings: list[JobWarning] = field(default_factory=list)


class Preview(Reply, frozen=True, kw_only=True):
    """What a submission with `dry_run` would take; of all but a chain there is one step."""

    steps: list[StepPreview]
    seconds_at_least: float = 0.0
    """The steps', one after the other."""
    ref: Ref = None
