"""Submissions: work for the queue, one class for each kind of job; and the same work as the steps of a chain."""

from typing import Annotated, Any, Final, Literal, assert_never

from msgspec import Meta, Struct, field

from leadline_protocol.messages.words import (
    INT64_MAX,
    AwareTime,
    ColumnSpec,
    DelaySeconds,
    Dialect,
    DryRun,
    EndedState,
    Expression,
    FileFormat,
    Key,
    MoreThan,
    Name,
    Path,
    PrioritySeconds,
    Ref,
    SelectLeads,
    SpendCap,
    WhenEmpty,
)

NoticeEvent = Literal["completed", "partial", "failed", "cancelled", "skipped", "stalled", "failing"]
"""What somebody may be told of a job: its end, that it stands still, or that it is the fifth run of its batch job in a
row that failed."""

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


class Batch(Submission, tag="batch", frozen=True, kw_only=True):
    """Run a batch job once: Python of the teamspace's own. It is no step of a chain."""

    batch_job: Name
    body: Any = None
    """Any JSON: the event's `body`."""
    query_string_parameters: dict[str, str] = field(default_factory=dict)
    """The event's `query_string_parameters`."""


class Outreach(Submission, tag="outreach", frozen=True, kw_only=True):
    """Queue follow-ups that are due, begin with first mails, or send one follow-up's next mail. No step of a chain.

    What is queued becomes a job of its own for each mail, as if `do` were `send`.
    """

    do: Literal["queue", "first_mails", "send"] = "queue"
    associate: Name | None = None
    """Of `queue`: absent: all active ones, each up to the limit."""
    limit: Annotated[int, Meta(ge=-1_000_000, le=1_000_000)] | None = None
    """Of `queue` and `first_mails`; absent: as the configuration says."""
    follow_up: Annotated[int, Meta(ge=1, le=INT64_MAX)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.do == "send") != (self.follow_up is not None):
            raise ValueError("follow_up goes with send, and it with follow_up")
        if self.associate is not None and self.do != "queue":
            raise ValueError("associate goes with queue")


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


SUBMISSION_TYPES: Final[tuple[type[Submission], ...]] = (Noop, Upload, Formula, Enrich, Export, Chain, Batch, Outreach)
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
