"""Enrichments as they are, on virtual time: what takes an hour is over in a moment.

Everything that decides is real: supervisor, dispatcher, scheduler, watchdog, attempts, the enrichment itself. Only what
is at the rim is not: the queue's store and the leads are in memory, a provider is a behaviour of tests/world that is
asked without HTTP, and the event loop never sleeps: where nothing is to be done before the next timer, its clock jumps.
"""

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final, Self, TypeVar
from urllib.parse import parse_qsl, urlsplit

import msgspec

from leadline.actors.announcer import Announcer
from leadline.actors.supervisor import Setting, Supervisor
from leadline.core.events import AccountLearned, NewJob
from leadline.core.model import SECOND, Counts, Family, Limits, Now, Rules
from leadline.features.tables.asking import Endpoint
from leadline.features.tables.columns import Cells, Column, ColumnType
from leadline.features.tables.enrich import Enrich
from leadline.features.tables.ports import (
    AnsweredCall,
    Answers,
    BulkOrder,
    Charge,
    CutOff,
    JobList,
    Order,
    Passed,
    PlacedOrder,
    Result,
    Table,
)
from leadline.features.tables.provider_modules import ProviderModule
from leadline.features.tables.requests import Access
from leadline.features.tables.selection import Database
from leadline.features.tables.tokens import Tokens
from leadline.ports.provider_client import Request, Response, Withdrawn
from leadline.ports.store import StoredJob
from leadline_protocol import messages as wire
from leadline_protocol.errors import JobReason, LeadReason
from leadline_protocol.ids import AccountName, Instant, JobId, LeadId, TableId
from tests.fakes.store import Disk, FakeStore
from tests.world import behaviours
from tests.world.behaviours import Behaviour, Plan

START: Final = 1_800_000_000 * SECOND
KEY: Final = "client:secret"
LATENCY_SECONDS: Final = 0.05
PATIENCE_SECONDS: Final = 90 * 86_400
"""Of the tests."""
T = TypeVar("T")


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing: time jumps instead."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits, and for no timer"
            self.seconds += max(timeout, 0.0) + 1e-7
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer."""

    def __init__(self) -> None:
        self.jumping = _Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run something on virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class Clock:
    """The loop's clock, as both of the daemon's."""

    def now(self) -> Now:
        instant = Instant(START + round(asyncio.get_running_loop().time() * SECOND))
        return Now(instant, instant)


class Seen(msgspec.Struct):
    """A request as a provider saw it."""

    seconds: float
    """Since the start."""
    method: str
    path: str
    who: tuple[str, ...]
    """The addresses in it."""
    plan: Plan

    @property
    def leads(self) -> int:
        """How many are named in it."""
        return len(self.who)


class Providers:
    """Providers without HTTP (`ports.provider_client.ProviderClient`), by the host of their address."""

    def __init__(self, behaviours: Mapping[str, Behaviour]) -> None:
        self._behaviours = behaviours
        self.log: dict[str, list[Seen]] = {name: [] for name in behaviours}

    async def send(
        self, request: Request, *, may_send: Callable[[], bool], began: Callable[[], None], beat: Callable[[], None]
    ) -> Response:
        if not may_send():
            raise Withdrawn("no leave")
        url = urlsplit(request.url)
        name = url.hostname or ""
        headers = {key.lower(): value for key, value in request.headers.items()}
        asked = behaviours.Request(request.method, url.path, dict(parse_qsl(url.query)), headers, request.body)
        await asyncio.sleep(LATENCY_SECONDS)
        now = Clock().now()
        plan = self._behaviours[name].respond(asked, behaviours.Now(now.instant, now.wall))
        self.log[name].append(Seen((now.instant - START) / SECOND, request.method, url.path, asked.leads, plan))
        if plan.stop == "hang_before_headers":
            await asyncio.Event().wait()
        await asyncio.sleep(plan.delay_us / SECOND)
        began()
        return Response(plan.status, dict(plan.headers), plan.body)


class Leads:
    """Leads and what is stored of jobs over them, in memory: as much of `ports.LeadStore` as an enrichment asks for."""

    def __init__(self, store: FakeStore, count: int) -> None:
        self.store = store
        self.cells: dict[LeadId, Cells] = {
            LeadId(n): {
                "email": f"person{n}@a.example",
                "name": f"person{n}@a.example",
                "first_name": "Person",
                "last_name": f"person{n}@a.example",
                "company": "A",
                "domain": "a.example",
            }
            for n in range(1, count + 1)
        }
        """Names are addresses, so that the log can tell whom a request is about that says nothing else."""
        self.results: dict[tuple[JobId, LeadId], Result] = {}
        self.kept: dict[tuple[JobId, int], BulkOrder] = {}
        self.tasks: dict[tuple[JobId, LeadId], PlacedOrder] = {}
        self.ledger: dict[tuple[JobId, LeadId, AccountName], Charge] = {}

    async def table(self, teamspace: str, name: str) -> Table:
        columns = tuple(Column(name, ColumnType.TEXT) for name in (*self.cells[LeadId(1)], "found", "found_by"))
        return Table(TableId(1), teamspace, name, columns, (), None)  # type: ignore[arg-type]  # nobody asks when

    async def list_of(self, job: JobId) -> JobList:
        return JobList(job, len(self.cells))

    async def chunk(self, job_list: JobList, chunk: int) -> Sequence[LeadId]:
        return () if chunk else tuple(self.cells)

    async def unsettled(self, job: JobId, leads: Sequence[LeadId]) -> Sequence[LeadId]:
        return [lead for lead in leads if (job, lead) not in self.results]

    async def leads(self, table: TableId, ids: Sequence[LeadId]) -> Mapping[LeadId, Cells]:
        return {lead: self.cells[lead] for lead in ids}

    async def orders(self, job: JobId) -> Mapping[LeadId, PlacedOrder]:
        return {lead: task for (of, lead), task in self.tasks.items() if of == job and (job, lead) not in self.results}

    async def answers(self, job: JobId, leads: Sequence[LeadId]) -> Sequence[Answers]:
        return [
            Answers(lead, account, charge.answer, charge.reason)
            for (of, lead, account), charge in self.ledger.items()
            if of == job and lead in leads
        ]

    async def bulk_orders(self, job: JobId) -> Sequence[BulkOrder]:
        return [order for (of, _), order in self.kept.items() if of == job]

    async def gone(self, job: JobId) -> Decimal:
        return sum((charge.credits for (of, *_), charge in self.ledger.items() if of == job), Decimal(0))

    async def skipped(self, job: JobId, reason: LeadReason) -> int:
        return sum(of == job and result.reason is reason for (of, _), result in self.results.items())

    async def cut_off(self, job: JobId) -> Sequence[CutOff]:
        calls = [call for _, call in sorted(self.store.disk.calls.items()) if call.row.job == job]
        ended = [call.row for call in calls if call.state not in {"sent", "unsent", "unknown"}]
        answered = {(row.lead, row.account): row.id for row in ended}
        return [
            CutOff(row.lead, call.cause, row.id, row.account, row.id > answered.get((row.lead, row.account), 0))
            for call, row in ((call, call.row) for call in calls)
            if call.state == "unknown"
        ]

    def work(self, job: JobId, number: int) -> "Work":
        return Work(self, job, number)


class Work:
    """A work transaction that cannot fail."""

    def __init__(self, leads: Leads, job: JobId, number: int) -> None:
        self._leads = leads
        self._job = job
        self._number = number

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def save(self, counts: Counts, activity: str, checkpoint: object) -> None:
        self._leads.store.progress(self._job, self._number, counts, activity)

    async def settle(self, table: Table, results: Sequence[Result]) -> None:
        for result in results:
            assert (self._job, result.lead) not in self._leads.results, "a lead is settled once"
            self._leads.results[self._job, result.lead] = result
            self._done(result.call)

    async def note(self, news: Sequence[Order | Passed]) -> None:
        for each in news:
            self._done(each.call)
            if isinstance(each, Order):
                placed = PlacedOrder(each.provider_task, each.ordered, each.account)
                self._leads.tasks[self._job, each.lead] = placed

    async def owe(self, run: JobId, teamspace: str, charges: Sequence[tuple[LeadId, Charge]]) -> None:
        for lead, charge in charges:
            before = self._leads.ledger.get((self._job, lead, charge.account))
            owed = charge.credits + (before.credits if before is not None else 0)
            self._leads.ledger[self._job, lead, charge.account] = msgspec.structs.replace(charge, credits=owed)

    async def may_order(self, order: BulkOrder, since: Instant, orders_max: int | None) -> bool:
        self._leads.kept[self._job, order.number] = order
        return True

    async def ordered(self, order: BulkOrder, call: AnsweredCall) -> None:
        self._leads.kept[self._job, order.number] = order
        self._done(call)

    async def delivered(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._leads.kept.pop((self._job, number), None)

    def _done(self, call: AnsweredCall | None) -> None:
        if call is not None:
            cost = None if call.cost is None else msgspec.json.encode(call.cost)
            self._leads.store.call_done(call.id, call.at, cost)


class Running:
    """A daemon that does enrichments only."""

    def __init__(self, start: Callable[[FakeStore], Supervisor], providers: Providers, leads: Leads) -> None:
        """`start` makes what a daemon consists of round a store."""
        self._start = start
        self.log: Final = providers.log
        self.leads: Final = leads
        self.store = leads.store
        self._reign()

    def _reign(self) -> None:
        self.supervisor = self._start(self.store)
        self._reigning = asyncio.ensure_future(self.supervisor.run())

    async def restart(self) -> None:
        """Kill it, and start it anew on what it has stored."""
        await self.kill()
        self.store = self.leads.store = FakeStore(self.store.disk)
        self._reign()
        await self.supervisor.until_ready()

    async def kill(self) -> None:
        """End it without any warning."""
        self.store.crash()
        self._reigning.cancel()
        await asyncio.gather(self._reigning, return_exceptions=True)

    async def submit(self, module: str, teamspace: str = "acme", *, output: str = "company") -> JobId:
        """Submit an enrichment of all leads by one output of a module."""
        submission = wire.Enrich(
            teamspace=teamspace,
            table="people",
            module=module,
            into={"found": "text"},
            params={"outputs": {"found": output}},
        )
        return await self._submit(submission)

    async def prompt(self, provider: str, prompt: str, teamspace: str = "acme") -> JobId:
        """Submit a prompt about all leads to a model."""
        params = {"provider": provider, "prompt": prompt}
        submission = wire.Enrich(
            teamspace=teamspace, table="people", module="ai_prompt", into={"found": "text"}, params=params
        )
        return await self._submit(submission)

    async def waterfall(self, *modules: str | Mapping[str, object], spend_cap: float | None = None) -> JobId:
        """Submit several modules in turn for one output, `company`; a model is told by its prompt."""
        members: list[object] = [
            {"module": each, "outputs": {"found": "company"}} if isinstance(each, str) else each for each in modules
        ]
        submission = wire.Enrich(
            teamspace="acme",
            table="people",
            module="waterfall",
            into={"found": "text", "found_by": "text"},
            params={"modules": members, "answered_by": "found_by"},
            spend_cap=spend_cap,
        )
        return await self._submit(submission)

    async def _submit(self, submission: wire.Enrich) -> JobId:
        new = NewJob(submission.teamspace, 2, msgspec.json.encode(submission))
        (receipt,) = await self.supervisor.dispatcher.submit([new])
        assert not isinstance(receipt, Exception), receipt
        return receipt.job

    async def job(self, job: JobId) -> StoredJob:
        """A job as stored."""
        stored = await self.store.job(job)
        assert stored is not None
        return stored

    async def until(self, job: JobId, *states: str) -> StoredJob:
        """Let time pass until a job is in one of these states."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while (stored := await self.job(job)).state not in states:
            now = asyncio.get_running_loop().time()
            assert now < deadline, stored
            await asyncio.sleep(max(1, now / 100))
        return stored

    async def until_waiting(self, job: JobId, reason: JobReason) -> Instant | None:
        """Let time pass until a job waits for this; until when it waits, where that is known."""
        while True:
            waits = await self.supervisor.dispatcher.look(
                lambda scheduler, now: scheduler.waits_of(scheduler.jobs[job], now.instant)
            )
            for wait in waits:
                if wait.reason is reason:
                    return wait.until
            await self.rest(1)

    async def rest(self, seconds: float) -> None:
        """Let so much time pass."""
        await asyncio.sleep(seconds)

    async def events(self, job: JobId) -> list[str]:
        """What happened to a job."""
        return [row.event for row in await self.store.history(job)]


@asynccontextmanager
async def daemon(
    modules: Mapping[str, tuple[ProviderModule, Behaviour]], leads: int, *, pace_per_second: float | None = None
) -> AsyncIterator[Running]:
    """A daemon with these providers, all of them evenly paced or none, and a table of so many leads."""
    endpoints = {
        name: Endpoint(AccountName(name), module, Access(f"http://{name}", KEY, module.settings, 60.0))
        for name, (module, _) in modules.items()
    }
    providers = Providers({name: behaviour for name, (_, behaviour) in modules.items()})
    memory = Leads(FakeStore(Disk(wall=lambda: Clock().now().wall)), leads)
    kind = Enrich(memory, Database(lambda: None), lambda: endpoints, Tokens())  # type: ignore[arg-type]  # as much as is asked for
    accounts = [
        AccountLearned(
            endpoint.account,
            tuple(endpoint.module.limits),
            flight_seconds=endpoint.module.flight_seconds,
            failed_count=endpoint.module.failed_count,
            pace_per_second=pace_per_second,
        )
        for endpoint in endpoints.values()
    ]
    setting = Setting(Rules({Family.TABLES: 8}, Limits({Family.TABLES: 1, Family.NOOP: 1})), {}, accounts)

    def start(store: FakeStore) -> Supervisor:
        return Supervisor(
            owner="test",
            place="here",
            store=store,
            clock=lambda _: Clock(),
            kinds=[kind],
            client=providers,
            setting=setting,
            announcer=Announcer(),
        )

    running = Running(start, providers, memory)
    await running.supervisor.until_ready()
    try:
        yield running
    finally:
        await running.kill()
