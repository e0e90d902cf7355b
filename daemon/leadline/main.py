"""The composition root: the only place that knows every adapter, and puts a daemon together from a configuration.

Order of a start: take the state directory (one daemon each), open the sockets, so that whoever connects is told
`unavailable` rather than left standing, bring up Postgres, and begin the first reign. A stop goes the other way:
start nothing more, let calls in flight finish, hang up, give the database back.
"""

import os
import signal
import socket
import sys
from collections import ChainMap
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import structlog

from leadline.accounts import (
    next_reset,
)
from leadline.actors.announcer import Announcer
from leadline.actors.api_tokens import ApiTokens
from leadline.actors.feed import Feed
from leadline.actors.notifier import Notifier
from leadline.actors.operations import Operations
from leadline.actors.recurrences import Recurrences
from leadline.actors.sessions import Sessions
from leadline.actors.supervisor import Supervisor
from leadline.adapters.code_providers import CodeProviders
from leadline.adapters.embedded_postgres import EmbeddedPostgresError, embedded_postgres
from leadline.adapters.folders import CONTROL_GROUP, SUBMIT_GROUP, StateInUse, listening_socket, make_state, sole_owner
from leadline.adapters.http.face import HttpFace
from leadline.adapters.http.files import remove_parts
from leadline.adapters.http.metrics import Metrics
from leadline.adapters.http.reach import Desk, Reach
from leadline.adapters.http.routes import OPERATIONS as HTTP_OPERATIONS
from leadline.adapters.http.server import http_server
from leadline.adapters.package_cache.cache import PackageCache
from leadline.adapters.postgres.api_tokens import PostgresApiTokens
from leadline.adapters.postgres.batch import STATEMENTS as BATCH_STATEMENTS
from leadline.adapters.postgres.batch_access import BatchAccess
from leadline.adapters.postgres.control import PostgresControl
from leadline.adapters.postgres.lead_trial import PostgresTrial
from leadline.adapters.postgres.leads import STATEMENTS, PostgresLeads
from leadline.adapters.postgres.migrate import migrate_database, migration_sql
from leadline.adapters.postgres.notices import STATEMENTS as NOTICE_STATEMENTS
from leadline.adapters.postgres.notices import PostgresNotices
from leadline.adapters.postgres.outreach import STATEMENTS as OUTREACH_STATEMENTS
from leadline.adapters.postgres.schedules import STATEMENTS as SCHEDULE_STATEMENTS
from leadline.adapters.postgres.sessions import PostgresSessions
from leadline.adapters.postgres.store import PostgresStore
from leadline.adapters.postgres.tables import PostgresTables
from leadline.adapters.process import (
    collect_garbage_seldom,
    let_threads_give_way,
    open_as_many_files_as_allowed,
    return_free_memory,
    return_large_memory,
)
from leadline.adapters.provider_http import provider_http
from leadline.adapters.python_workers.pool import python_modules
from leadline.adapters.sandbox_runner.cgroups import find_ground
from leadline.adapters.sandbox_runner.runner import sandbox_runner
from leadline.adapters.seal import AesSeal, seal_key
from leadline.adapters.smtp_mailer import SmtpMailer
from leadline.adapters.smtp_transport import smtp_transport
from leadline.adapters.sockets import Connections, Face
from leadline.adapters.system_clock import SystemClock
from leadline.adapters.systemd import ServiceManager, activated_sockets, has_started_us
from leadline.adapters.unsubscribe_listener import unsubscribe_listener
from leadline.adapters.upload_folder import LookedAtFolder, UploadFolder
from leadline.adapters.webhooks import webhooks
from leadline.code_databases import CodeDatabases
from leadline.config import CONTROL_SOCKET, HTTP_SOCKET, SUBMIT_SOCKET, Config
from leadline.core.events import Statement
from leadline.daemon import Daemon
from leadline.features.batch.attempts import Attempts
from leadline.features.batch.invocation import Batch
from leadline.features.batch.life import BatchLife
from leadline.features.batch.workshop import CodeWorkshop
from leadline.features.batch.world import House
from leadline.features.tables.enrich import Enrich
from leadline.features.tables.enrichment_plan import Endpoints
from leadline.features.tables.export import Export
from leadline.features.tables.formula import Formula
from leadline.features.tables.life import TableLife
from leadline.features.tables.preview import Previews
from leadline.features.tables.selection import Database
from leadline.features.tables.tokens import Tokens
from leadline.features.tables.upload import Upload
from leadline.health import Health, LoopLag
from leadline.housekeeping import Housekeeping, be_punctual, see_to_orphans, settle_mails, sweep
from leadline.live_config import LiveConfig, setting_of
from leadline.log import set_up_log
from leadline.notices import Notices
from leadline.outreach import OutreachOffice
from leadline.plans import Plans
from leadline.ports.notices import Courier, Medium
from leadline.ports.schedules import StoredSchedule
from leadline.ports.store import Fenced, OwnedByAnother, Recovered
from leadline.ports.work import JobKind
from leadline.provider_clients import ProviderClients
from leadline_protocol import messages as wire
from leadline_protocol.codec import LineFault, RequestDecoder
from leadline_protocol.errors import LeadlineError, Refused
from leadline_protocol.ids import Instant, JobId

log = structlog.get_logger("leadline")


def serve(
    config: Config, *, config_path: Path | None, state_dir: Path, runtime_dir: Path, takeover: bool = False
) -> int:
    """Run the daemon until it is told to stop; the exit status: 0 stopped, 1 could not run, or was replaced.

    `takeover`: in the place of one that is alive.
    """
    set_up_log(config)
    collect_garbage_seldom()
    let_threads_give_way()
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
    set_up_log(config)
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
        control, outbox, table_store = PostgresControl(store), PostgresNotices(store), PostgresTables(store)
        service, lag = ServiceManager(), LoopLag()
        live = LiveConfig(
            config,
            config_path,
            control,
            workers,
            service,
            lambda: running.supervisor,
            lambda: running.outreach_office,
        )
        notices = Notices(outbox, store, lambda: live.config)
        tables = TableLife(table_store, leads.table, live.retention_days, live.history_days)
        running = Daemon(live, notices, store, leads, control, tables, lag, embedded=config.database.url is None)
        await live.offer_modules()
        client = ProviderClients(await stack.enter_async_context(provider_http()), workers)
        database = Database(live.database_allowance)
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
        databases = CodeDatabases(live, BatchAccess(store, url))
        key = seal_key(state_dir)
        seal = AesSeal(key)
        providers = CodeProviders(live.endpoints, running.tokens)
        house = House(running.batch_store, seal, databases.of, providers.of, notices.sends_mail)
        workshop = running.workshop = CodeWorkshop(state_dir / "code", packages, live.interpreters)
        running.batch_life = BatchLife(
            running.batch_store,
            workshop,
            attempts,
            live.batch_plan,
            seal,
            uploads,
            state_dir / "exports",
            store.jobs_by_id,
            running.wall,
            running.schedule_changed,
            notices.sends_mail,
            announcer.ending,
        )
        batch = Batch(
            running.batch_store,
            workshop,
            attempts,
            live.batch_plan,
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
            lambda: live.config,
            running.wall,
            lambda teamspace: live.plan_in_force(teamspace).zone,
            lambda: running.supervisor,
            live.limits_changed,
            running.schedule_changed,
        )
        kinds = [
            *table_kinds(database, leads, uploads, state_dir, live.endpoints, running.tokens),
            running.tries,
            batch,
            running.outreach_office.kind,
            *extra_kinds(store),
        ]
        trial = PostgresTrial(store)
        looked_at = LookedAtFolder(state_dir / "incoming", state_dir / "uploads", config.files.upload_folders)
        tried_kinds = [
            *table_kinds(database, trial, looked_at, state_dir, live.endpoints, running.tokens),
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
            setting=setting_of(config, Plans(config), live.endpoints(), {}),
            next_reset=next_reset,
            announcer=announcer,
            refresh=live.setting,
        )
        decode = partial(_decode_submission, RequestDecoder(submissions))
        api_tokens = ApiTokens(PostgresApiTokens(store))
        sessions = Sessions(PostgresSessions(store), key, lambda: live.config.http.public_url or http.url)
        operations = Operations(
            supervisor,
            store,
            kinds,
            running,
            Previews(tried_kinds, trial, looked_at, live.endpoints, live.account),
            api_tokens,
            sessions,
            allows=live.allows,
            decode=decode,
        )
        running.connected = connected
        running.http = http.server
        couriers: Mapping[Medium, Courier] = {
            "webhook": await stack.enter_async_context(
                webhooks(allowed=notices.allowed_networks, secret_of=notices.webhook_secret)
            ),
            "mail": SmtpMailer(notices.mail_account),
        }
        notifier = Notifier(outbox, couriers, operations.jobs.told_of, supervisor.until_ready)
        store.noticed = notifier.wake

        async def submit_due(schedule: StoredSchedule, due: Instant, statement: Statement) -> JobId:
            text = schedule.submission
            return await operations.submit_due(text, decode(text), schedule.uid, due, statement)

        running.recurrences = Recurrences(
            running.schedules, submit_due, operations.jobs.is_live, running.wall, supervisor.until_ready
        )
        housekeeping = Housekeeping(
            supervisor,
            store,
            control,
            outbox,
            running.schedules,
            table_store,
            running.batch_store,
            running.outreach_office.store,
            leads,
            workshop,
            uploads,
            live.history_days,
            running.started,
        )
        if config.outreach.unsubscribe_url is not None:
            host, port = address_of(config.outreach.unsubscribe_listen)
            office = running.outreach_office
            listener = unsubscribe_listener(host=host, port=port, read=office.wish_of, unsubscribed=office.unsubscribed)
            await stack.enter_async_context(listener)
        connected.open(operations)
        feed = Feed(operations.jobs, announcer)
        health = Health(supervisor, service, lag)
        metrics = Metrics(supervisor, partial(running.process, operations))
        desk = Desk(
            operations,
            api_tokens,
            sessions,
            feed,
            metrics,
            health.is_ready,
            live.http_numbers,
            key,
            lambda: live.config.http.public_url,
        )
        face.open(desk)
        async with anyio.create_task_group() as tasks:
            await tasks.start(supervisor.run)
            tasks.start_soon(health.report)
            tasks.start_soon(housekeeping.keep_house)
            tasks.start_soon(notifier.run)
            tasks.start_soon(running.recurrences.run)
            tasks.start_soon(sweep, supervisor, tables)
            tasks.start_soon(see_to_orphans, supervisor, attempts)
            tasks.start_soon(be_punctual, supervisor, running.punctuality)
            tasks.start_soon(settle_mails, supervisor, running.outreach_office.store, running.wall)
            tasks.start_soon(_obey_signals, running)
            try:
                yield running
            finally:
                with anyio.CancelScope(shield=True):
                    service.stopping()
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


def _clock(recovered: Recovered) -> SystemClock:
    return SystemClock(recovered.instant)


def _decode_submission(requests: RequestDecoder, line: bytes) -> wire.Submission:
    request = requests.decode(line)
    if isinstance(request, LineFault):
        raise Refused(request.code, request.message, at=request.at)
    assert isinstance(request, wire.Submission), "what is stored with a job is a submission"
    return request


async def _obey_signals(running: Daemon) -> None:
    """SIGTERM and SIGINT drain; SIGHUP reads the configuration again."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            if number == signal.SIGHUP:
                try:
                    await running.reload()
                except Refused as refused:
                    log.error("reload_refused", faults=refused.message)
            else:
                running.drain()


def _flat(error: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for inner in error.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _flat(inner)
        else:
            yield inner
