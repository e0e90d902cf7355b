"""What a submission would take if its turn came now: a dry run.

It must say what would really happen, so nothing is decided here a second time. The kinds prepare a submission by the
code that prepares every other, over stores that look and keep nothing (`Trial`); a formula is carried out by the
statement that will carry it out, in a transaction that is taken back; what a lead costs is asked of what will ask about
it.

The complication is a chain, where later steps work on what earlier ones bring about. A filter that reads a column which
an earlier step fills, or a table which one uploads into, says nothing yet: such a step is known when its turn comes.

How long it takes at least follows from the limits alone, as if nobody else were in line: so many units fill so many
windows, and the last window need not pass.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, Protocol

import anyio.lowlevel
from msgspec import Struct
from msgspec.structs import replace

from leadline.core.estimate import seconds_at_least
from leadline.core.events import NOTHING, AccountLearned
from leadline.core.rate_limit import ConcurrentLimit, Cost, DailyLimit, Limit, Unit, WindowLimit
from leadline.features.tables.bulk import orders_cost, orders_of
from leadline.features.tables.columns import Column, ColumnType, JsonValue, declared_columns
from leadline.features.tables.credits import plain
from leadline.features.tables.enrichment_plan import Endpoints, Plan, plan_of
from leadline.features.tables.expressions import Compiled
from leadline.features.tables.formula import value_of
from leadline.features.tables.lead_course import Ask
from leadline.features.tables.ports import Incoming, LeadStore, Table
from leadline.features.tables.selection import Selecting, ahead_of, compiled_where, guard_of
from leadline.ports.work import ChainNotes, JobKind
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, LeadReason, Refused
from leadline_protocol.ids import AccountName, LeadId

CREDITS_DIGITS: Final = 4
"""Behind the point, where credits are estimated from a sample."""

SAMPLED_LEADS: Final = 2_000
"""Lists of at most so many leads are reckoned exactly, of longer ones so many leads are."""

PAGE_LEADS: Final = 200

DATABASE: Final = "database"


class Tried(Struct, frozen=True):
    """One lead as a formula would leave it."""

    before: JsonValue
    after: JsonValue
    reason: LeadReason | None = None


class Trial(LeadStore, Protocol):
    """The tables of all teamspaces, for a look: what `prepare` would keep is not kept."""

    async def match(self, table: Table, where: Compiled | None, first: int | None) -> Sequence[LeadId]:
        """The leads that a list would hold if it were frozen now."""
        ...

    async def try_formula(
        self, table: Table, leads: Sequence[LeadId], column: str, value: Compiled
    ) -> Mapping[LeadId, Tried]:
        """What a formula would do to these leads; deleted ones are absent."""
        ...


Accounts = Callable[[AccountName], AccountLearned | None]
"""What is in force for a provider account; None for one that is not there."""


class Previews:
    """Says what submissions would take (`ports.work.Previews`)."""

    def __init__(
        self, kinds: Sequence[JobKind], leads: Trial, incoming: Incoming, endpoints: Endpoints, accounts: Accounts
    ) -> None:
        """`kinds` are the kinds of job over `leads` and `incoming`, both of which keep nothing."""
        self._kinds = {kind.name: kind for kind in kinds}
        self._leads = leads
        self._incoming = incoming
        self._endpoints = endpoints
        self._accounts = accounts

    async def preview(self, submission: wire.Submission, chain: ChainNotes | None, shown: int) -> wire.StepPreview:
        """What a submission, or a step of a chain, would take now. Raises Refused as its submission would."""
        word = str(submission.__struct_config__.tag)
        if isinstance(submission, wire.Noop):
            return wire.StepPreview(kind=word)
        kind = self._kinds.get(word)
        if kind is None:
            raise Refused(ErrorCode.UNKNOWN_KIND, f"there is no kind {word}", at="kind")
        before = _Ahead.of(chain, submission)
        prepared = await kind.prepare(submission.teamspace, submission, chain=chain, rerun=None)
        if prepared.settled is not None:
            prepared.settled(False)
        if prepared.refused is not None:
            raise prepared.refused
        view = wire.StepPreview(kind=word, warnings=list(prepared.warnings))
        match submission:
            case wire.Upload():
                looked_at = await self._incoming.take(submission.path)
                return replace(view, table=submission.table, size_bytes=looked_at.size_bytes)
            case wire.Formula() | wire.Enrich() | wire.Export():
                columns = ahead_of(chain, submission.table).columns
                return await self._over_leads(submission, replace(view, table=submission.table), before, columns, shown)
            case _:
                return view

    async def _over_leads(
        self,
        submission: Selecting,
        view: wire.StepPreview,
        before: "_Ahead",
        filled: Mapping[str, Column],
        shown: int,
    ) -> wire.StepPreview:
        table = await self._leads.table(submission.teamspace, submission.table)
        if table is None or before.uploaded:
            return view
        types = {column.name: column.type for column in table.columns if column.name not in before.columns}
        where = compiled_where(submission.where, types, unknown_allowed=True)
        if submission.where is not None and where is None:
            return view
        first = submission.first if isinstance(submission, wire.Enrich) else None
        leads = await self._leads.match(table, where, first)
        view = replace(view, leads=len(leads), guard=_guard(submission, len(leads)))
        if view.guard == "skip":
            return view
        match submission:
            case wire.Formula():
                trials = await self._trials(submission, table, leads[:shown], types)
                return self._within(replace(view, trials=trials), {Unit.RECORD: len(leads)}, AccountName(DATABASE))
            case wire.Enrich():
                columns = {column.name: column for column in table.columns} | {**filled}
                plan = plan_of(submission.teamspace, submission, columns, self._endpoints())
                view = replace(view, provider=plan.named())
                if not reads(plan).isdisjoint(before.columns):
                    return view
                return await self._asked(plan, view, table, leads)
            case _:
                return self._within(view, {Unit.RECORD: len(leads)}, AccountName(DATABASE))

    async def _trials(
        self, submission: wire.Formula, table: Table, leads: Sequence[LeadId], types: Mapping[str, ColumnType]
    ) -> list[wire.LeadTrial]:
        (column,) = submission.into
        types = {**types, **{each.name: each.type for each in declared_columns(submission.into)}}
        value = value_of(submission, types, unknown_allowed=True)
        if value is None or not leads:
            return []
        tried = await self._leads.try_formula(table, leads, column, value)
        return [
            wire.LeadTrial(lead=lead, before=each.before, after=each.after, reason=each.reason)
            for lead in leads
            if (each := tried.get(lead)) is not None
        ]

    async def _asked(
        self, plan: Plan, view: wire.StepPreview, table: Table, leads: Sequence[LeadId]
    ) -> wire.StepPreview:
        sample = leads if len(leads) <= SAMPLED_LEADS else _evenly(leads, SAMPLED_LEADS)
        asked, units, credits_ = 0, dict.fromkeys(Unit, 0), NOTHING
        for start in range(0, len(sample), PAGE_LEADS):
            page = sample[start : start + PAGE_LEADS]
            cells = await self._leads.leads(table.id, page)
            wanted = frozenset(cells) if plan.run_if is None else await self._leads.matching(table, page, plan.run_if)
            for lead in page:
                if lead in wanted and lead in cells and not plan.missing(cells[lead]):
                    asked += 1
                    credits_ += plan.price(cells[lead])
                    source = next(each for each in plan.sources if not each.missing(cells[lead]))
                    asker = source.asker(cells[lead], plan.into, source.course(), answered=False)
                    _add(units, asker.cost(Ask("start")))
            await anyio.lowlevel.checkpoint()
        share = len(leads) / len(sample) if sample else 1
        view = replace(view, asked=round(asked * share), sampled=None if share == 1 else len(sample))
        if credits_:
            whole = credits_ if share == 1 else round(credits_ * len(leads) / len(sample), CREDITS_DIGITS)
            view = replace(view, credits=plain(whole))
        scaled = {unit: round(amount * share) for unit, amount in units.items()}
        endpoint = plan.sources[0].endpoint
        calls = round(asked * share)
        if endpoint.module.bulk is not None:
            scaled = dict.fromkeys(Unit, 0)
            _add(scaled, orders_cost(endpoint.module, calls))
            calls = orders_of(endpoint.module, calls)
        return self._within(view, scaled, endpoint.account, calls)

    def _within(
        self, view: wire.StepPreview, units: Mapping[Unit, int], account: AccountName, calls: int = 0
    ) -> wire.StepPreview:
        """With what so many units take of an account's limits, and so many calls of its time."""
        learned = self._accounts(account)
        limits = learned.limits if learned is not None else ()
        needs = [need for limit in limits if (need := _need(limit, units)) is not None]
        seconds = [seconds_at_least(limit, units) for limit in limits]
        if learned is not None and learned.pace_per_second:
            seconds.append(max(0, calls - 1) / learned.pace_per_second)
        return replace(
            view,
            units={unit.value: amount for unit, amount in units.items() if amount},
            limits=needs,
            seconds_at_least=max(seconds, default=0.0),
        )


def _need(limit: Limit, units: Mapping[Unit, int]) -> wire.LimitNeed | None:
    if isinstance(limit, ConcurrentLimit) or not units.get(limit.unit):
        return None
    return wire.LimitNeed(
        shape="daily" if isinstance(limit, DailyLimit) else "window" if isinstance(limit, WindowLimit) else "bucket",
        unit=limit.unit.value,
        amount=limit.amount,
        per_seconds=None if isinstance(limit, DailyLimit) else limit.per_seconds,
        needed=units[limit.unit],
    )


class _Ahead(Struct, frozen=True):
    """What steps before one have done to its table, as it was before that one was prepared."""

    columns: frozenset[str]
    uploaded: bool

    @classmethod
    def of(cls, chain: ChainNotes | None, submission: wire.Submission) -> "_Ahead":
        """What the notes of a chain say of a submission's table."""
        table = getattr(submission, "table", None)
        if table is None:
            return cls(frozenset(), uploaded=False)
        ahead = ahead_of(chain, table)
        return cls(frozenset(ahead.columns), ahead.uploaded)


def reads(plan: Plan) -> frozenset[str]:
    """The columns that a plan asks with, and those that say whether it does."""
    asked_with: set[str] = set()
    for source in plan.sources:
        if source.prompt is not None:
            asked_with |= set(source.prompt.names)
        else:
            asked_with |= {source.params.inputs.get(name, name) for name in source.endpoint.module.inputs}
    return frozenset(asked_with.union(() if plan.run_if is None else plan.run_if.columns))


def _guard(submission: Selecting, total: int) -> Literal["skip", "hold"] | None:
    word, _ = guard_of(submission, total)
    return "skip" if word == "skip" else "hold" if word == "hold" else None


def _evenly(leads: Sequence[LeadId], count: int) -> Sequence[LeadId]:
    return [leads[place * len(leads) // count] for place in range(count)]


def _add(units: dict[Unit, int], cost: Cost) -> None:
    for unit in Unit:
        units[unit] += getattr(cost, unit.value)
