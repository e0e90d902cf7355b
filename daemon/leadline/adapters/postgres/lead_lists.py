"""Lists of leads: frozen once, and worked through chunk by chunk."""

from collections.abc import Sequence
from typing import Final

from leadline.adapters.postgres.lead_rows import QUERIES
from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.tenant_sql import Given, held_against, is_true
from leadline.features.tables.expressions import Compiled
from leadline.features.tables.ports import JobList, Table
from leadline_protocol.ids import JobId

CHUNK_LEADS: Final = 5_000
"""Leads in one chunk of a list: what one work transaction takes on at most."""


def selection(table: Table, where: Compiled | None, first: int | None) -> tuple[str, Sequence[str]]:
    """The statement of the leads that match now, in their order, and its parameters."""
    given = Given(where)
    statement = f"SELECT id FROM lead WHERE table_id = {given.number(table.id)}"  # noqa: S608  numbers are parameters
    if where is not None:
        statement += f" AND {is_true(where)}"
    statement += " ORDER BY id"
    if first is not None:
        statement += f" LIMIT {given.number(first)}"
    return statement, given.parameters


async def freeze(
    connection: Connection, table: Table, where: Compiled | None, first: int | None, rerun_of: JobId | None = None
) -> tuple[JobList, bytes]:
    """Freeze the leads that match now; with the hash of their ids."""
    chosen, parameters = selection(table, where, first)
    statement = f"SELECT array_agg(id) FROM ({chosen}) AS chosen"  # noqa: S608  put together there
    with held_against("where"):
        if rerun_of is None:
            return await keep_list(connection, "matching_leads", statement, parameters)
        return await keep_list(connection, "unanswered_leads", statement, parameters, rerun_of)


async def keep_list(connection: Connection, wanted: str, *arguments: object) -> tuple[JobList, bytes]:
    """Freeze the leads that a query gives; with the hash of their ids."""
    number = await connection.fetchval(QUERIES["new_list"].sql)
    query = QUERIES["keep_list"].sql.format(wanted=QUERIES[wanted].sql)
    kept = await connection.fetchrow(query, number, CHUNK_LEADS, *arguments)
    assert kept is not None, "an aggregate has one row"
    return JobList(number, kept["total"]), kept["list_hash"]
