"""Jobs: how they are, what holds them back, and what has happened to them."""

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct, field

from leadline_protocol.errors import JobReason, LeadReason
from leadline_protocol.ids import JobId, LeadId
from leadline_protocol.messages.replies.base import JobWarning, Reply
from leadline_protocol.messages.replies.usage import Spent
from leadline_protocol.messages.words import (
    FamilyWord,
    Ref,
    SelectLeads,
    StateWord,
)


class Counts(Struct, frozen=True, gc=False, kw_only=True):
    """How far the leads (of a chain: of all its steps) are; done + failed + skipped + unknown + pending = total."""

    total: int
    done: int
    failed: int
    skipped: int
    unknown: int
    pending: int


class Wait(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One thing that a job waits for."""

    reason: JobReason
    message: str | None = None
    """The same in a sentence, with its numbers."""
    until: datetime | None = None
    """Absent where nobody knows."""
    numbers: dict[str, int | float | str] = field(default_factory=dict)
    """What the reason is measured by, such as {"provider": "snov", "limit": 15, "per_seconds": 60}."""


class ListView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The receipt of a frozen list of leads: what it was made by, and what tells it from every other."""

    leads: int
    where: str | None = None
    """The filter; absent: every lead, or those that a rerun takes on."""
    select_leads: Annotated[str, Meta(extra_json_schema={"enum": [*get_args(SelectLeads)]})]
    at: datetime
    hash: str
    """Of the leads' ids in their order: two lists with the same hash are the same."""


class Eta(Struct, frozen=True, gc=False, kw_only=True):
    """When something is expected, as a range."""

    earliest: datetime
    latest: datetime


class JobView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A job as it is shown."""

    job: JobId
    kind: str
    summary: str | None = None
    """What it does, for people: `Fill score of 4,850 leads of prospects with ai_prompt`."""
    family: FamilyWord
    teamspace: str
    table: str | None = None
    state: StateWord
    shown: str
    """The word to show people: the state, or `waiting` for a running job that has waits and no work in hand."""
    attempt: int = 0
    """Its runs so far, the present one included."""
    priority_seconds: float = 0.0
    submitted_at: datetime
    run_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    counts: Counts
    leads_per_second: float | None = None
    ends: Eta | None = None
    """When it is expected to end; absent where nobody knows, such as while it waits for a person."""
    activity: str | None = None
    """What it is doing at present, for people."""
    waits: list[Wait] = field(default_factory=list)
    jobs_ahead: int | None = None
    """So many jobs run before it; only in the answer to `jobs`, of those that are explained."""
    eta: Eta | None = None
    """When it is expected to start or to go on; as `jobs_ahead`."""
    stalled: bool = False
    reason: JobReason | None = None
    """Why it ended so, where it did not plainly run to its end."""
    message: str | None = None
    warnings: list[JobWarning] = field(default_factory=list)
    chain: JobId | None = None
    """Of a step: the chain it belongs to."""
    step: int | None = None
    """Of a step: its place in the chain, from 1."""
    steps: list[JobId] = field(default_factory=list)
    """Of a chain: its steps' ids, in order."""
    rerun_of: JobId | None = None
    frozen_list: ListView | None = None
    """Its list of leads, once that is frozen; only in the answers to `get` and `job`."""


class RefusedRow(Struct, frozen=True, gc=False, kw_only=True):
    """A row of an upload that was not taken."""

    row: int
    """Its number among the rows, from 1; the header does not count."""
    line: int
    """The line of the file on which it begins, from 1."""
    reason: LeadReason
    detail: str
    raw: str
    """Its values as one record of CSV with commas, or the beginning of it. A row that could not be taken apart is one
    value.
    """


class LeadNotDone(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A lead with which a job is through, and which it has not done."""

    lead: LeadId
    state: Literal["failed", "skipped", "unknown"]
    reason: LeadReason | None = None
    detail: str = ""
    cells: dict[str, Any] | None = None
    """What it holds now, by the names of its columns; absent where it was deleted since."""


class LeadSample(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One of the leads that ended for the same reason."""

    lead: LeadId | None = None
    row: int | None = None
    """Of an upload, instead: the row's number, from 1; the header does not count."""
    detail: str = ""


class LeadErrors(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The leads of a job that ended otherwise than done, for one reason."""

    job: JobId
    """The job itself; of a chain the step."""
    state: Literal["failed", "skipped", "unknown"]
    reason: LeadReason
    leads: int
    samples: list[LeadSample]
    """The first of them, three at most."""


class ThroughputPoint(Struct, frozen=True, gc=False, kw_only=True):
    """How far a job was at one time."""

    at: datetime
    done: int
    """Leads that were at their end then, however they had ended."""


class JobReply(Reply, frozen=True, kw_only=True):
    """One job."""

    view: JobView
    submission: dict[str, Any] | None = None
    """What was submitted; only in the answer to `job`."""
    refused: list[RefusedRow] = field(default_factory=list)
    """Asked for by `refused_after`; empty behind the last row."""
    headers: list[str] = field(default_factory=list)
    """Of the file whose rows those are; with the first page only."""
    leads: list[LeadNotDone] = field(default_factory=list)
    """Asked for by `leads_after`; empty behind the last."""
    columns: list[str] = field(default_factory=list)
    """Of the table whose leads those are, those of its key first."""
    steps: list[JobView] = field(default_factory=list)
    """Of a chain: its steps in order, each with its list; only in the answer to `job`."""
    spent: list[Spent] = field(default_factory=list)
    """By provider account; of a chain: by all its steps."""
    errors: list[LeadErrors] = field(default_factory=list)
    """Why leads were not done, the most frequent first, of a chain by its steps; only in the answer to `job`."""
    throughput: list[ThroughputPoint] = field(default_factory=list)
    """How far it was at which time, from its start to its end: 120 points at most, the further apart the longer it is;
    of a job that has leads, and only in the answer to `job`."""
    ref: Ref = None


class JobList(Reply, frozen=True, kw_only=True):
    """A page of jobs, newest first."""

    jobs: list[JobView]
    next: JobId | None = None
    """To be sent as `before` for the next page; absent on the last."""
    steps: list[JobView] = field(default_factory=list)
    """With `nested`: the steps of the page's chains, each chain's in order."""
    ref: Ref = None


class Changed(Reply, frozen=True, kw_only=True):
    """The job is, by what was asked, now in this state."""

    job: JobId
    state: StateWord
    ref: Ref = None


class WhyReply(Reply, frozen=True, kw_only=True):
    """All that holds a job back now; empty when nothing does."""

    job: JobId
    blockers: list[Wait]
    jobs_ahead: int
    eta: Eta | None = None
    """When it is expected to start or to go on; absent where nobody knows, such as while it is paused."""
    ref: Ref = None


class HistoryEntry(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One thing that happened to a job, in the past tense."""

    at: datetime
    event: str
    detail: dict[str, Any] = field(default_factory=dict)


class HistoryReply(Reply, frozen=True, kw_only=True):
    """What happened to a job, oldest first."""

    job: JobId
    history: list[HistoryEntry]
    ref: Ref = None
