"""The kind `enrich`: columns filled lead by lead, by a provider's module or by a prompt to a model.

Some dozens of leads are on their way at a time; how fast they get on is the provider account's business, which grants
the permits of all jobs of all teamspaces. Each lead follows its own course (lead_course.py); what it brings is stored
by one writer per attempt (results.py). An attempt works through the list from its beginning, leaving out leads that
have a result: that is all there is to resuming.

A stop comes in two strengths. Told to stop, the attempt begins no new lead, no call waits for a permit any more,
calls in flight come to their end and what they bring is stored. Cancelled, it is gone at once; its calls in flight
are on record as cut off.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import count
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskGroup
from msgspec.structs import replace

from leadline.core.events import NOTHING, CallEnd
from leadline.core.model import Counts, Family, JobState, Now
from leadline.core.rate_limit import Cost
from leadline.features.tables.asking import Asker, Endpoint
from leadline.features.tables.bulk import ORDERS_AT_ONCE, BulkOrders, Reading, Settling
from leadline.features.tables.columns import BadValueError, declared_columns
from leadline.features.tables.credits import Budget, Purse, exact, price_of
from leadline.features.tables.due_leads import Due, DueLeads
from leadline.features.tables.enrichment_plan import LEADS_AT_ONCE, Endpoints, Plan, Source, plan_of
from leadline.features.tables.gathering import TOGETHER_MAX, Way
from leadline.features.tables.lead_course import Ask, Course, Pause, Settle, Turn
from leadline.features.tables.ports import (
    AnsweredCall,
    BulkOrder,
    Charge,
    CutOff,
    JobList,
    LeadStore,
    Order,
    Passed,
    PlacedOrder,
    Result,
    Table,
)
from leadline.features.tables.requests import Access
from leadline.features.tables.results import NO_CALL, Brought, CameBy, ResultWriter
from leadline.features.tables.selection import (
    Database,
    ahead_of,
    finished,
    list_of,
    prepare,
    skipped_by_guard,
    table_of,
)
from leadline.features.tables.tokens import NoToken, Tokens
from leadline.features.tables.waterfall import Said, is_answer, outcome
from leadline.features.tables.waterfall_orders import WaterfallOrders
from leadline.ports.provider_client import Ambiguous, BrokenResponse, Unsent, Withdrawn
from leadline.ports.work import (
    AccountClosed,
    Attempt,
    Call,
    ChainNotes,
    Finished,
    NoPermit,
    Parked,
    Prepared,
    Rerun,
    Stopped,
)
from leadline_protocol import messages as wire
from leadline_protocol.errors import JobReason, LeadReason
from leadline_protocol.ids import AccountName, Instant, JobId, LeadId

_SUBMISSION = msgspec.json.Decoder(wire.Enrich)


class Enrich:
    """Enrichments (`ports.work.JobKind`)."""

    name = "enrich"
    family = Family.TABLES

    def __init__(self, leads: LeadStore, database: Database, endpoints: Endpoints, tokens: Tokens) -> None:
        self._leads = leads
        self._database = database
        self._endpoints = endpoints
        self._tokens = tokens

    async def prepare(
        self, teamspace: str, submission: wire.Submission, *, chain: ChainNotes | None, rerun: Rerun | None
    ) -> Prepared:
        """Check the module, what it is told, the columns and the filter. Raises Refused."""
        assert isinstance(submission, wire.Enrich)
        table = await self._leads.table(teamspace, submission.table)
        ahead = ahead_of(chain, submission.table)
        columns = {column.name: column for column in (table.columns if table else ())} | ahead.columns
        plan_of(teamspace, submission, columns, self._endpoints(), open_table=ahead.uploaded)
        return await prepare(self._leads, teamspace, submission, submission.into, chain, rerun, first=submission.first)

    async def run(self, attempt: Attempt) -> Finished:
        """Ask about every lead that has no result yet. Raises Stopped."""
        submission = _SUBMISSION.decode(attempt.job.payload)
        table = await table_of(self._leads, attempt, submission.table, declared_columns(submission.into))
        columns = {column.name: column for column in table.columns}
        plan = plan_of(attempt.job.teamspace, submission, columns, self._endpoints())
        frozen = await list_of(self._leads, attempt, table, submission, submission.first)
        if (skipped := skipped_by_guard(submission, frozen.total)) is not None:
            return skipped
        counts = attempt.job.counts if attempt.job.counts.total else Counts(total=frozen.total)
        attempt.doing(f"asking {plan.named()}")
        job = attempt.job.id
        cap = None if submission.spend_cap is None else exact(submission.spend_cap)
        budget = Budget(cap, await self._leads.gone(job) if cap is not None else NOTHING)
        run = job if attempt.job.rerun_of is None else await self._leads.run_of(job)
        access = partial(_access, self._endpoints, attempt.job.teamspace)
        return await _Enriching(
            self._leads, self._database, attempt, table, plan, access, self._tokens, frozen, counts, budget, run
        ).run()


def _access(endpoints: Endpoints, teamspace: str, endpoint: Endpoint) -> Access:
    """How an account is reached now: a key that was renewed counts from the next call, also of a job that runs."""
    provider = endpoints().get(endpoint.account.partition("@")[0])
    now = endpoint if provider is None else provider.of(teamspace)
    return now.access if now.account == endpoint.account else endpoint.access


class _Enriching:
    """One attempt at an enrichment."""

    def __init__(
        self,
        leads: LeadStore,
        database: Database,
        attempt: Attempt,
        table: Table,
        plan: Plan,
        access: Callable[[Endpoint], Access],
        tokens: Tokens,
        frozen: JobList,
        counts: Counts,
        budget: Budget,
        run: JobId,
    ) -> None:
        """`run`: the first of the job and its reruns."""
        self._tokens = tokens
        self._leads = leads
        self._database = database
        self._attempt = attempt
        self._table = table
        self._plan = plan
        self._access = access
        self._frozen = frozen
        self._budget = budget
        self._writer = ResultWriter(leads, attempt, table, counts, self._records, run)
        self._due = DueLeads(leads, attempt, table, plan, frozen, run, self._settle)
        self._accounts: Final = frozenset(source.endpoint.account for source in plan.sources)
        self._at_once: Final = min(LEADS_AT_ONCE, plan.places())
        self._asked: Final = anyio.Semaphore(self._at_once, fast_acquire=True)
        """Leads that are asked about by themselves, where others wait to be ordered together."""
        self._orders: WaterfallOrders
        self._refused: set[AccountName] = set()

    async def run(self) -> Finished:
        attempt = self._attempt
        cut_off: dict[LeadId, list[CutOff]] = {}
        for cut in await self._leads.cut_off(attempt.job.id):
            cut_off.setdefault(cut.lead, []).append(cut)
        async with anyio.create_task_group() as writing:
            writing.start_soon(self._writer.run)
            async with anyio.create_task_group() as asking:
                if len(self._plan.sources) == 1 and self._plan.sources[0].endpoint.module.bulk is not None:
                    await self._order(asking, cut_off)
                else:
                    await self._ask_each(asking, cut_off)
            self._writer.close()
        counts = self._writer.counts
        if self._hopeless:
            message = f"{self._plan.named()} refused the key"
            return Finished(JobState.FAILED, counts, JobReason.INVALID_KEY, message)
        if counts.pending:
            raise Stopped("told to stop")
        cap = self._budget.cap
        if cap is not None and (left_out := await self._leads.skipped(attempt.job.id, LeadReason.SPEND_CAP)):
            message = f"the spend cap of {cap:f} credits was reached; {left_out:,} leads were not asked about"
            return replace(finished(counts), reason=JobReason.SPEND_CAP, message=message)
        return finished(counts)

    async def _ask_each(self, asking: TaskGroup, cut_off: Mapping[LeadId, Sequence[CutOff]]) -> None:
        """Have every lead that is due followed by itself, by as many askers as leads are on their way at a time."""
        orders = await self._leads.orders(self._attempt.job.id)
        purses = self._purses_of(orders)
        page = deque(await self._resume_orders(asking, cut_off))
        pages, turn = self._due.pages(frozenset(due.lead for due in page)), anyio.Lock(fast_acquire=True)

        async def following() -> Due | None:
            while not page and not self._over:
                async with turn:  # the way to the next may be long: none of those who wait here goes it after a stop
                    if not page and not self._over:
                        more = await anext(pages, None)
                        if more is None:
                            return None
                        page.extend(more)
            return None if self._over else page.popleft()

        async def ask(way: Way) -> None:
            while (due := await following()) is not None:
                lead = due.lead
                purse = purses.pop(lead, None) or Purse(self._budget)
                await self._ask_about(due, orders.get(lead), cut_off.get(lead, []), purse, way)
                way.leads_to(0)
            self._orders.gathering.no_more()
            way.ends()

        askers = self._at_once + min(TOGETHER_MAX, ORDERS_AT_ONCE * self._plan.records_max())
        for way in [self._orders.gathering.way() for _ in range(askers)]:  # all are on the way before any sets out
            asking.start_soon(ask, way)

    async def _order(self, asking: TaskGroup, cut_off: Mapping[LeadId, Sequence[CutOff]]) -> None:
        """Have the leads that are due ordered in bulk."""
        (source,) = self._plan.sources
        kept = await self._leads.bulk_orders(self._attempt.job.id)
        account = source.endpoint.account
        orders = self._orders_at(source, partial(self._conclude, account), _numbers_after(kept))
        due = self._due.pages(frozenset(lead for order in kept for lead in order.leads))
        pairs = ((each.lead, each.cells) async for page in due for each in page)
        await orders.run(asking, kept, pairs, cut_off, partial(self._refused.add, account))

    async def _resume_orders(self, asking: TaskGroup, cut_off: Mapping[LeadId, Sequence[CutOff]]) -> Sequence[Due]:
        """Go on with the orders of earlier attempts; their leads."""
        leads, job = self._leads, self._attempt.job.id
        kept = await leads.bulk_orders(job) if self._plan.records_max() else ()
        numbers = _numbers_after(kept)
        orders = {
            source.endpoint.account: self._orders_at(source, partial(self._came, source.endpoint.account), numbers)
            for source in self._plan.sources
            if source.endpoint.module.bulk is not None
        }
        accounts = [source.endpoint.account for source in self._plan.sources]
        self._orders = WaterfallOrders(asking, accounts, orders, self._refused.add)
        ordered: list[Due] = []
        for order in kept:
            if order.account in orders:
                there = await leads.leads(self._table.id, await leads.unsettled(job, order.leads))
                answers = await self._due.answers(list(there))
                ordered += (Due(lead, cells, answers.get(lead, {}), order.account) for lead, cells in there.items())
                own = [cut for cut in cut_off.get(order.leads[0], ()) if cut.account == order.account]
                self._orders.resume(order, there, own)
        return ordered

    def _orders_at(self, source: Source, settle: Settling, numbers: Iterator[int]) -> BulkOrders:
        """Who makes the orders at a source."""
        account = source.endpoint.account
        return BulkOrders(
            self._leads,
            self._attempt,
            self._table,
            source.endpoint,
            Reading(source.values, partial(source.cells, self._plan.into)),
            self._writer,
            settle,
            partial(self._access, source.endpoint),
            self._tokens,
            partial(self._permit, account),
            lambda: account in self._refused,
            self._budget,
            numbers,
        )

    async def _came(self, account: AccountName, lead: LeadId, end: Settle, by: CameBy = NO_CALL) -> None:
        """Keep what an order of a waterfall has brought for a lead, and tell it whoever follows that."""
        if not _ends(end) and not self._orders.awaits(account, lead):
            end = Settle("skipped", LeadReason.DELETED)  # between two attempts
        await self._conclude(account, lead, end, by)
        self._orders.came(account, lead, end)

    @property
    def _over(self) -> bool:
        """Whether no lead is begun any more."""
        return self._attempt.stopping or self._hopeless

    @property
    def _hopeless(self) -> bool:
        """Whether everybody who might be asked has refused the key."""
        return self._accounts <= self._refused

    def _purses_of(self, orders: Mapping[LeadId, PlacedOrder]) -> dict[LeadId, Purse]:
        """What stays set aside for orders that are placed: it may be due with their results."""
        modules = {source.endpoint.account: source.endpoint.module for source in self._plan.sources}
        return {
            lead: Purse(self._budget, price_of(module, first=False))
            for lead, order in orders.items()
            if (module := modules.get(order.account or self._plan.sources[0].endpoint.account)) is not None
        }

    async def _records(self, amount: int) -> None:
        """Wait for leave to write results; what has been brought is stored also when the attempt is to stop."""
        if self._attempt.stopping:
            return
        try:
            await self._database.records(self._attempt, amount, self._frozen.total)
        except Stopped:
            return

    async def _settle(self, lead: LeadId, end: Settle, by: CameBy = NO_CALL) -> None:
        """Hand a lead's end to the writer."""
        result = Result(lead, end.state, end.reason, end.detail, end.cells, by.answered, by.charge)
        await self._writer.put(Brought(result, by.call, by.how))

    # -- one lead ---------------------------------------------------------------------------------------------------

    async def _ask_about(
        self, due: Due, order: PlacedOrder | None, cut_off: Sequence[CutOff], purse: Purse, way: Way
    ) -> None:
        """Bring one lead to its end, or as far as a stop lets it."""
        try:
            if len(self._plan.sources) == 1:
                await self._ask(due, self._plan.sources[0], order, cut_off, purse)
            else:
                await self._ask_in_turn(due, order, cut_off, purse, way)
        except Stopped:
            return
        finally:
            purse.empty()

    async def _ask_in_turn(
        self, due: Due, order: PlacedOrder | None, cut_off: Sequence[CutOff], purse: Purse, way: Way
    ) -> None:
        """Go from source to source until one has a result. Raises Stopped."""
        said: list[Said] = []
        parked: list[tuple[int, Source]] = []
        placed = order.account if order is not None else due.ordered
        sources = self._plan.sources

        async def ask(place: int, source: Source, onward: int, *, patient: bool) -> Settle | None:
            if source.endpoint.module.bulk is not None:
                place += patient * len(sources)
                return await self._orders.ask(place, due.lead, due.cells, way, onward)
            way.leads_to(onward)
            async with self._asked:
                return await self._ask(due, source, order, cut_off, purse, patient=patient)

        # Who has an order already is asked for it first: it may be one that others were passed over for.
        in_turn = sorted(enumerate(sources), key=lambda each: each[1].endpoint.account != placed)
        for asked, (place, source) in enumerate(in_turn, 1):
            account = source.endpoint.account
            before = due.answers.get(account)
            if before is not None and before.answer == "none":
                said.append(Said(account, before.reason or LeadReason.NOT_FOUND))
            elif missing := source.missing(due.cells):
                said.append(Said(account, LeadReason.MISSING_INPUT, ", ".join(missing)))
            else:
                onward = min((other for other, _ in in_turn[asked:]), default=len(sources))
                end = await ask(place, source, onward, patient=False)
                if end is None:
                    parked.append((place, source))
                elif _ends(end):
                    return
                else:
                    said.append(Said(account, end.reason or LeadReason.NOT_FOUND, end.detail))
        usable = [each for each in parked if each[1].endpoint.account not in self._refused]
        if usable and not any(is_answer(each.reason) for each in said):
            # Nobody else can be asked: as with a single provider, the lead waits until this one is well again.
            place, source = usable[0]
            end = await ask(place, source, self._orders.gathering.end, patient=True)
            if end is not None:
                if _ends(end):
                    return
                parked.remove(usable[0])
                said.append(Said(source.endpoint.account, end.reason or LeadReason.NOT_FOUND, end.detail))
        if not self._hopeless:
            await self._settle(due.lead, outcome(said, [source.endpoint.account for _, source in parked]))

    async def _ask(
        self,
        due: Due,
        source: Source,
        order: PlacedOrder | None,
        cut_off: Sequence[CutOff],
        purse: Purse,
        *,
        patient: bool = True,
    ) -> Settle | None:
        """Follow a lead's course at one source; None where that cannot be asked. Raises Stopped."""
        account = source.endpoint.account
        task = order.task if order is not None and order.account in {"", account} else None
        own = [cut for cut in cut_off if cut.account == account]
        course = source.course()
        if task is not None and order is not None:
            course = source.course(task, self._attempt.now() - order.ordered)
        answered = task is not None or account in due.answers
        asker = source.asker(due.cells, self._plan.into, course, answered=answered)
        open_id = next((str(cut.call) for cut in own if cut.open), None)
        turn = course.begin([cut.cause for cut in own], open_id)
        try:
            if isinstance(turn, Settle):
                await self._follow(due.lead, asker, turn)
            while not isinstance(turn, Settle):
                if isinstance(turn, Pause):
                    until = Instant(self._attempt.now() + turn.microseconds)
                    await self._attempt.wait(turn.reason, until, {"provider": account})
                    turn = turn.then
                turn = await self._call(due.lead, asker, course, turn, purse, patient=patient or turn.what == "poll")
        except AccountClosed:
            self._refused.add(account)
            return None
        except Parked:
            return None
        finally:
            purse.empty()
        return turn

    async def _call(self, lead: LeadId, asker: Asker, course: Course, ask: Ask, purse: Purse, *, patient: bool) -> Turn:
        """Make one call, and say what follows. Raises Stopped, AccountClosed, Parked."""
        attempt = self._attempt
        jitter = random.random()  # noqa: S311  spreads retries; nobody gains by guessing it
        endpoint = asker.endpoint
        price = asker.price(ask)
        if not await purse.fill(price):
            if attempt.stopping:
                raise Stopped("told to stop")
            return await self._follow(lead, asker, Settle("skipped", LeadReason.SPEND_CAP))
        perhaps = NOTHING if ask.what == "poll" else price  # a poll that is cut off orders nothing
        permit = partial(self._permit, endpoint.account, lead, perhaps, patient=patient)
        try:
            call = await self._tokens.permit(endpoint, self._access(endpoint), attempt, asker.cost(ask), permit)
        except NoToken as error:
            return await self._follow(lead, asker, course.broke(error.reason, error.detail, jitter))
        except NoPermit as error:
            turn = course.failed(LeadReason.NEVER_FITS, str(error))
            return await self._follow(lead, asker, turn)
        try:
            call_id = str(call.id) if ask.what == "poll" else course.id_for(str(call.id))
            access = self._tokens.access(endpoint, self._access(endpoint))
            request = asker.request(ask, access, call_id)
        except BadValueError as fault:
            call.end(CallEnd(unsent=True))
            turn = Settle("skipped", LeadReason.MISSING_INPUT, str(fault))
            return await self._follow(lead, asker, turn)
        try:
            response = await call.send(request)
        except Withdrawn:
            call.end(CallEnd(unsent=True))
            if attempt.stopping:
                raise Stopped("told to stop") from None
            return ask
        except Unsent as error:
            turn = course.broke(LeadReason.UNREACHABLE, str(error), jitter)
            return await self._follow(lead, asker, turn, CameBy(call, CallEnd(unsent=True)))
        except Ambiguous as error:
            purse.pay(perhaps)
            return await self._follow(lead, asker, course.lost(str(error), jitter), CameBy(call, CallEnd(lost=True)))
        except BrokenResponse as error:
            purse.pay(perhaps)
            turn = course.broke(LeadReason.BAD_RESPONSE, str(error), jitter)
            return await self._follow(lead, asker, turn, CameBy(call, CallEnd(failed=True, broken=True)))
        course.answered()
        task, at = course.task, attempt.now()
        heard = asker.hear(ask, response, course, Now(at, attempt.wall()), jitter)
        purse.pay(heard.charge)
        answered = AnsweredCall(call.id, at, heard.end.cost) if heard.good else None
        if heard.turn is None:
            if self._tokens.refused(endpoint, access):
                call.end(CallEnd(failed=True))
                return ask
            call.end(heard.end)
            raise AccountClosed(f"{endpoint.account} refused the key")
        self._tokens.worked(endpoint)
        charge = Charge(endpoint.account, heard.charge, attempt.wall(), "open") if heard.charge else None
        if course.task is not None and course.task != task:
            assert answered is not None, "an order that was taken on is a good answer"
            order = Order(lead, course.task, at, asker.endpoint.account, answered, charge)
            await self._writer.put(Brought(order, call, heard.end))
            return heard.turn
        if ask.what == "poll" and isinstance(heard.turn, Pause) and heard.good:
            attempt.moved()
        return await self._follow(lead, asker, heard.turn, CameBy(call, heard.end, answered, charge))

    async def _follow(self, lead: LeadId, asker: Asker, turn: Turn, by: CameBy = NO_CALL) -> Turn:
        """End a call: with what it brought (`by.answered`), or by itself where it brought nothing."""
        if isinstance(turn, Settle):
            await self._conclude(asker.endpoint.account, lead, turn, by)
        elif by.charge is not None:
            await self._writer.put(Brought(Passed(lead, by.charge, by.answered), by.call, by.how))
        elif by.call is not None:
            by.call.end(by.how if by.answered is None else replace(by.how, done=True))
        return turn

    async def _conclude(self, account: AccountName, lead: LeadId, end: Settle, by: CameBy = NO_CALL) -> None:
        """Keep how a lead has ended at an account, which may be its own end (`bulk.Settling`)."""
        several = len(self._plan.sources) > 1
        charge = by.charge
        if charge is None and several:  # kept all the same: whether this one is through, and who had the result
            charge = Charge(account, NOTHING, self._attempt.wall(), "open")
        if charge is not None:
            charge = replace(charge, answer="result" if end.state == "done" else "none", reason=end.reason)
        if not several or _ends(end):
            if end.state == "done" and self._plan.answered_by is not None:
                end = replace(end, cells={**end.cells, self._plan.answered_by: account.partition("@")[0]})
            await self._settle(lead, end, by if charge is None else replace(by, charge=charge))
        elif charge is not None and is_answer(end.reason):
            await self._writer.put(Brought(Passed(lead, charge, by.answered), by.call, by.how))

    async def _permit(
        self, account: AccountName, lead: LeadId, credits_max: Decimal, cost: Cost, *, patient: bool = True
    ) -> Call:
        """Wait for a permit; those who wait while the key is refused hear it from the scheduler."""
        call = await self._attempt.permit(account, lead, cost, credits_max=credits_max, patient=patient)
        if account in self._refused:
            call.end(CallEnd(unsent=True))
            raise AccountClosed("the key was refused")
        return call


def _ends(end: Settle) -> bool:
    """Whether a lead that has come to this at one of several sources has come to its own end."""
    return end.state in {"done", "unknown"} or end.reason is LeadReason.DELETED


def _numbers_after(kept: Sequence[BulkOrder]) -> Iterator[int]:
    """The numbers of a job's next orders."""
    return count(max((order.number for order in kept), default=0) + 1)
