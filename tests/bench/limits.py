"""What Postgres and the disk can do without us: the same rows, the same kind of table, the same server.

The tables are copies of the daemon's own, indexes and settings included, in a schema of their own. Each is emptied
before it is filled.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg
from msgspec import Struct

from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import QUERIES

ROWS_PER_COMMIT: Final = 5_000


class Rows(Struct, frozen=True):
    """Rows of one of the daemon's tables, as it has stored them."""

    table: str
    columns: tuple[str, ...]
    records: list[tuple[Any, ...]]


async def stored(connection: Connection, query: str, *, limit: int) -> Rows:
    """The rows that one of the store's statements has inserted, the newest first; prepares their limit's table."""
    return await kept(connection, *QUERIES[query].target, limit=limit)


async def kept(connection: Connection, table: str, columns: tuple[str, ...], *, limit: int | None = None) -> Rows:
    """Rows of a table, with these of its columns; prepares their limit's table."""
    some = "" if limit is None else f" LIMIT {limit}"
    records = await connection.fetch(f"SELECT {', '.join(columns)} FROM {table}{some}")
    await connection.execute(
        f"CREATE SCHEMA IF NOT EXISTS bench; CREATE TABLE bench.{table} (LIKE {table} INCLUDING ALL)"
    )
    return Rows(table, columns, [tuple(record) for record in records])


async def copy_rate(connection: Connection, *tables: Rows) -> float:
    """Rows of the first table per second when all are filled by COPY, 5,000 rows a commit."""
    for rows in tables:
        await connection.execute(f"TRUNCATE bench.{rows.table}")
    total = len(tables[0].records)
    groups = range(0, total, ROWS_PER_COMMIT)
    started = time.perf_counter()
    for first in groups:
        async with connection.transaction():
            for rows in tables:
                await connection.copy_records_to_table(
                    rows.table, schema_name="bench", columns=rows.columns,
                    records=rows.records[first : first + ROWS_PER_COMMIT],
                )  # fmt: skip
    return total / (time.perf_counter() - started)


async def update_rate(connection: Connection, jobs: Rows) -> float:
    """Rows per second when jobs just copied are marked as completed, 5,000 rows a commit."""
    ids = [record[jobs.columns.index("id")] for record in jobs.records]
    groups = [ids[first : first + ROWS_PER_COMMIT] for first in range(0, len(ids), ROWS_PER_COMMIT)]
    started = time.perf_counter()
    for group in groups:
        await connection.execute(
            "UPDATE bench.job SET state = 4, started = $2 WHERE id = ANY ($1::bigint[])", group, time.time_ns() // 1000
        )
    return len(ids) / (time.perf_counter() - started)


async def single_insert_rate(url: str, jobs: Rows, connections: int) -> float:
    """Rows per second by prepared INSERTs of one row, each committed by itself, on so many connections."""
    opened = [await asyncpg.connect(url) for _ in range(connections)]
    try:
        await opened[0].execute("TRUNCATE bench.job")
        places = ", ".join(f"${number}" for number in range(1, len(jobs.columns) + 1))
        statement = f"INSERT INTO bench.job ({', '.join(jobs.columns)}) VALUES ({places})"
        prepared = [await connection.prepare(statement) for connection in opened]
        remaining = iter(jobs.records)

        async def insert(one: "asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]") -> None:
            for record in remaining:
                await one.fetch(*record)

        started = time.perf_counter()
        await asyncio.gather(*map(insert, prepared))
        return len(jobs.records) / (time.perf_counter() - started)
    finally:
        for connection in opened:
            await connection.close()


async def single_commit_seconds(connection: Connection, jobs: Rows, commits: int, per_second: float) -> list[float]:
    """How long each of so many INSERTs of one row took, at that pace.

    The pace matters: one commit right after the other takes a quarter of the time of commits that find processor and
    disk asleep, and a daemon with little to do meets them like that too.
    """
    await connection.execute("TRUNCATE bench.job")
    places = ", ".join(f"${number}" for number in range(1, len(jobs.columns) + 1))
    statement = await connection.prepare(f"INSERT INTO bench.job ({', '.join(jobs.columns)}) VALUES ({places})")
    seconds = []
    for record in jobs.records[:commits]:
        await asyncio.sleep(1 / per_second)
        started = time.perf_counter()
        await statement.fetch(*record)
        seconds.append(time.perf_counter() - started)
    return seconds


async def copy_out_rate(connection: Connection) -> float:
    """Rows per second of the queue's own table by COPY to nowhere."""
    count = await connection.fetchval("SELECT count(*) FROM job")
    started = time.perf_counter()
    await connection.copy_from_table("job", output=forget, format="binary")
    return int(count) / (time.perf_counter() - started)


async def forget(_: bytes) -> None:
    """Where a COPY to nowhere goes."""


def fdatasync_seconds(folder: Path, writes: int = 200) -> list[float]:
    """How long the disk takes to keep 8 KiB, so many times."""
    path = folder / "fdatasync"
    seconds: list[float] = []
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.write(file, bytes(1 << 20))
        os.fsync(file)
        for number in range(writes):
            os.pwrite(file, bytes(8192), number % 128 * 8192)
            started = time.perf_counter()
            os.fdatasync(file)
            seconds.append(time.perf_counter() - started)
    finally:
        os.close(file)
        path.unlink()
    return seconds


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many in a hundred do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
