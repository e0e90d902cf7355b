"""What the parts that read and write leads share: where their statements stand, and how rows are read."""

from collections.abc import Iterable
from importlib.resources import files
from typing import Any, Final

import msgspec

from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import parse
from leadline.core.throughput import Point, Throughput
from leadline.features.tables.columns import Column
from leadline.features.tables.ports import Table
from leadline_protocol.ids import JobId, TableId

QUERIES: Final = parse((files(__package__) / "leads.sql").read_text(encoding="utf-8"))

LIFE: Final = parse((files(__package__) / "tables.sql").read_text(encoding="utf-8"))

_COLUMNS: Final = msgspec.json.Decoder(tuple[Column, ...])
CELLS: Final = msgspec.json.Decoder(dict[str, Any])


async def table_by_id(connection: Connection, table: TableId) -> Table:
    """A table that is there."""
    row = await connection.fetchrow(QUERIES["table_by_id"].sql, table)
    assert row is not None, f"table {table} was there when its job was admitted"
    return table_of(row)


def table_of(row: Any) -> Table:
    """A table from its row."""
    return Table(
        TableId(row["id"]),
        row["teamspace"],
        row["name"],
        _COLUMNS.decode(row["columns"]),
        tuple(row["key_columns"]),
        row["created"],
        row["uploading"],
    )


async def throughput_of(connection: Connection, job: JobId) -> Throughput:
    """How far a job was at which time."""
    row = await connection.fetchrow(QUERIES["throughput"].sql, job)
    if row is None:
        return Throughput()
    return Throughput(row["seconds"], tuple(map(Point, row["at"], row["settled"])))


def numbers(values: Iterable[int]) -> str:
    """Ids as they travel, in one text: asyncpg encodes an array of 5,000 of them one by one, a string at once."""
    return ",".join(map(str, values))
