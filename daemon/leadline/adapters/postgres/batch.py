"""Batch jobs and their runs in Postgres (`features.batch.ports.BatchStore`)."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, Final

import msgspec

from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import parse
from leadline.adapters.postgres.store import PostgresStore
from leadline.core.model import SECOND, JobState
from leadline.core.quota.days import Day
from leadline.core.quota.ledger import KEPT_MICROSECONDS, AttemptRow, BatchJobId, ExecutionRow, Usage
from leadline.core.quota.quotas import Quotas, check_new_job
from leadline.features.batch.archive import Code
from leadline.features.batch.ports import (
    INVOKE,
    BatchJob,
    BatchState,
    Conduct,
    Ending,
    Line,
    Recipients,
    Rows,
    StoredCode,
    StoredRun,
    StoredSetting,
    Tried,
    Used,
    Version,
)
from leadline.features.batch.request_ports import QUESTIONS_MAX, Mail, mark_of
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import Instant, JobId
from leadline_protocol.messages.words import INT64_MAX

QUARTER: Final = 900 * SECOND
"""A quarter of an hour, by which the database adds up what runs have used."""

QUERIES: Final = parse((files(__package__) / "batch.sql").read_text(encoding="utf-8"))

STATEMENTS: Final = {INVOKE: QUERIES[INVOKE].sql}
"""By which an admission says what is to be run."""


class PostgresBatch:
    """Batch jobs as stored."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    # -- batch jobs ---------------------------------------------------------------------------------------------------

    async def batch_jobs(self, teamspace: str | None, name: str | None, after: int, limit: int) -> Sequence[BatchJob]:
        """Batch jobs by their numbers, from behind `after` on."""
        return [_batch_job(row) for row in await self._fetch("batch_jobs", teamspace, name, after, limit)]

    async def add(self, teamspace: str, name: str, conduct: Conduct, quotas: Quotas) -> bool:
        """A draft, unless there is one of that name. Raises Refused where the plan allows no more."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["lock_batch"].sql, teamspace)
            if await connection.fetch(QUERIES["batch_jobs"].sql, teamspace, name, 0, 1):
                return False
            check_new_job(quotas, await connection.fetchval(QUERIES["count_batch_jobs"].sql, teamspace))
            await connection.execute(QUERIES["add_batch_job"].sql, teamspace, name, *_values(conduct))
        return True

    async def change(self, batch_job: BatchJobId, conduct: Conduct) -> None:
        """Let it run like this from the next run on."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["change_batch_job"].sql, batch_job, *_values(conduct))

    async def move(self, batch_job: BatchJobId, from_: Sequence[BatchState], to: BatchState) -> bool:
        """Change its state; False where it is in none of these."""
        async with self._store.write() as connection:
            moved = await connection.fetchval(QUERIES["move_batch_job"].sql, batch_job, list(from_), to)
        return moved is not None

    async def delete(self, batch_job: BatchJobId) -> Sequence[str]:
        """Drop it, with its code, settings and schedules; returns the names of these."""
        async with self._store.write() as connection:
            rows = await connection.fetch(QUERIES["delete_batch_job"].sql, batch_job)
        return [row["name"] for row in rows if row["name"] is not None]

    async def add_version(self, batch_job: BatchJobId, code: Code, archive: bytes, sha256: bytes, uid: int) -> int:
        """Store its code; returns the version."""
        arguments = (archive, sha256, code.files, code.takes_event, code.requirements, uid)
        async with self._store.write() as connection:
            version: int = await connection.fetchval(QUERIES["add_batch_version"].sql, batch_job, *arguments)
        return version

    async def versions(self, batch_job: BatchJobId) -> Sequence[Version]:
        """All that were uploaded, newest first."""
        return [Version(**row) for row in await self._fetch("batch_versions", batch_job)]

    async def code(self, batch_job: BatchJobId, version: int) -> StoredCode | None:
        """One of them."""
        rows = await self._fetch("batch_version", batch_job, version)
        return StoredCode(**rows[0]) if rows else None

    async def digests(self) -> Sequence[bytes]:
        """The SHA-256 of every zip that runs, or that the next run of its batch job would take."""
        return [row["sha256"] for row in await self._fetch("batch_digests")]

    async def settings(self, batch_job: BatchJobId) -> Sequence[StoredSetting]:
        """Its settings, by name."""
        return [StoredSetting(**row) for row in await self._fetch("batch_settings", batch_job)]

    async def set_settings(
        self, batch_job: BatchJobId, changed: Sequence[StoredSetting], dropped: Sequence[str]
    ) -> None:
        """Change some of them."""
        rows = [(batch_job, each.name, each.secret, each.sealed) for each in changed]
        async with self._store.write() as connection:
            await connection.executemany(QUERIES["set_batch_setting"].sql, rows)
            await connection.execute(QUERIES["drop_batch_settings"].sql, batch_job, list(dropped))

    # -- runs ---------------------------------------------------------------------------------------------------------

    async def rows(self, teamspace: str, since: Instant) -> Rows:
        """What the ledger of a teamspace is made of, as far as days since then are concerned."""
        async with self._store.read() as connection:
            return await _rows(connection, teamspace, since)

    async def used(self, teamspace: str, day: Day, since: Instant, tokens: Collection[bytes] = ()) -> Used:
        """What a day has used, however many runs it has; which runs of these tokens have started, or any since then."""
        quarters = (day.begins // QUARTER, day.ends // QUARTER)
        async with self._store.read() as connection:
            found = await connection.fetch(QUERIES["batch_used"].sql, teamspace, *quarters, list(tokens), since)
        sums = [row for row in found if row["token"] is None]
        usage = Usage(
            day,
            sum(row["executions"] for row in sums),
            {BatchJobId(row["batch_job"]): row["executions"] for row in sums},
            sum(row["recorded_ms"] for row in sums),
            sum(row["in_progress_ms"] for row in sums),
        )
        runs = [row for row in found if row["token"] is not None]
        return Used(
            usage,
            {row["token"]: BatchJobId(row["batch_job"]) for row in runs if not row["executions"]},
            frozenset(row["token"] for row in runs if row["executions"]),
        )

    @asynccontextmanager
    async def books(self, job: JobId, number: int, wall: Instant) -> AsyncIterator["PostgresBooks"]:
        """The books, for attempt `number` of a job of the queue. Raises AttemptRetired."""
        async with self._store.work(job, number) as connection:
            run = (await _runs(connection, "batch_run", job))[0]
            await connection.execute(QUERIES["lock_batch"].sql, run.teamspace)
            run = (await _runs(connection, "batch_run", job))[0]
            oldest = await connection.fetchval(QUERIES["oldest_open_run"].sql, run.teamspace)
            since = Instant(min(wall, wall if oldest is None else oldest) - KEPT_MICROSECONDS)
            found = await connection.fetch(QUERIES["batch_job_by_id"].sql, run.batch_job)
            batch_job = _batch_job(found[0]) if found else None
            yield PostgresBooks(connection, run, await _rows(connection, run.teamspace, since), batch_job)
        self._store.noticed()

    async def run(self, job: JobId) -> StoredRun | None:
        """A run, with its attempts."""
        async with self._store.read() as connection:
            runs = await _runs(connection, "batch_run", job)
        return runs[0] if runs else None

    async def run_of(self, token: bytes) -> StoredRun | None:
        """The run of that token."""
        async with self._store.read() as connection:
            runs = await _runs(connection, "batch_run_by_token", token)
        return runs[0] if runs else None

    async def bury(self, run: StoredRun, retry: int, real_ms: int, ending: str, at: Instant) -> None:
        """An attempt has ended that nobody watched any more, and with it the run."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["lock_batch"].sql, run.teamspace)
            await connection.execute(QUERIES["record_batch_attempt"].sql, run.job, retry, real_ms, _text(ending))
            await connection.execute(QUERIES["bury_batch_run"].sql, run.job, at)

    async def unended(self) -> Sequence[StoredRun]:
        """Runs that have started, and whose jobs ended without that being in the books."""
        async with self._store.read() as connection:
            return await _runs(connection, "unended_batch_runs")

    async def expected(self) -> Sequence[tuple[JobId, Instant]]:
        """Runs that schedules want and that have not started, each with the time that it is for; oldest first."""
        return [(JobId(row["job"]), Instant(row["due"])) for row in await self._fetch("expected_batch_runs")]

    async def is_live(self, job: JobId) -> bool:
        """Whether a job of the queue has not ended."""
        live: bool = (await self._fetch("job_is_live", job))[0][0]
        return live

    async def runs(
        self, teamspace: str | None, batch_job: BatchJobId | None, before: JobId | None, limit: int
    ) -> Sequence[StoredRun]:
        """Runs, newest first, with their attempts."""
        async with self._store.read() as connection:
            return await _runs(connection, "batch_runs", teamspace, batch_job, before, limit)

    async def keep_lines(self, job: JobId, retry: int, lines: Sequence[Line]) -> None:
        """Store what an attempt has printed; what is stored already stays as it is."""
        numbers, times = [each.number for each in lines], [each.at for each in lines]
        texts = [each.text.replace("\0", "\N{REPLACEMENT CHARACTER}") for each in lines]
        async with self._store.write() as connection:
            await connection.execute(QUERIES["add_batch_lines"].sql, job, retry, numbers, times, texts)

    async def keep_mail(
        self, run: StoredRun, number: int, retry: int, question: int, mail: Mail, to: Sequence[str]
    ) -> None:
        """Put a mail of an attempt into the outbox, for each of these, once for each question; see the port."""
        said = (_text(mail.subject), _text(mail.body), mail.html)
        async with self._store.work(run.job, number) as connection:
            sql = QUERIES["keep_batch_mail"].sql
            await connection.execute(sql, run.job, retry, question, *said, run.teamspace, list(to))
        self._store.noticed()

    async def mailed(self, job: JobId, retry: int) -> Sequence[int]:
        """The questions that have led to a mail."""
        return [row["question"] for row in await self._fetch("batch_mailed", job, retry)]

    async def called(self, job: JobId, retry: int) -> Sequence[int]:
        """The questions that have led to a call of a provider, or may have."""
        before = mark_of(retry, 0)
        rows = await self._fetch("batch_called", job, before - QUESTIONS_MAX + 1, before - 1)
        return [before - row["lead"] for row in rows]

    async def last_line(self, job: JobId, retry: int) -> int:
        """The number of the last line that is stored."""
        last: int = (await self._fetch("last_batch_line", job, retry))[0][0]
        return last

    async def lines(self, job: JobId, retry: int, after: int, limit: int) -> Sequence[Line]:
        """What it has printed, from behind line `after` on."""
        rows = await self._fetch("batch_lines", job, retry, after, limit)
        return [Line(row["n"], Instant(row["at"]), row["text"]) for row in rows]

    async def last_lines(self, job: JobId, retry: int, before: int, limit: int) -> Sequence[Line]:
        """The last lines in front of a line; see the port."""
        rows = await self._fetch("last_batch_lines", job, retry, before or INT64_MAX, limit)
        return [Line(row["n"], Instant(row["at"]), row["text"]) for row in reversed(rows)]

    async def forget(self, before: Instant) -> None:
        """Drop what is kept of runs that ended before that, once their jobs are forgotten."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["drop_old_batch_runs"].sql, before)
            await connection.execute(QUERIES["drop_old_batch_quarters"].sql, (before - KEPT_MICROSECONDS) // QUARTER)

    async def _fetch(self, query: str, *arguments: object) -> Sequence[Any]:
        async with self._store.read() as connection:
            rows: Sequence[Any] = await connection.fetch(QUERIES[query].sql, *arguments)
        return rows


class PostgresBooks:
    """The books of one teamspace, in a transaction (`features.batch.ports.Books`)."""

    def __init__(self, connection: Connection, run: StoredRun, rows: Rows, batch_job: BatchJob | None) -> None:
        self._connection = connection
        self.run: Final = run
        self.rows: Final = rows
        self.batch_job: Final = batch_job

    async def begin(self, tried: Tried, version: int | None) -> None:
        """An attempt begins; with a version it is the first, and the run has started."""
        if version is not None:
            await self._connection.execute(QUERIES["start_batch_run"].sql, self.run.job, tried.began, version)
        arguments = (tried.retry, tried.began, tried.timeout_ms, tried.cap_ms)
        await self._connection.execute(QUERIES["begin_batch_attempt"].sql, self.run.job, *arguments)

    async def record(self, retry: int, real_ms: int, ending: str) -> None:
        """An attempt has ended."""
        await self._connection.execute(QUERIES["record_batch_attempt"].sql, self.run.job, retry, real_ms, _text(ending))

    async def end(self, ending: Ending, at: Instant) -> None:
        """The run has ended."""
        result = None if ending.result is None else bytes(ending.result).decode()
        arguments = (at, ending.state, ending.reason, _text(ending.message), result)
        await self._connection.execute(QUERIES["end_batch_run"].sql, self.run.job, *arguments)
        if ending.state is JobState.FAILED:
            of_whom = (self.run.job, self.run.batch_job, self.run.teamspace)
            await self._connection.execute(QUERIES["tell_of_failing"].sql, *of_whom)


async def _rows(connection: Connection, teamspace: str, since: Instant) -> Rows:
    started = await connection.fetch(QUERIES["batch_books"].sql, teamspace, since)
    tried = await connection.fetch(QUERIES["batch_attempts"].sql, [row["job"] for row in started])
    return Rows(
        [ExecutionRow(row["job"], row["batch_job"], Instant(row["started"]), row["ended"]) for row in started],
        [
            AttemptRow(row["job"], Instant(row["began"]), row["timeout_ms"], row["cap_ms"], row["real_ms"])
            for row in tried
        ],
    )


async def _runs(connection: Connection, query: str, *arguments: object) -> list[StoredRun]:
    rows = await connection.fetch(QUERIES[query].sql, *arguments)
    tried: dict[int, list[Tried]] = {row["job"]: [] for row in rows}
    for row in await connection.fetch(QUERIES["batch_attempts"].sql, list(tried)):
        each = Tried(
            row["retry"], Instant(row["began"]), row["timeout_ms"], row["cap_ms"], row["real_ms"], row["ending"]
        )
        tried[row["job"]].append(each)
    return [_run(row, tried[row["job"]]) for row in rows]


def _run(row: Any, tried: Sequence[Tried]) -> StoredRun:
    ending = None
    if row["state"] is not None:
        ending = Ending(
            JobState(row["state"]),
            None if row["reason"] is None else JobReason(row["reason"]),
            row["message"],
            None if row["result"] is None else msgspec.Raw(row["result"].encode()),
        )
    return StoredRun(
        JobId(row["job"]),
        row["token"],
        BatchJobId(row["batch_job"]),
        row["name"],
        row["teamspace"],
        _instant(row["due"]),
        row["version"],
        _instant(row["started"]),
        _instant(row["ended"]),
        ending,
        tried,
    )


def _batch_job(row: Any) -> BatchJob:
    conduct = Conduct(
        api=row["api"],
        timeout_ms=row["timeout_ms"],
        retries=row["retries"],
        retry_timeouts=row["retry_timeouts"],
        stall_after_seconds=row["stall_after_seconds"],
        interpreter=row["interpreter"],
        recipients=Recipients(tuple(row["mail_success"]), tuple(row["mail_failure"])),
    )
    return BatchJob(
        BatchJobId(row["id"]),
        row["teamspace"],
        row["name"],
        BatchState(row["state"]),
        row["version"],
        conduct,
        row["schedules"],
        row["created"],
    )


def _values(conduct: Conduct) -> tuple[object, ...]:
    return (
        conduct.api,
        conduct.timeout_ms,
        conduct.retries,
        conduct.retry_timeouts,
        conduct.stall_after_seconds,
        conduct.interpreter,
        list(conduct.recipients.success),
        list(conduct.recipients.failure),
    )


def _instant(value: int | None) -> Instant | None:
    return None if value is None else Instant(value)


def _text(text: str) -> str:
    """As Postgres takes it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
