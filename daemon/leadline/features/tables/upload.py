"""The kind `upload`: a file's rows become leads, chunk by chunk.

The daemon reads its own copy of the file, so that whoever put it there cannot change it under the job; of a
spreadsheet it first makes a plain file, in a process of its own. A first pass surveys the columns and counts the rows,
so that progress has a whole; the second reads them, in a thread, a chunk at a time. Each chunk is one transaction with
its leads, its keys, its refused rows, the counts and the number of its last row: after a crash the next attempt reads
on behind that row. Rows are numbered by the file alone, so the second attempt sees the same numbers. That the file was
read to its end is stored before the file goes, and the file goes before the end of the job is stored, after which
nobody would think of it: so an attempt that a crash lets come in between needs no file.

A row takes some 10 µs of this process and as much of Postgres, so one chunk is read while the one before it is stored,
by a bare future: a task group would have to be open around the store's transactions and wrap what they raise. Read
ahead and in chunks of 5,000 instead of 1,000, uploads went from 0.20 to 0.35 of COPY, in 77 MB for a million rows. What
bounds them since is Python itself, which carries out one thread at a time: two thirds of those 10 µs are spent on what
becomes of each cell (`ingest`), and hold up the thread that talks to Postgres.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Final, cast

import anyio
import anyio.to_thread
import msgspec

from leadline.core.events import Statement
from leadline.core.model import Counts, Family, JobState
from leadline.features.tables import spreadsheet_worker
from leadline.features.tables.columns import cell_text, declared_columns, normal_name
from leadline.features.tables.ingest import (
    NewRow,
    OnDuplicate,
    ReadyLead,
    UploadPlan,
    duplicate,
    fold,
    plan_upload,
    ready,
)
from leadline.features.tables.lead_files import Format, Survey, recognised, survey
from leadline.features.tables.lead_files import rows as rows_of
from leadline.features.tables.ports import ATTACH_FILE, MAKE_TABLE, Incoming, LeadStore, Table
from leadline.features.tables.reading import RefusedRow, Row, UnreadableFileError
from leadline.features.tables.selection import Database, ahead_of, finished, submitted_for
from leadline.features.tables.spreadsheets import SheetFormat
from leadline.ports.store import THIS_JOB
from leadline.ports.work import Attempt, ChainNotes, Finished, JobFailed, Prepared, Rerun, Stopped
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import TableId

CHUNK_ROWS: Final = 5_000
"""Rows in one transaction: some 100 ms, so that a cancel and the progress bar never wait."""

LIMITED_CHUNK_ROWS: Final = 1_000
"""The same where the database's records have a limit: then they come slowly, and each should be seen soon."""

PIECE_ROWS: Final = 250

CHUNK_CHARACTERS_MAX: Final = 8 * 1024 * 1024
"""A chunk ends with the piece that reaches it: a row may have a thousand long cells."""

HEADER_CHARACTERS_MAX: Final = 300
"""How much of each header is kept: more than counts for the name of its column."""

_SUBMISSION = msgspec.json.Decoder(wire.Upload)


class Checkpoint(msgspec.Struct):
    """How far an attempt has got."""

    row: int = 0
    """The last row that was stored or refused."""
    ended: bool = False
    """Whether there is nothing more to read."""
    fault: str = ""
    """Why it could not be read, or not any further."""


class Upload:
    """Uploads (`ports.work.JobKind`)."""

    name = "upload"
    family = Family.TABLES

    def __init__(self, leads: LeadStore, database: Database, incoming: Incoming) -> None:
        self._leads = leads
        self._database = database
        self._incoming = incoming

    async def prepare(
        self, teamspace: str, submission: wire.Submission, *, chain: ChainNotes | None, rerun: Rerun | None
    ) -> Prepared:
        """Check the declarations and take the file over. Raises Refused."""
        assert isinstance(submission, wire.Upload)
        if rerun is not None:
            raise Refused(ErrorCode.BAD_STATE, "an upload is run again by handing the file in again", at="job")
        if submission.format is not None:
            _check_options(submission, submission.format)
        if submission.types:
            declared_columns(submission.types, field="types")
        if normal_name(submission.table) == "":
            raise Refused(ErrorCode.BAD_REQUEST, "a table's name has at least one letter", at="table")
        table = await self._leads.table(teamspace, submission.table)
        _check_key(table, submission)
        taken = await self._incoming.take(submission.path)
        statements = [Statement(ATTACH_FILE, (THIS_JOB, taken.name, submission.path))]
        table_id: TableId | None = None if table is None else table.id
        if table_id is None:
            table_id = await self._leads.new_table_id()
            statements.insert(0, Statement(MAKE_TABLE, (table_id, teamspace, submission.table)))
        ahead_of(chain, submission.table).uploaded = True
        return Prepared(table_id, statements=statements)

    async def run(self, attempt: Attempt) -> Finished:
        """Read the file into the table. Raises Stopped."""
        submission = _SUBMISSION.decode(attempt.job.payload)
        name, original = await self._leads.upload_file(attempt.job.id)
        path = self._incoming.path_of(name)
        checkpoint = msgspec.convert(await self._leads.checkpoint(attempt.job.id) or {}, Checkpoint)
        counts = attempt.job.counts
        if not checkpoint.ended:
            try:
                counts = await self._read(attempt, submission, path, checkpoint)
            except UnreadableFileError as error:
                checkpoint.fault = str(error)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(_remove, _plain_file(path, attempt.number))
            checkpoint.ended = True
            async with self._leads.work(attempt.job.id, attempt.number) as work:
                await work.save(counts, "read to its end", checkpoint)
        await self._incoming.dispose(original, name)
        if checkpoint.fault:
            return Finished(JobState.FAILED, counts, JobReason.BAD_FILE, checkpoint.fault)
        return finished(counts)

    async def _read(self, attempt: Attempt, submission: wire.Upload, path: Path, checkpoint: Checkpoint) -> Counts:
        """Read on behind the checkpoint. Raises UnreadableFileError before the first row, Stopped."""
        leads, job = self._leads, attempt.job
        table = await submitted_for(leads, attempt, submission.table)
        if table is None:
            raise JobFailed(JobReason.TABLE_DELETED, f"the table {submission.table} was deleted")
        path, written = await self._readable(attempt, submission, path)
        found = await anyio.to_thread.run_sync(survey, path, written)
        plan = _plan(found, submission, table)
        key = tuple(column.name for column in plan.key)
        if table.key_columns and key != table.key_columns:
            message = f"the leads of {table.name} are told apart by {', '.join(table.key_columns)}"
            raise UnreadableFileError(message)
        counts = job.counts if job.counts.total else Counts(total=found.rows)
        async with leads.work(job.id, attempt.number) as work:
            table = await work.declare(table.id, plan.columns, key)
            await work.keep_headers([header[:HEADER_CHARACTERS_MAX] for header in found.headers])
            await work.save(counts, "reading", checkpoint)
        attempt.progressed(counts)
        rows = rows_of(path, written, found, after=checkpoint.row)
        async with _read_ahead(_chunks(rows, plan, submission.on_duplicate, self._chunk_rows)) as chunks:
            async for chunk in chunks:
                if attempt.stopping:
                    raise Stopped("told to stop")
                await self._database.records(attempt, len(chunk.ready), counts.total)
                checkpoint.row = chunk.last
                async with leads.work(job.id, attempt.number) as work:
                    await work.may_be_redone()
                    there = await work.add(table, chunk.ready, submission.on_duplicate)
                    refused = chunk.refused
                    if there and submission.on_duplicate == "skip":
                        known = [duplicate(row) for row in chunk.new if row.number in there]
                        refused = sorted([*refused, *known], key=lambda row: row.number)
                    await work.refuse(refused)
                    done = counts.done + chunk.rows - len(refused)
                    counts = msgspec.structs.replace(counts, done=done, failed=counts.failed + len(refused))
                    await work.save(counts, f"row {chunk.last:,} of {counts.total:,}", checkpoint)
                attempt.progressed(counts)
        return counts

    def _chunk_rows(self) -> int:
        return CHUNK_ROWS if self._database.allowance() is None else LIMITED_CHUNK_ROWS

    async def _readable(self, attempt: Attempt, submission: wire.Upload, path: Path) -> tuple[Path, Format]:
        """The file to read the rows from, and how it is written. Raises UnreadableFileError."""
        written = await anyio.to_thread.run_sync(recognised, path, submission)
        if not isinstance(written, SheetFormat):
            return path, written
        attempt.doing("unpacking the spreadsheet")
        plain = _plain_file(path, attempt.number)
        await spreadsheet_worker.unpack(path, submission.sheet, plain, attempt.moved)
        return plain, written


def _plain_file(path: Path, attempt: int) -> Path:
    """Where an attempt unpacks a spreadsheet to; beside the daemon's copy, and like it swept up after a crash."""
    return path.with_name(f"{path.name}.{attempt}")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _check_options(submission: wire.Upload, kind: wire.FileFormat) -> None:
    if submission.sheet is not None and kind != "xlsx":
        raise Refused(ErrorCode.BAD_REQUEST, f"{kind} has no sheets", at="sheet")
    if submission.dialect is not None and kind == "xlsx":
        raise Refused(ErrorCode.BAD_REQUEST, "says how a text is written, and xlsx is none", at="dialect")


def _check_key(table: Table | None, submission: wire.Upload) -> None:
    if table is None or not table.key_columns or submission.key is None:
        return
    if tuple(submission.key) != table.key_columns:
        message = f"the leads of {table.name} are told apart by {', '.join(table.key_columns)}"
        raise Refused(ErrorCode.BAD_REQUEST, message, at="key")


def _plan(found: Survey, submission: wire.Upload, table: Table) -> UploadPlan:
    """How the rows become leads. Raises UnreadableFileError."""
    return plan_upload(
        found.headers,
        found.sample,
        table.columns,
        mapping=submission.mapping or {},
        declared=declared_columns(submission.types, field="types") if submission.types else (),
        key=submission.key if submission.key is not None else (table.key_columns or None),
        typed=found.typed,
    )


class Chunk(msgspec.Struct, frozen=True):
    """Rows that go into one transaction, with all of the work done that needs no database."""

    new: Sequence[NewRow]
    """No two of one key."""
    ready: Sequence[ReadyLead]
    """The same as they are stored."""
    refused: Sequence[RefusedRow]
    """Refused already, in their order."""
    rows: int
    last: int
    """The number of the last row."""


def _chunks(
    rows: Iterator[Row | RefusedRow], plan: UploadPlan, on_duplicate: OnDuplicate, size: Callable[[], int]
) -> Iterator[Chunk]:
    while chunk := _some(rows, size()):
        judged = [plan.lead(row) if isinstance(row, Row) else row for row in chunk]
        kept, folded = fold([row for row in judged if isinstance(row, NewRow)], on_duplicate)
        refused = [row for row in judged if isinstance(row, RefusedRow)]
        if folded and on_duplicate == "skip":
            refused = sorted([*refused, *map(duplicate, folded)], key=lambda row: row.number)
        yield Chunk(kept, [ready(row) for row in kept], refused, len(chunk), chunk[-1].number)


def _some(rows: Iterator[Row | RefusedRow], count: int) -> list[Row | RefusedRow]:
    """At most so many rows, fewer where they are long."""
    some: list[Row | RefusedRow] = []
    characters = 0
    while len(some) < count and characters < CHUNK_CHARACTERS_MAX:
        piece = list(islice(rows, min(PIECE_ROWS, count - len(some))))
        if not piece:
            break
        some += piece
        characters += sum(map(_weight, piece))
    return some


def _weight(row: Row | RefusedRow) -> int:
    """About how many characters there are in a row."""
    if isinstance(row, RefusedRow):
        return len(row.raw)
    try:
        return len("".join(cast("Sequence[str]", row.values)))  # of most files all are texts: a fifth of the cost
    except TypeError:
        return sum(len(cell_text(value)) for value in row.values)


@asynccontextmanager
async def _read_ahead(chunks: Iterator[Chunk]) -> AsyncIterator[AsyncIterator[Chunk]]:
    """Chunks, each read in a thread while the one before it is stored."""

    def read() -> asyncio.Future[Chunk | None]:
        return asyncio.ensure_future(anyio.to_thread.run_sync(next, chunks, None))

    reading = read()

    async def each() -> AsyncIterator[Chunk]:
        nonlocal reading
        while (chunk := await reading) is not None:
            reading = read()
            yield chunk

    try:
        yield each()
    finally:
        with anyio.CancelScope(shield=True):
            await asyncio.gather(reading, return_exceptions=True)  # its thread is in the file
