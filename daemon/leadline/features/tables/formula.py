"""The kind `formula`: one column, filled with the value of an expression, set by set.

The list is worked through chunk by chunk, each one statement in one transaction with the counts and the checkpoint:
after a crash the next attempt goes on with the first chunk that was not committed. Two chunks at a time are on their
way (`overlap`), as the statement is all there is to it and Postgres carries it out on one processor. A lead on which
the expression fails keeps what it had and is a failed lead; the statement never fails for it.
"""

from collections.abc import Sequence

import msgspec

from leadline.core.model import Counts, Family
from leadline.features.tables.columns import ColumnType, declared_columns
from leadline.features.tables.expressions import Compiled
from leadline.features.tables.overlap import Turn, overlapped
from leadline.features.tables.ports import LeadStore
from leadline.features.tables.selection import (
    Database,
    ahead_of,
    compiled,
    finished,
    list_of,
    plus,
    prepare,
    skipped_by_guard,
    table_of,
)
from leadline.ports.work import Attempt, ChainNotes, Finished, Prepared, Rerun, Stopped
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import LeadId

_SUBMISSION = msgspec.json.Decoder(wire.Formula)


class Checkpoint(msgspec.Struct):
    """How far an attempt has got."""

    chunks: int = 0


class Formula:
    """Formulas (`ports.work.JobKind`)."""

    name = "formula"
    family = Family.TABLES

    def __init__(self, leads: LeadStore, database: Database) -> None:
        self._leads = leads
        self._database = database

    async def prepare(
        self, teamspace: str, submission: wire.Submission, *, chain: ChainNotes | None, rerun: Rerun | None
    ) -> Prepared:
        """Check the table, the column, the filter and the expression. Raises Refused."""
        assert isinstance(submission, wire.Formula)
        prepared = await prepare(self._leads, teamspace, submission, submission.into, chain, rerun)
        table = await self._leads.table(teamspace, submission.table)
        ahead = ahead_of(chain, submission.table)
        present = {column.name: column.type for column in (table.columns if table else ())}
        present |= {column.name: column.type for column in ahead.columns.values()}
        value_of(submission, present, unknown_allowed=ahead.uploaded)
        return prepared

    async def run(self, attempt: Attempt) -> Finished:
        """Fill the column. Raises Stopped."""
        submission = _SUBMISSION.decode(attempt.job.payload)
        leads = self._leads
        table = await table_of(leads, attempt, submission.table, declared_columns(submission.into))
        value = value_of(submission, {column.name: column.type for column in table.columns})
        assert value is not None
        frozen = await list_of(leads, attempt, table, submission, None)
        if (skipped := skipped_by_guard(submission, frozen.total)) is not None:
            return skipped
        counts = attempt.job.counts if attempt.job.counts.total else Counts(total=frozen.total)
        checkpoint = msgspec.convert(await leads.checkpoint(attempt.job.id) or {}, Checkpoint)
        (column,) = submission.into
        begun = checkpoint.chunks

        async def following() -> Sequence[LeadId] | None:
            nonlocal begun
            chunk = await leads.chunk(frozen, begun)
            if not chunk:
                return None
            if attempt.stopping:
                raise Stopped("told to stop")
            await self._database.records(attempt, len(chunk), frozen.total)
            begun += 1
            return chunk

        async def fill(chunk: Sequence[LeadId], turn: Turn) -> None:
            nonlocal counts
            async with leads.work_ahead(attempt.job.id, attempt.number) as work:
                await work.may_be_redone()
                failed = await work.apply(table, chunk, column, value)
                await turn()
                if attempt.stopping:
                    raise Stopped("told to stop")
                await work.claim()
                missed = {reason: len(ids) for reason, ids in failed.items()}
                now = plus(counts, done=len(chunk) - sum(missed.values()), failed=missed)
                checkpoint.chunks += 1
                await work.save(now, f"{column} of {table.name}", checkpoint)
                await work.chunks_done(checkpoint.chunks)
            counts = now
            attempt.progressed(counts)

        await overlapped(following, fill)
        return finished(counts)


def value_of(
    submission: wire.Formula, types: dict[str, ColumnType], *, unknown_allowed: bool = False
) -> Compiled | None:
    """The formula's expression, compiled for its column. Raises Refused with its place."""
    (column,) = declared_columns(submission.into)
    if column.allowed:
        message = "a formula fills a column of one type, not one of a list of texts"
        raise Refused(ErrorCode.BAD_REQUEST, message, at=f"into.{column.name}")
    return compiled(submission.expression, types, column.type, "expression", unknown_allowed=unknown_allowed)
