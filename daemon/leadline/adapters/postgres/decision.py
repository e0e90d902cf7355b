"""One decision's records, written inside its transaction.

A statement for each kind of record that the decision has, however many there are of it. Rows are inserted by COPY from
65 on, below that by one INSERT of arrays, which needs a round trip less. A statement that must find its rows says how
many it found; another number is a bug (`Contradiction`), and nothing of the decision is kept.

The order is that of dependence: jobs, then what refers to them, then the slots that pass from those that end to those
that start.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import QUERIES
from leadline.core.effects import AdmittedJob, EndedJob, HistoryRow, PauseRow, Records, SlotRow
from leadline.core.events import Statement
from leadline.core.model import Counts, JobState
from leadline.ports.store import THIS_JOB, Contradiction
from leadline_protocol.ids import JobId

COPY_ROWS_MIN: Final = 65
"""From this many rows on COPY is faster than an INSERT of arrays."""

STATES: Final = tuple(JobState)
"""A state is stored as its place here, so nothing may ever be put between."""

NUMBER_OF: Final = {state: number for number, state in enumerate(STATES)}

Row = tuple[Any, ...]


class Decision:
    """Writes the records of one decision inside its transaction, in the order that their dependence asks for."""

    def __init__(
        self, writer: Connection, kinds: Sequence[int], statements: Mapping[str, str], serials: Iterator[int]
    ) -> None:
        """`kinds`: the database's numbers of the daemon's kinds; `serials`: numbers for the lines of jobs' stories."""
        self._writer = writer
        self._kinds = kinds
        self._statements = statements
        self._serials = serials

    async def write(self, records: Records) -> None:
        """All of them. Raises Contradiction, or what asyncpg raises."""
        at_once = [ended for ended in records.ended if ended.admitted is not None]
        ended_at_once = {ended.id for ended in at_once}
        admitted = [job for job in records.admitted if job.id not in ended_at_once]
        if records.teamspaces:
            await self._insert("add_teamspaces", records.teamspaces)
        if admitted:
            await self._insert("add_jobs", [self._job_row(job) for job in admitted])
        if at_once:
            await self._insert("add_ended_jobs", [self._ended_row(ended) for ended in at_once])
        everyone = [*admitted, *(ended.admitted for ended in at_once if ended.admitted is not None)]
        await self._keep_keys(everyone)
        await self._carry_out([(job.id, statement) for job in everyone for statement in job.new.statements])
        if records.changed:
            rows = [
                (change.id, NUMBER_OF[change.state], change.details or None, change.attempt, change.started)
                for change in records.changed.values()
            ]
            await self._execute("change_jobs", rows, expected=len(rows))
        if records.attempts:
            begun = [(attempt.job, attempt.number) for attempt in records.attempts]
            await self._execute("begin_attempts", begun, expected=len(begun))
        if len(at_once) < len(records.ended):
            gone = [_end_of(ended) for ended in records.ended if ended.admitted is None]
            await self._execute("end_jobs", gone, expected=len(gone))
        await self._move_slots(records)
        await self._keep_calls(records)
        if records.accounts:
            await self._execute("keep_accounts", [(row.account, row.state) for row in records.accounts.values()])
        await self._keep_pauses(records.pauses)
        if records.history:
            await self._insert("add_events", [self._event_row(line) for line in records.history])

    # -- what is more than a statement ---------------------------------------------------------------------------------

    async def _keep_keys(self, admitted: Iterable[AdmittedJob]) -> None:
        keys = [
            (job.teamspace, job.new.key.key_hash, job.new.key.body_hash, job.id)
            for job in admitted
            if job.new.key is not None
        ]
        if keys:
            await self._execute("add_keys", keys, expected=len(keys))

    async def _carry_out(self, statements: Iterable[tuple[JobId, Statement]]) -> None:
        """The slices' statements, in their order; a row of the same statement is one round trip."""
        for name, same in groupby(statements, key=lambda pair: pair[1].query):
            sql = self._statements.get(name)
            if sql is None:
                raise Contradiction(f"there is no statement {name}")
            await self._writer.executemany(sql, [_with_job(statement.arguments, job) for job, statement in same])

    async def _move_slots(self, records: Records) -> None:
        """Ends before starts: a slot may pass from one job to the next."""
        if records.slots_freed:
            freed = [_slot_row(slot) for slot in records.slots_freed]
            await self._execute("free_slots", freed, expected=len(freed))
        if records.slots_taken:
            await self._execute("take_slots", [_slot_row(slot) for slot in records.slots_taken])

    async def _keep_calls(self, records: Records) -> None:
        if records.calls_sent:
            sent = [
                (call.id, call.job, call.lead, call.sent, call.attempt, call.account, call.cost)
                for call in records.calls_sent
            ]
            await self._insert("send_calls", sent)
        if records.calls_closed:
            closed = [(call.id, call.state, _text(call.cause), call.began) for call in records.calls_closed]
            await self._execute("close_calls", closed)

    async def _keep_pauses(self, pauses: Iterable[PauseRow]) -> None:
        last = {(pause.scope, pause.name): pause.paused for pause in pauses}
        if begun := [pause for pause, paused in last.items() if paused]:
            await self._execute("add_pauses", begun)
        if ended := [pause for pause, paused in last.items() if not paused]:
            await self._execute("drop_pauses", ended)

    # -- rows -------------------------------------------------------------------------------------------------------

    def _job_row(self, job: AdmittedJob) -> Row:
        new = job.new
        return (
            job.id, job.order, job.submitted, _run_at(job), job.chain, new.rerun_of, new.table, new.total, new.uid,
            job.teamspace, job.step, len(new.steps) or None, self._kinds[new.kind], NUMBER_OF[job.state],
            new.stop_on_failure, new.notify, new.payload, new.warnings or None,
        )  # fmt: skip

    def _ended_row(self, ended: EndedJob) -> Row:
        job = ended.admitted
        assert job is not None
        new = job.new
        counts = ended.counts or Counts(new.total or 0)
        return (
            job.id, job.order, job.submitted, ended.ended,
            counts.total, counts.done, counts.failed, counts.skipped, counts.unknown,
            _run_at(job), ended.started, job.chain, new.rerun_of, new.table, new.uid, job.teamspace, job.step,
            len(new.steps) or None, 0 if ended.started is None else 1, self._kinds[new.kind],
            NUMBER_OF[ended.state], new.stop_on_failure, new.notify, new.payload, new.warnings or None, ended.reason,
            _text(ended.message),
        )  # fmt: skip

    def _event_row(self, line: HistoryRow) -> Row:
        return (line.job, next(self._serials), line.at, line.event, _text(line.detail))

    # -- statements -------------------------------------------------------------------------------------------------

    async def _insert(self, name: str, rows: Sequence[Row]) -> None:
        if len(rows) < COPY_ROWS_MIN:
            await self._execute(name, rows)
            return
        table, columns = QUERIES[name].target
        await self._writer.copy_records_to_table(table, records=rows, columns=columns)

    async def _execute(self, name: str, rows: Sequence[Row], *, expected: int | None = None) -> None:
        """One statement for all rows; their columns are its arguments. Raises Contradiction on another number."""
        status = await self._writer.execute(QUERIES[name].sql, *zip(*rows, strict=True))
        if expected is not None and int(status.rpartition(" ")[2]) != expected:
            raise Contradiction(f"{name}: {expected} rows were meant, the database says {status!r}: {rows[:3]} ...")


def _run_at(job: AdmittedJob) -> int | None:
    """The wall time before which a job does not start; a delay is already reckoned into its order."""
    new = job.new
    if new.run_at is None and new.delay_microseconds:
        return job.order + new.priority_microseconds
    return new.run_at


def _end_of(ended: EndedJob) -> Row:
    counts = ended.counts
    counted = (
        (None,) * 5 if counts is None else (counts.total, counts.done, counts.failed, counts.skipped, counts.unknown)
    )
    number = NUMBER_OF[ended.state]
    return (ended.id, number, ended.ended, ended.started, ended.reason, _text(ended.message), *counted)


def _slot_row(slot: SlotRow) -> Row:
    return (slot.teamspace, slot.family, slot.slot, slot.job)


def _with_job(arguments: tuple[object, ...], job: JobId) -> Row:
    return tuple(job if argument is THIS_JOB else argument for argument in arguments)


def _text(text: str) -> str:
    """Text as Postgres can hold it: what providers say may contain a NUL or half a character."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd") if text else text
