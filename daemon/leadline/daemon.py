"""A running daemon: what operations ask of it, and change (`actors.surroundings`)."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Final

import anyio
import msgspec

from leadline.actors import views
from leadline.actors.operations import Operations
from leadline.actors.recurrences import Recurrences
from leadline.actors.supervisor import Supervisor
from leadline.actors.surroundings import Record
from leadline.adapters.http.metrics import Process
from leadline.adapters.http.server import HttpServer
from leadline.adapters.postgres.batch import PostgresBatch
from leadline.adapters.postgres.control import PostgresControl
from leadline.adapters.postgres.leads import PostgresLeads
from leadline.adapters.postgres.schedules import PostgresSchedules
from leadline.adapters.postgres.store import PostgresStore
from leadline.adapters.sandbox_runner.runner import LocalRunner
from leadline.adapters.sockets import Connections
from leadline.core.events import CancelAsked, Expired, NewJob
from leadline.core.forecast import why
from leadline.core.throughput import Point
from leadline.features.batch.life import BatchLife
from leadline.features.batch.punctuality import Punctuality
from leadline.features.batch.schedules import BatchSchedules
from leadline.features.batch.workshop import CodeWorkshop
from leadline.features.tables.credits import plain
from leadline.features.tables.life import TableLife
from leadline.features.tables.tokens import Tokens
from leadline.features.tables.trial import Try
from leadline.health import LoopLag
from leadline.live_config import LiveConfig
from leadline.notices import Notices
from leadline.outreach import OutreachOffice
from leadline.ports.control import Act
from leadline.ports.schedules import StoredSchedule
from leadline.ports.store import Unavailable
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import Instant, JobId, LeadId, TableId

_AFTER: Final = msgspec.json.Decoder(tuple[str, str])
"""What a page of usage ended with."""
TRY_TEAMSPACE: Final = "leadline"
"""Whose call a try is where nobody is named."""
TRY_PERMIT_SECONDS: Final = 10.0
"""So long a try waits for leave to call."""
TRY_SECONDS_MAX: Final = 150.0
"""From then on: a call and the polls for its result."""


class Daemon:
    """A running daemon; what `Operations` wants to know of its surroundings."""

    def __init__(
        self,
        live: LiveConfig,
        notices: Notices,
        store: PostgresStore,
        leads: PostgresLeads,
        control: PostgresControl,
        tables: TableLife,
        lag: LoopLag,
        *,
        embedded: bool,
    ) -> None:
        self.version: Final = version("leadline")
        self.started: Final = datetime.now(UTC)
        self.live: Final = live
        self.plans: Final = live.plans
        self.plan_of: Final = live.plan_of
        self.modules: Final = live.modules
        self.set_limit: Final = live.set_limit
        self.reload: Final = live.reload
        self.wishes: Final = notices.wishes
        self.notices: Final = notices.notices
        self.undelivered: Final = notices.undelivered
        self._store = store
        self._leads = leads
        self._embedded = embedded
        self.tokens: Final = Tokens()
        self.tries: Final = Try(leads, live.endpoints, self.tokens)
        self._control = control
        self.tables: Final = tables
        self.schedules: Final = PostgresSchedules(store)
        self.recurrences: Recurrences
        self.batch_store: Final = PostgresBatch(store)
        self.batch_life: BatchLife
        self.outreach_office: OutreachOffice
        self.workshop: CodeWorkshop
        self.runner: LocalRunner
        self.punctuality: Final = Punctuality(self.batch_store, self.wall, self._expire)
        self.schedule_rules: Final = BatchSchedules(self.batch_store, self.schedules, live.batch_plan)
        self._stop = anyio.Event()
        self._lag = lag
        self.supervisor: Supervisor
        self.connected: Connections
        self.http: HttpServer

    async def until_stopped(self) -> None:
        """Wait until somebody wants the daemon to end."""
        await self._stop.wait()

    async def database(self) -> wire.DatabaseStatus:
        """The database as it is now."""
        try:
            async with self._store.read() as connection:
                row = await connection.fetchrow(
                    "SELECT current_setting('server_version') AS version, pg_database_size(current_database()) AS size"
                )
        except Unavailable:
            return wire.DatabaseStatus(reachable=False, embedded=self._embedded)
        assert row is not None
        return wire.DatabaseStatus(
            reachable=True, embedded=self._embedded, version=row["version"], size_bytes=row["size"]
        )

    async def refused(self, job: JobId, after: int) -> Sequence[wire.RefusedRow]:
        """A page of the rows of an upload that were not taken."""
        return [
            wire.RefusedRow(row=row.number, line=row.line, reason=row.reason, detail=row.detail, raw=row.raw)
            for row in await self._leads.refused(job, after)
        ]

    async def headers(self, job: JobId) -> Sequence[str]:
        """The headers of the file of an upload."""
        return await self._leads.headers(job)

    async def not_done(self, job: JobId, table: TableId, after: int) -> Sequence[wire.LeadNotDone]:
        """A page of the leads that a job on a table is through with and has not done."""
        return [
            wire.LeadNotDone(
                lead=each.lead,
                state=each.state,
                reason=each.reason,
                detail=each.detail,
                cells=None if each.cells is None else dict(each.cells),
            )
            for each in await self._leads.not_done(job, table, after)
        ]

    async def columns(self, table: TableId) -> Sequence[str]:
        """The names of a table's columns, those of its key first; none where it is gone."""
        return await self._leads.column_names(table)

    async def lists(self, jobs: Sequence[JobId]) -> Mapping[JobId, wire.ListView]:
        """How the lists of jobs came about; those that have none yet are absent."""
        receipts = await self._leads.list_receipts(jobs)
        return {
            job: wire.ListView(
                leads=each.total, where=each.where, select_leads=each.frozen, at=each.at, hash=each.hash.hex()
            )
            for job, each in receipts.items()
        }

    async def spent(self, job: JobId) -> Sequence[wire.Spent]:
        """What a job, or the steps of a chain, have cost."""
        return [
            wire.Spent(
                provider=each.account, calls=each.calls, credits=plain(each.credits), perhaps=_some(each.perhaps)
            )
            for each in await self._leads.spent(job)
        ]

    async def errors(self, job: JobId) -> Sequence[wire.LeadErrors]:
        """Why leads of a job, or of the steps of a chain, were not done."""
        return [
            wire.LeadErrors(
                job=each.job,
                state=each.state,
                reason=each.reason,
                leads=each.leads,
                samples=[
                    wire.LeadSample(row=number, detail=detail)
                    if each.of_file
                    else wire.LeadSample(lead=LeadId(number), detail=detail)
                    for number, detail in each.samples
                ],
            )
            for each in await self._leads.errors(job)
        ]

    async def throughput(self, job: JobId) -> Sequence[Point]:
        """How far a job was at which time, oldest first."""
        return await self._leads.throughput(job)

    async def usage(self, wanted: wire.Usage, limit: int) -> Sequence[wire.UsageRow]:
        """What a month has cost, in order of teamspace and provider. Raises Refused."""
        try:
            after = ("", "") if wanted.after is None else _AFTER.decode(wanted.after)
        except msgspec.DecodeError:
            raise Refused(ErrorCode.BAD_REQUEST, "is not the next of a page", at="after") from None
        return [
            wire.UsageRow(
                teamspace=each.teamspace or None,
                provider=each.account or None,
                calls=each.calls,
                credits=plain(each.credits),
                perhaps=_some(each.perhaps),
            )
            for each in await self._leads.usage(
                datetime.strptime(wanted.month, "%Y-%m").date(),  # noqa: DTZ007  a month in UTC, see the statement
                by_teamspace="teamspace" in wanted.by,
                by_account="provider" in wanted.by,
                teamspace=wanted.teamspace,
                after=after,
                limit=limit,
            )
        ]

    async def try_provider(self, wanted: wire.Providers, uid: int) -> wire.Tried:
        """Make one real call to a provider, as a job, and wait for what comes of it. Raises Refused."""
        assert wanted.name is not None
        assert wanted.lead is not None
        teamspace = wanted.teamspace or TRY_TEAMSPACE
        trial = self.tries.begin(wanted.name, teamspace, wanted.lead)
        kind = next(number for number, each in self.supervisor.works.items() if each is self.tries)
        try:
            (receipt,) = await self.supervisor.dispatcher.submit([NewJob(teamspace, kind, trial.payload, uid=uid)])
            if isinstance(receipt, Refused):
                raise receipt
            with anyio.move_on_after(TRY_PERMIT_SECONDS):
                await trial.until_called()
            if trial.called:
                with anyio.move_on_after(TRY_SECONDS_MAX):
                    await trial.ended.wait()
            if not trial.ended.is_set():
                raise await self._given_up(receipt.job)
        finally:
            self.tries.forget(trial)
        if isinstance(trial.outcome, wire.Tried):
            return trial.outcome
        raise trial.outcome or Refused(ErrorCode.BUSY, f"job {receipt.job}, the try, was stopped", retry_after=1.0)

    async def _given_up(self, job: JobId) -> Refused:
        """End a try that takes too long, and say what held it up."""
        dispatcher = self.supervisor.dispatcher
        told = await dispatcher.look(lambda scheduler, now: why(scheduler, job, now))
        await dispatcher.tell(CancelAsked(job, force=True))
        reasons = [each.message or each.reason for each in map(views.wait, told.blockers)]
        message = "; ".join(reasons) or "the provider takes too long"
        return Refused(ErrorCode.BUSY, f"there was no call: {message}", retry_after=TRY_PERMIT_SECONDS)

    def wall(self) -> Instant:
        """The time on the wall."""
        return Instant(time.time_ns() // 1_000)

    def schedule_changed(self, teamspace: str, name: str) -> None:
        """A schedule may not be as it was."""
        self.recurrences.wake(teamspace, name)

    async def soonest_schedules(self, teamspace: str | None, limit: int) -> Sequence[StoredSchedule]:
        """Those of a teamspace, or of all, that fire next."""
        return await self.recurrences.soonest(teamspace, limit)

    async def record(self, act: Act) -> None:
        """Write down what is about to be done."""
        await self._control.record(act)

    async def acts(self, target: str) -> Sequence[Act]:
        """What was done to something, oldest first."""
        return await self._control.acts(target)

    async def submitters(self, jobs: Sequence[JobId]) -> Mapping[JobId, int | None]:
        """Who submitted these jobs, which have ended."""
        return await self._control.submitters(jobs)

    def drain(self) -> None:
        """Begin to end the daemon."""
        self._stop.set()

    def connections(self) -> int:
        """How many peers are connected."""
        return len(self.connected) + len(self.http)

    def process(self, operations: Operations) -> Process:
        """What is measured of the process."""
        return Process(
            self.version,
            self.started.timestamp(),
            self.loop_lag_seconds(),
            {"sockets": len(self.connected), "http": len(self.http)},
            operations.submissions.taken,
            operations.submissions.refused,
        )

    def loop_lag_seconds(self) -> float:
        """The worst delay of the event loop in the last minute."""
        return self._lag.worst

    def memory_bound(self) -> str | None:
        """What holds a batch job's run to its memory; None where no plan has any."""
        return self.runner.memory_bound if self.live.have_batch_jobs else None

    async def batch(self, wanted: wire.BatchJobs, uid: int, record: Record, line: int) -> wire.BatchReply:
        """See to batch jobs. Raises Refused."""
        return await self.batch_life.perform(wanted, uid, record, line)

    async def _expire(self, job: JobId, reason: JobReason, message: str) -> None:
        await self.supervisor.dispatcher.tell(Expired(job, reason, message))

    async def outreach(self, wanted: wire.FollowUps, record: Record, line: int) -> wire.OutreachReply:
        """See to outreach. Raises Refused."""
        return await self.outreach_office.desk.perform(wanted, record, line)

    async def contact_event(self, event: wire.ContactEvent, line: int) -> wire.EventReply:
        """Something came in from a contact."""
        return await self.outreach_office.desk.take(event, line)


def _some(credits_: Decimal) -> Decimal | None:
    return plain(credits_) if credits_ else None
