"""Everything that may be said on a Leadline socket, as types: submissions, operations, replies and notices.

A line is one JSON object and each shape here is one such object, with the same names in Python as on the wire (the one
exception is `as`, a Python keyword, which is `as_` here). There are four families, told apart by one key each:

    submission   `kind`    work for the queue; `op` may say "submit" and usually says nothing
    operation    `op`      a question or an instruction about what is there
    reply        `ok`      one per request, in the order of the requests: what was asked for, or a Refusal
    notice       `event`   sent by the daemon between replies, because of `notify`, `follow` or `watch`

What a peer sends is read strictly: an unknown field is a mistake worth telling. What the daemon sends is read
leniently, so that a client goes on working with a daemon that has learnt to say more. Optional fields at their default
are left out of the line. All times are aware datetimes, RFC 3339 in UTC on the wire; a duration carries its unit in its
name.

Submissions and the steps of a chain carry the same work under the same names. msgspec cannot inherit from two structs,
so the fields of the work are written twice: a step has nothing else, a submission adds the envelope (teamspace, key,
times). A test holds the two equal, and `submission_of` turns one into the other, so that whoever does the work sees
submissions only.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, assert_never, get_args
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType, field

from leadline_protocol.errors import ErrorCode, JobReason, LeadReason
from leadline_protocol.ids import JobId, LeadId
from leadline_protocol.schedules import Schedule

PROTOCOL_VERSION: Final = 1
"""Raised when a message changes its meaning; a new field or a new message does not raise it."""

INT64_MAX: Final = 2**63 - 1

# Words and values -----------------------------------------------------------------------------------------------------

Family = Literal["tables", "batch", "outreach", "noop"]
"""What shares slots and capacity."""

State = Literal["delayed", "queued", "running", "stopping", "completed", "partial", "failed", "cancelled", "skipped"]
"""The states of a job; the last five are its ends."""

EndedState = Literal["completed", "partial", "failed", "cancelled", "skipped"]

FamilyWord = Annotated[str, Meta(extra_json_schema={"enum": [*get_args(Family)]})]
StateWord = Annotated[str, Meta(extra_json_schema={"enum": [*get_args(State)]})]
"""Family and State in what the daemon sends: a text that a client takes as it comes."""

ENDED_STATES: Final[frozenset[str]] = frozenset(get_args(EndedState))
"""A job in one of these will not change any more."""

ColumnType = Literal["text", "number", "boolean", "date", "timestamp", "json"]
"""What a column may hold; a `number` is an exact decimal, a `timestamp` has a time zone."""

SelectLeads = Literal["on_start", "on_submit"]
"""When the list of leads is frozen."""

FileFormat = Literal["csv", "jsonl", "xlsx"]
"""The files that can be read and written."""

Name = Annotated[str, Meta(min_length=1, max_length=100)]
"""What people call a teamspace, a table, a column, a module or a provider."""

Expression = Annotated[str, Meta(min_length=1, max_length=10_000)]
"""An SQL expression over the columns of one table."""

Path = Annotated[str, Meta(min_length=1, max_length=4096)]
"""A file: a plain name stands for one in the daemon's incoming (upload) or exports (export) folder."""

EnumValue = Annotated[str, Meta(min_length=1, max_length=200)]

ColumnSpec = ColumnType | Annotated[list[EnumValue], Meta(min_length=1, max_length=200)]
"""A column's type: a type word, or the list of the only texts it may hold."""

Key = Annotated[str, Meta(min_length=1, max_length=255)]
"""An idempotency key, unique within its teamspace for 30 days."""

Ref = Annotated[str, Meta(max_length=256)] | Annotated[int, Meta(ge=-INT64_MAX, le=INT64_MAX)] | None
"""The sender's own mark on a request; the reply repeats it."""

Id = Annotated[JobId, Meta(ge=1, le=INT64_MAX)]

AwareTime = Annotated[datetime, Meta(tz=True)]

PrioritySeconds = Annotated[float, Meta(ge=0, le=604_800)]
"""A head start of at most a week."""

DelaySeconds = Annotated[float, Meta(ge=0, le=31_622_400)]
"""At most 366 days."""


DryRun = bool | Annotated[int, Meta(ge=1, le=100)]
"""Whether a submission is only tried; true shows ten leads."""

SpendCap = Annotated[float, Meta(ge=0, le=1_000_000_000)]
"""Credits: the decimal that is written, up to 15 digits of it."""


class Dialect(Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """How a CSV file is written, where guessing it is not wanted; of JSON Lines, `encoding` alone."""

    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] | None = None
    quote: Annotated[str, Meta(min_length=1, max_length=1)] | None = None
    encoding: Annotated[str, Meta(min_length=1, max_length=40)] | None = None
    """A name Python's codecs know, such as `cp1252`."""


class MoreThan(Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """A guard: what becomes of the job when more than `count` leads matched."""

    count: Annotated[int, Meta(ge=0, le=INT64_MAX)]
    then: Literal["skip", "hold", "run"]


WhenEmpty = Literal["run", "skip", "hold"]
"""A guard: what becomes of the job when no lead matched."""

# Submissions ----------------------------------------------------------------------------------------------------------


NoticeEvent = Literal["completed", "partial", "failed", "cancelled", "skipped", "stalled"]
"""What somebody may be told of a job: its end, or that it stands still."""

Address = Annotated[
    str, Meta(max_length=254, pattern=r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$")
]
"""An e-mail address."""

WebhookUrl = Annotated[str, Meta(max_length=2000, pattern=r"^https?://[^\s/?#@]+([/?][^\s#]*)?$")]


class TellOf(Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Whom to tell of a job, besides those whom the configuration names for its teamspace."""

    webhook: WebhookUrl | None = None
    """Is sent a `JobNotice`; private addresses are refused unless the configuration allows them."""
    mail: Annotated[list[Address], Meta(max_length=10)] = field(default_factory=list)
    on: Annotated[list[NoticeEvent], Meta(min_length=1)] = field(
        default_factory=lambda: ["completed", "partial", "failed", "stalled"]
    )

    def __post_init__(self) -> None:
        if self.webhook is None and not self.mail:
            raise ValueError("give webhook or mail")


class Submission(
    Struct,
    tag_field="kind",
    frozen=True,
    gc=False,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
):
    """The envelope of all work: whose it is and when it may start. Each subclass with a tag is a kind of job.

    At most one of `run_at` and `delay` may be given; ValueError says so, here and on the wire.
    """

    op: Literal["submit"] | None = None
    teamspace: Name
    idempotency_key: Key | None = None
    """The same key from the same teamspace makes one job, however often it is sent."""
    priority_seconds: PrioritySeconds = 0.0
    """Goes ahead of jobs submitted at most so much earlier."""
    run_at: AwareTime | None = None
    """Takes no slot before."""
    delay: DelaySeconds | None = None
    """Seconds from the receipt on, in place of `run_at`."""
    notify: bool = False
    """Send an `ended` notice on this connection."""
    dry_run: DryRun = False
    """Store nothing and say what each step would take now; a number: show a formula's values for so many leads."""
    notices: TellOf | None = None
    """Whom to tell by webhook or mail, also when this connection is long gone."""
    ref: Ref = None

    def __post_init__(self) -> None:
        if self.delay is not None and self.run_at is not None:
            raise ValueError("give run_at or delay, not both")


class Noop(Submission, tag="noop", frozen=True, kw_only=True):
    """Does nothing: health checks and benchmarks."""


class Upload(Submission, tag="upload", frozen=True, kw_only=True):
    """Read a file into a table; the table is created where there is none."""

    table: Name
    path: Path
    mapping: dict[str, Name] | None = None
    """Header of the file → column of the table; headers not named are normalised."""
    types: dict[Name, ColumnSpec] | None = None
    """Columns whose type is not to be inferred."""
    key: list[Name] | None = None
    """The columns that make two rows the same lead; absent: `email` where there is such a column."""
    on_duplicate: Literal["skip", "update", "fill"] = "skip"
    """`update` overwrites the stored lead, `fill` writes its empty cells only."""
    format: FileFormat | None = None
    """Absent: found by looking; the file's name decides where that leaves a doubt."""
    dialect: Dialect | None = None
    sheet: Name | None = None
    """The sheet of a spreadsheet; absent: its first."""


class Formula(Submission, tag="formula", frozen=True, kw_only=True):
    """Fill one column with the value of an expression."""

    table: Name
    into: Annotated[dict[Name, ColumnSpec], Meta(min_length=1, max_length=1)]
    """The one column to fill, with its type; it exists, empty, from the receipt on."""
    expression: Expression
    where: Expression | None = None
    """The filter; absent: every lead."""
    select_leads: SelectLeads = "on_start"
    empty: WhenEmpty = "run"
    more_than: MoreThan | None = None


class Enrich(Submission, tag="enrich", frozen=True, kw_only=True):
    """Fill columns by a data module, lead by lead."""

    table: Name
    module: Name
    into: Annotated[dict[Name, ColumnSpec], Meta(min_length=1, max_length=100)]
    """The columns to fill, with their types; they exist, empty, from the receipt on."""
    params: dict[str, Any] = field(default_factory=dict)
    """What the module wants to know: any JSON."""
    where: Expression | None = None
    """The filter; absent: every lead."""
    select_leads: SelectLeads = "on_start"
    empty: WhenEmpty = "run"
    more_than: MoreThan | None = None
    run_if: Expression | None = None
    """Judged when a lead's turn comes; a lead for which it is not true is skipped."""
    first: Annotated[int, Meta(ge=1, le=INT64_MAX)] | None = None
    """A test run: only the first so many leads of the list."""
    spend_cap: SpendCap | None = None
    """The credits that the job may spend; leads for which none are left are skipped."""


class Export(Submission, tag="export", frozen=True, kw_only=True):
    """Write leads to a file."""

    table: Name
    path: Path | None = None
    """Absent: a name made of the table and the job."""
    format: FileFormat = "csv"
    columns: Annotated[list[Name], Meta(min_length=1)] | None = None
    """Absent: all, in the table's order."""
    where: Expression | None = None
    """The filter; absent: every lead."""
    select_leads: SelectLeads = "on_start"
    empty: WhenEmpty = "run"
    more_than: MoreThan | None = None


# Steps and chains -----------------------------------------------------------------------------------------------------


class When(Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What must be true of the step right before one, when that has ended; all that is said must be."""

    ended: Annotated[list[EndedState], Meta(min_length=1)] | None = None
    """In one of these states; absent: in any."""
    done_at_least: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None
    """So many of its leads are done."""
    failed_at_most: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None
    """No more of its leads have failed, or nobody knows of them."""


class StepBase(
    Struct,
    tag_field="kind",
    frozen=True,
    gc=False,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
):
    """The work of a submission without its envelope; the chain's envelope holds for all its steps."""

    when: When | None = None
    """Else the step is skipped, and the chain goes on; not for the first step."""


class NoopStep(StepBase, tag="noop", frozen=True, kw_only=True):
    """A Noop within a chain."""


class UploadStep(StepBase, tag="upload", frozen=True, kw_only=True):
    """An Upload within a chain."""

    table: Name
    path: Path
    mapping: dict[str, Name] | None = None
    types: dict[Name, ColumnSpec] | None = None
    key: list[Name] | None = None
    on_duplicate: Literal["skip", "update", "fill"] = "skip"
    format: FileFormat | None = None
    dialect: Dialect | None = None
    sheet: Name | None = None


class FormulaStep(StepBase, tag="formula", frozen=True, kw_only=True):
    """A Formula within a chain; `select_leads` may be left out or say on_start, which a chain always means."""

    table: Name
    into: Annotated[dict[Name, ColumnSpec], Meta(min_length=1, max_length=1)]
    expression: Expression
    where: Expression | None = None
    select_leads: Literal["on_start"] = "on_start"
    empty: WhenEmpty = "run"
    more_than: MoreThan | None = None


class EnrichStep(StepBase, tag="enrich", frozen=True, kw_only=True):
    """An Enrich within a chain; `select_leads` may be left out or say on_start, which a chain always means."""

    table: Name
    module: Name
    into: Annotated[dict[Name, ColumnSpec], Meta(min_length=1, max_length=100)]
    params: dict[str, Any] = field(default_factory=dict)
    where: Expression | None = None
    select_leads: Literal["on_start"] = "on_start"
    empty: WhenEmpty = "run"
    more_than: MoreThan | None = None
    run_if: Expression | None = None
    first: Annotated[int, Meta(ge=1, le=INT64_MAX)] | None = None
    spend_cap: SpendCap | None = None


class ExportStep(StepBase, tag="export", frozen=True, kw_only=True):
    """An Export within a chain; `select_leads` may be left out or say on_start, which a chain always means."""

    table: Name
    path: Path | None = None
    format: FileFormat = "csv"
    columns: Annotated[list[Name], Meta(min_length=1)] | None = None
    where: Expression | None = None
    select_leads: Literal["on_start"] = "on_start"
    empty: WhenEmpty = "run"
    more_than: MoreThan | None = None


Step = NoopStep | UploadStep | FormulaStep | EnrichStep | ExportStep


class Chain(Submission, tag="chain", frozen=True, kw_only=True):
    """Steps that run one after the other, each over what the one before it has stored."""

    steps: Annotated[list[Step], Meta(min_length=1, max_length=100)]
    on_failure: Literal["stop", "continue"] = "stop"
    """`stop`: when a step failed or was cancelled, the later ones are skipped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps[0].when is not None:
            raise ValueError("the first step has none before it that its when could speak of")


SUBMISSION_TYPES: Final[tuple[type[Submission], ...]] = (Noop, Upload, Formula, Enrich, Export, Chain)
"""The kinds of job there are."""


def submission_of(step: Step, teamspace: str) -> Submission:
    """The submission that says the same as `step`, in `teamspace`, with an otherwise empty envelope.

    But for its `when`, which is about its place in the chain.
    """
    work = {name: getattr(step, name) for name in step.__struct_fields__ if name != "when"}
    match step:
        case NoopStep():
            return Noop(teamspace=teamspace, **work)
        case UploadStep():
            return Upload(teamspace=teamspace, **work)
        case FormulaStep():
            return Formula(teamspace=teamspace, **work)
        case EnrichStep():
            return Enrich(teamspace=teamspace, **work)
        case ExportStep():
            return Export(teamspace=teamspace, **work)
        case _:
            assert_never(step)


# Replies --------------------------------------------------------------------------------------------------------------


def _true() -> bool:
    return True


def _false() -> bool:
    return False


class Reply(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The answer to the request on line `line` of this connection, counted from 1."""

    # A factory is the one default that omit_defaults keeps: `ok` stands on every line.
    ok: Annotated[bool, Meta(extra_json_schema={"const": True})] = field(default_factory=_true)
    line: int


class Fault(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What is wrong with a request."""

    code: ErrorCode
    message: str
    at: str | None = None
    """A field, such as `steps[1].where`, and for an expression `field:character`, counted from 1."""
    retry_after: float | None = None
    """Seconds; only with the codes after which the same request may succeed later."""


class Refusal(Struct, frozen=True, gc=False, kw_only=True):
    """The request on line `line` was not carried out, and nothing of it was kept."""

    ok: Annotated[bool, Meta(extra_json_schema={"const": False})] = field(default_factory=_false)
    line: int
    error: Fault
    ref: Ref = None


class JobWarning(Struct, frozen=True, gc=False, kw_only=True):
    """What the submitter should know although the job was accepted or ended well."""

    code: str
    message: str


class Receipt(Reply, frozen=True, kw_only=True):
    """The job is stored durably."""

    job: JobId
    state: StateWord
    jobs_ahead: int
    """So many jobs run before it, as far as can be told now."""
    duplicate: bool = False
    """The idempotency key was known: this is the first job, as it is now."""
    warnings: list[JobWarning] = field(default_factory=list)
    steps: list[JobId] = field(default_factory=list)
    """Of a chain: its steps' own ids, in order."""
    ref: Ref = None


class LimitNeed(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What a step would take of one limit of its provider account, or of the database."""

    shape: Literal["window", "daily", "bucket"]
    unit: str
    amount: float
    """So many units ..."""
    per_seconds: float | None = None
    """... in any so many seconds; absent for `daily`."""
    needed: float


class LeadTrial(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One lead as a formula would leave it."""

    lead: LeadId
    before: Any = None
    after: Any = None
    reason: LeadReason | None = None
    """The formula fails on it, and it keeps what it has."""


class StepPreview(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What a job, or a step of a chain, would take if its turn came now."""

    kind: str
    table: str | None = None
    leads: int | None = None
    """So many match now; absent: known when its turn comes."""
    guard: Literal["skip", "hold"] | None = None
    """What a guard would do about so many."""
    provider: str | None = None
    asked: int | None = None
    """Leads that the provider would be asked about: those with every input, and for which `run_if` is true."""
    sampled: int | None = None
    """`asked` and `units` are estimates from so many leads; absent: they are exact."""
    units: dict[str, float] = field(default_factory=dict)
    """What that takes at least, by unit: a request for each lead, and so on."""
    credits: Decimal | None = None
    """What that costs where every lead has a result: an exact decimal, as a string; of a prompt by its text and the
    longest answer, without repairs. Absent: nothing."""
    limits: list[LimitNeed] = field(default_factory=list)
    seconds_at_least: float = 0.0
    """These limits let it be no shorter, with nobody else in line."""
    size_bytes: int | None = None
    """Of an upload: the file."""
    trials: list[LeadTrial] = field(default_factory=list)
    """Of a formula: the first leads of its list, as it would leave them."""
    warnings: list[JobWarning] = field(default_factory=list)


class Preview(Reply, frozen=True, kw_only=True):
    """What a submission with `dry_run` would take; of all but a chain there is one step."""

    steps: list[StepPreview]
    seconds_at_least: float = 0.0
    """The steps', one after the other."""
    ref: Ref = None


class Done(Reply, frozen=True, kw_only=True):
    """It was done; of `follow` and `watch`: notices come from here on."""

    message: str | None = None
    ref: Ref = None


class Changed(Reply, frozen=True, kw_only=True):
    """The job is, by what was asked, now in this state."""

    job: JobId
    state: StateWord
    ref: Ref = None


class Pong(Reply, frozen=True, kw_only=True):
    """The daemon is there and takes work."""

    version: str
    protocol: int = field(default_factory=lambda: PROTOCOL_VERSION)
    ref: Ref = None


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


class JobView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A job as it is shown."""

    job: JobId
    kind: str
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
    activity: str | None = None
    """What it is doing at present, for people."""
    waits: list[Wait] = field(default_factory=list)
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


class Spent(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What a job's leads have cost at one provider account. Credits are exact decimals, written as strings."""

    provider: str
    """`snov` for the shared key, `snov@acme` for the own key of acme."""
    calls: int
    """Answers that cost something."""
    credits: Decimal
    perhaps: Decimal | None = None
    """What calls may have cost besides of which nobody learnt how they ended."""


class JobReply(Reply, frozen=True, kw_only=True):
    """One job."""

    view: JobView
    submission: dict[str, Any] | None = None
    """What was submitted; only in the answer to `job`."""
    refused: list[RefusedRow] = field(default_factory=list)
    """Asked for by `refused_after`; empty behind the last row."""
    headers: list[str] = field(default_factory=list)
    """Of the file whose rows those are; with the first page only."""
    steps: list[JobView] = field(default_factory=list)
    """Of a chain: its steps in order, each with its list; only in the answer to `job`."""
    spent: list[Spent] = field(default_factory=list)
    """By provider account; of a chain: by all its steps."""
    ref: Ref = None


class JobList(Reply, frozen=True, kw_only=True):
    """A page of jobs, newest first."""

    jobs: list[JobView]
    next: JobId | None = None
    """To be sent as `before` for the next page; absent on the last."""
    ref: Ref = None


class Eta(Struct, frozen=True, gc=False, kw_only=True):
    """When a job is expected to start, as a range."""

    earliest: datetime
    latest: datetime


class WhyReply(Reply, frozen=True, kw_only=True):
    """All that holds a job back now; empty when nothing does."""

    job: JobId
    blockers: list[Wait]
    jobs_ahead: int
    eta: Eta | None = None
    """Absent where nobody knows, such as while it is paused."""
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


class FamilyStatus(Struct, frozen=True, gc=False, kw_only=True):
    """One family's part of the queue."""

    family: FamilyWord
    delayed: int
    queued: int
    running: int
    stopping: int
    in_hand: int
    """Jobs with work in hand, which is what `capacity` bounds."""
    capacity: int | None
    """Null: no cap."""


class DatabaseStatus(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The database the queue is kept in."""

    reachable: bool
    embedded: bool
    version: str | None = None
    size_bytes: int | None = None
    commit_seconds_p50: float | None = None
    commit_seconds_p99: float | None = None
    records_available: float | None = None
    """What the bucket of records per hour holds now."""


class StatusReply(Reply, frozen=True, kw_only=True):
    """How the daemon is."""

    version: str
    pid: int
    epoch: int
    """Grows by one at each start; only the present one may write."""
    started_at: datetime
    uptime_seconds: float
    state: Literal["starting", "ready", "draining", "unavailable"]
    paused: list[str] = field(default_factory=list)
    """What is paused: `queue`, or `scope name`."""
    families: list[FamilyStatus]
    teamspaces: int
    """With jobs that have not ended."""
    oldest_queued_at: datetime | None = None
    jobs_per_second: float = 0.0
    """Ended, over the last minute."""
    providers: list["ProviderView"] = field(default_factory=list)
    """Those somebody uses or waits for."""
    database: DatabaseStatus
    loop_lag_seconds: float = 0.0
    """The worst delay of the event loop in the last minute."""
    memory_bytes: int = 0
    connections: int = 0
    warnings: list[JobWarning] = field(default_factory=list)
    ref: Ref = None


class TeamspaceView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A teamspace and what it has in the queue."""

    teamspace: str
    plan: str
    queued: int = field(default_factory=int)
    running: int = field(default_factory=int)
    delayed: int = 0
    paused: bool = False
    slots: dict[FamilyWord, int] = field(default_factory=dict)
    """How many jobs of each family it may run at a time."""


class TeamspacesReply(Reply, frozen=True, kw_only=True):
    """Teamspaces by name."""

    teamspaces: list[TeamspaceView]
    next: str | None = None
    """To be sent as `after` for the next page; absent on the last."""
    ref: Ref = None


class LimitView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One limit of a provider account and how much of it is taken."""

    shape: Literal["window", "concurrent", "daily", "bucket"]
    unit: str
    """request, record, token, lead or job."""
    amount: float
    """So many units ..."""
    per_seconds: float | None = None
    """... in any so many seconds; absent for `concurrent`."""
    charged: float
    """Units that count against it now."""
    frees_at: datetime | None = None
    """When there is room for more, at the latest; absent where there is room for all, or nobody knows."""


class ProviderView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A provider account."""

    provider: str
    """`snov` for the shared key, `snov@acme` for the own key of acme."""
    state: Literal["open", "throttled", "trying", "parked", "paused"]
    """`trying`: one call is out to see whether work can go on. `parked`: no credits or a refused key; a person acts."""
    reason: JobReason | None = None
    """`retry_after`: it named the time; `circuit`: it named none, so each refusal doubles the wait."""
    limits: list[LimitView] = field(default_factory=list)
    in_flight: int = 0
    waiting: int = 0
    """Calls that wait for a permit."""
    waiting_teamspaces: int = 0
    waiting_by: dict[str, int] = field(default_factory=dict)
    """The same by teamspace; of many those with the most."""
    next: str | None = None
    """The teamspace whose turn it is."""
    throttled_until: datetime | None = None
    parked_until: datetime | None = None
    """Absent where a person has to resume it."""
    refusals: int = 0
    """So many times in a row it was throttled, though its limits were kept."""
    canary: int | None = None
    """The call that is out to see whether work can go on."""
    message: str | None = None


class TriedCall(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One request of a try, as it was sent but for the key, and what came of it."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    status: int | None = None
    """Absent where no answer came."""
    answer: str | None = None
    """The beginning of it."""
    seconds: float
    """From the request to the end of its answer."""
    verdict: str
    """What the daemon makes of it, for people."""


class Tried(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What came of a try."""

    job: JobId
    """A try is a job: its history tells of it later."""
    provider: str
    """The account whose limits were charged."""
    outcome: str
    """done, not_found, pending (the provider still works on it), throttled, used_up, invalid_key, failed or unknown."""
    calls: list[TriedCall]
    values: dict[str, Any] = field(default_factory=dict)
    """Output of the module → its value."""


class ProvidersReply(Reply, frozen=True, kw_only=True):
    """Provider accounts by name."""

    providers: list[ProviderView]
    tried: Tried | None = None
    """Only where a provider was to be tried."""
    ref: Ref = None


class ColumnView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A column of a table."""

    name: str
    type: ColumnSpec
    filled: int | None = None
    """So many leads have a value in it; only in the answer to `describe`."""


class TableView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A table."""

    teamspace: str
    table: str
    leads: int
    columns: list[ColumnView]
    created_at: datetime
    jobs: int = 0
    """Jobs on it that have not ended."""
    key: list[str] = field(default_factory=list)
    """The columns by which two rows are the same lead."""
    retention_days: int | None = None
    """Its leads go so many days after they were added; absent: they stay."""
    size_bytes: int | None = None
    """What its leads take; only in the answer to `describe`."""
    sampled: int | None = None
    """`filled` and `size_bytes` are estimates from so many leads; absent: they are exact."""


class TablesReply(Reply, frozen=True, kw_only=True):
    """Tables by teamspace and name, or the one that something was done to."""

    tables: list[TableView]
    next: tuple[str, str] | None = None
    """To be sent as `after` for the next page; absent on the last."""
    jobs: list[JobView] = field(default_factory=list)
    """Of `describe`: the newest jobs on the table; of `delete`: those that it cancels."""
    ref: Ref = None


class UsageRow(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What a month has cost, of one teamspace, provider account, or both. Credits are exact decimals, as strings."""

    teamspace: str | None = None
    """Absent where teamspaces are summed up."""
    provider: str | None = None
    """`snov` for the shared key, `snov@acme` for the own key of acme; absent where providers are summed up."""
    calls: int
    """Answers that cost something."""
    credits: Decimal
    perhaps: Decimal | None = None
    """What calls may have cost besides of which nobody learnt how they ended."""


class UsageReply(Reply, frozen=True, kw_only=True):
    """A page of what a month has cost, by teamspace and provider."""

    usage: list[UsageRow]
    next: str | None = None
    """To be sent as `after` for the next page; absent on the last."""
    ref: Ref = None


class PlanLimit(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One limit in force and where its value comes from."""

    key: str
    value: bool | int | float | str | None
    source: Literal["override", "plan", "toml", "built-in"]


class PlanView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The limits of a plan, of a teamspace, or of a provider account."""

    plan: str | None = None
    """Absent where they are a provider's."""
    teamspace: str | None = None
    provider: str | None = None
    limits: list[PlanLimit]


class PlansReply(Reply, frozen=True, kw_only=True):
    """Plans by name, or the one asked for."""

    plans: list[PlanView]
    ref: Ref = None


class NoticeView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A mail or webhook about a job, and what has become of it."""

    notice: UUID
    job: JobId
    teamspace: str
    event: str
    medium: Literal["webhook", "mail"]
    target: str
    state: Literal["due", "sending", "sent", "failed", "unknown"]
    """`failed`: given up; `unknown`: nobody knows whether the mail left, and it is not sent again by itself."""
    tries: int
    made_at: datetime
    next_try_at: datetime | None = None
    detail: str | None = None
    """Why it was not taken."""


class NoticesReply(Reply, frozen=True, kw_only=True):
    """Notices, newest first."""

    notices: list[NoticeView]
    ref: Ref = None


class ComingOccurrence(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """When a schedule will fire."""

    at: datetime
    local: str
    """The same on the wall of its zone, with the offset from UTC in force then."""
    mark: Literal["normal", "first", "moved"] = "normal"
    """`first`: the wall time comes twice that day, and this is the first of them, the only one at which it fires;
    `moved`: the wall time does not exist that day, and this is the end of the gap."""


class PastOccurrence(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What became of a time at which a schedule was due."""

    at: datetime
    verdict: Literal["run", "missed", "still_running", "refused"]
    job: JobId | None = None
    """Of `run`: the job that was submitted."""
    message: str | None = None
    """Of `refused`: why."""


class ScheduleView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A schedule and what it submits."""

    teamspace: str
    schedule: str
    """Its name."""
    timetable: Schedule
    submission: dict[str, Any]
    missed: Literal["skip", "once", "all"]
    overlap: bool
    paused: bool
    created_at: datetime
    coming: list[ComingOccurrence]
    """The next ones, as many as were asked for; none while it is paused."""
    past: list[PastOccurrence] = []
    """The newest ones, newest first; only of one schedule that is described."""


class SchedulesReply(Reply, frozen=True, kw_only=True):
    """Schedules by teamspace and name; of `preview`, only what comes."""

    schedules: list[ScheduleView]
    coming: list[ComingOccurrence] = []
    next: tuple[str, str] | None = None
    """To be sent as `after` for the next page; null: this is the last one."""
    ref: Ref = None


# Operations -----------------------------------------------------------------------------------------------------------


R_co = TypeVar("R_co", bound=Reply, covariant=True)


class Operation(
    Struct,
    Generic[R_co],
    tag_field="op",
    frozen=True,
    gc=False,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
):
    """A request that is no submission, answered by an `R_co` where it is not refused."""

    ref: Ref = None


class Ping(Operation[Pong], tag="ping", frozen=True, kw_only=True):
    """Is the daemon there and ready? Refused as unavailable while it starts."""


class Get(Operation[JobReply], tag="get", frozen=True, kw_only=True):
    """One job; on the submit socket only of the peer's own."""

    job: Id


class Follow(Operation[Done], tag="follow", frozen=True, kw_only=True):
    """Send an `ended` notice for jobs that this peer's uid submitted.

    With `job`: that one, at once if it has ended. With `since`: every job with a greater id, those that have ended at
    once and the others as they end; a service that keeps the lowest id it has no outcome of misses none across
    restarts. With neither: every job that ends from now on.
    """

    job: Id | None = None
    since: Annotated[JobId, Meta(ge=0, le=INT64_MAX)] | None = None

    def __post_init__(self) -> None:
        if self.job is not None and self.since is not None:
            raise ValueError("give job or since, not both")


class Person(Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """On whose behalf a request is made; the peer vouches for it."""

    person: Annotated[str, Meta(min_length=1, max_length=200)]
    role: Literal["member", "admin", "super_admin"]


class ControlOperation(Operation[R_co], frozen=True, kw_only=True):
    """An operation of the control socket."""

    as_: Person | None = field(default=None, name="as")
    """Absent: the operator."""


class Jobs(ControlOperation[JobList], tag="jobs", frozen=True, kw_only=True):
    """A page of jobs, newest first."""

    teamspace: Name | None = None
    state: State | None = None
    family: Family | None = None
    table: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    before: Id | None = None
    """The `next` of the page before."""


class Job(ControlOperation[JobReply], tag="job", frozen=True, kw_only=True):
    """One job with what was submitted."""

    job: Id
    refused_after: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None
    """With the rows of an upload that were not taken, from behind this row number on: at most 1,000, fewer where they
    are long."""


class Why(ControlOperation[WhyReply], tag="why", frozen=True, kw_only=True):
    """All that keeps a job from starting or going on, with numbers."""

    job: Id


class History(ControlOperation[HistoryReply], tag="history", frozen=True, kw_only=True):
    """How a job came to where it is."""

    job: Id


class Cancel(ControlOperation[Changed], tag="cancel", frozen=True, kw_only=True):
    """End a job: no new leads; calls in flight may finish unless `force`."""

    job: Id
    force: bool = False
    """Close it at once; answers that come later are refused."""


class Rerun(ControlOperation[Receipt], tag="rerun", frozen=True, kw_only=True):
    """A new job over leads of an ended one; of a chain, a new chain."""

    job: Id
    leads: Literal["unfinished", "failed", "all"] = "unfinished"
    """`unfinished`: all that are neither done nor skipped."""
    from_step: Annotated[int, Meta(ge=1, le=100)] | None = None
    """Of a chain: the step to begin with, from 1; absent: the first that is not finished."""


Scope = Literal["queue", "family", "teamspace", "provider", "job"]
"""What can be paused."""


class Pause(ControlOperation[Done], tag="pause", frozen=True, kw_only=True):
    """Begin nothing new there; calls in flight finish."""

    scope: Scope
    name: Name | Id | None = None
    """Of the family, teamspace or provider; the id of the job; nothing for the queue."""

    def __post_init__(self) -> None:
        _check_target(self.scope, self.name)


class Resume(ControlOperation[Done], tag="resume", frozen=True, kw_only=True):
    """Take a pause back; a job that a guard holds, or that is quarantined, is let go too."""

    scope: Scope
    name: Name | Id | None = None

    def __post_init__(self) -> None:
        _check_target(self.scope, self.name)


def _check_target(scope: Scope, name: str | int | None) -> None:
    match scope:
        case "queue":
            if name is not None:
                raise ValueError("the queue has no name")
        case "job":
            if not isinstance(name, int):
                raise ValueError("the name of a job is its number")  # noqa: TRY004  msgspec reports a ValueError
        case "family" | "teamspace" | "provider":
            if not isinstance(name, str):
                raise ValueError(f"name the {scope}")  # noqa: TRY004  msgspec reports a ValueError
        case _:
            assert_never(scope)


class Watch(ControlOperation[Done], tag="watch", frozen=True, kw_only=True):
    """Send notices of what happens to one job until it has ended, or to all."""

    job: Id | None = None


class Status(ControlOperation[StatusReply], tag="status", frozen=True, kw_only=True):
    """How the daemon is."""


class Teamspaces(ControlOperation[TeamspacesReply], tag="teamspaces", frozen=True, kw_only=True):
    """The teamspaces and what each has in the queue."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    after: Name | None = None
    """The `next` of the page before."""


class Providers(ControlOperation[ProvidersReply], tag="providers", frozen=True, kw_only=True):
    """The provider accounts, their limits and who waits; with `action` try, first one real call to one of them.

    The call waits for a permit and is charged like any other. The answer comes when there is one, or refused as busy
    where there is no permit for ten seconds.
    """

    name: Name | None = None
    action: Literal["list", "try"] = "list"
    lead: dict[str, Any] | None = None
    """To try: the module's inputs by name; an endpoint that is asked by prompts has the input `prompt`."""
    teamspace: Name | None = None
    """To try: as a call of this teamspace, with its own key where it has one; absent: `leadline`."""

    def __post_init__(self) -> None:
        if self.action == "try" and (self.name is None or self.lead is None):
            raise ValueError("to try a provider give name and lead")
        if self.action != "try" and (self.lead is not None or self.teamspace is not None):
            raise ValueError("lead and teamspace go with action = try")


class Tables(ControlOperation[TablesReply], tag="tables", frozen=True, kw_only=True):
    """The tables of a teamspace, or of all; with another `action` than `list`, something about one of them."""

    action: Literal["list", "describe", "create", "retain", "delete"] = "list"
    teamspace: Name | None = None
    table: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    after: tuple[Name, Name] | None = None
    """The `next` of the page before."""
    columns: dict[Name, ColumnSpec] = field(default_factory=dict)
    """Of `create`: its columns, with their types."""
    key: list[Name] = field(default_factory=list)
    """Of `create`: the columns by which two rows are the same lead; absent: the first upload says."""
    days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    """Of `retain`: leads go so many days after they were added; null: they stay."""
    cancel: bool = False
    """Of `delete`: cancel the jobs on it and wait for their end."""
    dry_run: bool = False
    """Of `delete`: only say what would go."""

    def __post_init__(self) -> None:
        if self.action != "list" and (self.teamspace is None or self.table is None):
            raise ValueError("name the teamspace and the table")
        for action, words in (("create", ("columns", "key")), ("retain", ("days",)), ("delete", ("cancel", "dry_run"))):
            for word in words:
                if self.action != action and getattr(self, word):
                    raise ValueError(f"{word} goes with the action {action}")


class Schedules(ControlOperation[SchedulesReply], tag="schedules", frozen=True, kw_only=True):
    """The schedules of a teamspace, or of all; with another `action` than `list`, something about one of them."""

    action: Literal["list", "describe", "add", "preview", "pause", "resume", "delete"] = "list"
    teamspace: Name | None = None
    name: Name | None = None
    timetable: Schedule | None = None
    """Of `add` and `preview`: when it fires."""
    submission: dict[str, Any] | None = None
    """Of `add`: what is submitted each time, without what belongs to one time only."""
    missed: Literal["skip", "once", "all"] = "skip"
    """Of `add`: what becomes of times that nobody was there for, more than five minutes ago."""
    overlap: bool = False
    """Of `add`: whether it fires while the job of the time before still goes on."""
    count: Annotated[int, Meta(ge=0, le=100)] = 5
    """So many of the next times are shown."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    after: tuple[Name, Name] | None = None
    """The `next` of the page before."""

    def __post_init__(self) -> None:
        if self.action not in {"list", "preview"} and (self.teamspace is None or self.name is None):
            raise ValueError("name the teamspace and the schedule")
        if (self.timetable is not None) != (self.action in {"add", "preview"}):
            raise ValueError("timetable goes with the actions add and preview, and they with it")
        if (self.submission is not None) != (self.action == "add"):
            raise ValueError("submission goes with the action add, and it with submission")
        if self.action != "add" and (self.overlap or self.missed != "skip"):
            raise ValueError("missed and overlap go with the action add")


class Notices(ControlOperation[NoticesReply], tag="notices", frozen=True, kw_only=True):
    """Mails and webhooks about jobs, newest first: those that are not delivered, or all."""

    job: Id | None = None
    teamspace: Name | None = None
    all: bool = False
    """Also those that were sent."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    again: UUID | None = None
    """First send this one once more, which was given up or is held."""


class Plans(ControlOperation[PlansReply], tag="plans", frozen=True, kw_only=True):
    """The limits in force; with `key` and `value`, first set an override.

    The limits are those of `teamspace`, of the plan `plan`, or of the account `provider`. The value null takes an
    override back.
    """

    plan: Name | None = None
    teamspace: Name | None = None
    provider: Name | None = None
    key: Name | None = None
    value: bool | int | float | str | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        named = [each for each in (self.plan, self.teamspace, self.provider) if each is not None]
        if len(named) > 1:
            raise ValueError("give one of plan, teamspace and provider")
        if (self.key is None) != (self.value is UNSET):
            raise ValueError("to set a limit give key and value")
        if self.key is not None and not named:
            raise ValueError("to set a limit name the plan, the teamspace or the provider")


UsageBy = Literal["teamspace", "provider"]
"""What usage may be told apart by."""


class Usage(ControlOperation[UsageReply], tag="usage", frozen=True, kw_only=True):
    """What a month has cost: the sums of the ledger."""

    month: Annotated[str, Meta(pattern=r"^(19[7-9]\d|2\d\d\d)-(0[1-9]|1[0-2])$")]
    """Such as `2026-11`; it begins and ends in UTC."""
    by: Annotated[list[UsageBy], Meta(min_length=1, max_length=2)] = field(default_factory=lambda: [*get_args(UsageBy)])
    teamspace: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    after: Annotated[str, Meta(max_length=1000)] | None = None
    """The `next` of the page before."""


class Reload(ControlOperation[Done], tag="reload", frozen=True, kw_only=True):
    """Read the configuration file again. Refused with every fault it has."""


class Drain(ControlOperation[Done], tag="drain", frozen=True, kw_only=True):
    """Start nothing more, checkpoint what runs and end the daemon. The answer comes when it begins."""


SUBMIT_OPERATIONS: Final[tuple[type[Operation[Reply]], ...]] = (Ping, Get, Follow)
"""What the submit socket allows, besides submissions."""

CONTROL_OPERATIONS: Final[tuple[type[Operation[Reply]], ...]] = (
    *SUBMIT_OPERATIONS,
    Status,
    Jobs,
    Job,
    Why,
    History,
    Cancel,
    Rerun,
    Pause,
    Resume,
    Watch,
    Teamspaces,
    Providers,
    Plans,
    Notices,
    Usage,
    Tables,
    Schedules,
    Reload,
    Drain,
)
"""What the control socket allows, besides submissions."""

REPLY_TYPES: Final[dict[type[Operation[Reply]], type[Reply]]] = {
    operation: get_args(operation.__dict__["__orig_bases__"][0])[0] for operation in CONTROL_OPERATIONS
}
"""What answers each operation where it is not refused; a submission is answered by Receipt."""

Request = Submission | Operation[Reply]

# Notices --------------------------------------------------------------------------------------------------------------


class NoticeBase(Struct, tag_field="event", frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What the daemon says of itself between replies; `at` is when it happened."""

    at: datetime | None = None


class Queued(NoticeBase, tag="queued", frozen=True, kw_only=True):
    """A job entered the queue, or went back to it."""

    job: JobId
    kind: str
    teamspace: str
    reason: JobReason | None = None


class Started(NoticeBase, tag="started", frozen=True, kw_only=True):
    """An attempt began."""

    job: JobId
    teamspace: str
    attempt: int


class Progress(NoticeBase, tag="progress", frozen=True, kw_only=True):
    """How far a job is; sent at most once a second for each job."""

    job: JobId
    state: StateWord
    shown: str
    counts: Counts
    activity: str | None = None
    waits: list[Wait] = field(default_factory=list)
    stalled: bool = False
    leads_per_second: float | None = None


class Ended(NoticeBase, tag="ended", frozen=True, kw_only=True):
    """A job ended; nothing more will be said of it."""

    job: JobId
    state: StateWord
    counts: Counts
    reason: JobReason | None = None
    message: str | None = None
    warnings: list[JobWarning] = field(default_factory=list)


class Missed(NoticeBase, tag="missed", frozen=True, kw_only=True):
    """This peer reads too slowly: so many notices were not sent to it. What counts can be asked with `get`."""

    count: int


class JobNotice(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What a webhook is sent: the one shape here that travels over HTTP. See `leadline_protocol.signature`."""

    notice: UUID
    """The same at every try; who gets it twice can tell by it."""
    event: str
    at: datetime
    job: JobView
    """As it is when this is sent; a job that has ended stays so."""


Notice = Queued | Started | Progress | Ended | Missed
"""Any notice, as a type to decode by."""
