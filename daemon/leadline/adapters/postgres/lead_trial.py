"""Dry runs in Postgres: the port `features.tables.preview.Trial`."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from leadline.adapters.postgres.lead_lists import selection
from leadline.adapters.postgres.lead_rows import CELLS, QUERIES
from leadline.adapters.postgres.lead_work import PostgresWork
from leadline.adapters.postgres.leads import PostgresLeads
from leadline.adapters.postgres.tenant_sql import held_against
from leadline.features.tables.expressions import Compiled
from leadline.features.tables.ports import JobList, Table
from leadline.features.tables.preview import Tried
from leadline_protocol.ids import JobId, LeadId, TableId


class PostgresTrial(PostgresLeads):
    """The same for a dry run (`features.tables.preview.Trial`): what a submission would have stored is not."""

    async def new_table_id(self) -> TableId:
        """No number at all: no table is made."""
        return TableId(0)

    async def freeze_now(self, table: Table, where: Compiled | None, first: int | None) -> tuple[JobList, bytes]:
        """How long the list would be."""
        return JobList(0, len(await self.match(table, where, first))), b""

    async def match(self, table: Table, where: Compiled | None, first: int | None) -> Sequence[LeadId]:
        """The leads that a list would hold if it were frozen now."""
        async with self._store.read() as connection, connection.transaction(readonly=True):
            statement, parameters = selection(table, where, first)
            with held_against("where"):
                rows = await connection.fetch(QUERIES["matching"].sql, statement, parameters)
        return [LeadId(row["lead"]) for row in rows]

    async def try_formula(
        self, table: Table, leads: Sequence[LeadId], column: str, value: Compiled
    ) -> Mapping[LeadId, Tried]:
        """What a formula would do to these leads: it is done, looked at and taken back."""
        before = await self.leads(table.id, leads)
        tried: dict[LeadId, Tried] = {}
        with suppress(_TakenBack):
            async with self._store.write() as connection:
                failed = await PostgresWork(connection, JobId(0), 0).apply(table, leads, column, value)
                reasons = {lead: reason for reason, ids in failed.items() for lead in ids}
                for row in await connection.fetch(QUERIES["leads"].sql, table.id, leads):
                    lead = LeadId(row["id"])
                    after = CELLS.decode(row["data"]).get(column)
                    tried[lead] = Tried(before.get(lead, {}).get(column), after, reasons.get(lead))
                raise _TakenBack
        return tried


class _TakenBack(Exception):
    """Ends a transaction without effect."""
