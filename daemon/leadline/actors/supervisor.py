"""Keeps the queue alive: one reign after the other over the same database.

A reign begins by becoming the database's owner under a new epoch, builds the scheduler from what is stored, and runs
the actors in one task group. It ends when a commit fails: then everything that hangs off the scheduler in memory is
cancelled at once, whatever it might still write is refused because of its epoch, and the next reign is built the same
way, as soon as the database answers. The start of a daemon is simply its first reign, so the path that a crash takes
is the path that every start takes.

The owner before may still be about: it has been stopped, or cut off. It writes nothing any more, and what it does
outside takes a write before; but the permits of its last commits may be in its hands. Unless it is proven dead, they
are waited out before anything is built upon what it has done.

Sockets outlive reigns; between two of them everybody is told `unavailable`.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus
from msgspec import Struct

from leadline.actors.actor import Registry
from leadline.actors.announcer import Announcer
from leadline.actors.dispatcher import Dispatcher, unavailable
from leadline.actors.job_reader import JobReader
from leadline.actors.pace import Stall
from leadline.actors.provider import Permit, ProviderActor
from leadline.actors.teamspace import TeamspaceActor
from leadline.actors.watchdog import Watchdog
from leadline.core.effects import Effects, Records, RefuseCall, SendCall, StartAttempt, StopAttempt, WarnStalled
from leadline.core.estimate import Tempo
from leadline.core.events import AccountLearned, CallAsked, DrainBegan, Event, LimitsSet, RulesSet, Ticked
from leadline.core.model import SECOND, Family, Kind, Limits, Now, Rules
from leadline.core.permits import PERMIT_SECONDS
from leadline.core.quarantine import Crashed
from leadline.core.rate_limit import BucketLimit, ConcurrentLimit, DailyLimit, NextReset, WindowLimit
from leadline.core.recovery import PastCallRow, Recovery
from leadline.core.scheduler import Scheduler
from leadline.ports.clock import Clock
from leadline.ports.provider_client import ProviderClient
from leadline.ports.store import Fenced, OutcomeUnknown, OwnedByAnother, Recovered, Store, Unavailable
from leadline.ports.work import JobKind
from leadline_protocol.errors import Refused
from leadline_protocol.ids import AccountName, Instant, JobId, TeamspaceId

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts to begin a reign; the last one repeats."""

MARGIN_SECONDS: Final = 900
"""Beyond a window: a call counts from its answer, or from when it cannot arrive any more, and that is later."""

DAY_SECONDS_MAX: Final = 25 * 3_600
"""A day on which clocks are set back."""

SURVIVOR_SECONDS: Final = PERMIT_SECONDS + 1
"""How long the owner before is given to use the permits in its hands, where nothing proves that it is dead. A second
more than they last, because neither its last look nor our timer is of one moment with what follows."""

NOOP: Final = Kind(0, "noop", Family.NOOP, instant=True)
CHAIN: Final = Kind(1, "chain", Family.TABLES, chain=True)


class Setting(Struct, frozen=True):
    """What the configuration says about the queue; a reload replaces it."""

    rules: Rules
    limits: Mapping[str, Limits]
    """Of the teamspaces that have other than the default ones."""
    accounts: Sequence[AccountLearned]


class Supervisor:
    """Begins reigns, and knows the present one."""

    def __init__(
        self,
        *,
        owner: str,
        place: str,
        takeover: bool = False,
        store: Store,
        clock: Callable[[Recovered], Clock],
        kinds: Sequence[JobKind],
        client: ProviderClient,
        setting: Setting,
        next_reset: NextReset | None = None,
        announcer: Announcer,
        refresh: Callable[[], Awaitable[Setting]] | None = None,
    ) -> None:
        """`owner` and `place` are what the store is told. `takeover`: the first reign begins though another daemon is
        alive. `refresh` is asked for the setting as each reign begins, when the store can tell what was set live.
        """
        self._owner = owner
        self._place = place
        self._force = takeover
        self._store = store
        self._clock = clock
        self._client = client
        self._next_reset = next_reset
        self.setting = setting
        self._refresh = refresh
        self._limited: set[str] = set()
        """Teamspaces that have, or once had, limits other than the default ones."""
        self.announcer: Final = announcer
        self.kinds: Final = (
            NOOP,
            CHAIN,
            *(Kind(number, kind.name, kind.family) for number, kind in enumerate(kinds, start=2)),
        )
        self.works: Final = dict(enumerate(kinds, start=2))
        self._crashed: Mapping[JobId, Crashed] = {}
        """Who ran when the daemon before died, until it is stored what that means: the store tells it only once."""
        self.reign: Reign | None = None
        self.has_reigned = False
        """Whether there was a reign at all: before, the daemon starts; later, it has lost its database."""
        self._ready = anyio.Event()
        self._over = anyio.Event()

    @property
    def dispatcher(self) -> Dispatcher:
        """The dispatcher of the present reign. Raises Refused with `unavailable` between reigns."""
        if self.reign is None:
            raise unavailable()
        return self.reign.dispatcher

    async def until_ready(self) -> None:
        """Wait until the queue takes work."""
        await self._ready.wait()

    async def until_over(self) -> None:
        """Wait until the present reign, or where there is none the next one, has ended."""
        await self._over.wait()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Reign until cancelled.

        Raises OwnedByAnother where the database has a living owner at the first try, and Fenced when another daemon has
        taken over; both end this daemon.
        """
        begun = False
        failures = 0
        while True:
            try:
                async with self._begun() as (reign, _):
                    failures = 0
                    self.reign = reign
                    self.has_reigned = True
                    self._ready.set()
                    self.announcer.reign_changed()
                    if not begun:
                        begun = True
                        task_status.started()
                    try:
                        await reign.dispatcher.run()
                    finally:  # in the same breath in which the first is told `unavailable`
                        self.reign = None
                        self._ready = anyio.Event()
                        self._over.set()
                        self._over = anyio.Event()
                        self.announcer.reign_changed()
            except* (Unavailable, OutcomeUnknown) as lost:
                pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                failures += 1
                log.warning("database_lost", error=_first_line(lost), next_try_seconds=pause)
                await anyio.sleep(pause)

    async def reload(self, setting: Setting) -> None:
        """Put changed limits into force: they bind the next admission and the next call."""
        self.setting = setting
        if self.reign is not None:
            dispatcher = self.reign.dispatcher
            for event in (RulesSet(setting.rules), *self._limits(), *setting.accounts):
                await dispatcher.tell(event)

    async def drain(self, seconds: float) -> None:
        """Start nothing more, wait until what runs has stopped, for so long at most, and note the orderly end.

        Where the database is lost meanwhile, all that ran has been dropped, and goes on after the next start.
        """
        if self.reign is None:
            return
        reign, over = self.reign, self._over
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as tasks:

                async def until_lost() -> None:
                    await over.wait()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(until_lost)
                with suppress(Refused, OutcomeUnknown):  # as it is lost
                    await reign.dispatcher.tell(DrainBegan())
                    await reign.until_quiet()
                    await reign.dispatcher.tell(Ticked())  # an event is answered when all before it are stored
                tasks.cancel_scope.cancel()
        with suppress(Unavailable, OutcomeUnknown, Fenced):
            await self._store.end_in_order()

    def _limits(self) -> list[Event]:
        setting = self.setting
        self._limited |= setting.limits.keys()
        return [LimitsSet(name, setting.limits.get(name, setting.rules.default_limits)) for name in self._limited]

    @asynccontextmanager
    async def _begun(self) -> AsyncIterator[tuple["Reign", Scheduler]]:
        kinds = {kind.name: int(kind.family) for kind in self.kinds}
        seconds = charge_seconds(self.setting.accounts)
        try:
            recovered = await self._store.take_over(
                owner=self._owner, place=self._place, kinds=kinds, charge_seconds=seconds, force=self._force
            )
        except OwnedByAnother as error:
            if self.has_reigned:
                raise Fenced(f"this daemon has been replaced by {error.owner}") from error
            raise
        self._force = False
        clock = self._clock(recovered)
        if recovered.survivor:
            log.info("waiting_out_permits", epoch=recovered.epoch, seconds=SURVIVOR_SECONDS)
            await anyio.sleep(SURVIVOR_SECONDS)
        if self._refresh is not None:
            self.setting = await self._refresh()
        next_reset = None if self._next_reset is None else resets_by_wall(self._next_reset, clock.now())
        scheduler = Scheduler(self.kinds, self.setting.rules, next_reset)
        recovery = Recovery(scheduler, clock.now())
        recovery.teamspaces(recovered.teamspaces)
        scheduler.handle(self._limits(), clock.now())
        recovery.pauses((pause.scope, pause.name) for pause in recovered.pauses)
        recovery.accounts(
            self.setting.accounts,
            {row.account: row.state for row in recovered.accounts},
            [PastCallRow(call.id, call.account, call.cost, call.sent, call.began) for call in recovered.calls],
        )
        self._crashed = recovered.crashed or self._crashed
        recovery.crashed(self._crashed)
        async for page in self._store.live_jobs():
            recovery.jobs(page)
        first = recovery.finish(recovered.slots, recovered.last_job)
        async with anyio.create_task_group() as tasks:
            reign = Reign(self, scheduler, clock, tasks, recovered)
            try:
                await reign.open(first)
            except OutcomeUnknown:
                self._crashed = {}  # it may be stored: better not counted than counted twice
                raise
            self._crashed = {}
            tasks.start_soon(self._store.keep, name="owner")
            log.info("ready", epoch=recovered.epoch, jobs=len(scheduler.jobs), running=len(scheduler.running))
            yield reign, scheduler
            tasks.cancel_scope.cancel()

    @property
    def store(self) -> Store:
        """The store that every reign is kept in."""
        return self._store

    @property
    def client(self) -> ProviderClient:
        """How requests get to providers."""
        return self._client


def resets_by_wall(next_reset: NextReset, now: Now) -> NextReset:
    """Resets as instants: days end by the wall's clock, and instants run ahead of that where it was set back."""
    ahead = now.instant - now.wall
    return lambda limit, instant: Instant(next_reset(limit, Instant(instant - ahead)) + ahead)


def charge_seconds(accounts: Iterable[AccountLearned]) -> int:
    """For how long at most a charge of these accounts may count: what a recovery has to read back."""
    longest = MARGIN_SECONDS
    for account in accounts:
        if account.pace_per_second:
            longest = max(longest, math.ceil(1 / account.pace_per_second) + MARGIN_SECONDS)
        for limit in account.limits:
            match limit:
                case WindowLimit(per_seconds=seconds):
                    longest = max(longest, int(seconds) + MARGIN_SECONDS)
                case DailyLimit():
                    longest = max(longest, DAY_SECONDS_MAX + MARGIN_SECONDS)
                case ConcurrentLimit() | BucketLimit():
                    pass
    return longest


class Reign:
    """One life of the scheduler and of the actors round it; it carries out what the scheduler decides."""

    def __init__(
        self, supervisor: Supervisor, scheduler: Scheduler, clock: Clock, tasks: TaskGroup, recovered: Recovered
    ) -> None:
        self.epoch: Final = recovered.epoch
        self.clock: Final = clock
        self._supervisor = supervisor
        self._tasks = tasks
        self._announcer = supervisor.announcer
        self.dispatcher: Final = Dispatcher(scheduler, supervisor.store, clock, self, last_call=recovered.last_call)
        self.teamspaces: Final[Registry[TeamspaceId, TeamspaceActor]] = Registry(self._make_teamspace)
        self.providers: Final[Registry[AccountName, ProviderActor]] = Registry(
            lambda name: ProviderActor(name, self.dispatcher, supervisor.client, clock, self.providers.release)
        )
        self._reader = JobReader(supervisor.store, tasks)
        self._watchdog = Watchdog(self._beat)
        self._quiet = anyio.Event()

    async def open(self, first: Effects) -> None:
        """Store the first decision, carry it out, and start the actors."""
        await self.dispatcher.open(first)
        self._tasks.start_soon(self._watchdog.run, name="watchdog")

    def _make_teamspace(self, teamspace: TeamspaceId) -> TeamspaceActor:
        return TeamspaceActor(
            teamspace,
            self._tasks,
            self.dispatcher,
            self._reader,
            self.clock,
            self._supervisor.works,
            self._permit,
            self._announcer,
            self._release,
        )

    def _release(self, teamspace: TeamspaceId) -> None:
        self.teamspaces.release(teamspace)
        if not len(self.teamspaces):
            self._quiet.set()

    def tempo(self, teamspace: TeamspaceId, job: JobId) -> Tempo | None:
        """How a job's present attempt goes; None where nobody knows."""
        actor = self.teamspaces.find(teamspace)
        return None if actor is None else actor.tempo(job)

    async def until_quiet(self) -> None:
        """Wait until nothing runs."""
        while len(self.teamspaces):
            self._quiet = anyio.Event()
            await self._quiet.wait()

    async def _permit(self, ask: CallAsked, stopping: Callable[[], bool]) -> Permit:
        return await self.providers.of(ask.account).permit(ask, stopping)

    def _beat(self) -> bool:
        for actor in self.teamspaces:
            actor.beat()
        return len(self.teamspaces) > 0

    # -- what the dispatcher has carried out ------------------------------------------------------------------------

    def start(self, order: StartAttempt) -> None:
        """Run a job."""
        self.teamspaces.of(order.teamspace).start(order)
        self._watchdog.watch()
        job = self.dispatcher.scheduler.jobs.get(order.job)
        if order.number == 1 and job is not None:
            instant = self.clock.now().instant
            self.dispatcher.pace.started(max(0, instant - job.order) / SECOND, instant)
        self._announcer.started(order)

    def stop(self, order: StopAttempt) -> None:
        """Stop an attempt."""
        actor = self.teamspaces.find(order.teamspace)
        if actor is not None:
            actor.stop(order)

    def send(self, order: SendCall) -> None:
        """Hand a permit over."""
        self.providers.of(order.account).grant(order.call)

    def refuse(self, order: RefuseCall) -> None:
        """Tell that there is no permit."""
        actor = self.providers.find(order.account)
        if actor is not None:
            actor.refuse(order.call, order.reason)

    def warn(self, order: WarnStalled) -> None:
        """Tell people that a job stands still."""
        dispatcher = self.dispatcher
        teamspace = dispatcher.scheduler.teamspaces.names[order.teamspace]
        noticed = Instant(self.clock.now().wall)
        dispatcher.pace.stood_still(Stall(order.job, teamspace, noticed, order.seconds, order.killed))
        log.warning("job_stands_still", job=order.job, seconds=order.seconds, killed=order.killed)
        self._announcer.progressed(order.job)

    def recorded(self, records: Records) -> None:
        """Tell whoever listens what has become durable."""
        self._announcer.recorded(records)


def _first_line(error: BaseExceptionGroup[BaseException]) -> str:
    inner: BaseException = error
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return str(inner).splitlines()[0] if str(inner) else type(inner).__name__
