"""Bulk orders: one job at the provider for many leads, and each lead's result found again in what comes of it.

    keep the order ──▶ send it ──▶ keep the provider's name for it ──▶ poll ──▶ read page by page ──▶ forget it

To the rules an order is what a lead is elsewhere: it follows a `Course`, so throttles, server errors, lost calls, polls
and patience are decided in one place. The complication is that an order lives longer than a call, and often longer than
an attempt. So it is stored before it is sent, with the leads that it is for; that is how after a crash nothing is
ordered twice that the provider has taken on, and how an order of which nobody knows whether it arrived can be repeated
as it was, or left to a person, under the module's `ambiguous`. Results are settled as they are read; what is read twice
is settled once.

While the provider works the attempt waits for a known reason (`bulk_result`), which is no stall however long it takes.
Where the module says that it takes long anyway (`poll.first_seconds`), the slot is given back meanwhile.

A lead that the results do not name has failed: somebody should see it. One that they name without a value is not found.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Final, Literal, Protocol

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct
from msgspec.structs import replace

from leadline.core.events import NOTHING, CallEnd
from leadline.core.model import SECOND, Now
from leadline.core.rate_limit import Cost
from leadline.features.tables import responses
from leadline.features.tables.asking import Endpoint, Heard, course_at, heard
from leadline.features.tables.columns import BadValueError, Cells, JsonValue, cell_text
from leadline.features.tables.credits import Budget, Purse, charge_of, price_of
from leadline.features.tables.lead_course import Ask, Course, Pause, Settle, Turn
from leadline.features.tables.ports import AnsweredCall, BulkOrder, Charge, CutOff, LeadStore, Table
from leadline.features.tables.provider_modules import RECORD, Bulk, ProviderModule, selected
from leadline.features.tables.python_modules import SCHEME
from leadline.features.tables.requests import Access, order_request, poll_request, read_request, with_settings
from leadline.features.tables.results import NO_CALL, Brought, CameBy, Delivered, ResultWriter
from leadline.features.tables.templates import fill_json, parse_json_template
from leadline.features.tables.tokens import NoToken, Tokens
from leadline.ports.provider_client import Ambiguous, BrokenResponse, Request, Response, Unsent, Withdrawn
from leadline.ports.work import AccountClosed, Attempt, Call, NoPermit, Parked, Stopped
from leadline_protocol.errors import JobReason, LeadReason
from leadline_protocol.ids import Instant, LeadId

ORDERS_AT_ONCE: Final = 8
"""Orders of one job on their way at a time."""

PLACE_SECONDS: Final = 5
"""How long an order waits before it looks again whether the provider has a place for it."""

MISSING: Final = Settle("failed", LeadReason.BAD_RESPONSE, "the results of its order do not name it")

_GOOD: Final = CallEnd()


# -- pure --------------------------------------------------------------------------------------------------------------


def order_cost(cost: Cost, leads: int) -> Cost:
    """What an order for so many leads takes: it is one request and one job, and each lead is a lead and a record."""
    return replace(cost, record=cost.record * leads, lead=cost.lead * leads)


def orders_of(module: ProviderModule, leads: int) -> int:
    """How many orders there are for so many leads."""
    return -(-leads // bulk_of(module).records_max)


def orders_cost(module: ProviderModule, leads: int) -> Cost:
    """What the orders for so many leads take together, polls and pages of results aside."""
    orders = orders_of(module, leads)
    cost = order_cost(module.cost, leads)
    return replace(cost, request=cost.request * orders, job=cost.job * orders, token=cost.token * orders)


def records_of(
    module: ProviderModule, access: Access, leads: Sequence[tuple[LeadId, Cells]]
) -> tuple[list[JsonValue], Sequence[str]]:
    """The leads as the order lists them, and the key of each."""
    bulk = bulk_of(module)
    names = {*module.inputs, *module.optional_inputs, RECORD, *with_settings(access, {})}
    record = parse_json_template(bulk.record, names)
    key = parse_json_template(bulk.key, names)
    values = [with_settings(access, {**cells, RECORD: str(lead)}) for lead, cells in leads]
    return [fill_json(record, each) for each in values], [cell_text(fill_json(key, each)) for each in values]


def bulk_of(module: ProviderModule) -> Bulk:
    """The part of a module that is about bulk orders."""
    assert module.bulk is not None, f"{module.name} takes no bulk orders"
    return module.bulk


class Delivery:
    """Whose results have come: items of one page after the other, each given to its lead once."""

    def __init__(self, leads: Sequence[LeadId], keys: Sequence[str], wanted: Sequence[LeadId]) -> None:
        """`wanted` are those of the leads that have no result yet."""
        self._leads = leads
        self._by_key: dict[str, list[LeadId]] = {}
        for lead, key in zip(leads, keys, strict=True):
            self._by_key.setdefault(_alike(key), []).append(lead)
        self.missing = dict.fromkeys(wanted)
        """The leads that have no result, in the order of the list."""
        self._seen = 0

    def take(self, bulk: Bulk, items: Sequence[JsonValue]) -> list[tuple[LeadId, JsonValue]]:
        """The items of a page that are the first to name a lead that waits, with that lead."""
        found: list[tuple[LeadId, JsonValue]] = []
        for place, item in enumerate(items, self._seen):
            for lead in self._named(bulk, item, place):
                if lead in self.missing:
                    del self.missing[lead]
                    found.append((lead, item))
        self._seen += len(items)
        return found

    def _named(self, bulk: Bulk, item: JsonValue, place: int) -> Sequence[LeadId]:
        if bulk.results.key is None:
            return self._leads[place : place + 1]
        return self._by_key.get(_alike(cell_text(selected(bulk.results.key, item))), ())


def _alike(key: str) -> str:
    """A key as it is compared: providers trim what they repeat, and write addresses in small letters."""
    return key.strip().casefold()


class OrderAsker:
    """Asks about an order (`asking.Asker`, but for the results of many, which whoever ordered takes)."""

    def __init__(self, endpoint: Endpoint, leads: Sequence[tuple[LeadId, Cells]], course: Course) -> None:
        self.endpoint = endpoint
        self._leads = leads
        self._course = course

    def cost(self, ask: Ask) -> Cost:
        """What a request takes of the account's limits."""
        module = self.endpoint.module
        match ask.what:
            case "poll":
                assert module.poll is not None, "only modules with polls are polled"
                return module.poll.cost
            case "read":
                return bulk_of(module).results.cost
            case _:
                return order_cost(module.cost, len(self._leads))

    def request(self, ask: Ask, access: Access, call_id: str) -> Request:
        """The request for a turn. Raises BadValueError where a value cannot stand in it."""
        module, task = self.endpoint.module, self._course.task
        if ask.what == "start":
            records, _ = records_of(module, access, self._leads)
            return order_request(module, access, records, call_id=call_id)
        assert task is not None, "only what was ordered is asked for"
        if ask.what == "poll":
            return poll_request(module, access, {}, task=task, call_id=call_id)
        paging = bulk_of(module).results.paging
        first = "" if paging is None or paging.count is None else str(paging.first)
        return read_request(module, access, task=task, page=first if ask.page is None else ask.page, call_id=call_id)

    def price(self, ask: Ask) -> Decimal:  # noqa: ARG002  the same until its results are here
        """What the provider may be owed for it at most."""
        return price_of(self.endpoint.module) * len(self._leads)

    def hear(self, ask: Ask, response: Response, course: Course, now: Now, jitter: float) -> Heard:
        """What an answer comes to that holds no results."""
        return heard(self.verdict(ask, response, now.wall), course, now.instant, jitter)

    def verdict(self, ask: Ask, response: Response, wall: Instant, pages_read: int = 0) -> responses.Verdict:
        """What an answer means, after so many pages of results."""
        phase = _PHASES.get(ask.what, "start")
        return responses.read_response(self.endpoint.module, response, phase, wall, pages_read=pages_read)


_PHASES: Final[Mapping[str, responses.Phase]] = {"poll": "poll", "read": "read"}


# -- the attempt -------------------------------------------------------------------------------------------------------


class Reading(Struct, frozen=True):
    """What an enrichment makes of values, and of leads."""

    values: Callable[[Cells], Cells]
    """A lead's cells → the module's inputs."""
    cells: Callable[[dict[str, JsonValue]], Cells]
    """The module's outputs → cells. Raises BadValueError."""


class Settling(Protocol):
    """Takes what an order has brought for one of its leads."""

    async def __call__(self, lead: LeadId, end: Settle, by: CameBy = NO_CALL) -> None:
        """Keep how a lead has ended."""
        ...


class Permitting(Protocol):
    """Waits for leave to make a request."""

    async def __call__(self, lead: LeadId, credits_max: Decimal, cost: Cost, *, patient: bool) -> Call:
        """Leave for one that may come to so many credits. Raises what `ports.work.Attempt.permit` does."""
        ...


class _Order:
    """An order on its way."""

    def __init__(
        self,
        kept: BulkOrder,
        endpoint: Endpoint,
        course: Course,
        leads: Sequence[tuple[LeadId, Cells]],
        purse: Purse,
        *,
        patient: bool = True,
    ) -> None:
        """Who is not `patient` does not wait for a parked account before it has ordered."""
        self.kept = kept
        self.patient: Final = patient
        self.purse: Final = purse
        self.course: Final = course
        self.leads: Final = leads
        self.asker: Final = OrderAsker(endpoint, leads, course)
        self.delivery: Delivery
        self.pages_read = 0

    @property
    def first(self) -> LeadId:
        """The lead under which its calls are stored."""
        return self.kept.leads[0]


class _InHalvesError(Exception):
    """The order is to be made again as two."""

    def __init__(self, *, too_large: bool) -> None:
        """`too_large`: it costs more than a limit ever allows, and fewer leads may fit."""
        super().__init__("in halves")
        self.too_large: Final = too_large


class BulkOrders:
    """The orders of one attempt at an enrichment with one account."""

    def __init__(
        self,
        leads: LeadStore,
        attempt: Attempt,
        table: Table,
        endpoint: Endpoint,
        reading: Reading,
        writer: ResultWriter,
        settle: Settling,
        access: Callable[[], Access],
        tokens: Tokens,
        permit: Permitting,
        closed: Callable[[], bool],
        budget: Budget,
        numbers: Iterator[int],
    ) -> None:
        """`closed` says whether the account can be used no more; `numbers` are those of the job's next orders."""
        self._leads = leads
        self._attempt = attempt
        self._table = table
        self._endpoint = endpoint
        self._module = endpoint.module
        self._bulk = bulk_of(endpoint.module)
        self._reading = reading
        self._writer = writer
        self._settle = settle
        self._access = access
        self._tokens = tokens
        self._permit = permit
        self._closed = closed
        self._budget = budget
        self._price = price_of(endpoint.module)
        self._places = anyio.Semaphore(ORDERS_AT_ONCE)
        self.size = self._bulk.records_max
        """So many leads are ordered together."""
        self._numbers = numbers
        self._divides = endpoint.module.base_url.startswith(f"{SCHEME}://")
        """Whether an order that has failed is made again in halves: one of its leads is to blame, and no other is to
        fail. That is known of code, where it costs nothing.
        """

    async def run(
        self,
        tasks: TaskGroup,
        kept: Sequence[BulkOrder],
        due: AsyncIterator[tuple[LeadId, Cells]],
        cut_off: Mapping[LeadId, Sequence[CutOff]],
        failed: Callable[[], None],
    ) -> None:
        """Go on with the orders that earlier attempts have kept, and order what is due and in none of them.

        `failed` is called when the account's key was refused.
        """

        async def follow(begin: Callable[[], Awaitable[None]]) -> None:
            try:
                await begin()
            except Stopped:
                return
            except AccountClosed:
                failed()
            finally:
                self._places.release()

        async def start(begin: Callable[[], Awaitable[None]]) -> bool:
            await self._places.acquire()
            if self._attempt.stopping or self._closed():
                self._places.release()
                return False
            tasks.start_soon(follow, begin)
            return True

        for order in kept:
            calls = cut_off.get(order.leads[0], ())
            if not await start(lambda order=order, calls=calls: self._resume(order, calls)):  # type: ignore[misc]
                return
        batch: list[tuple[LeadId, Cells]] = []
        async for lead, cells in due:
            batch.append((lead, self._reading.values(cells)))
            if len(batch) >= self.size:
                if not await start(lambda batch=batch: self._order(batch)):  # type: ignore[misc]
                    return
                batch = []
        if batch:
            await start(lambda: self._order(batch))

    async def order(self, leads: Sequence[tuple[LeadId, Cells]], *, patient: bool) -> None:
        """Order these leads, given by their cells. Raises Stopped, AccountClosed; Parked where it is not patient."""
        async with self._places:
            if self._attempt.stopping:
                raise Stopped("told to stop")
            await self._order([(lead, self._reading.values(cells)) for lead, cells in leads], patient=patient)

    async def resume(self, kept: BulkOrder, cut_off: Sequence[CutOff]) -> None:
        """Go on with an order that an earlier attempt has kept. Raises Stopped, AccountClosed."""
        async with self._places:
            if self._attempt.stopping:
                raise Stopped("told to stop")
            await self._resume(kept, cut_off)

    # -- one order --------------------------------------------------------------------------------------------------

    async def _order(self, leads: Sequence[tuple[LeadId, Cells]], *, patient: bool = True) -> None:
        """Order a batch of leads that are in no order yet."""
        purse = Purse(self._budget)
        leads = await self._affordable(leads, purse)
        if not leads:
            return
        account = self._endpoint.account
        kept = BulkOrder(next(self._numbers), account, tuple(lead for lead, _ in leads), None, self._attempt.now())
        await self._keep(kept)
        course = course_at(self._module)
        order = _Order(kept, self._endpoint, course, leads, purse, patient=patient)
        try:
            await self._carry_out(order, course.begin([]))
        except (Parked, AccountClosed):
            purse.empty()
            if course.task is None:
                await self._drop(order)
            raise

    async def _affordable(self, leads: Sequence[tuple[LeadId, Cells]], purse: Purse) -> Sequence[tuple[LeadId, Cells]]:
        """As many of the leads as there are credits for, which are set aside; the others are skipped.

        Raises Stopped.
        """
        wanted = len(leads)
        while wanted and not await purse.fill(self._price * wanted):
            if self._attempt.stopping:
                raise Stopped("told to stop")
            wanted = min(wanted - 1, int(self._budget.room() // self._price))
        for lead, _ in leads[wanted:]:
            await self._settle(lead, Settle("skipped", LeadReason.SPEND_CAP))
        return leads[:wanted]

    async def _resume(self, kept: BulkOrder, cut_off: Sequence[CutOff]) -> None:
        """Go on with an order that an earlier attempt has kept."""
        found = await self._leads.leads(self._table.id, kept.leads)
        waited = 0
        if kept.task is not None:
            waited = self._attempt.now() - kept.ordered
        else:
            for lead in kept.leads:
                if lead not in found:
                    await self._settle(lead, Settle("skipped", LeadReason.DELETED))
            kept = replace(kept, leads=tuple(lead for lead in kept.leads if lead in found))
        leads = [(lead, self._reading.values(found.get(lead, {}))) for lead in kept.leads]
        purse = Purse(self._budget, self._price * len(leads))
        course = course_at(self._module, kept.task, waited)
        open_id = next((str(cut.call) for cut in cut_off if cut.open), None)
        await self._carry_out(
            _Order(kept, self._endpoint, course, leads, purse), course.begin([cut.cause for cut in cut_off], open_id)
        )

    async def _carry_out(self, order: _Order, turn: Turn) -> None:
        """Follow an order to its end, or order it in two halves. Raises Stopped, AccountClosed, Parked."""
        try:
            await self._follow(order, turn)
            order.purse.empty()
        except _InHalvesError as again:
            order.purse.empty()
            half = len(order.leads) // 2
            if again.too_large:
                self.size = max(1, min(self.size, half))
            await self._drop(order)
            await self._order(order.leads[:half], patient=order.patient)
            await self._order(order.leads[half:], patient=order.patient)

    async def _drop(self, order: _Order) -> None:
        """Forget an order that was not sent."""
        async with self._leads.work(self._attempt.job.id, self._attempt.number) as work:
            await work.delivered([order.kept.number])

    async def _keep(self, order: BulkOrder) -> None:
        """Store an order that is about to be sent, as soon as the provider has a place for it. Raises Stopped."""
        attempt, account = self._attempt, self._endpoint.account
        poll = self._module.poll
        patience = int(poll.max_wait_seconds * SECOND) if poll is not None else 0
        while True:
            now = attempt.now()
            async with self._leads.work(attempt.job.id, attempt.number) as work:
                kept = replace(order, ordered=now)
                if await work.may_order(kept, Instant(now - patience), self._bulk.orders_max):
                    return
            numbers: dict[str, int | str] = {"provider": account, "amount": self._bulk.orders_max or 0, "unit": "order"}
            await attempt.wait(JobReason.LIMIT, Instant(now + PLACE_SECONDS * SECOND), numbers)

    async def _follow(self, order: _Order, turn: Turn) -> None:
        """Follow an order's course to its end. Raises Stopped, AccountClosed."""
        attempt = self._attempt
        _, keys = records_of(self._module, self._access(), order.leads)
        wanted = await self._leads.unsettled(attempt.job.id, order.kept.leads)
        order.delivery = Delivery(order.kept.leads, keys, wanted)
        if wanted:
            end = await self._until_settled(order, turn)
            for lead in order.delivery.missing:
                # What was ordered is due with that, where requests are.
                charge = None if order.course.task is None else self._owed(order, end)
                await self._settle(lead, end, CameBy(charge=charge))
        await self._writer.put(Brought(Delivered(order.kept.number), None, _GOOD))

    async def _until_settled(self, order: _Order, turn: Turn) -> Settle:
        """Follow an order until nothing more can come of it; what becomes of the leads that still miss their result."""
        attempt = self._attempt
        while not isinstance(turn, Settle):
            if isinstance(turn, Pause):
                numbers: dict[str, int | str] = {
                    "provider": self._endpoint.account,
                    "leads": len(order.delivery.missing),
                }
                await attempt.wait(turn.reason, Instant(attempt.now() + turn.microseconds), numbers)
                turn = turn.then
            turn = await self._call(order, turn)
        return turn

    async def _call(self, order: _Order, ask: Ask) -> Turn:
        """Make one call, and say what follows. Raises Stopped, AccountClosed."""
        course = order.course
        jitter = random.random()  # noqa: S311  spreads retries; nobody gains by guessing it
        perhaps = order.asker.price(ask) if ask.what == "start" else NOTHING
        if not await order.purse.fill(perhaps):  # an order before it was lost, and is perhaps owed
            if self._attempt.stopping:
                raise Stopped("told to stop")
            return Settle("skipped", LeadReason.SPEND_CAP)
        try:
            call = await self._tokens.permit(
                self._endpoint,
                self._access(),
                self._attempt,
                order.asker.cost(ask),
                partial(self._permit, order.first, perhaps, patient=order.patient or ask.what != "start"),
            )
        except NoToken as error:
            return course.broke(error.reason, error.detail, jitter)
        except NoPermit as error:
            if ask.what == "start" and len(order.leads) > 1:
                raise _InHalvesError(too_large=True) from None
            return course.failed(LeadReason.NEVER_FITS, str(error))
        try:
            call_id = course.id_for(str(call.id)) if ask.what == "start" else str(call.id)
            access = self._tokens.access(self._endpoint, self._access())
            request = order.asker.request(ask, access, call_id)
        except BadValueError as fault:
            call.end(CallEnd(unsent=True))
            return course.failed(LeadReason.BAD_RESPONSE, str(fault))
        try:
            response = await call.send(request)
        except Withdrawn:
            call.end(CallEnd(unsent=True))
            if self._attempt.stopping:
                raise Stopped("told to stop") from None
            return ask
        except Unsent as error:
            call.end(CallEnd(unsent=True))
            return course.broke(LeadReason.UNREACHABLE, str(error), jitter)
        except Ambiguous as error:
            order.purse.pay(perhaps)
            call.end(CallEnd(lost=True))
            return course.lost(str(error), jitter)
        except BrokenResponse as error:
            order.purse.pay(perhaps)
            call.end(CallEnd(failed=True, broken=True))
            return course.broke(LeadReason.BAD_RESPONSE, str(error), jitter)
        return await self._answered(order, ask, call, access, response, jitter)

    async def _answered(
        self, order: _Order, ask: Ask, call: Call, access: Access, response: Response, jitter: float
    ) -> Turn:
        attempt, course = self._attempt, order.course
        course.answered()
        at = attempt.now()
        verdict = order.asker.verdict(ask, response, attempt.wall(), order.pages_read)
        answered = AnsweredCall(call.id, at)
        if isinstance(verdict, responses.InvalidKey) and self._tokens.refused(self._endpoint, access):
            call.end(CallEnd(failed=True))
            return ask
        if not isinstance(verdict, responses.InvalidKey):
            self._tokens.worked(self._endpoint)
        if isinstance(verdict, responses.Listed):
            return await self._take(order, verdict, call, answered)
        if isinstance(verdict, responses.Ready):
            call.end(CallEnd(done=True))
            return course.ready()
        if isinstance(verdict, responses.ServerError) and self._divides and len(order.leads) > 1:
            call.end(CallEnd(failed=True))
            raise _InHalvesError(too_large=False)
        said = heard(verdict, course, at, jitter)
        if isinstance(verdict, responses.Started):
            order.kept = replace(order.kept, task=verdict.task, ordered=at)
            async with self._leads.work(attempt.job.id, attempt.number) as work:
                await work.ordered(order.kept, answered)
        call.end(replace(said.end, done=said.good))
        if said.turn is None:
            raise AccountClosed(f"{self._endpoint.account} refused the key")
        if isinstance(verdict, responses.Pending):
            attempt.moved()
        return said.turn

    async def _take(self, order: _Order, page: responses.Listed, call: Call, answered: AnsweredCall) -> Turn:
        """Settle the leads that a page names; the call counts as ended with the last of them."""
        ends = [
            (lead, self._end(responses.item_verdict(self._module, item)))
            for lead, item in order.delivery.take(self._bulk, page.items)
        ]
        for lead, end in ends[:-1]:
            await self._settle(lead, end, CameBy(charge=self._owed(order, end)))
        for lead, end in ends[-1:]:
            await self._settle(lead, end, CameBy(call, _GOOD, answered, self._owed(order, end)))
        if not ends:
            call.end(CallEnd(done=True))
        order.pages_read += 1
        return MISSING if page.next_page is None else order.course.ready(page.next_page)

    def _owed(self, order: _Order, end: Settle) -> Charge | None:
        """What a lead that ended so costs."""
        owed = charge_of(self._module, found=end.state == "done" or end.reason is LeadReason.BAD_OUTPUT)
        if not owed:
            return None
        order.purse.pay(owed)
        answer: Literal["none", "result"] = "result" if end.state == "done" else "none"
        return Charge(self._endpoint.account, owed, self._attempt.wall(), answer, end.reason)

    def _end(self, verdict: responses.Done | responses.NotFound | responses.Failed) -> Settle:
        match verdict:
            case responses.Done(values=values):
                try:
                    return Settle("done", cells=self._reading.cells(values))
                except BadValueError as fault:
                    return Settle("failed", LeadReason.BAD_OUTPUT, str(fault))
            case responses.NotFound():
                return Settle("skipped", LeadReason.NOT_FOUND)
            case responses.Failed(reason=reason, detail=detail):
                return Settle("failed", reason, detail)
