"""The kind `export`: leads written to a file in STATE/exports, chunk by chunk.

The file grows under a name of its own (`….part`) and gets its real name when it is whole, so that nobody takes half a
file for an export. The checkpoint is how long the file was after the last chunk: an attempt that goes on after a crash
copies so much into a file of its own, for the one before may not be dead but asleep. A cell that a spreadsheet would
take for a formula is written behind an apostrophe.
"""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio.to_thread
import msgspec

from leadline.core.model import Counts, Family
from leadline.features.tables.columns import Cells, cell_text
from leadline.features.tables.ports import LeadStore
from leadline.features.tables.selection import (
    Database,
    finished,
    list_of,
    plus,
    prepare,
    skipped_by_guard,
    table_of,
)
from leadline.ports.work import Attempt, ChainNotes, Finished, Prepared, Rerun, Stopped
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, LeadReason, Refused
from leadline_protocol.ids import JobId

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
"""A cell of text that begins so is a formula to spreadsheets (OWASP, CSV injection)."""

PART: Final = ".part"

FILE_MODE: Final = 0o640
"""The group of the folder may read what is in it."""

_SUBMISSION = msgspec.json.Decoder(wire.Export)


class Checkpoint(msgspec.Struct):
    """How far an attempt has got."""

    chunks: int = 0
    file_bytes: int = 0
    attempt: int = 0
    """Whose file holds them; 0: none does yet."""


class Export:
    """Exports (`ports.work.JobKind`)."""

    name = "export"
    family = Family.TABLES

    def __init__(self, leads: LeadStore, database: Database, folder: Path) -> None:
        self._leads = leads
        self._database = database
        self._folder = folder

    async def prepare(
        self, teamspace: str, submission: wire.Submission, *, chain: ChainNotes | None, rerun: Rerun | None
    ) -> Prepared:
        """Check the table, the columns, the filter and the file's name. Raises Refused."""
        assert isinstance(submission, wire.Export)
        if submission.format == "xlsx":
            raise Refused(ErrorCode.BAD_REQUEST, "an export can be csv or jsonl", at="format")
        if submission.path is not None and not plain_name(submission.path):
            message = "the name of a file in the exports folder: no slash, no leading dot"
            raise Refused(ErrorCode.BAD_REQUEST, message, at="path")
        prepared = await prepare(self._leads, teamspace, submission, {}, chain, rerun)
        table = await self._leads.table(teamspace, submission.table)
        if table is not None and chain is None:
            known = {column.name for column in table.columns}
            for name in submission.columns or ():
                if name not in known:
                    message = f"the table has no column {name}"
                    raise Refused(ErrorCode.UNKNOWN_COLUMN, message, at="columns")
        return prepared

    async def run(self, attempt: Attempt) -> Finished:
        """Write the file. Raises Stopped."""
        submission = _SUBMISSION.decode(attempt.job.payload)
        leads = self._leads
        table = await table_of(leads, attempt, submission.table)
        frozen = await list_of(leads, attempt, table, submission, None)
        if (skipped := skipped_by_guard(submission, frozen.total)) is not None:
            return skipped
        columns = submission.columns or [column.name for column in table.columns]
        counts = attempt.job.counts if attempt.job.counts.total else Counts(total=frozen.total)
        checkpoint = msgspec.convert(await leads.checkpoint(attempt.job.id) or {}, Checkpoint)
        final = self._folder / (submission.path or f"{table.name}-{attempt.job.id}.{submission.format}")
        part = _part(final, attempt.job.id, attempt.number)
        if checkpoint.attempt == 0:
            heading = encoded_heading(columns) if submission.format == "csv" else b""
            checkpoint.file_bytes = await anyio.to_thread.run_sync(_write_at, part, 0, heading)
        elif checkpoint.attempt != attempt.number:
            older = _part(final, attempt.job.id, checkpoint.attempt)
            if not await anyio.to_thread.run_sync(_inherit, older, part, checkpoint.file_bytes, final):
                return msgspec.structs.replace(finished(counts), message=str(final.name))
        checkpoint.attempt = attempt.number
        while chunk := await leads.chunk(frozen, checkpoint.chunks):
            if attempt.stopping:
                raise Stopped("told to stop")
            await self._database.records(attempt, len(chunk), frozen.total)
            found = await leads.leads(table.id, chunk)
            rows = [found[lead] for lead in chunk if lead in found]
            piece = encoded_rows(rows, columns, submission.format)
            checkpoint.file_bytes = await anyio.to_thread.run_sync(_write_at, part, checkpoint.file_bytes, piece)
            checkpoint.chunks += 1
            counts = plus(counts, done=len(rows), failed={LeadReason.DELETED: len(chunk) - len(rows)})
            async with leads.work(attempt.job.id, attempt.number) as work:
                await work.save(counts, f"writing {final.name}", checkpoint)
                await work.chunks_done(checkpoint.chunks)
            attempt.progressed(counts)
        await anyio.to_thread.run_sync(_publish, part, final, attempt.job.id)
        return msgspec.structs.replace(finished(counts), message=str(final.name))


def plain_name(path: str) -> bool:
    """Whether a path is a mere name, which leads out of no folder."""
    return "/" not in path and "\0" not in path and not path.startswith(".") and len(path.encode()) <= 200


def encoded_heading(columns: Sequence[str]) -> bytes:
    """The first line of a CSV."""
    return encoded_lines([list(columns)])


def encoded_rows(rows: Sequence[Cells], columns: Sequence[str], file_format: str) -> bytes:
    """Leads as lines of a file."""
    if file_format == "jsonl":
        return msgspec.json.Encoder().encode_lines([{name: row.get(name) for name in columns} for row in rows])
    return encoded_lines([[defused(row.get(name)) for name in columns] for row in rows])


def encoded_lines(rows: Sequence[Sequence[str]]) -> bytes:
    """Rows of texts as CSV (RFC 4180) in UTF-8."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def defused(value: object) -> str:
    """A cell's text; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    text = cell_text(value)  # type: ignore[arg-type]  # a cell holds what columns.py lets in
    if isinstance(value, str) and text.startswith(FORMULA_STARTS):
        return "'" + text
    return text


def _part(final: Path, job: JobId, attempt: int) -> Path:
    """The file that an attempt writes, hidden beside the one that it becomes.

    Each has its own: one that was replaced in the middle of a write does that write when it wakes, and not into what
    its successor has made of the file meanwhile.
    """
    return final.with_name(f".{final.name}.{job}.{attempt}{PART}")


def _inherit(older: Path, part: Path, size: int, final: Path) -> bool:
    """Begin an attempt's file with what the one before has stored of its own; False where that was given its name."""
    try:
        source = os.open(older, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        if final.exists():
            return False
        raise
    target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        copied = 0
        while copied < size:
            count = os.sendfile(target, source, copied, size - copied)
            assert count, "what a checkpoint speaks of was durable before it"
            copied += count
        os.fsync(target)
    finally:
        os.close(source)
        os.close(target)
    return True


def _publish(part: Path, final: Path, job: JobId) -> None:
    """Give the file its name, durably, and remove what earlier attempts have left."""
    part.replace(final)
    for left in final.parent.iterdir():
        if left.name.startswith(f".{final.name}.{job}.") and left.suffix == PART:
            left.unlink(missing_ok=True)
    folder = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_at(path: Path, offset: int, piece: bytes) -> int:
    """Cut the file off at the offset, write the piece there, durably; return where it ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)  # the service's umask would keep the group out
        os.ftruncate(descriptor, offset)
        view = memoryview(piece)
        written = 0
        while written < len(view):
            written += os.pwrite(descriptor, view[written:], offset + written)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return offset + len(piece)
