"""The daemon, its queue, and who has what in it."""

from datetime import datetime
from typing import Literal

from msgspec import Struct, field

from leadline_protocol.ids import JobId
from leadline_protocol.messages.replies.base import JobWarning, Reply
from leadline_protocol.messages.replies.providers import ProviderView
from leadline_protocol.messages.words import (
    PROTOCOL_VERSION,
    FamilyWord,
    Ref,
    StateWord,
)


class Pong(Reply, frozen=True, kw_only=True):
    """The daemon is there and takes work."""

    version: str
    protocol: int = field(default_factory=lambda: PROTOCOL_VERSION)
    ref: Ref = None


class FamilyStatus(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One family's part of the queue."""

    family: FamilyWord
    delayed: int
    queued: int
    running: int
    stopping: int
    in_hand: int
    """Jobs with work in hand, which is what `capacity` bounds."""
    capacity: int | None
    """Null: no cap."""
    oldest_queued_at: datetime | None = None
    """Since when the first in its line could have started."""


class StallView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A job that stood still for no reason that is known."""

    job: JobId
    teamspace: str
    at: datetime
    """When that was noticed."""
    seconds: int
    """So long it had stood still by then."""
    killed: bool
    """It was stopped, to go on from its checkpoint; else people were told."""
    state: StateWord | None = None
    """How the job is now; absent: it has ended."""
    stalled: bool = False
    """It stands still now, and longer than a job may."""


class DatabaseStatus(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The database the queue is kept in."""

    reachable: bool
    embedded: bool
    version: str | None = None
    size_bytes: int | None = None
    commit_seconds_p50: float | None = None
    commit_seconds_p99: float | None = None
    records_available: float | None = None
    """What the bucket of records per hour holds now."""
    records_last_hour: int | None = None
    """What jobs have taken of it in the last hour, or since the daemon started."""
    records_per_hour: float | None = None
    """The budget; absent: there is none."""


class StatusReply(Reply, frozen=True, kw_only=True):
    """How the daemon is."""

    version: str
    pid: int
    epoch: int
    """Grows by one at each start; only the present one may write."""
    started_at: datetime
    uptime_seconds: float
    state: Literal["starting", "ready", "draining", "unavailable"]
    paused: list[str] = field(default_factory=list)
    """What is paused: `queue`, or `scope name`."""
    families: list[FamilyStatus]
    teamspaces: int
    """With jobs that have not ended."""
    oldest_queued_at: datetime | None = None
    jobs_per_second: float = 0.0
    """Ended, over the last minute."""
    start_seconds_p50: float | None = None
    """Half of the jobs that started in the last five minutes did so no later after the time at which they could have; a
    priority's head start counts. Absent where none did."""
    start_seconds_p99: float | None = None
    """The same for 99 of 100."""
    providers: list[ProviderView] = field(default_factory=list)
    """Those somebody uses or waits for."""
    database: DatabaseStatus
    loop_lag_seconds: float = 0.0
    """The worst delay of the event loop in the last minute."""
    memory_bytes: int = 0
    connections: int = 0
    stalls: list[StallView] = field(default_factory=list)
    """Jobs that stood still since the daemon began, newest first: the last time of each, of 50 at most."""
    quarantined: list[JobId] = field(default_factory=list)
    """Jobs that ran each time when the daemon went down; a person resumes or cancels them. The first 50."""
    memory_bound: str | None = None
    """What holds a batch job's run to its memory: a cgroup, a look at it, or nothing; absent where no plan has any."""
    warnings: list[JobWarning] = field(default_factory=list)
    ref: Ref = None


class TeamspaceView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A teamspace and what it has in the queue."""

    teamspace: str
    plan: str
    queued: int = field(default_factory=int)
    running: int = field(default_factory=int)
    delayed: int = 0
    paused: bool = False
    slots: dict[FamilyWord, int] = field(default_factory=dict)
    """How many jobs of each family it may run at a time."""


class TeamspacesReply(Reply, frozen=True, kw_only=True):
    """Teamspaces by name; with `most`, those with the most work first."""

    teamspaces: list[TeamspaceView]
    next: str | None = None
    """To be sent as `after` for the next page; absent on the last."""
    ref: Ref = None
