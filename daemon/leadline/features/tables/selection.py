"""Which leads a job works on: what its submission says, checked when it is handed in and frozen when it starts.

A list of leads is frozen once, as ids, and every attempt of a job works through the same list. `on_start` freezes
when the job's turn comes, so that it sees what jobs before it wrote; `on_submit` freezes at once, which is quick to
explain and easy to be caught by: the receipt then says in so many words that nothing matched yet, or that an upload
was still running.

Within a chain a step may speak of a table or of columns that only an earlier step brings about. What those steps will
have declared is known here, so the expression is checked all the same; columns that an upload will find in its file
are not known, so what speaks of such a table is checked when its turn comes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from leadline.core.events import CallEnd, Statement
from leadline.core.model import Counts, JobState
from leadline.core.rate_limit import Cost
from leadline.features.tables.columns import Column, ColumnType, declared_columns
from leadline.features.tables.expressions import Compiled, compile_expression
from leadline.features.tables.ports import ATTACH_LIST, DECLARE_COLUMNS, JobList, LeadStore, Table, columns_json
from leadline.ports.store import THIS_JOB
from leadline.ports.work import Attempt, ChainNotes, Finished, JobFailed, Prepared, Rerun
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, LeadReason, Refused
from leadline_protocol.ids import AccountName, LeadId

_AHEAD: Final = "tables"

NO_LEAD: Final = LeadId(0)
"""For a call that is made for no lead in particular."""

Selecting = wire.Formula | wire.Enrich | wire.Export


class Ahead(Struct):
    """What earlier steps of a chain will have done to one table."""

    columns: dict[str, Column]
    uploaded: bool = False
    """An upload will add columns that nobody knows yet."""


class Selection(Struct, frozen=True):
    """A checked submission: its table as it will be, and its filter."""

    table: Table | None
    """None: an earlier step of its chain makes it."""
    where: Compiled | None


def ahead_of(chain: ChainNotes | None, table: str) -> Ahead:
    """What earlier steps of the chain will have done to a table, to be added to."""
    if chain is None:
        return Ahead({})
    notes: dict[str, Ahead] = chain.setdefault(_AHEAD, {})
    return notes.setdefault(table, Ahead({}))


async def check(
    leads: LeadStore, teamspace: str, submission: Selecting, into: Sequence[Column], chain: ChainNotes | None
) -> Selection:
    """Check a submission's table, columns and filter. Raises Refused, each with its place."""
    table = await leads.table(teamspace, submission.table)
    ahead = ahead_of(chain, submission.table)
    if table is None and not ahead.uploaded:
        message = f"{teamspace} has no table {submission.table}; an upload makes one"
        raise Refused(ErrorCode.UNKNOWN_TABLE, message, at="table")
    present = {column.name: column for column in (table.columns if table else ())} | ahead.columns
    check_into(into, present)
    types = {column.name: column.type for column in present.values()}
    where = compiled_where(submission.where, types, unknown_allowed=ahead.uploaded)
    ahead.columns.update((column.name, column) for column in into)
    return Selection(table, where)


def check_into(into: Sequence[Column], present: Mapping[str, Column]) -> None:
    """Check that columns to be filled are new, or of the type they have already. Raises Refused."""
    for column in into:
        there = present.get(column.name)
        if there is not None and there != column:
            message = f"the table has a column {column.name} of type {described(there)}, not {described(column)}"
            raise Refused(ErrorCode.BAD_REQUEST, message, at=f"into.{column.name}")


def compiled_where(
    text: str | None, types: Mapping[str, ColumnType], *, unknown_allowed: bool = False
) -> Compiled | None:
    """A filter, compiled. Raises Refused with its place."""
    return compiled(text, types, ColumnType.BOOLEAN, "where", unknown_allowed=unknown_allowed)


def compiled(
    text: str | None,
    types: Mapping[str, ColumnType],
    wants: ColumnType | None,
    field: str,
    *,
    unknown_allowed: bool = False,
) -> Compiled | None:
    """An expression, compiled; None for none, or where a column is unknown and may be.

    Raises Refused with its place.
    """
    if text is None:
        return None
    try:
        return compile_expression(text, types, field=field, wants=wants)
    except Refused as refused:
        if unknown_allowed and refused.code is ErrorCode.UNKNOWN_COLUMN:
            return None
        raise


def described(column: Column) -> str:
    """A column's type in words."""
    return f"one of {', '.join(column.allowed)}" if column.allowed else str(column.type)


async def prepare(
    leads: LeadStore,
    teamspace: str,
    submission: Selecting,
    into: Mapping[str, Any],
    chain: ChainNotes | None,
    rerun: Rerun | None,
    *,
    first: int | None = None,
) -> Prepared:
    """Check a submission, declare its columns with its admission, and freeze its list where that is to be done now."""
    columns = declared_columns(into) if into else ()
    selection = await check(leads, teamspace, submission, columns, chain)
    table = selection.table
    statements: list[Statement] = []
    warnings: list[wire.JobWarning] = []
    if table is None:
        return Prepared()
    if columns:
        statements.append(Statement(DECLARE_COLUMNS, (table.id, columns_json(columns))))
    frozen: tuple[JobList, bytes] | None = None
    if rerun is not None:
        frozen = await leads.rerun_list(rerun.job, rerun.leads)
    elif submission.select_leads == "on_submit":
        frozen = await leads.freeze_now(table, selection.where, first)
        warnings += warnings_of(frozen[0], table, submission)
    total = None
    if frozen is not None:
        job_list, digest = frozen
        total = job_list.total
        arguments = (THIS_JOB, job_list.list, job_list.total, submission.where, digest)
        statements.append(Statement(ATTACH_LIST, arguments))
    return Prepared(table.id, total, warnings, statements)


def warnings_of(job_list: JobList, table: Table, submission: Selecting) -> list[wire.JobWarning]:
    """What the submitter of a job with a list frozen at submission should know."""
    warnings: list[wire.JobWarning] = []
    if job_list.total == 0:
        message = "0 leads matched when it was submitted; what other jobs write later is not looked at"
        if submission.where is not None:
            message += " (select_leads on_start would look when its turn comes)"
        warnings.append(wire.JobWarning(code="no_leads_matched", message=message))
    if table.uploading is not None:
        message = (
            f"upload {table.uploading} into {table.name} was running when it was submitted;"
            f" only the {job_list.total} leads that it had stored by then are taken"
        )
        warnings.append(wire.JobWarning(code="upload_running", message=message))
    return warnings


async def table_of(leads: LeadStore, attempt: Attempt, name: str, into: Sequence[Column] = ()) -> Table:
    """The table of a job that is starting, with the columns that it fills. Raises Refused where there can be none.

    The columns are declared with the job's admission, except where an earlier step of its chain had yet to make the
    table: then now.
    """
    table = await submitted_for(leads, attempt, name)
    if table is None:
        raise Refused(ErrorCode.UNKNOWN_TABLE, f"there is no table {name}", at="table")
    present = {column.name: column for column in table.columns}
    check_into(into, present)
    if any(column.name not in present for column in into):
        async with leads.work(attempt.job.id, attempt.number) as work:
            return await work.declare(table.id, into, None)
    return table


async def submitted_for(leads: LeadStore, attempt: Attempt, name: str) -> Table | None:
    """The table that a job was submitted for. Raises JobFailed where that was deleted, whoever has its name now."""
    table = await leads.table(attempt.job.teamspace, name)
    own = attempt.job.table
    if own is not None and (table is None or table.id != own) and await leads.was_deleted(own):
        raise JobFailed(JobReason.TABLE_DELETED, f"the table {name} that it was submitted for was deleted")
    return table


async def list_of(
    leads: LeadStore, attempt: Attempt, table: Table, submission: Selecting, first: int | None
) -> JobList:
    """The list of a job, frozen now where it is not yet. Raises Stopped where a guard wants a person, and Refused.

    The guard is asked again by every attempt until a person has decided: an earlier one may have frozen the list and
    ended before its wait was stored. A rerun was decided upon by a person; of a chain's, the first step is what the
    person saw.
    """
    job = attempt.job
    frozen = await leads.list_of(job.id)
    if frozen is None:
        types = {column.name: column.type for column in table.columns}
        where = compiled_where(submission.where, types)
        async with leads.work(job.id, attempt.number) as work:
            frozen = await work.freeze(table, where, submission.where, first, job.rerun_of)
            await work.save(Counts(total=frozen.total), "", None)
        attempt.progressed(Counts(total=frozen.total))
    guard, reason = guard_of(submission, frozen.total)
    if guard == "hold" and not attempt.approved and (job.rerun_of is None or job.step):
        await attempt.hold({"guard": reason, "leads": frozen.total})
    return frozen


def guard_of(submission: Selecting, total: int) -> tuple[str, JobReason]:
    """What a submission's guards say about a list of this length: run, skip or hold, and why."""
    if total == 0:
        return submission.empty, JobReason.GUARD_EMPTY
    if submission.more_than is not None and total > submission.more_than.count:
        return submission.more_than.then, JobReason.GUARD_MORE_THAN
    return "run", JobReason.GUARD_EMPTY


def skipped_by_guard(submission: Selecting, total: int) -> Finished | None:
    """The end of a job that its guard skips; None where it runs."""
    guard, reason = guard_of(submission, total)
    if guard != "skip":
        return None
    return Finished(JobState.SKIPPED, Counts(total=total), reason, f"{total} leads matched")


def finished(counts: Counts) -> Finished:
    """The end of a job that ran to its end."""
    state = JobState.PARTIAL if counts.failed or counts.unknown else JobState.COMPLETED
    return Finished(state, counts)


def plus(counts: Counts, *, done: int = 0, failed: Mapping[LeadReason, int] | None = None) -> Counts:
    """Counts with more leads settled; deleted leads count as skipped."""
    reasons = failed or {}
    deleted = reasons.get(LeadReason.DELETED, 0)
    return Counts(
        counts.total,
        counts.done + done,
        counts.failed + sum(reasons.values()) - deleted,
        counts.skipped + deleted,
        counts.unknown,
    )


RECORDS_AT_ONCE: Final = 1_000
"""In one call: who comes with a small job waits until each teamspace that is in line has had a call, at worst."""


class Allowance(Struct, frozen=True):
    """What bounds the records that are read and written."""

    account: AccountName
    at_once: int
    """No single call may ask for more, as it would never fit."""


class Database(Struct, frozen=True):
    """Our own database as a provider: records an hour over everybody (Q6 of the product's rules: a million)."""

    allowance: Callable[[], Allowance | None]
    """As it is now; None: without limit."""
    interactive_records_max: int = 5_000
    """Jobs of at most so many records use the share that is kept for them."""

    async def records(self, attempt: Attempt, amount: int, total: int) -> None:
        """Wait for leave to read or write so many records for a job of so many in all."""
        interactive = total <= self.interactive_records_max
        while amount > 0 and (allowance := self.allowance()) is not None:
            cost = Cost(record=min(amount, allowance.at_once, RECORDS_AT_ONCE))
            call = await attempt.permit(allowance.account, NO_LEAD, cost, interactive=interactive)
            call.end(CallEnd())
            amount -= cost.record
