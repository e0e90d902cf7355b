"""The kind `export`: leads written to a file in STATE/exports, chunk by chunk.

The file grows under a name of its own (`….part`) and gets its real name when it is whole, so that nobody takes half a
file for an export. The checkpoint is how long the file was after the last chunk: an attempt that goes on after a crash
copies so much into a file of its own, for the one before may not be dead but asleep. In CSV a cell that a spreadsheet
would take for a formula is written behind an apostrophe.

A spreadsheet cannot grow like that. It is written as a plain file of rows, like the others, which at its end is packed
(`spreadsheets`); a crash meanwhile costs the packing alone.
"""

import csv
import io
import os
import shutil
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, assert_never

import anyio.to_thread
import msgspec

from leadline.core.model import Counts, Family
from leadline.features.tables import spreadsheet_worker
from leadline.features.tables.columns import Column, ColumnType
from leadline.features.tables.formula_cells import csv_cell
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
from leadline.features.tables.spreadsheets import FILE_MODE
from leadline.ports.work import Attempt, ChainNotes, Finished, Prepared, Rerun, Stopped
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, LeadReason, Refused
from leadline_protocol.ids import JobId

PART: Final = ".part"

PACKED: Final = ".packed" + PART
"""What a spreadsheet is packed into before it gets its name."""

STEM_BYTES_MAX: Final = 150
"""Of what a file is called after its table: with what stands before and behind it, file systems take it."""

_SUBMISSION = msgspec.json.Decoder(wire.Export)
_CELLS: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_LINES: Final = msgspec.json.Encoder(decimal_format="number")


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
        known = {column.name: column for column in table.columns}
        columns = [known.get(name) or Column(name, ColumnType.TEXT) for name in submission.columns or known]
        counts = attempt.job.counts if attempt.job.counts.total else Counts(total=frozen.total)
        checkpoint = msgspec.convert(await leads.checkpoint(attempt.job.id) or {}, Checkpoint)
        final = self._folder / (submission.path or own_name(table.name, attempt.job.id, submission.format))
        part = _part(final, attempt.job.id, attempt.number)
        if checkpoint.attempt == 0:
            heading = encoded_heading(columns, submission.format)
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
            found = await leads.lead_texts(table.id, chunk)
            texts = [found[lead] for lead in chunk if lead in found]
            checkpoint.file_bytes = await anyio.to_thread.run_sync(
                _write_leads, part, checkpoint.file_bytes, texts, columns, submission.format
            )
            checkpoint.chunks += 1
            counts = plus(counts, done=len(texts), failed={LeadReason.DELETED: len(chunk) - len(texts)})
            async with leads.work(attempt.job.id, attempt.number) as work:
                await work.save(counts, f"writing {final.name}", checkpoint)
                await work.chunks_done(checkpoint.chunks)
            attempt.progressed(counts)
        if submission.format == "xlsx":
            attempt.doing(f"packing {final.name}")
            packed = part.with_name(part.name.removesuffix(PART) + PACKED)
            await spreadsheet_worker.pack(part, packed, attempt.moved)
            part = packed
        await anyio.to_thread.run_sync(_publish, part, final, attempt.job.id)
        return msgspec.structs.replace(finished(counts), message=str(final.name))


def own_name(table: str, job: JobId, file_format: wire.FileFormat) -> str:
    """What the file of a job is called that names none: after its table, which may be called anything."""
    plain = "".join(character if character.isprintable() and character != "/" else "_" for character in table)
    stem = plain.lstrip(".").encode()[:STEM_BYTES_MAX].decode(errors="ignore")
    return f"{stem}-{job}.{file_format}"


def plain_name(path: str) -> bool:
    """Whether a path is a mere name, which leads out of no folder."""
    return "/" not in path and "\0" not in path and not path.startswith(".") and len(path.encode()) <= 200


def encoded_heading(columns: Sequence[Column], file_format: wire.FileFormat) -> bytes:
    """What a file begins with."""
    match file_format:
        case "csv":
            return encoded_lines([[column.name for column in columns]])
        case "jsonl":
            return b""
        case "xlsx":
            return _LINES.encode_lines([columns])
        case never:
            assert_never(never)


def encoded_leads(leads: Sequence[str], columns: Sequence[Column], file_format: wire.FileFormat) -> bytes:
    """Leads, given as JSON, as lines of a file: numbers with all their digits."""
    names = [column.name for column in columns]
    rows = map(_CELLS.decode, leads)
    match file_format:
        case "csv":
            return encoded_lines([[csv_cell(row.get(name)) for name in names] for row in rows])
        case "jsonl":
            return _LINES.encode_lines([{name: row.get(name) for name in names} for row in rows])
        case "xlsx":
            return _LINES.encode_lines([[row.get(name) for name in names] for row in rows])
        case never:
            assert_never(never)


def encoded_lines(rows: Iterable[Sequence[str]]) -> bytes:
    """Rows of texts as CSV (RFC 4180) in UTF-8."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


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
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    folder = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_leads(
    path: Path, offset: int, leads: Sequence[str], columns: Sequence[Column], file_format: wire.FileFormat
) -> int:
    """Write leads at the offset, durably; return where the file ends."""
    return _write_at(path, offset, encoded_leads(leads, columns, file_format))


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
