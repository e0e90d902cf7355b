"""What the daemon knows and the queue does not, for whoever carries out requests."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from leadline.core.events import Statement
from leadline.core.throughput import Point
from leadline.ports.control import Act
from leadline.ports.schedules import ScheduleRules, ScheduleStore, StoredSchedule
from leadline.ports.tables import Tables
from leadline_protocol import messages as wire
from leadline_protocol.ids import Instant, JobId, TableId

Record = Callable[[str, str], Awaitable[None]]
"""Writes down what is about to be done: to what, and what exactly."""


class Surroundings(Protocol):
    """The configuration, the database and what else there is around the queue."""

    @property
    def version(self) -> str:
        """The daemon's own version."""
        ...

    @property
    def started(self) -> datetime:
        """When it began."""
        ...

    async def database(self) -> wire.DatabaseStatus:
        """The database as it is now."""
        ...

    @property
    def tables(self) -> Tables:
        """The tables of all teamspaces."""
        ...

    def modules(self) -> Sequence[wire.ModuleView]:
        """The modules that fill columns, as they are configured now."""
        ...

    async def refused(self, job: JobId, after: int) -> Sequence[wire.RefusedRow]:
        """A page of the rows of an upload that were not taken, from behind row number `after` on."""
        ...

    async def headers(self, job: JobId) -> Sequence[str]:
        """The headers of the file of an upload."""
        ...

    async def not_done(self, job: JobId, table: TableId, after: int) -> Sequence[wire.LeadNotDone]:
        """A page of the leads that a job on a table is through with and has not done, from behind lead `after` on."""
        ...

    async def columns(self, table: TableId) -> Sequence[str]:
        """The names of a table's columns, those of its key first; none where it is gone."""
        ...

    async def lists(self, jobs: Sequence[JobId]) -> Mapping[JobId, wire.ListView]:
        """How the lists of jobs came about; those that have none yet are absent."""
        ...

    async def spent(self, job: JobId) -> Sequence[wire.Spent]:
        """What a job, or the steps of a chain, have cost."""
        ...

    async def errors(self, job: JobId) -> Sequence[wire.LeadErrors]:
        """Why leads of a job, or of the steps of a chain, were not done."""
        ...

    async def throughput(self, job: JobId) -> Sequence[Point]:
        """How far a job was at which time, oldest first."""
        ...

    async def usage(self, wanted: wire.Usage, limit: int) -> Sequence[wire.UsageRow]:
        """What a month has cost, in order of teamspace and provider. Raises Refused."""
        ...

    def plans(self, plan: str | None, teamspace: str | None, provider: str | None) -> Sequence[wire.PlanView]:
        """Limits in force. Raises Refused."""
        ...

    def plan_of(self, teamspace: str) -> str:
        """The name of a teamspace's plan."""
        ...

    async def set_limit(self, wanted: wire.Plans, act: Act) -> None:
        """Set the limit that `wanted` names, or take it back, and record the act. Raises Refused."""
        ...

    async def try_provider(self, wanted: wire.Providers, uid: int) -> wire.Tried:
        """Make one real call to a provider, for a user. Raises Refused."""
        ...

    def wishes(self, submission: wire.Submission) -> Sequence[Statement]:
        """What is stored with a new job of whom to tell of it by mail or webhook. Raises Refused."""
        ...

    async def notices(self, wanted: wire.Notices) -> Sequence[wire.NoticeView]:
        """Mails and webhooks about jobs; one that is to be sent again is due first. Raises Refused."""
        ...

    async def undelivered(self) -> int:
        """How many of these were given up or are held."""
        ...

    @property
    def schedule_rules(self) -> ScheduleRules:
        """What kinds of job say to schedules."""
        ...

    @property
    def schedules(self) -> ScheduleStore:
        """The schedules of all teamspaces."""
        ...

    async def batch(self, wanted: wire.BatchJobs, uid: int, record: Record, line: int) -> wire.BatchReply:
        """See to batch jobs, for a user. Raises Refused."""
        ...

    async def outreach(self, wanted: wire.FollowUps, record: Record, line: int) -> wire.OutreachReply:
        """See to outreach. Raises Refused."""
        ...

    async def contact_event(self, event: wire.ContactEvent, line: int) -> wire.EventReply:
        """Something came in from a contact."""
        ...

    def memory_bound(self) -> str | None:
        """What holds a batch job's run to its memory; None where no plan has any."""
        ...

    def wall(self) -> Instant:
        """The time on the wall."""
        ...

    def schedule_changed(self, teamspace: str, name: str) -> None:
        """A schedule may not be as it was."""
        ...

    async def soonest_schedules(self, teamspace: str | None, limit: int) -> Sequence[StoredSchedule]:
        """Those of a teamspace, or of all, that fire next."""
        ...

    async def record(self, act: Act) -> None:
        """Write down what is about to be done."""
        ...

    async def acts(self, target: str) -> Sequence[Act]:
        """What was done to something, oldest first."""
        ...

    async def submitters(self, jobs: Sequence[JobId]) -> Mapping[JobId, int | None]:
        """Who submitted these jobs, which have ended."""
        ...

    async def reload(self) -> None:
        """Read the configuration file again. Raises Refused with every fault."""
        ...

    def drain(self) -> None:
        """Begin to end the daemon."""
        ...

    def connections(self) -> int:
        """How many peers are connected."""
        ...

    def loop_lag_seconds(self) -> float:
        """The worst delay of the event loop in the last minute."""
        ...
