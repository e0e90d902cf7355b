"""What the tables slice needs of a database: leads, lists, results, and the transactions that hold them together."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import CallId, Instant, JobId, LeadId, TableId
from msgspec import Struct

from leadline.core.model import Counts
from leadline.features.tables.columns import Cells, Column
from leadline.features.tables.expressions import Compiled


class Table(Struct, frozen=True):
    """A table as it is now."""

    id: TableId
    teamspace: str
    name: str
    columns: tuple[Column, ...]
    key_columns: tuple[str, ...]
    created: datetime
    uploading: JobId | None = None
    """A live upload into it, if there is one."""


class Lead(Struct, frozen=True):
    """One row as it is now."""

    id: LeadId
    data: Cells


class NewLead(Struct, frozen=True):
    """A row that is to become a lead."""

    row: int
    key_hash: bytes | None
    data: Cells


class RefusedLead(Struct, frozen=True):
    """A row that is not taken."""

    row: int
    line: int
    reason: LeadReason
    detail: str
    raw: str


class Result(Struct, frozen=True):
    """How a lead ended in a job."""

    lead: LeadId
    state: str
    """done, failed, skipped or unknown."""
    reason: LeadReason | None = None
    detail: str = ""
    cells: Cells = {}
    """What is written into the lead; an absent column is left as it is."""
    calls: tuple[CallId, ...] = ()
    """The calls that brought it, with their last one done."""


class Order(Struct, frozen=True):
    """Work that a provider has taken on for a lead."""

    lead: LeadId
    provider_task: str
    ordered: Instant
    call: CallId


class JobList(Struct, frozen=True):
    """The frozen list of a job."""

    list: int
    total: int


class CutOff(Struct, frozen=True):
    """A call of an earlier attempt whose end nobody knows."""

    lead: LeadId
    cause: str
    """crash, stalled, worker_lost, cancelled, …"""


class Work(Protocol):
    """A work transaction: everything in it is stored together, or nothing, and nothing where the attempt is retired."""

    async def save(self, counts: Counts, activity: str, checkpoint: object) -> None:
        """Store the job's counts and where to go on after a crash."""
        ...

    async def freeze(self, table: Table, where: Compiled | None, text: str | None, first: int | None) -> JobList:
        """Freeze the list of the job: the ids of the leads that match now, in their order."""
        ...

    async def apply(
        self, table: Table, leads: Sequence[LeadId], column: str, value: Compiled
    ) -> Mapping[LeadReason, Sequence[LeadId]]:
        """Write an expression's value into a column of these leads, in one statement.

        Returns the leads on which it failed, by reason; they keep what they had, and a result row is stored for each.
        Leads that are deleted are absent from both and counted under LeadReason.DELETED.
        """
        ...

    async def add(self, table: Table, leads: Sequence[NewLead], on_duplicate: str) -> Mapping[int, str]:
        """Store new rows; of those whose key is in the table already, do what `on_duplicate` says.

        Returns what became of the rows that are not new leads: row to `duplicate`, `updated` or `filled`.
        """
        ...

    async def refuse(self, rows: Sequence[RefusedLead]) -> None:
        """Store rows that are not taken."""
        ...

    async def settle(self, table: Table, results: Sequence[Result]) -> None:
        """Store results, what they write into leads, and that their calls are done."""
        ...

    async def note(self, orders: Sequence[Order]) -> None:
        """Store that a provider has taken work on, and that the calls which ordered it are done."""
        ...


class LeadStore(Protocol):
    """The tables of all teamspaces."""

    async def table(self, teamspace: str, name: str) -> Table | None:
        """A table as it is now."""
        ...

    async def table_by_id(self, table: TableId) -> Table:
        """The same by its number."""
        ...

    async def make_table(self, teamspace: str, name: str, key: Sequence[str]) -> Table:
        """The table of that name, made where there is none. Two at once make one."""
        ...

    async def declare(self, table: TableId, columns: Sequence[Column]) -> Table:
        """Add the columns that the table lacks; those that it has keep their type. Two at once lose nothing."""
        ...

    async def count(self, table: TableId) -> int:
        """How many leads a table has."""
        ...

    async def freeze_now(self, table: Table, where: Compiled | None) -> tuple[JobList, bytes]:
        """Freeze a list before there is a job for it; the hash of its ids goes onto the receipt."""
        ...

    async def rerun_list(self, original: JobId, leads: str) -> JobList | None:
        """A new list of the leads of an ended job: unfinished, failed or all. None where that job has no list."""
        ...

    async def list_of(self, job: JobId) -> JobList | None:
        """The list of a job, where it has been frozen."""
        ...

    async def chunk(self, job_list: JobList, chunk: int) -> Sequence[LeadId]:
        """One chunk of a list; empty after the last."""
        ...

    async def unsettled(self, job: JobId, leads: Sequence[LeadId]) -> Sequence[LeadId]:
        """Those of these leads that have no result in the job yet, in the same order."""
        ...

    async def leads(self, table: TableId, ids: Sequence[LeadId]) -> Mapping[LeadId, Cells]:
        """These leads as they are now; deleted ones are absent."""
        ...

    async def matching(self, table: Table, ids: Sequence[LeadId], condition: Compiled) -> frozenset[LeadId]:
        """Those of these leads for which a condition is true."""
        ...

    async def orders(self, job: JobId) -> Mapping[LeadId, Order]:
        """What a provider has taken on for leads of the job that have no result yet."""
        ...

    async def cut_off(self, job: JobId) -> Sequence[CutOff]:
        """The calls of earlier attempts whose end nobody knows."""
        ...

    async def checkpoint(self, job: JobId) -> object:
        """What the last attempt stored with `Work.save`; None where there is nothing."""
        ...

    async def upload_file(self, job: JobId) -> tuple[str, str]:
        """The daemon's copy of an uploaded file, and the name it came under."""
        ...

    def refused(self, job: JobId) -> AsyncIterator[RefusedLead]:
        """The rows of an upload that were not taken, in their order."""
        ...

    def work(self, job: JobId, number: int) -> AbstractAsyncContextManager[Work]:
        """A work transaction of an attempt. Raises AttemptRetired, Fenced, Unavailable, OutcomeUnknown."""
        ...
