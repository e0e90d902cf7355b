"""The composition root: the only place that knows every adapter, and puts a daemon together from a configuration.

Order of a start: take the state directory (one daemon each), open the sockets, so that whoever connects is told
`unavailable` rather than left standing, bring up Postgres, and begin the first reign. A stop goes the other way:
start nothing more, let calls in flight finish, hang up, give the database back.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections import ChainMap
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from importlib.metadata import version
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import anyio
import msgspec
import structlog

from leadline import config as configuration
from leadline import plans
from leadline.accounts import (
    DATABASE,
    SECONDS_PER_HOUR,
    Configured,
    Offered,
    accounts_of,
    configured_accounts,
    database_limit,
    endpoints_of,
    modules_of,
    next_reset,
)
from leadline.actors import views
from leadline.actors.announcer import Announcer, Listener
from leadline.actors.api_tokens import ApiTokens
from leadline.actors.feed import Feed
from leadline.actors.notifier import Notifier
from leadline.actors.operations import Operations
from leadline.actors.pace import Progress
from leadline.actors.recurrences import Recurrences
from leadline.actors.sessions import Sessions
from leadline.actors.supervisor import Setting, Supervisor
from leadline.actors.surroundings import Record
from leadline.adapters.code_providers import CodeProviders
from leadline.adapters.embedded_postgres import EmbeddedPostgresError, embedded_postgres
from leadline.adapters.folders import CONTROL_GROUP, SUBMIT_GROUP, StateInUse, listening_socket, make_state, sole_owner
from leadline.adapters.http.face import HttpFace
from leadline.adapters.http.files import remove_parts
from leadline.adapters.http.metrics import Metrics, Process
from leadline.adapters.http.reach import Desk, Reach
from leadline.adapters.http.reach import Numbers as HttpNumbers
from leadline.adapters.http.routes import OPERATIONS as HTTP_OPERATIONS
from leadline.adapters.http.server import HttpServer, http_server
from leadline.adapters.interpreters import Interpreters
from leadline.adapters.interpreters import find as find_interpreters
from leadline.adapters.package_cache.cache import PackageCache
from leadline.adapters.postgres.api_tokens import PostgresApiTokens
from leadline.adapters.postgres.batch import STATEMENTS as BATCH_STATEMENTS
from leadline.adapters.postgres.batch import PostgresBatch
from leadline.adapters.postgres.batch_access import BatchAccess
from leadline.adapters.postgres.batch_database import BatchDatabase
from leadline.adapters.postgres.control import PostgresControl
from leadline.adapters.postgres.leads import STATEMENTS, PostgresLeads, PostgresTrial
from leadline.adapters.postgres.migrate import migrate_database, migration_sql
from leadline.adapters.postgres.notices import STATEMENTS as NOTICE_STATEMENTS
from leadline.adapters.postgres.notices import PostgresNotices
from leadline.adapters.postgres.outreach import STATEMENTS as OUTREACH_STATEMENTS
from leadline.adapters.postgres.schedules import STATEMENTS as SCHEDULE_STATEMENTS
from leadline.adapters.postgres.schedules import PostgresSchedules
from leadline.adapters.postgres.sessions import PostgresSessions
from leadline.adapters.postgres.store import PostgresStore
from leadline.adapters.postgres.tables import PostgresTables
from leadline.adapters.process import (
    collect_garbage_seldom,
    open_as_many_files_as_allowed,
    return_free_memory,
    return_large_memory,
)
from leadline.adapters.provider_http import provider_http
from leadline.adapters.python_workers.pool import PythonModules, python_modules
from leadline.adapters.sandbox_runner.cgroups import find_ground
from leadline.adapters.sandbox_runner.runner import LocalRunner, sandbox_runner
from leadline.adapters.seal import AesSeal, seal_key
from leadline.adapters.smtp_mailer import Account as MailAccount
from leadline.adapters.smtp_mailer import SmtpMailer
from leadline.adapters.smtp_transport import smtp_transport
from leadline.adapters.sockets import Connections, Face
from leadline.adapters.system_clock import SystemClock
from leadline.adapters.systemd import ServiceManager, activated_sockets, has_started_us
from leadline.adapters.unsubscribe_listener import unsubscribe_listener
from leadline.adapters.upload_folder import LookedAtFolder, UploadFolder
from leadline.adapters.webhooks import webhooks
from leadline.config import CONTROL_SOCKET, HTTP_SOCKET, SUBMIT_SOCKET, Config
from leadline.core.events import CancelAsked, Expired, NewJob, Statement
from leadline.core.forecast import why
from leadline.core.model import SECOND
from leadline.core.quota.quotas import Access as DatabaseAccess
from leadline.core.quota.quotas import Quotas
from leadline.core.rate_limit import Limit
from leadline.features.batch.attempts import Attempts
from leadline.features.batch.invocation import Batch
from leadline.features.batch.life import BatchLife
from leadline.features.batch.ports import BatchPlan
from leadline.features.batch.punctuality import Punctuality
from leadline.features.batch.request_ports import Database as CodeDatabase
from leadline.features.batch.request_ports import DatabaseName, NotAllowed
from leadline.features.batch.schedules import BatchSchedules
from leadline.features.batch.workshop import CodeWorkshop
from leadline.features.batch.world import House
from leadline.features.tables.asking import Endpoint
from leadline.features.tables.credits import plain
from leadline.features.tables.enrich import Enrich
from leadline.features.tables.enrichment_plan import Endpoints
from leadline.features.tables.export import Export
from leadline.features.tables.formula import Formula
from leadline.features.tables.life import TableLife
from leadline.features.tables.preview import Previews
from leadline.features.tables.python_modules import SCHEME
from leadline.features.tables.selection import Allowance, Database
from leadline.features.tables.tokens import Tokens
from leadline.features.tables.trial import Try
from leadline.features.tables.upload import Upload
from leadline.outreach import OutreachOffice
from leadline.plans import Plans
from leadline.ports.control import Act, Scope
from leadline.ports.notices import WISH_NOTICE, Courier, Medium, NoticeState
from leadline.ports.provider_client import ProviderClient, Request, Response
from leadline.ports.schedules import StoredSchedule
from leadline.ports.store import THIS_JOB, Fenced, OutcomeUnknown, OwnedByAnother, Recovered, Unavailable
from leadline.ports.work import JobKind
from leadline_protocol import messages as wire
from leadline_protocol.codec import LineFault, RequestDecoder
from leadline_protocol.errors import ErrorCode, JobReason, LeadlineError, Refused
from leadline_protocol.ids import AccountName, Instant, JobId

log = structlog.get_logger("leadline")

LAG_PROBE_SECONDS: Final = 1.0
STATUS_SECONDS: Final = 10.0
"""Least time between two lines for the service manager."""
_AFTER: Final = msgspec.json.Decoder(tuple[str, str])
"""What a page of usage ended with."""
MILLISECONDS: Final = 1_000
SECONDS_PER_DAY: Final = 86_400
HOUSEKEEPING_SECONDS: Final = SECONDS_PER_DAY
SWEEP_RETRY_SECONDS: Final = 10.0
TRY_TEAMSPACE: Final = "leadline"
"""Whose call a try is where nobody is named."""
TRY_PERMIT_SECONDS: Final = 10.0
"""So long a try waits for leave to call."""
TRY_SECONDS_MAX: Final = 150.0
"""From then on: a call and the polls for its result."""
SUBMISSION_SECONDS_MAX: Final = SECONDS_PER_HOUR
"""Longer than it takes from the copy of an upload's file until its job is stored or refused."""


def serve(
    config: Config, *, config_path: Path | None, state_dir: Path, runtime_dir: Path, takeover: bool = False
) -> int:
    """Run the daemon until it is told to stop; the exit status: 0 stopped, 1 could not run, or was replaced.

    `takeover`: in the place of one that is alive.
    """
    _set_up_log(config)
    collect_garbage_seldom()
    open_as_many_files_as_allowed()
    return_large_memory()
    status = 0
    try:
        anyio.run(
            partial(_serve, config, config_path, state_dir, runtime_dir, takeover), backend_options={"use_uvloop": True}
        )
    except* (StateInUse, OwnedByAnother, Fenced, EmbeddedPostgresError, LeadlineError, OSError) as faults:
        status = 1
        for fault in _flat(faults):
            print(f"leadline: {_told(fault)}", file=sys.stderr)
    return status


def _told(fault: BaseException) -> str:
    """Why the daemon does not run, and what helps where the place is at fault."""
    if isinstance(fault, OSError) and fault.filename:
        return f"{fault.filename}: {fault.strerror}; choose other places with --state-dir and --runtime-dir"
    return str(fault)


def schema_sql() -> str:
    """Every migration of the database, as one script."""
    return migration_sql()


def migrate(config: Config, *, state_dir: Path) -> Sequence[str]:
    """Bring the database up to date without starting the daemon; returns the names of what was applied.

    Raises StateInUse while a daemon runs on the state directory, and what connecting and migrating raise.
    """
    _set_up_log(config)
    return anyio.run(_migrate, config, state_dir)


async def _migrate(config: Config, state_dir: Path) -> Sequence[str]:
    if config.database.url is not None:
        return await migrate_database(config.database.url.reveal())
    make_state(state_dir)
    with sole_owner(state_dir):
        async with embedded_postgres(state_dir) as postgres:
            return await migrate_database(postgres.url)


async def _serve(config: Config, config_path: Path | None, state_dir: Path, runtime_dir: Path, takeover: bool) -> None:
    async with daemon(
        config, config_path=config_path, state_dir=state_dir, runtime_dir=runtime_dir, takeover=takeover
    ) as running:
        await running.until_stopped()


class Daemon:
    """A running daemon; what `Operations` wants to know of its surroundings."""

    def __init__(
        self,
        config: Config,
        config_path: Path | None,
        store: PostgresStore,
        leads: PostgresLeads,
        uploads: UploadFolder,
        modules: PythonModules,
        *,
        embedded: bool,
    ) -> None:
        self.config = config
        self.version: Final = version("leadline")
        self.started: Final = datetime.now(UTC)
        self._config_path = config_path
        self._store = store
        self._leads = leads
        self._uploads = uploads
        self._embedded = embedded
        self._modules = modules
        self._endpoints: Mapping[str, Endpoint] = {}
        self.tokens: Final = Tokens()
        self.tries: Final = Try(self.endpoints, self.tokens)
        self._control = PostgresControl(store)
        self._table_store = PostgresTables(store)
        self.tables: Final = TableLife(self._table_store, leads.table, self.retention_days, self.history_days)
        self.outbox: Final = PostgresNotices(store)
        self.schedules: Final = PostgresSchedules(store)
        self.recurrences: Recurrences
        self.batch_store: Final = PostgresBatch(store)
        self.batch_life: BatchLife
        self.outreach_office: OutreachOffice
        self.batch_access: BatchAccess
        self.workshop: CodeWorkshop
        self.runner: LocalRunner
        self.punctuality: Final = Punctuality(self.batch_store, self.wall, self._expire)
        self.schedule_rules: Final = BatchSchedules(self.batch_store, self.schedules, self.batch_plan)
        self._plans = Plans(config)
        self._interpreters: tuple[Mapping[str, Path], Interpreters] | None = None
        """Those that were found, and for which configuration."""
        self._changing = anyio.Lock()
        self._stop = anyio.Event()
        self._lag = _LoopLag()
        self.service: Final = ServiceManager()
        self._depth = _StatusLine(self._queue_depth, self.service.status)
        self.supervisor: Supervisor
        self.connected: Connections
        self.http: HttpServer

    async def until_stopped(self) -> None:
        """Wait until somebody wants the daemon to end."""
        await self._stop.wait()

    def endpoints(self) -> Mapping[str, Endpoint]:
        """The provider accounts that are configured now."""
        return self._endpoints

    # -- notices by mail and webhook --------------------------------------------------------------------------------

    def wishes(self, submission: wire.Submission) -> Sequence[Statement]:
        """Whom to tell of a new job: whom it names itself, and whom the configuration does. Raises Refused."""
        own = submission.notices
        rule = self.config.notices.teamspaces.get(submission.teamspace)
        if own is not None and own.mail and self.config.notices.smtp.host is None:
            raise Refused(ErrorCode.BAD_REQUEST, "no mail server is configured", at="notices.mail")
        wanted: dict[tuple[str, str], set[str]] = {}
        for each in (own, None if isinstance(submission, wire.Noop) else rule):
            if each is not None:
                places = [("webhook", each.webhook)] if each.webhook is not None else []
                for place in (*places, *(("mail", address) for address in each.mail)):
                    wanted.setdefault(place, set()).update(each.on)
        return [
            Statement(WISH_NOTICE, (THIS_JOB, medium, target, sorted(events)))
            for (medium, target), events in wanted.items()
        ]

    def webhook_secret(self, teamspace: str) -> str | None:
        """What signs a teamspace's webhooks."""
        rule = self.config.notices.teamspaces.get(teamspace)
        return None if rule is None or rule.secret is None else rule.secret.reveal()

    def mail_account(self) -> MailAccount | None:
        """How mails are sent now."""
        smtp, sender = self.config.notices.smtp, self.config.notices.sender
        if smtp.host is None or sender is None:
            return None
        password = None if smtp.secret is None else smtp.secret.reveal()
        return MailAccount(smtp.host, smtp.port, smtp.tls, sender, smtp.user, password)

    def allowed_networks(self) -> Sequence[IPv4Network | IPv6Network]:
        """The private networks that webhooks may go to."""
        return [ip_network(text) for text in self.config.notices.allow_networks]

    async def notices(self, wanted: wire.Notices) -> Sequence[wire.NoticeView]:
        """Mails and webhooks about jobs. Raises Refused."""
        if wanted.again is not None and not await self.outbox.again(wanted.again):
            raise Refused(ErrorCode.NOT_FOUND, f"no notice {wanted.again} was given up or is held", at="again")
        self._store.noticed()
        states: list[NoticeState] = ["due", "sending", "failed", "unknown"]
        if wanted.all:
            states.append("sent")
        found = await self.outbox.notices(job=wanted.job, teamspace=wanted.teamspace, states=states, limit=wanted.limit)
        return [
            wire.NoticeView(
                notice=each.id,
                job=each.job,
                teamspace=each.teamspace,
                event=each.event,
                medium=each.medium,
                target=each.target,
                state=each.state,
                tries=each.tries,
                made_at=each.made,
                next_try_at=each.due if each.state == "due" else None,
                detail=each.detail or None,
            )
            for each in found
        ]

    async def undelivered(self) -> int:
        """How many notices were given up or are held; none where the database cannot be asked."""
        try:
            return await self.outbox.undelivered()
        except Unavailable:
            return 0

    def database_allowance(self) -> Allowance | None:
        """What bounds the records that jobs read and write."""
        limit = database_limit(self.config)
        return None if limit is None else Allowance(DATABASE, limit.burst)

    def limits_in_force(self, account: AccountName) -> Sequence[Limit]:
        """The limits of a provider account, or of our own database; none where it is not there."""
        if account == DATABASE:
            limit = database_limit(self.config)
            return () if limit is None else (limit,)
        configured = configured_accounts(self.config, self._endpoints).get(account)
        return () if configured is None else self._plans.limits_of(account, configured.limits)

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

    def plans(self, plan: str | None, teamspace: str | None, provider: str | None) -> Sequence[wire.PlanView]:
        """Limits in force. Raises Refused."""
        if teamspace is not None:
            return [self._plans.view_of_teamspace(teamspace)]
        if provider is not None:
            found = self._configured(provider)
            return [self._plans.view_of_provider(provider, found.limits, found.source)]
        names = sorted(self.config.plans) if plan is None else [plan]
        return [self._plans.view_of_plan(name) for name in names]

    async def set_limit(self, wanted: wire.Plans, act: Act) -> None:
        """Set a limit live, or take back what was set; in force when this returns. Raises Refused."""
        assert wanted.key is not None
        value: plans.Value | None
        scope: Scope
        if wanted.provider is not None:
            scope, name = "provider", wanted.provider
            value = plans.checked_amount(self._configured(name).limits, wanted.key, wanted.value)
        elif wanted.plan is not None:
            scope, name = "plan", wanted.plan
            self._plans.check(name)
            value = plans.checked(wanted.key, wanted.value)
        else:
            assert wanted.teamspace is not None
            scope, name = "teamspace", wanted.teamspace
            value = plans.checked(wanted.key, wanted.value)
        async with self._changing:
            await self._control.override(scope, name, wanted.key, value, act)
            await self.supervisor.reload(await self.setting())

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

    def _configured(self, provider: str) -> Configured:
        found = configured_accounts(self.config, self._endpoints).get(AccountName(provider))
        if found is None:
            raise Refused(ErrorCode.UNKNOWN_PROVIDER, f"there is no provider {provider}", at="provider")
        return found

    async def setting(self) -> Setting:
        """What binds the queue now: the configuration, and over it what was set live."""
        self._plans = Plans(self.config, await self._control.overrides())
        return setting_of(self.config, self._plans, self._endpoints, await self.outreach_office.store.mailboxes())

    async def limits_changed(self) -> None:
        """What bounds a teamspace may not be as it was."""
        async with self._changing:
            await self.supervisor.reload(await self.setting())

    def wall(self) -> Instant:
        """The time on the wall."""
        return Instant(time.time_ns() // 1_000)

    def schedule_changed(self, teamspace: str, name: str) -> None:
        """A schedule may not be as it was."""
        self.recurrences.wake(teamspace, name)

    async def record(self, act: Act) -> None:
        """Write down what is about to be done."""
        await self._control.record(act)

    async def acts(self, target: str) -> Sequence[Act]:
        """What was done to something, oldest first."""
        return await self._control.acts(target)

    def allows(self, uid: int, teamspace: str) -> bool:
        """Whether a user id may submit for a teamspace."""
        return self.config.submit.allows(uid, teamspace)

    def retention_days(self, teamspace: str) -> int | None:
        """How long the leads of a teamspace stay in tables that say nothing themselves; None: for ever."""
        return self._plans.retention_days(teamspace)

    async def interpreters(self) -> Interpreters:
        """The Pythons that batch jobs can choose from."""
        configured = self.config.batch.interpreters
        if self._interpreters is None or self._interpreters[0] != configured:
            self._interpreters = (configured, await find_interpreters(configured))
        return self._interpreters[1]

    def history_days(self) -> int:
        """How long what ended jobs have left is kept."""
        return self.config.queue.history_days

    def plan_of(self, teamspace: str) -> str:
        """The name of a teamspace's plan."""
        return self.config.plan_of(teamspace)

    async def submitters(self, jobs: Sequence[JobId]) -> Mapping[JobId, int | None]:
        """Who submitted these jobs, which have ended."""
        return await self._control.submitters(jobs)

    async def reload(self) -> None:
        """Read the configuration file again. Raises Refused with every fault."""
        self.service.reloading()
        try:
            config = configuration.load(self._config_path)
            offered = await modules_of(config)
            endpoints = endpoints_of(config, offered.modules)
        except configuration.ConfigError as error:
            raise Refused(ErrorCode.BAD_REQUEST, str(error), at="config") from error
        finally:
            self.service.ready()
        async with self._changing:
            self._offer(config, endpoints, offered)
            await self.supervisor.reload(await self.setting())
        log.info("reloaded")

    async def offer_modules(self) -> None:
        """Before anything runs: find out which modules there are. Raises ConfigError."""
        offered = await modules_of(self.config)
        self._offer(self.config, endpoints_of(self.config, offered.modules), offered)

    def _offer(self, config: Config, endpoints: Mapping[str, Endpoint], offered: Offered) -> None:
        for fault in offered.faults:
            log.error("module_unusable", module=fault.path, fault=fault.message)
        self.config = config
        self._endpoints = endpoints
        self._modules.offer(offered.offers)

    def drain(self) -> None:
        """Begin to end the daemon."""
        self._stop.set()

    def connections(self) -> int:
        """How many peers are connected."""
        return len(self.connected) + len(self.http)

    def http_numbers(self) -> HttpNumbers:
        """What the configuration says of HTTP, now."""
        http = self.config.http
        return HttpNumbers(http.requests_per_second, http.upload_bytes_max)

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

    def is_ready(self) -> bool:
        """Whether the queue takes work, and will go on with it."""
        reign = self.supervisor.reign
        return reign is not None and not reign.dispatcher.scheduler.draining

    def loop_lag_seconds(self) -> float:
        """The worst delay of the event loop in the last minute."""
        return self._lag.worst

    # -- batch jobs ---------------------------------------------------------------------------------------------------

    def batch_plan(self, teamspace: str) -> BatchPlan:
        """What a teamspace's plan says of batch jobs, now."""
        plan = self._plans.of(teamspace)
        batch = plan.batch
        quotas = Quotas(
            jobs_max=batch.jobs_max,
            executions_per_day_max=batch.executions_per_day,
            invocations_per_day_max=batch.invocations_per_day,
            milliseconds_per_day_max=batch.seconds_per_day * MILLISECONDS,
            reserve=batch.reserve,
            retries_max=batch.retries_max,
            schedule_gap_minutes_min=batch.gap_minutes,
            archive_bytes_max=batch.archive_bytes_max,
            own_database=DatabaseAccess(batch.own_database),
            etl_database=DatabaseAccess(batch.etl_database),
        )
        return BatchPlan(
            batch.enabled,
            batch.super_admin_only,
            quotas,
            ZoneInfo(plan.zone),
            tuple(batch.reaches),
            batch.builds,
            batch.memory_bytes_max,
            batch.scratch_bytes_max,
            batch.processes_max,
            batch.log_bytes_max,
        )

    async def database_of(self, teamspace: str, name: DatabaseName) -> CodeDatabase | None:
        """What a teamspace's code may query now. Raises NotAllowed."""
        quotas = self.batch_plan(teamspace).quotas
        access = quotas.own_database if name == "own" else quotas.etl_database
        if access is DatabaseAccess.NONE:
            raise NotAllowed("the plan does not allow that any more")
        write = access is DatabaseAccess.WRITE
        if name == "own":
            return await self.batch_access.open(teamspace, write=write)
        known = self.config.teamspaces.get(teamspace)
        if known is None or known.etl.secret is None:
            return None
        return BatchDatabase(known.etl.secret.reveal(), write=write)

    def sends_mail(self) -> bool:
        """Whether there is a mail server."""
        return self.mail_account() is not None

    def memory_bound(self) -> str | None:
        """What holds a batch job's run to its memory; None where no plan has any."""
        return self.runner.memory_bound if self._plans.have_batch_jobs else None

    async def batch(self, wanted: wire.BatchJobs, uid: int, record: Record, line: int) -> wire.BatchReply:
        """See to batch jobs. Raises Refused."""
        return await self.batch_life.perform(wanted, uid, record, line)

    async def _expire(self, job: JobId, reason: JobReason, message: str) -> None:
        await self.supervisor.dispatcher.tell(Expired(job, reason, message))

    async def be_punctual(self) -> None:
        """In each reign: let go of runs whose time is over."""
        while True:
            await self.supervisor.until_ready()
            with suppress(Unavailable, OutcomeUnknown, Fenced, Refused):
                await self.punctuality.keep()
            await anyio.sleep(SWEEP_RETRY_SECONDS)

    async def see_to_orphans(self, attempts: Attempts) -> None:
        """In each reign: end what no batch job waits for any more."""
        while True:
            await self.supervisor.until_ready()
            with suppress(Unavailable, OutcomeUnknown, Fenced, OSError):
                await attempts.see_to_orphans(self._when_ended)
            await anyio.sleep(SWEEP_RETRY_SECONDS)

    def _when_ended(self, job: JobId, then: Callable[[], None]) -> None:
        self.supervisor.announcer.listen(Listener(ended=lambda _: then()), job)

    # -- outreach -----------------------------------------------------------------------------------------------------

    async def outreach(self, wanted: wire.FollowUps, record: Record, line: int) -> wire.OutreachReply:
        """See to outreach. Raises Refused."""
        return await self.outreach_office.desk.perform(wanted, record, line)

    async def contact_event(self, event: wire.ContactEvent, line: int) -> wire.EventReply:
        """Something came in from a contact."""
        return await self.outreach_office.desk.take(event, line)

    def plan_in_force(self, teamspace: str) -> configuration.Plan:
        """What holds for a teamspace, with all that was set live."""
        return self._plans.of(teamspace)

    async def settle_mails(self) -> None:
        """In each reign: see to mails whose attempts ended while they were on their way."""
        while True:
            await self.supervisor.until_ready()
            reign = self.supervisor.reign
            with suppress(Unavailable, OutcomeUnknown, Fenced):
                await self.outreach_office.store.settle_lost(None, self.wall())
            if self.supervisor.reign is reign:
                await self.supervisor.until_over()

    # -- its own tasks ----------------------------------------------------------------------------------------------

    async def obey_signals(self) -> None:
        """SIGTERM and SIGINT drain; SIGHUP reads the configuration again."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP:
                    try:
                        await self.reload()
                    except Refused as refused:
                        log.error("reload_refused", faults=refused.message)
                else:
                    self.drain()

    async def keep_house(self) -> None:
        """When the queue takes work, and once a day: drop what is too old, and files that nobody will read."""
        while True:
            await self.supervisor.until_ready()
            try:
                await self._keep_house()
            except (Unavailable, OutcomeUnknown, OSError) as lost:  # no files to be had, or no room: the next day has
                log.warning("house_not_kept", error=str(lost))
            await anyio.sleep(HOUSEKEEPING_SECONDS)

    async def _keep_house(self) -> None:
        now = time.time()
        kept_since = Instant(int((now - self.config.queue.history_days * SECONDS_PER_DAY) * SECOND))
        dropped = await self._store.prune(kept_since)
        await self._control.forget(kept_since)
        await self.outbox.forget(datetime.fromtimestamp(kept_since / SECOND, UTC))
        await self.schedules.forget(kept_since)
        await self._table_store.forget(kept_since)
        await self.batch_store.forget(kept_since)
        await self.outreach_office.store.forget(kept_since)
        await self.workshop.keep_only(self.batch_store.digests)
        await self._leads.forget_orders(kept_since)
        copied_before = max(self.started.timestamp(), now - SUBMISSION_SECONDS_MAX)
        orphans = await self._uploads.keep_only(await self._leads.files_of_live_uploads(), copied_before)
        if dropped or orphans:
            log.info("kept_house", partitions=len(dropped), files=len(orphans))

    async def sweep(self) -> None:
        """Remove the leads of deleted tables, and those that have outlived their retention: when told to, and daily."""
        while True:
            await self.supervisor.until_ready()
            try:
                if tables := await self.tables.sweep():
                    log.info("swept", tables=tables)
            except (Unavailable, OutcomeUnknown) as lost:
                log.warning("not_swept", error=str(lost))
                await anyio.sleep(SWEEP_RETRY_SECONDS)
                continue
            with anyio.move_on_after(HOUSEKEEPING_SECONDS):
                await self.tables.to_sweep.wait()

    async def report(self) -> None:
        """Keep the service manager informed, and its watchdog fed while the queue gets on."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.service.feed_watchdog, Progress(self._turns, time.monotonic))
            tasks.start_soon(self._lag.measure)
            await self.supervisor.until_ready()
            self.service.ready()
            self.supervisor.announcer.decided = self._depth.changed
            self._depth.changed()

    def _turns(self) -> int | None:
        """Between reigns the supervisor tries again and again, which is all that can be done."""
        reign = self.supervisor.reign
        return None if reign is None else reign.dispatcher.turns

    def _queue_depth(self) -> str:
        reign = self.supervisor.reign
        if reign is None:
            return "waiting for the database"
        scheduler = reign.dispatcher.scheduler
        queued, running = sum(scheduler.backlog.queued.values()), len(scheduler.running)
        return f"{queued} jobs queued, {running} running" + (", draining" if scheduler.draining else "")


class _StatusLine:
    """The line for `systemctl status`, said again when it has changed, and never often."""

    def __init__(self, text: Callable[[], str], say: Callable[[str], None]) -> None:
        self._text = text
        self._say = say
        self._said = ""
        self._timer: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        """Something was decided: say how it is, at once where that was not done lately."""
        if self._timer is None:
            self._tell()
            self._timer = asyncio.get_running_loop().call_later(STATUS_SECONDS, self._rested)

    def _rested(self) -> None:
        self._timer = None
        if self._text() != self._said:
            self.changed()

    def _tell(self) -> None:
        text = self._text()
        if text != self._said:
            self._said = text
            self._say(text)


class _LoopLag:
    """How late the event loop was at its worst, over about the last minute."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def measure(self) -> None:
        while True:
            before = time.monotonic()
            await anyio.sleep(LAG_PROBE_SECONDS)
            late = time.monotonic() - before - LAG_PROBE_SECONDS
            self.worst = max(late, self.worst * 0.95)


@asynccontextmanager
async def daemon(
    config: Config,
    *,
    config_path: Path | None,
    state_dir: Path,
    runtime_dir: Path,
    takeover: bool = False,
    extra_kinds: Callable[[PostgresStore], Sequence[JobKind]] = lambda _: (),
    extra_submissions: Sequence[type[wire.Submission]] = (),
) -> AsyncIterator[Daemon]:
    """A daemon that runs as long as the context is open. The extra kinds are for tests."""
    async with AsyncExitStack() as stack:
        make_state(state_dir)
        ground = find_ground(movable=not has_started_us())
        place = stack.enter_context(sole_owner(state_dir, takeover=takeover))
        announcer = Announcer()
        submissions = (*wire.SUBMISSION_TYPES, *extra_submissions)
        connected = Connections(announcer, return_free_memory)
        listening = _listening_sockets(runtime_dir)
        servers = [
            await connected.listen(
                listening["submit"], Face(RequestDecoder(submissions, wire.SUBMIT_OPERATIONS), False)
            ),
            await connected.listen(
                listening["control"], Face(RequestDecoder(submissions, wire.CONTROL_OPERATIONS), True)
            ),
        ]
        incoming, exports = state_dir / "incoming", state_dir / "exports"
        remove_parts(incoming)
        http_requests = RequestDecoder(submissions, HTTP_OPERATIONS)
        face = HttpFace(Reach(http_requests, incoming=incoming, exports=exports), version=version("leadline"))
        listen = None if config.http.listen is None else address_of(config.http.listen)
        http = await stack.enter_async_context(http_server(face, listening.get("http"), listen))
        log.info(
            "listening",
            http=http.addresses,
            submit=str(runtime_dir / SUBMIT_SOCKET),
            control=str(runtime_dir / CONTROL_SOCKET),
        )
        if config.database.url is None:
            postgres = await stack.enter_async_context(embedded_postgres(state_dir))
            url = postgres.url
        else:
            url = config.database.url.reveal()
        parts = (STATEMENTS, NOTICE_STATEMENTS, SCHEDULE_STATEMENTS, BATCH_STATEMENTS, OUTREACH_STATEMENTS)
        store = PostgresStore(url, queries=dict(ChainMap(*map(dict, parts))))
        stack.push_async_callback(store.close)
        leads = PostgresLeads(store)
        uploads = UploadFolder(state_dir / "incoming", state_dir / "uploads", config.files.upload_folders)
        workers = await stack.enter_async_context(python_modules())
        running = Daemon(config, config_path, store, leads, uploads, workers, embedded=config.database.url is None)
        await running.offer_modules()
        client = _Clients(await stack.enter_async_context(provider_http()), workers)
        database = Database(running.database_allowance)
        runner = running.runner = await stack.enter_async_context(
            sandbox_runner(state_dir / "runs", ground=ground, protected=config.batch.sandbox)
        )
        packages = PackageCache(
            state_dir / "packages",
            runner,
            bytes_max=config.batch.packages_bytes_max,
            index_url=None if config.batch.package_index is None else config.batch.package_index.reveal(),
        )
        await packages.begin()
        attempts = Attempts(runner, running.batch_store, running.wall)
        await attempts.adopt()
        running.batch_access = BatchAccess(store, url)
        key = seal_key(state_dir)
        seal = AesSeal(key)
        providers = CodeProviders(running.endpoints, running.tokens)
        house = House(running.batch_store, seal, running.database_of, providers.of, running.sends_mail)
        workshop = running.workshop = CodeWorkshop(state_dir / "code", packages, running.interpreters)
        running.batch_life = BatchLife(
            running.batch_store,
            workshop,
            attempts,
            running.batch_plan,
            seal,
            uploads,
            state_dir / "exports",
            store.jobs_by_id,
            running.wall,
            running.schedule_changed,
            running.sends_mail,
        )
        batch = Batch(
            running.batch_store,
            workshop,
            attempts,
            running.batch_plan,
            running.wall,
            house,
            running.punctuality.wake,
        )
        running.outreach_office = OutreachOffice(
            store,
            running.schedules,
            seal,
            key,
            await stack.enter_async_context(smtp_transport()),
            lambda: running.config,
            running.wall,
            lambda teamspace: running.plan_in_force(teamspace).zone,
            lambda: running.supervisor,
            running.limits_changed,
            running.schedule_changed,
        )
        kinds = [
            *table_kinds(database, leads, uploads, state_dir, running.endpoints, running.tokens),
            running.tries,
            batch,
            running.outreach_office.kind,
            *extra_kinds(store),
        ]
        trial = PostgresTrial(store)
        looked_at = LookedAtFolder(state_dir / "incoming", state_dir / "uploads", config.files.upload_folders)
        tried_kinds = [
            *table_kinds(database, trial, looked_at, state_dir, running.endpoints, running.tokens),
            batch,
            running.outreach_office.kind,
        ]
        supervisor = running.supervisor = Supervisor(
            owner=f"{socket.gethostname()} pid {os.getpid()}",
            place=place,
            takeover=takeover,
            store=store,
            clock=_clock,
            kinds=kinds,
            client=client,
            setting=setting_of(config, Plans(config), running.endpoints(), {}),
            next_reset=next_reset,
            announcer=announcer,
            refresh=running.setting,
        )
        decode = partial(_decode_submission, RequestDecoder(submissions))
        api_tokens = ApiTokens(PostgresApiTokens(store))
        sessions = Sessions(PostgresSessions(store), key, lambda: running.config.http.public_url or http.url)
        operations = Operations(
            supervisor,
            store,
            kinds,
            running,
            Previews(tried_kinds, trial, looked_at, running.endpoints, running.limits_in_force),
            api_tokens,
            sessions,
            allows=running.allows,
            decode=decode,
        )
        running.connected = connected
        running.http = http.server
        couriers: Mapping[Medium, Courier] = {
            "webhook": await stack.enter_async_context(
                webhooks(allowed=running.allowed_networks, secret_of=running.webhook_secret)
            ),
            "mail": SmtpMailer(running.mail_account),
        }
        notifier = Notifier(running.outbox, couriers, operations.jobs.told_of, supervisor.until_ready)
        store.noticed = notifier.wake

        async def submit_due(schedule: StoredSchedule, due: Instant, statement: Statement) -> JobId:
            text = schedule.submission
            return await operations.submit_due(text, decode(text), schedule.uid, due, statement)

        running.recurrences = Recurrences(
            running.schedules, submit_due, operations.jobs.is_live, running.wall, supervisor.until_ready
        )
        if config.outreach.unsubscribe_url is not None:
            host, port = address_of(config.outreach.unsubscribe_listen)
            office = running.outreach_office
            listener = unsubscribe_listener(host=host, port=port, read=office.wish_of, unsubscribed=office.unsubscribed)
            await stack.enter_async_context(listener)
        connected.open(operations)
        feed = Feed(operations.jobs, announcer)
        metrics = Metrics(supervisor, partial(running.process, operations))
        desk = Desk(
            operations,
            api_tokens,
            sessions,
            feed,
            metrics,
            running.is_ready,
            running.http_numbers,
            key,
            lambda: running.config.http.public_url,
        )
        face.open(desk)
        async with anyio.create_task_group() as tasks:
            await tasks.start(supervisor.run)
            tasks.start_soon(running.report)
            tasks.start_soon(running.keep_house)
            tasks.start_soon(notifier.run)
            tasks.start_soon(running.recurrences.run)
            tasks.start_soon(running.sweep)
            tasks.start_soon(running.see_to_orphans, attempts)
            tasks.start_soon(running.be_punctual)
            tasks.start_soon(running.settle_mails)
            tasks.start_soon(running.obey_signals)
            try:
                yield running
            finally:
                with anyio.CancelScope(shield=True):
                    running.service.stopping()
                    for server in servers:
                        server.close()
                    await http.let_nobody_in()
                    await supervisor.drain(config.service.drain_seconds)
                    face.close()
                    connected.close()
                tasks.cancel_scope.cancel()


def _listening_sockets(runtime_dir: Path) -> Mapping[str, socket.socket]:
    """The sockets: handed over by the service manager, or made here."""
    given = activated_sockets()
    runtime_dir.mkdir(parents=True, exist_ok=True)
    places = {
        "submit": (SUBMIT_SOCKET, SUBMIT_GROUP),
        "control": (CONTROL_SOCKET, CONTROL_GROUP),
        "http": (HTTP_SOCKET, SUBMIT_GROUP),
    }
    if given:  # units of a release before know of no HTTP, and what they have made is not ours to write to
        places = {name: place for name, place in places.items() if name in given or name != "http"}
    return {
        name: given.get(name) or listening_socket(runtime_dir / file, group) for name, (file, group) in places.items()
    }


def address_of(listen: str) -> tuple[str, int]:
    """Host and port as they are configured."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def setting_of(
    config: Config, plans: Plans, endpoints: Mapping[str, Endpoint], mailboxes: Mapping[str, int]
) -> Setting:
    """What a configuration says about the queue, with the limits in force; `mailboxes`: how many each teamspace has."""
    rules = msgspec.structs.replace(config.rules(), default_limits=plans.default())
    return Setting(rules, plans.named(mailboxes), accounts_of(config, plans, endpoints))


def table_kinds(
    database: Database,
    leads: PostgresLeads,
    uploads: UploadFolder,
    state_dir: Path,
    endpoints: Endpoints,
    tokens: Tokens,
) -> Sequence[JobKind]:
    """The kinds of job over tables."""
    return [
        Upload(leads, database, uploads),
        Formula(leads, database),
        Export(leads, database, state_dir / "exports"),
        Enrich(leads, database, endpoints, tokens),
    ]


class _Clients:
    """How requests get to whom they are for (`ports.provider_client.ProviderClient`)."""

    def __init__(self, http: ProviderClient, python: ProviderClient) -> None:
        self._http = http
        self._python = python

    async def send(
        self,
        request: Request,
        *,
        may_send: Callable[[], bool],
        began: Callable[[], None],
        beat: Callable[[], None],
    ) -> Response:
        """Send the request, and read the response."""
        client = self._python if request.url.startswith(f"{SCHEME}:") else self._http
        return await client.send(request, may_send=may_send, began=began, beat=beat)


def _some(credits_: Decimal) -> Decimal | None:
    return plain(credits_) if credits_ else None


def _clock(recovered: Recovered) -> SystemClock:
    return SystemClock(recovered.instant)


def _decode_submission(requests: RequestDecoder, line: bytes) -> wire.Submission:
    request = requests.decode(line)
    if isinstance(request, LineFault):
        raise Refused(request.code, request.message, at=request.at)
    assert isinstance(request, wire.Submission), "what is stored with a job is a submission"
    return request


# -- the log -----------------------------------------------------------------------------------------------------------


def _set_up_log(config: Config) -> None:
    level = logging.getLevelNamesMapping()[config.log.level.upper()]
    renderer: Any = structlog.processors.JSONRenderer()
    if config.log.format == "text":
        renderer = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def _flat(error: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for inner in error.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _flat(inner)
        else:
            yield inner
