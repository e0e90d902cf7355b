"""The life of a table: made by hand, described, its old leads dropped, deleted.

Two of these take away millions of leads, and nobody may have to wait for that. A deleted table is gone at once, as a
whole: its row moves to where only the sweeper looks, so that its name is free and no question finds it. The leads go
after it bit by bit, in transactions of some tens of milliseconds with as long a pause after each as it took. How far
the sweeper is needs no record: what is left is what there is to do, after a crash as before.

Leads have no date. They are numbered in the order in which they came, so it is enough to note which was the first of
each day; those that have outlived their table's retention are the ones below a number. That is also why a table's
leads can be counted without looking at them: they go from the oldest on, and leave no gaps.

What jobs have left is dropped with what people know of them, `history_days` after their end; the rows that an upload
refused are people's data, and go with the leads of their table where that is sooner. A rerun needs the list of its job.

Keys go before the leads that they belong to. An upload that finds neither adds a lead; one that found the key of a
lead that is gone would take its row for a duplicate of nothing.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import anyio
from msgspec import Struct
from msgspec.structs import replace

from leadline.core.model import SECOND
from leadline.features.tables.columns import Column, declared_columns, normal_name
from leadline.features.tables.ports import Table
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import Instant, JobId, LeadId, TableId
from leadline_protocol.messages import ColumnSpec, ColumnView, TableView

SAMPLED_LEADS: Final = 20_000
"""Tables of at most so many are described exactly; of larger ones so many leads are looked at."""

SWEPT_AT_ONCE: Final = 5_000
"""Leads or keys that go in one transaction."""

TABLES_AT_ONCE: Final = 1_000

CHUNKS_AT_ONCE: Final = 20
"""Chunks of a list, of 5,000 leads each."""

SECONDS_PER_DAY: Final = 86_400

T = TypeVar("T")


class Listed(Struct, frozen=True):
    """A table with what is counted of it."""

    table: Table
    leads: int
    jobs: int
    """Those that have not ended."""
    retention_days: int | None


class Sample(Struct, frozen=True):
    """Some leads of a table, evenly from the first to the last."""

    leads: int
    bytes: int
    filled: Mapping[str, int]
    """Column → how many of them have a value in it."""


class Outlived(Struct, frozen=True):
    """Leads that are to go: those from `first` to below `end`."""

    table: TableId
    first: LeadId
    end: LeadId
    days: int | None = None
    """They are older than so many days; None: their table was deleted."""


class Remains(Struct, frozen=True):
    """A job of which there is a list, results, refused rows or throughput."""

    job: JobId
    live: bool
    ended: Instant | None
    """None: even what is kept of ended jobs has forgotten it."""
    teamspace: str | None
    """That of its table; None where there is no table any more, or never was."""
    retention_days: int | None
    """What its table says; 0 where that was deleted."""


class TableStore(Protocol):
    """What the life of tables needs of a database."""

    async def page(
        self, teamspace: str | None, table: str | None, after: tuple[str, str] | None, limit: int
    ) -> Sequence[Listed]:
        """Tables by teamspace and name, from behind `after` on."""
        ...

    async def create(self, teamspace: str, name: str, columns: Sequence[Column], key: Sequence[str]) -> bool:
        """Make a table, unless there is one of that name."""
        ...

    async def retain(self, table: TableId, days: int | None) -> None:
        """Set how long its leads stay."""
        ...

    async def delete(self, table: TableId) -> bool:
        """Move a table to the deleted ones, unless a job on it is live."""
        ...

    async def sample(self, table: TableId, leads: int) -> Sample:
        """Look at so many of its leads."""
        ...

    async def deleted(self) -> Sequence[Outlived]:
        """The deleted tables whose leads have not all gone."""
        ...

    async def retentions(self, after: TableId, limit: int) -> Sequence[tuple[TableId, str, int | None]]:
        """A page of the tables that have leads: number, teamspace, and what the table itself says of retention."""
        ...

    async def outlived(self, days: Mapping[TableId, int]) -> Sequence[Outlived]:
        """Of these tables the leads that are older than so many days."""
        ...

    async def sweep_keys(self, what: Outlived, after: bytes, limit: int) -> bytes | None:
        """Remove, of the next so many keys of the table, those of leads that go; returns the last one looked at."""
        ...

    async def sweep_leads(self, what: Outlived, first: LeadId, end: LeadId) -> None:
        """Remove the leads from `first` to below `end`, of which there are none below `first`."""
        ...

    async def swept(self, what: Outlived) -> None:
        """All of it is gone."""
        ...

    async def remains(self, after: JobId, limit: int) -> Sequence[Remains]:
        """A page of the jobs of which there is a list, results, refused rows or throughput."""
        ...

    async def sweep_remains(self, job: JobId, rows: int, chunks: int, *, everything: bool) -> bool:
        """Remove so many refused rows of a job, and where `everything` goes, so many results and chunks of its list.

        Returns whether there may be more; the list is forgotten with the last of it.
        """
        ...


class TableLife:
    """The tables of all teamspaces (`ports.tables.Tables`), and the sweeper."""

    def __init__(
        self,
        store: TableStore,
        find: Callable[[str, str], Awaitable[Table | None]],
        retention_days: Callable[[str], int | None],
        history_days: Callable[[], int],
    ) -> None:
        """`retention_days` is what a teamspace's plan says, for tables that say nothing.

        What an ended job has left is kept for `history_days`.
        """
        self._history_days = history_days
        self._store = store
        self._find = find
        self._retention_days = retention_days
        self.to_sweep: Final = _Signal()
        """Set when there is something for the sweeper."""

    async def page(
        self, teamspace: str | None, table: str | None, after: tuple[str, str] | None, limit: int
    ) -> Sequence[TableView]:
        """Tables by teamspace and name, from behind `after` on."""
        return [self._view(each) for each in await self._store.page(teamspace, table, after, limit)]

    async def find(self, teamspace: str, table: str) -> TableId:
        """The number of a table. Raises Refused with unknown_table."""
        found = await self._find(teamspace, table)
        if found is None:
            raise _unknown(teamspace, table)
        return found.id

    async def create(
        self, teamspace: str, table: str, columns: Mapping[str, ColumnSpec], key: Sequence[str]
    ) -> TableView:
        """Make a table without leads. Raises Refused."""
        if normal_name(table) == "":
            raise Refused(ErrorCode.BAD_REQUEST, "a table's name has at least one letter", at="table")
        declared = declared_columns(columns, field="columns") if columns else ()
        known = {column.name for column in declared}
        for name in key:
            if name not in known:
                raise Refused(ErrorCode.UNKNOWN_COLUMN, f"the key names {name}, which is no column of it", at="key")
        if not await self._store.create(teamspace, table, declared, key):
            raise Refused(ErrorCode.BAD_STATE, f"{teamspace} has a table {table} already", at="table")
        return (await self._listed(teamspace, table))[1]

    async def describe(self, teamspace: str, table: str) -> TableView:
        """A table, with how full its columns are. Raises Refused with unknown_table."""
        listed, view = await self._listed(teamspace, table)
        sample = await self._store.sample(listed.table.id, SAMPLED_LEADS)
        share = listed.leads / sample.leads if sample.leads and listed.leads > SAMPLED_LEADS else 1
        columns = [
            ColumnView(name=column.name, type=column.type, filled=round(sample.filled.get(column.name, 0) * share))
            for column in view.columns
        ]
        sampled = None if share == 1 else sample.leads
        return replace(view, columns=columns, size_bytes=round(sample.bytes * share), sampled=sampled)

    async def retain(self, table: TableId, days: int | None) -> None:
        """Let its leads go so many days after they were added; None: let them stay."""
        await self._store.retain(table, days)
        self.to_sweep.set()

    async def delete(self, table: TableId) -> bool:
        """Have a table gone, and its leads after it; False, and nothing happens, where a job on it has not ended."""
        deleted = await self._store.delete(table)
        if deleted:
            self.to_sweep.set()
        return deleted

    async def sweep(self) -> int:
        """Remove the leads of deleted tables, and those that have outlived their retention; returns of how many tables.

        Also what ended jobs have left. May be cancelled, and fail, at any moment: what is left is found again.
        """
        tables = 0
        for what in await self._store.deleted():
            await self._remove(what)
            tables += 1
        after = TableId(0)
        while page := await self._store.retentions(after, TABLES_AT_ONCE):
            after = page[-1][0]
            said = {table: days or self._retention_days(teamspace) for table, teamspace, days in page}
            for what in await self._store.outlived({table: days for table, days in said.items() if days is not None}):
                await self._remove(what)
                tables += 1
        await self._sweep_jobs()
        return tables

    async def _sweep_jobs(self) -> None:
        now = time.time()
        history_days = self._history_days()
        after = JobId(0)
        while page := await self._store.remains(after, TABLES_AT_ONCE):
            after = page[-1].job
            for each in page:
                if each.live:
                    continue
                days = (now - (each.ended or 0) / SECOND) / SECONDS_PER_DAY
                retained = each.retention_days
                if retained is None and each.teamspace is not None:
                    retained = self._retention_days(each.teamspace)
                everything = days >= history_days
                if everything or (retained is not None and days >= retained):
                    await self._sweep_job(each.job, everything=everything)

    async def _sweep_job(self, job: JobId, *, everything: bool) -> None:
        more = True
        while more:
            more = await _in_turn(self._store.sweep_remains(job, SWEPT_AT_ONCE, CHUNKS_AT_ONCE, everything=everything))

    async def _remove(self, what: Outlived) -> None:
        last: bytes | None = b""
        while last is not None:
            last = await _in_turn(self._store.sweep_keys(what, last, SWEPT_AT_ONCE))
        for first in range(what.first, what.end, SWEPT_AT_ONCE):
            end = min(what.end, first + SWEPT_AT_ONCE)
            await _in_turn(self._store.sweep_leads(what, LeadId(first), LeadId(end)))
        await self._store.swept(what)

    async def _listed(self, teamspace: str, table: str) -> tuple[Listed, TableView]:
        found = await self._store.page(teamspace, table, None, 1)
        if not found:
            raise _unknown(teamspace, table)
        return found[0], self._view(found[0])

    def _view(self, listed: Listed) -> TableView:
        table = listed.table
        return TableView(
            teamspace=table.teamspace,
            table=table.name,
            leads=listed.leads,
            columns=[
                ColumnView(name=column.name, type=list(column.allowed) or column.type.value) for column in table.columns
            ],
            created_at=table.created,
            jobs=listed.jobs,
            key=list(table.key_columns),
            retention_days=listed.retention_days or self._retention_days(table.teamspace),
        )


class _Signal:
    """Something that may be said many times, and is heard once."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = anyio.Event()


async def _in_turn(step: Awaitable[T]) -> T:
    """Do a step, and then leave the database to others for as long."""
    began = time.monotonic()
    result = await step
    await anyio.sleep(time.monotonic() - began)
    return result


def _unknown(teamspace: str, table: str) -> Refused:
    return Refused(ErrorCode.UNKNOWN_TABLE, f"{teamspace} has no table {table}", at="table")
