"""Writes the records of one decision, inside its transaction.

A statement for each kind of record that the decision has, however many there are of it. Rows are inserted by COPY, or
by a pipelined INSERT where they are few; rows are found by arrays of keys. A statement that must find its rows says
how many it found; another number is a bug (`Contradiction`), and nothing of the decision is kept.

Where only a few jobs start and end, what counts is not the rows but the round trips: for each, two processes must
wake up, and on a busy machine that is what a job waits for. So all that follows from a few ends is one statement, and
all that follows from a few starts is another.

The order is that of dependence: jobs, then what refers to them, then the slots that pass from those that end to those
that start.
"""

from collections.abc import Iterable, Mapping, Sequence, Sized
from itertools import count, groupby, repeat
from typing import Any, Final

from msgspec.structs import astuple

from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import NOTICES, QUERIES
from leadline.core.effects import (
    AdmittedJob,
    AttemptRow,
    EndedJob,
    HistoryRow,
    JobChange,
    PauseRow,
    Records,
    SlotRow,
)
from leadline.core.events import Statement
from leadline.core.model import Counts, JobState
from leadline.ports.notices import WISH_NOTICE
from leadline.ports.store import THIS_JOB, Contradiction
from leadline_protocol.ids import JobId

COPY_ROWS_MIN: Final = 8
"""From this many rows on COPY is faster than an INSERT of each: measured 230 µs against 410 for 16 jobs, 175 against
160 for 4. One INSERT of arrays was never the fastest: 290 and 240."""

ALIKE_MIN: Final = 16
"""From this many jobs on that change alike, a statement of their own is worth its round trip: arrays cost double."""

FEW_JOBS: Final = 32
"""So many jobs are a few. Measured for n jobs that come in and start while n others end, processor time of the daemon
with a statement for each kind of record and with two for all: 750 µs against 470 for 4, 930 against 780 for 16, 960
against 910 for 32, and no difference for 48."""

FEW_LINES: Final = 4 * FEW_JOBS
"""Of stories, of so many jobs."""

STATES: Final = tuple(JobState)
"""A state is stored as its place here, so nothing may ever be put between."""

NUMBER_OF: Final = {state: number for number, state in enumerate(STATES)}

_NONE_COUNTED: Final = (None, 0, 0, 0, 0)
"""The counts of a job without an attempt; total: that of its list, frozen at submission, if it has one."""

_STATE: Final = 13
"""Where the state stands in a job's row."""

_UNTOLD: Final = (None, None, None, None, None)
"""Counts that the last attempt tells, if there is one."""

_UNCHANGED: Final = (None, 0, None)
"""What has become of a new row that is still as it was admitted: no details, no attempt, not started."""

Row = tuple[Any, ...]


class Writer:
    """The ordered writer of one epoch: its connection, and what it has to know to write without asking."""

    def __init__(
        self,
        connection: Connection,
        *,
        epoch: int,
        kinds: Sequence[int],
        statements: Mapping[str, str],
        attempted: Iterable[JobId],
        noticed: Iterable[JobId] = (),
    ) -> None:
        self.connection = connection
        """May be replaced between two transactions."""
        self._kinds = kinds
        """The database's numbers of the daemon's kinds, in the daemon's order."""
        self._statements = statements
        self._attempted = set(attempted)
        """Live jobs that have a row in `attempt`: the others, noops by the million, are spared the search for one."""
        self._noticed = set(noticed)
        """Live jobs of which somebody is to be told by mail or webhook; nothing is looked for where there are none."""
        self._wishing: set[JobId] = set()
        """The same of the decision that is being written."""
        self.wrote_notices = False
        """Whether the last decision had some."""
        self._serials = count(epoch << 40)
        """Numbers for the lines of jobs' stories: an epoch has room for a million million."""

    async def write(self, records: Records, *, replace_keys: bool = False) -> None:
        """All records of a decision.

        `replace_keys`: idempotency keys that have expired may be in the way. Where they are and this is False, the
        statement fails by UniqueViolationError on submission_key. Raises Contradiction, or what asyncpg raises.
        """
        self._wishing = _wishing(records.admitted)
        at_once = [ended for ended in records.ended if ended.admitted is not None]
        everyone = admitted = records.admitted
        if at_once:
            ended_at_once = {ended.id for ended in at_once}
            admitted = [job for job in records.admitted if job.id not in ended_at_once]
            everyone = [*admitted, *(ended.admitted for ended in at_once if ended.admitted is not None)]
        if records.teamspaces:
            await self._insert("add_teamspaces", records.teamspaces)
        few = _is_few(records)
        if few:  # ends first: a slot may pass from one job to the next
            await self._end_few(records)
            await self._begin_few(records, admitted)
        elif admitted:
            await self._insert("add_jobs", [self._job_row(job) for job in admitted])
        if at_once:
            await self._insert("add_ended_jobs", [self._ended_row(ended) for ended in at_once])
        await self._keep_keys("replace_keys" if replace_keys else "add_keys", everyone)
        await self._carry_out([(job.id, statement) for job in everyone for statement in job.new.statements])
        if not few:
            await self._move(records)
        await self._write_notices(records)
        await self._keep_calls(records)
        if records.accounts:
            await self._execute("keep_accounts", [(row.account, row.state) for row in records.accounts.values()])
        await self._keep_pauses(records.pauses)

    def settle(self, records: Records) -> None:
        """Told that these records have been committed."""
        if records.attempts or self._attempted:
            self._attempted.update([attempt.job for attempt in records.attempts])
            self._attempted.difference_update([ended.id for ended in records.ended])
        self._noticed |= self._wishing
        if self._noticed:
            self._noticed.difference_update([ended.id for ended in records.ended])

    # -- what is more than a statement ---------------------------------------------------------------------------------

    async def _keep_keys(self, statement: str, admitted: Iterable[AdmittedJob]) -> None:
        keys = [
            (stored_key(job.teamspace, job.new.key.key_hash), job.new.key.body_hash, job.id)
            for job in admitted
            if job.new.key is not None
        ]
        if keys and statement == "replace_keys":
            await self._execute(statement, keys, must_find=True)
        elif keys:
            await self._insert(statement, keys)

    async def _end_few(self, records: Records) -> None:
        """What follows from the ends of a few jobs."""
        ended = [_end_row(job, _UNTOLD) for job in records.ended if job.admitted is None]
        freed = [_slot_row(slot) for slot in records.slots_freed]
        if not ended and not freed:
            return
        found = await self.connection.fetchrow(QUERIES["end_few_jobs"].sql, *_columns(ended, 11), *_columns(freed, 4))
        assert found is not None, "counts are always one row"
        _check_count("end_few_jobs", found["jobs"], ended)
        _check_count("end_few_jobs", found["slots"], freed)

    async def _begin_few(self, records: Records, admitted: Sequence[AdmittedJob]) -> None:
        """What follows from the admissions and starts of a few jobs, with the stories of all."""
        changes = dict(records.changed)
        new = [self._changed_row(job, changes.pop(job.id, None)) for job in admitted]
        changed = [(change.id, NUMBER_OF[change.state], *_change_row(change)) for change in changes.values()]
        first, again = self._attempts(records.attempts)
        found = await self.connection.fetchval(
            QUERIES["begin_few_jobs"].sql,
            *_columns(new, 21),
            *_columns(changed, 5),
            *_columns(first, 2),
            *_columns([_slot_row(slot) for slot in records.slots_taken], 4),
            *_columns([self._event_row(line) for line in records.history], 5),
        )
        _check_count("begin_few_jobs", found, changed)
        if again:
            await self._execute("repeat_attempts", again, must_find=True)

    async def _move(self, records: Records) -> None:
        """What changes, starts and ends, and its story, however much it is."""
        if records.changed:
            await self._change(records.changed.values())
        if records.attempts:
            await self._begin(records.attempts)
        if ended := [ended for ended in records.ended if ended.admitted is None]:
            await self._end(ended, records.attempts)
        await self._move_slots(records)
        if records.history:
            await self._insert("add_events", [self._event_row(line) for line in records.history])

    async def _change(self, changes: Iterable[JobChange]) -> None:
        rows = [(change.id, NUMBER_OF[change.state], *_change_row(change)) for change in changes]
        await self._update("change_jobs", "change_alike_jobs", rows)

    async def _begin(self, attempts: Sequence[AttemptRow]) -> None:
        first, again = self._attempts(attempts)
        if first:
            await self._insert("add_attempts", first)
        if again:
            await self._execute("repeat_attempts", again, must_find=True)

    async def _end(self, ended: Sequence[EndedJob], begun: Iterable[AttemptRow]) -> None:
        """Ends jobs of the queue. What the decision does not know of their counts, their last attempts tell."""
        counts: dict[JobId, Row] = {}
        just_begun = {attempt.job for attempt in begun}
        if stale := [job.id for job in ended if job.id in self._attempted or job.id in just_begun]:
            for job, *counted in map(tuple, await self.connection.fetch(QUERIES["retire_attempts"].sql, stale)):
                counts[job] = tuple(counted)
        rows = [_end_row(job, counts.get(job.id, _NONE_COUNTED)) for job in ended]
        await self._update("end_jobs", "end_alike_jobs", rows)

    async def _write_notices(self, records: Records) -> None:
        """Who is to be told of ends and stalls finds that in the outbox as soon as it is true."""
        self.wrote_notices = False
        noticed = self._noticed | self._wishing
        if not noticed:
            return
        ended = [ended.id for ended in records.ended if ended.id in noticed]
        stalled = [line.job for line in records.history if line.event == "stalled"]
        for name, jobs in (("tell_of_ends", ended), ("tell_of_stalls", stalled)):
            if jobs:
                await self.connection.execute(NOTICES[name].sql, jobs)
                self.wrote_notices = True

    async def _carry_out(self, statements: Iterable[tuple[JobId, Statement]]) -> None:
        """The slices' statements, in their order; several of the same kind in a row are one round trip."""
        for name, same in groupby(statements, key=lambda pair: pair[1].query):
            sql = self._statements.get(name)
            if sql is None:
                raise Contradiction(f"there is no statement {name}")
            await self.connection.executemany(sql, [_with_job(statement.arguments, job) for job, statement in same])

    async def _move_slots(self, records: Records) -> None:
        """Ends before starts: a slot may pass from one job to the next."""
        if records.slots_freed:
            freed = [_slot_row(slot) for slot in records.slots_freed]
            await self._execute("free_slots", freed, must_find=True)
        if records.slots_taken:
            await self._insert("take_slots", [_slot_row(slot) for slot in records.slots_taken])

    async def _keep_calls(self, records: Records) -> None:
        if records.calls_sent:
            sent = [
                (call.id, call.job, call.lead, call.sent, call.attempt, call.account, call.cost, call.credits)
                for call in records.calls_sent
            ]
            await self._insert("send_calls", sent)
        if records.calls_closed:
            closed = [(call.id, call.state, _text(call.cause), call.began, call.cost) for call in records.calls_closed]
            await self._execute("close_calls", closed)

    async def _keep_pauses(self, pauses: Iterable[PauseRow]) -> None:
        last = {(pause.scope, pause.name): pause.paused for pause in pauses}
        if begun := [pause for pause, paused in last.items() if paused]:
            await self._execute("add_pauses", begun)
        if ended := [pause for pause, paused in last.items() if not paused]:
            await self._execute("drop_pauses", ended)

    # -- rows -------------------------------------------------------------------------------------------------------

    def _attempts(self, attempts: Iterable[AttemptRow]) -> tuple[list[Row], list[Row]]:
        """First attempts, and others."""
        first: list[Row] = []
        again: list[Row] = []
        for attempt in attempts:
            (again if attempt.job in self._attempted else first).append((attempt.job, attempt.number))
        return first, again

    def _job_row(self, job: AdmittedJob) -> Row:
        new = job.new
        return (
            job.id, job.order, job.submitted, _run_at(job), job.chain, new.rerun_of, new.table, new.total, new.uid,
            job.teamspace, job.step, len(new.steps) or None, self._kinds[new.kind], NUMBER_OF[job.state],
            new.stop_on_failure, new.notify, new.payload, new.warnings or None,
        )  # fmt: skip

    def _changed_row(self, job: AdmittedJob, change: JobChange | None) -> Row:
        """A new row as it is at the end of the decision."""
        row = self._job_row(job)
        if change is None:
            return (*row, *_UNCHANGED)
        return (*row[:_STATE], NUMBER_OF[change.state], *row[_STATE + 1 :], *_change_row(change))

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
            await self.connection.executemany(QUERIES[name].sql, rows)
            return
        table, columns = QUERIES[name].target
        await self.connection.copy_records_to_table(table, records=rows, columns=columns)

    async def _update(self, each: str, alike: str, rows: Iterable[Row]) -> None:
        """Statement `alike` for rows of which many differ in the job alone, as noops do; `each` for the others."""
        jobs: dict[Row, list[JobId]] = {}
        for row in rows:
            jobs.setdefault(row[1:], []).append(row[0])
        others: list[Row] = []
        for values, same in jobs.items():
            if len(same) < ALIKE_MIN:
                others += [(job, *values) for job in same]
            else:
                _check(alike, await self.connection.execute(QUERIES[alike].sql, same, *values), same)
        if others:
            await self._execute(each, others, must_find=True)

    async def _execute(self, name: str, rows: Sequence[Row], *, must_find: bool = False) -> None:
        """One statement for all rows; their columns are its arguments. Raises Contradiction on another number."""
        status = await self.connection.execute(QUERIES[name].sql, *zip(*rows, strict=True))
        if must_find:
            _check(name, status, rows)


def _wishing(admitted: Iterable[AdmittedJob]) -> set[JobId]:
    """The new jobs of which somebody is to be told."""
    return {job.id for job in admitted for statement in job.new.statements if statement.query == WISH_NOTICE}


def stored_key(teamspace: int, key_hash: bytes) -> bytes:
    """An idempotency key as the database holds it."""
    return teamspace.to_bytes(4) + key_hash


def _run_at(job: AdmittedJob) -> int | None:
    """The wall time before which a job does not start; a delay is already reckoned into its order."""
    new = job.new
    if new.run_at is None and new.delay_microseconds:
        return job.order + new.priority_microseconds
    return new.run_at


def _is_few(records: Records) -> bool:
    """Whether jobs start or end, and a few at most.

    An attempt that begins and ends in the same decision is not among what is ended first and begun then.
    """
    if not (records.slots_freed or records.slots_taken):
        return False
    lists: tuple[Sized, ...] = (records.admitted, records.ended, records.changed, records.attempts)
    if max(map(len, lists)) > FEW_JOBS or len(records.history) > FEW_LINES:
        return False
    return {attempt.job for attempt in records.attempts}.isdisjoint([ended.id for ended in records.ended])


def _columns(rows: Sequence[Row], count: int) -> Iterable[Row]:
    """Rows as so many columns."""
    return zip(*rows, strict=True) if rows else repeat((), count)


def _change_row(change: JobChange) -> Row:
    return (change.details or None, change.attempt, change.started)


def _end_row(job: EndedJob, counts: Row) -> Row:
    """`counts`: where the decision knows none."""
    return (
        job.id, NUMBER_OF[job.state], job.ended, job.started, job.reason, _text(job.message),
        *(counts if job.counts is None else astuple(job.counts)),
    )  # fmt: skip


def _check(name: str, status: str, rows: Sequence[object]) -> None:
    """Raises Contradiction where a statement's status names another number of rows than it was given."""
    _check_count(name, int(status.rpartition(" ")[2]), rows)


def _check_count(name: str, found: int, rows: Sequence[object]) -> None:
    """Raises Contradiction where another number of rows was found than was meant."""
    if found != len(rows):
        raise Contradiction(f"{name}: {len(rows)} rows were meant, the database found {found}: {rows[:3]} ...")


def _slot_row(slot: SlotRow) -> Row:
    return (slot.teamspace, slot.family, slot.slot, slot.job)


def _with_job(arguments: tuple[object, ...], job: JobId) -> Row:
    return tuple(job if argument is THIS_JOB else argument for argument in arguments)


def _text(text: str) -> str:
    """Text as Postgres can hold it: what providers say may contain a NUL or half a character."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd") if text else text
