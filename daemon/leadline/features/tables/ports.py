"""What the tables slice needs of a database: leads, lists, results, and the transactions that hold them together."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec
from msgspec import Struct

from leadline.core.model import Counts
from leadline.core.rate_limit import Cost
from leadline.core.throughput import Point
from leadline.features.tables.columns import Cells, Column
from leadline.features.tables.expressions import Compiled
from leadline.features.tables.ingest import OnDuplicate, ReadyLead
from leadline.features.tables.reading import RefusedRow
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId, TableId


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


class AnsweredCall(Struct, frozen=True):
    """A call that brought what it was made for; its end is stored with that."""

    id: CallId
    at: Instant
    """When the answer was here."""
    cost: Cost | None = None
    """What it has come to, where that is not what it was charged."""


class Charge(Struct, frozen=True):
    """What a provider account is owed for a lead, on account of one answer; an entry of the ledger."""

    account: AccountName
    credits: Decimal
    at: Instant
    """By the clock on the wall: it decides the month."""
    answer: Literal["open", "none", "result"]
    """How far the account is with the lead: an answer is to come, it has no result for it, or it gave the result."""
    reason: LeadReason | None = None
    """Why it has no result."""


class Answers(Struct, frozen=True):
    """What an account has said about a lead in earlier attempts."""

    lead: LeadId
    account: AccountName
    answer: str
    reason: LeadReason | None


class Result(Struct, frozen=True):
    """How a lead ended in a job."""

    lead: LeadId
    state: str
    """done, failed, skipped or unknown."""
    reason: LeadReason | None = None
    detail: str = ""
    cells: Cells = {}
    """What is written into the lead; an absent column is left as it is."""
    call: AnsweredCall | None = None
    """The call that brought it."""
    charge: Charge | None = None


class LeadErrors(Struct, frozen=True):
    """The leads of a job that ended otherwise than done, for one reason."""

    job: JobId
    of_file: bool
    """It is an upload: they are rows of its file."""
    state: Literal["failed", "skipped", "unknown"]
    reason: LeadReason
    leads: int
    samples: tuple[tuple[int, str], ...]
    """The first few, by their numbers, with what there is to say of each."""


class NotDone(Struct, frozen=True):
    """A lead with which a job is through, and which it has not done."""

    lead: LeadId
    state: Literal["failed", "skipped", "unknown"]
    reason: LeadReason | None
    detail: str
    cells: Cells | None
    """What it holds now; None: it was deleted since."""


class Order(Struct, frozen=True):
    """Work that a provider has taken on for a lead."""

    lead: LeadId
    provider_task: str
    ordered: Instant
    account: AccountName
    call: AnsweredCall
    """The call that ordered it."""
    charge: Charge | None = None


class Passed(Struct, frozen=True):
    """An account has answered about a lead, and that was not the lead's end: another question follows, or another
    provider's turn.
    """

    lead: LeadId
    charge: Charge
    call: AnsweredCall | None = None


class PlacedOrder(Struct, frozen=True):
    """An order as an earlier attempt has stored it."""

    task: str
    ordered: Instant
    account: AccountName
    """Empty where it was stored by a release that knew one account for each job."""


class Spending(Struct, frozen=True):
    """Sums of the ledger."""

    teamspace: str
    account: str
    """Both are empty where the sum is over all."""
    calls: int
    """Answers that cost something."""
    credits: Decimal
    perhaps: Decimal
    """What calls may have cost besides of which nobody learnt how they ended."""


class BulkOrder(Struct, frozen=True):
    """Work that a provider is to do, or does, for many leads of a job at a time."""

    number: int
    """1, 2, ... within the job."""
    account: AccountName
    leads: tuple[LeadId, ...]
    task: str | None
    """What the provider calls it; None as long as it has not answered to the order."""
    ordered: Instant


DECLARE_COLUMNS: Final = "declare_columns"
"""Statement: add to table $1 those of the columns $2 (JSON) that it lacks."""
MAKE_TABLE: Final = "make_table"
"""Statement: make the table numbered $1 of teamspace $2 named $3, unless there is one of that name."""
ATTACH_LIST: Final = "attach_list"
"""Statement: job $1 works through list $2 of $3 leads, frozen by filter $4, with the hash $5."""
ATTACH_FILE: Final = "attach_file"
"""Statement: job $1 reads the daemon's copy $2 of the file $3."""


class JobList(Struct, frozen=True):
    """The frozen list of a job."""

    list: int
    total: int


class ListReceipt(Struct, frozen=True):
    """How the list of a job came about."""

    total: int
    where: str | None
    hash: bytes
    frozen: str
    """on_submit or on_start."""
    at: datetime


class CutOff(Struct, frozen=True):
    """A call of an earlier attempt whose end nobody knows."""

    lead: LeadId
    cause: str
    """crash, stalled, worker_lost, cancelled, …"""
    call: CallId
    account: AccountName
    open: bool
    """No later call for this lead was answered, so that this one's question may be taken up again."""


class Work(Protocol):
    """A work transaction: everything in it is stored together, or nothing, and nothing where the attempt is retired."""

    async def declare(self, table: TableId, columns: Sequence[Column], key: Sequence[str] | None) -> Table:
        """Add the columns that the table lacks; those that it has keep their type. Set its key where it has none."""
        ...

    async def may_be_redone(self) -> None:
        """Do not wait for the disk when this is committed.

        A crash of the server may undo it then, as a whole and with the checkpoint in it, so that the attempt does it
        once more; nothing that is committed later outlives it. Not for what somebody outside has done, or may rely on.
        """
        ...

    async def chunks_done(self, chunks: int) -> None:
        """Store how far a job that works on whole sets has got in its list."""
        ...

    async def keep_headers(self, headers: Sequence[str]) -> None:
        """Store the headers of the uploaded file."""
        ...

    async def save(self, counts: Counts, activity: str, checkpoint: object) -> None:
        """Store the job's counts, with whom they count as done, and where to go on after a crash."""
        ...

    async def freeze(
        self, table: Table, where: Compiled | None, text: str | None, first: int | None, rerun_of: JobId | None
    ) -> JobList:
        """Freeze the list of the job: the ids of the leads that match now, in their order.

        Without those about which the job that it runs again was answered.
        """
        ...

    async def apply(
        self, table: Table, leads: Sequence[LeadId], column: str, value: Compiled
    ) -> Mapping[LeadReason, Sequence[LeadId]]:
        """Write an expression's value into a column of these leads, in one statement.

        Returns the leads on which it failed, by reason; they keep what they had, and a result row is stored for each.
        Leads that are deleted are among them, under LeadReason.DELETED.
        """
        ...

    async def add(self, table: Table, rows: Sequence[ReadyLead], on_duplicate: OnDuplicate) -> frozenset[int]:
        """Store new rows, no two of one key; of those whose key is in the table already, do what `on_duplicate` says.

        Returns the numbers of the rows whose key was there.
        """
        ...

    async def refuse(self, rows: Sequence[RefusedRow]) -> None:
        """Store rows that are not taken."""
        ...

    async def settle(self, table: Table, results: Sequence[Result]) -> None:
        """Store results, what they write into leads, and that their calls are done; `save` comes after it."""
        ...

    async def note(self, news: Sequence[Order | Passed]) -> None:
        """Store what accounts have said about leads that have not ended by it: orders that they have taken, or that
        they are through with a lead; and that the calls which brought that are done.
        """
        ...

    async def owe(self, run: JobId, teamspace: str, charges: Sequence[tuple[LeadId, Charge]]) -> None:
        """Enter charges into the ledger, in this order; `run`: the first of the job and its reruns."""
        ...

    async def may_order(self, order: BulkOrder, since: Instant, orders_max: int | None) -> bool:
        """Keep an order that is about to be sent, unless so many others of its account, since then, are kept."""
        ...

    async def ordered(self, order: BulkOrder, call: AnsweredCall) -> None:
        """Store that the provider has taken an order on, and that the call which ordered it is done."""
        ...

    async def delivered(self, numbers: Sequence[int]) -> None:
        """Every lead of these orders has its result, or they were never sent: forget them."""
        ...


class WorkAhead(Work, Protocol):
    """A work transaction that was begun while the attempt's one before it is not over."""

    async def claim(self) -> None:
        """Store what was written, and what will be, as that of the present attempt. Raises AttemptRetired.

        To be called when the transaction before is known to be stored, and before anything is saved of the attempt
        itself. Without it nothing is stored.
        """
        ...


class TakenFile(Struct, frozen=True):
    """A file that the daemon has made its own."""

    name: str
    """The name of the daemon's copy."""
    size_bytes: int


class Incoming(Protocol):
    """Where uploads come from: a folder that others put files into, and folders that are configured."""

    async def take(self, path: str) -> TakenFile:
        """Copy a submitted file to where only the daemon writes. Raises Refused with bad_archive, at `path`."""
        ...

    async def dispose(self, path: str, name: str) -> None:
        """The upload has ended: remove the copy, and the original where it was put into the common folder."""
        ...

    def path_of(self, name: str) -> Path:
        """Where the daemon's copy of that name is."""
        ...


class LeadStore(Protocol):
    """The tables of all teamspaces."""

    async def table(self, teamspace: str, name: str) -> Table | None:
        """A table as it is now."""
        ...

    async def table_by_id(self, table: TableId) -> Table:
        """The same by its number."""
        ...

    async def new_table_id(self) -> TableId:
        """A number for a table that does not exist yet."""
        ...

    async def was_deleted(self, table: TableId) -> bool:
        """Whether there was a table of that number, which is gone."""
        ...

    async def freeze_now(self, table: Table, where: Compiled | None, first: int | None) -> tuple[JobList, bytes]:
        """Freeze a list before there is a job for it; the hash of its ids goes onto the receipt."""
        ...

    async def rerun_list(self, original: JobId, leads: str) -> tuple[JobList, bytes] | None:
        """A new list of the leads of an ended job: unfinished, failed or all. None where that job has no list."""
        ...

    async def list_of(self, job: JobId) -> JobList | None:
        """The list of a job, where it has been frozen."""
        ...

    async def list_receipts(self, jobs: Sequence[JobId]) -> Mapping[JobId, ListReceipt]:
        """How the lists of these jobs came about; those that have none yet are absent."""
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

    async def lead_texts(self, table: TableId, ids: Sequence[LeadId]) -> Mapping[LeadId, str]:
        """The same as JSON."""
        ...

    async def matching(self, table: Table, ids: Sequence[LeadId], condition: Compiled) -> frozenset[LeadId]:
        """Those of these leads for which a condition is true."""
        ...

    async def orders(self, job: JobId) -> Mapping[LeadId, PlacedOrder]:
        """What a provider has taken on for leads of the job that have no result yet."""
        ...

    async def answers(self, job: JobId, leads: Sequence[LeadId]) -> Sequence[Answers]:
        """What accounts have said about these leads in the job, as far as the ledger tells."""
        ...

    async def gone(self, job: JobId) -> Decimal:
        """The credits that a job has spent, or may have: by calls of which nobody knows how they ended."""
        ...

    async def spent(self, job: JobId) -> Sequence[Spending]:
        """What a job, or the steps of a chain, have cost, by account."""
        ...

    async def errors(self, job: JobId) -> Sequence[LeadErrors]:
        """Why leads of a job, or of the steps of a chain, were not done; of each job the most frequent first."""
        ...

    async def throughput(self, job: JobId) -> Sequence[Point]:
        """How far a job was at which time, oldest first."""
        ...

    async def run_of(self, job: JobId) -> JobId:
        """The first of a job and its reruns."""
        ...

    async def paid_elsewhere(self, run: JobId, job: JobId, leads: Sequence[LeadId]) -> frozenset[LeadId]:
        """Those of these leads for which other jobs of the same run have paid and got a result."""
        ...

    async def skipped(self, job: JobId, reason: LeadReason) -> int:
        """How many leads of the job were skipped for this reason."""
        ...

    async def bulk_orders(self, job: JobId) -> Sequence[BulkOrder]:
        """The orders of the job that have not been delivered in full."""
        ...

    async def cut_off(self, job: JobId) -> Sequence[CutOff]:
        """The calls of earlier attempts whose end nobody knows."""
        ...

    async def checkpoint(self, job: JobId) -> Any:
        """What the last attempt stored with `Work.save`; None where there is nothing."""
        ...

    async def upload_file(self, job: JobId) -> tuple[str, str]:
        """The daemon's copy of an uploaded file, and the name it came under."""
        ...

    async def refused(self, job: JobId, after: int) -> Sequence[RefusedRow]:
        """Rows of an upload that were not taken, in their order, from behind row number `after` on.

        A page of them, bounded in rows and in text; empty behind the last.
        """
        ...

    async def headers(self, job: JobId) -> Sequence[str]:
        """The headers of an uploaded file; none before it was surveyed, or where the job is no upload."""
        ...

    def work(self, job: JobId, number: int) -> AbstractAsyncContextManager[Work]:
        """A work transaction of an attempt. Raises AttemptRetired, Fenced, Unavailable, OutcomeUnknown."""
        ...

    def work_ahead(self, job: JobId, number: int) -> AbstractAsyncContextManager[WorkAhead]:
        """One that may overlap with the attempt's transaction before. Raises the same."""
        ...


def columns_json(columns: Sequence[Column]) -> str:
    """Columns as the statement DECLARE_COLUMNS takes them."""
    return msgspec.json.encode(columns).decode()
