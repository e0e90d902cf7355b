"""Provider accounts: their limits, how they are, and what came of a try."""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId
from leadline_protocol.messages.replies.base import Reply
from leadline_protocol.messages.words import (
    Ref,
)


class LimitView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One limit of a provider account and how much of it is taken."""

    shape: Literal["window", "concurrent", "daily", "bucket"]
    unit: str
    """request, record, token, lead or job."""
    amount: float
    """So many units ..."""
    per_seconds: float | None = None
    """... in any so many seconds; absent for `concurrent`."""
    charged: float
    """Units that count against it now."""
    frees_at: datetime | None = None
    """When there is room for more, at the latest; absent where there is room for all, or nobody knows."""


class ProviderView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A provider account."""

    provider: str
    """`snov` for the shared key, `snov@acme` for the own key of acme."""
    state: Literal["open", "throttled", "trying", "parked", "paused"]
    """`trying`: one call is out to see whether work can go on. `parked`: no credits or a refused key; a person acts."""
    reason: JobReason | None = None
    """`retry_after`: it named the time; `circuit`: it named none, so each refusal doubles the wait."""
    limits: list[LimitView] = field(default_factory=list)
    pace_per_second: float | None = None
    """Calls are spread evenly, so many a second at most."""
    in_flight: int = 0
    waiting: int = 0
    """Calls that wait for a permit."""
    waiting_teamspaces: int = 0
    waiting_by: dict[str, int] = field(default_factory=dict)
    """The same by teamspace; of many those with the most."""
    next: str | None = None
    """The teamspace whose turn it is."""
    throttled_until: datetime | None = None
    parked_until: datetime | None = None
    """Absent where a person has to resume it."""
    refusals: int = 0
    """So many times in a row it was throttled, though its limits were kept."""
    canary: int | None = None
    """The call that is out to see whether work can go on."""
    message: str | None = None


class TriedCall(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One request of a try, as it was sent but for the key, and what came of it."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    status: int | None = None
    """Absent where no answer came."""
    answer: str | None = None
    """The beginning of it."""
    seconds: float
    """From the request to the end of its answer."""
    verdict: str
    """What the daemon makes of it, for people."""


class Tried(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What came of a try."""

    job: JobId
    """A try is a job: its history tells of it later."""
    provider: str
    """The account whose limits were charged."""
    outcome: str
    """done, not_found, pending (the provider still works on it), throttled, used_up, invalid_key, failed or unknown."""
    calls: list[TriedCall]
    values: dict[str, Any] = field(default_factory=dict)
    """Output of the module → its value."""


class ProvidersReply(Reply, frozen=True, kw_only=True):
    """Provider accounts by name."""

    providers: list[ProviderView]
    tried: Tried | None = None
    """Only where a provider was to be tried."""
    ref: Ref = None
