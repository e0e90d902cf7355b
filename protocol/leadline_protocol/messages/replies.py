"""Replies: what the daemon answers, one line for each request; and the views of which they consist."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

from msgspec import Meta, Struct, field

from leadline_protocol.errors import ErrorCode, JobReason, LeadReason
from leadline_protocol.ids import JobId, LeadId
from leadline_protocol.messages.words import (
    PROTOCOL_VERSION,
    ColumnSpec,
    FamilyWord,
    Ref,
    Role,
    SelectLeads,
    StateWord,
    TokenScope,
)
from leadline_protocol.schedules import Schedule


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
    memory_bound: str | None = None
    """What holds a batch job's run to its memory: a cgroup, a look at it, or nothing; absent where no plan has any."""
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
    value: bool | int | float | str | list[str] | None
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
    quota: JobReason | None = None
    """Of a batch job: the day's quota for which it may be skipped then; absent: it is not, whatever the runs before it
    take, unless some are retried or submitted by hand."""


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
    warnings: list[JobWarning] = []
    """Of `add`: what the schedules together can ask for that a day does not have."""
    next: tuple[str, str] | None = None
    """To be sent as `after` for the next page; null: this is the last one."""
    ref: Ref = None


class BatchVersion(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The code of a batch job as it was uploaded once."""

    version: int
    """From 1; the highest is the one that runs."""
    size_bytes: int
    """Of the zip."""
    sha256: str
    files: int
    requirements: bool
    """Whether it names packages that it needs."""
    uploaded_at: datetime


class BatchView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A batch job."""

    teamspace: str
    name: str
    state: str
    """`draft`, `published` or `unpublished`: what is published can run."""
    version: int
    """Of its code; 0: none was uploaded."""
    api: bool
    """Whether it may be run by submission; else by its schedules alone."""
    timeout_seconds: float
    """An attempt that takes longer is ended."""
    retries: int
    """So often it is tried again from the beginning when it has failed."""
    retry_timeouts: bool
    """Also when it took too long."""
    stall_after_seconds: int | None = None
    """It is ended when it has printed nothing, and reported no progress, for so long; absent: it may be silent."""
    interpreter: str | None = None
    """The Python that runs it; absent: the machine's own."""
    mail_success: list[str] = field(default_factory=list)
    """Who has the mails of success that the code sends."""
    mail_failure: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    """Names of settings whose values are never shown."""
    schedules: list[str] = field(default_factory=list)
    """Names of the schedules that run it."""
    created_at: datetime
    versions: list[BatchVersion] = field(default_factory=list)
    """Newest first, when one is described."""


class BatchAttempt(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One attempt of a run."""

    retry_attempt: int
    """0 for the first."""
    began_at: datetime
    cap_seconds: float
    """It is ended after so long: its timeout, or what was left of the day."""
    seconds: float | None = None
    """What it took; absent: it goes on."""
    end: str | None = None
    """How it ended, in words."""


class BatchRun(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One execution of a batch job, with all its attempts."""

    instance: JobId
    """The id of its job in the queue, and the event's `job_instance_id`."""
    teamspace: str
    batch_job: str
    version: int | None = None
    """Of the code that runs; absent: it has not started."""
    source: str
    """`api` or `scheduler`."""
    due_at: datetime | None = None
    """Of a schedule's: the time that it is for."""
    state: StateWord
    reason: JobReason | None = None
    message: str | None = None
    attempts: list[BatchAttempt] = field(default_factory=list)
    result: Any = None
    """What main() returned, where the run was asked for by itself."""


class BatchLine(Struct, frozen=True, gc=False, kw_only=True):
    """A line that a run has printed."""

    retry_attempt: int
    number: int
    """From 1 in each attempt."""
    at: datetime
    text: str


class BatchDay(Struct, frozen=True, gc=False, kw_only=True):
    """What a teamspace's batch jobs have used of the day."""

    executions: int
    executions_max: int
    seconds: float
    """Of the attempts that have ended."""
    seconds_max: float
    ends_at: datetime


class BatchReply(Reply, frozen=True, kw_only=True):
    """The batch jobs, runs or lines that were asked for."""

    batch_jobs: list[BatchView] = field(default_factory=list)
    runs: list[BatchRun] = field(default_factory=list)
    lines: list[BatchLine] = field(default_factory=list)
    ended: bool = False
    """There are no more lines, and will be none."""
    path: str | None = None
    """The file that a download was written to."""
    day: BatchDay | None = None
    """Of the teamspace that was asked about."""
    warnings: list[JobWarning] = field(default_factory=list)
    next: int | None = None
    """There are more: ask again with this as `after`."""
    ref: Ref = None


class TokenView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """An API token, without the secret by which it is known."""

    name: str
    scopes: list[Annotated[str, Meta(extra_json_schema={"enum": [*get_args(TokenScope)]})]]
    teamspace: str | None = None
    """The only one that it can be used for; absent: all of them."""
    role: Annotated[str, Meta(extra_json_schema={"enum": [*get_args(Role)]})]
    created_at: datetime
    """When its present secret was made."""
    expires_at: datetime | None = None
    """It is not taken from then on; absent: until it is revoked."""
    older_until: datetime | None = None
    """It was rotated, and the secret before is taken until then."""


class TokensReply(Reply, frozen=True, kw_only=True):
    """API tokens by name, or the one that something was done to."""

    tokens: list[TokenView]
    secret: str | None = None
    """Of `create` and `rotate`: what to send as `Authorization: Bearer …`. It is told this once; its hash is kept."""
    ref: Ref = None


class LinksReply(Reply, frozen=True, kw_only=True):
    """The link that was made, or what was ended."""

    path: str | None = None
    """Of `create`: where the person signs in, once. It is told this once; its hash is kept."""
    url: str | None = None
    """The same as a whole address, where the daemon knows by which one it is reached."""
    expires_at: datetime | None = None
    """Of `create`: until when the link can be taken."""
    ended: int | None = None
    """Of `end`: how many were signed in, and are no more."""
    ref: Ref = None
