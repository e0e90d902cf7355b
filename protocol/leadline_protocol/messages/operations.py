"""Operations: questions and instructions about what is there, each naming the reply that it is answered by."""

from typing import Annotated, Any, Final, Generic, Literal, TypeVar, assert_never, get_args
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType, field

from leadline_protocol.ids import JobId
from leadline_protocol.messages.outreach import (
    Domain,
    EventReply,
    FollowUpStatus,
    HeaderText,
    ImportRows,
    InboundEvent,
    MailId,
    OutreachReply,
)
from leadline_protocol.messages.replies.base import Done, Reply
from leadline_protocol.messages.replies.batch import BatchReply
from leadline_protocol.messages.replies.jobs import Changed, HistoryReply, JobList, JobReply, WhyReply
from leadline_protocol.messages.replies.links import LinksReply
from leadline_protocol.messages.replies.notices import NoticesReply
from leadline_protocol.messages.replies.plans import PlansReply
from leadline_protocol.messages.replies.providers import ProvidersReply
from leadline_protocol.messages.replies.schedules import SchedulesReply
from leadline_protocol.messages.replies.status import Pong, StatusReply, TeamspacesReply
from leadline_protocol.messages.replies.submissions import Receipt
from leadline_protocol.messages.replies.tables import TablesReply
from leadline_protocol.messages.replies.tokens import TokensReply
from leadline_protocol.messages.replies.usage import UsageReply
from leadline_protocol.messages.submissions import (
    Address,
    Submission,
)
from leadline_protocol.messages.words import (
    INT64_MAX,
    AwareTime,
    ColumnSpec,
    Family,
    Id,
    Name,
    Path,
    Ref,
    Role,
    State,
    TokenScope,
)
from leadline_protocol.schedules import Schedule

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


class ContactEvent(Operation[EventReply], tag="event", frozen=True, kw_only=True):
    """Something came in from a contact, or about a mail to it.

    A reply stops all that is still to be written to the contact; an unsubscribe, a complaint and a bounce for good do
    so for ever; an automatic reply stops nothing. A bounce settles a mail of unknown outcome: it was sent.
    """

    teamspace: Name
    event: InboundEvent
    address: Address
    """The contact's."""
    message_id: HeaderText | None = None
    """Of our mail that it is about."""
    key: HeaderText | None = None
    """Known once in each teamspace, such as the Message-ID of what came in: a second time nothing is done."""
    at: AwareTime | None = None
    permanent: bool = True
    """Of a bounce: whether the address is of no use any more."""
    detail: HeaderText = ""


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
    role: Role


class ControlOperation(Operation[R_co], frozen=True, kw_only=True):
    """An operation of the control socket."""

    as_: Person | None = field(default=None, name="as")
    """Absent: the operator."""


class Jobs(ControlOperation[JobList], tag="jobs", frozen=True, kw_only=True):
    """A page of jobs, newest first."""

    teamspace: Name | None = None
    state: State | None = None
    states: list[State] = field(default_factory=list)
    """In one of these, and of `state`; empty: in any."""
    family: Family | None = None
    table: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    before: Id | None = None
    """The `next` of the page before."""
    nested: bool = False
    """A chain stands for its steps, which come in `steps`; one that has not ended is none of the ended ones, whatever
    its steps are. Noops are left out unless `family` asks for them. A page may then have fewer jobs than `limit`, and
    yet not be the last."""
    explained: Annotated[int, Meta(ge=0, le=100)] = 0
    """So many of the jobs that wait, the first of the page, have in `waits` all that `why` says, and `jobs_ahead` and
    `eta`; where many jobs are ahead, `jobs_ahead` may be too high."""


class Job(ControlOperation[JobReply], tag="job", frozen=True, kw_only=True):
    """One job with what was submitted."""

    job: Id
    refused_after: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None
    """With the rows of an upload that were not taken, from behind this row number on: at most 1,000, fewer where they
    are long."""
    leads_after: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None
    """With the leads that it is through with and has not done, from behind this one on: at most 1,000, fewer where they
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
    prefix: Name | None = None
    """Only those whose names begin so."""
    most: bool = False
    """Those with the most work, delayed, queued or running; who has none is left out, and there is no next page."""

    def __post_init__(self) -> None:
        if self.most and self.after is not None:
            raise ValueError("after goes with teamspaces by name")


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
    """The tables of a teamspace, or of all; with another `action`, something about one of them, or the modules."""

    action: Literal["list", "describe", "create", "retain", "delete", "modules"] = "list"
    """`modules`: which there are to fill columns; they are the same for all tables."""
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
        if self.action not in {"list", "modules"} and (self.teamspace is None or self.table is None):
            raise ValueError("name the teamspace and the table")
        for action, words in (("create", ("columns", "key")), ("retain", ("days",)), ("delete", ("cancel", "dry_run"))):
            for word in words:
                if self.action != action and getattr(self, word):
                    raise ValueError(f"{word} goes with the action {action}")


class Schedules(ControlOperation[SchedulesReply], tag="schedules", frozen=True, kw_only=True):
    """The schedules of a teamspace, or of all; with another `action` than `list`, something about one of them."""

    action: Literal["list", "describe", "add", "preview", "due", "pause", "resume", "delete"] = "list"
    """`due`: when any of them fires within `days`, at most `limit` times."""
    teamspace: Name | None = None
    name: Name | None = None
    timetable: Schedule | None = None
    """Of `add` and `preview`: when it fires."""
    submission: dict[str, Any] | None = None
    """Of `add`, and of `preview` with a teamspace: what is submitted each time, without what is of one time only."""
    missed: Literal["skip", "once", "all"] = "skip"
    """Of `add`: what becomes of times that nobody was there for, more than five minutes ago."""
    overlap: bool = False
    """Of `add`: whether it fires while the job of the time before still goes on."""
    count: Annotated[int, Meta(ge=0, le=100)] = 5
    """So many of the next times are shown."""
    days: Annotated[int, Meta(ge=1, le=31)] = 1
    """Of `due`: of 24 hours each, from now on."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    after: tuple[Name, Name] | None = None
    """The `next` of the page before."""

    def __post_init__(self) -> None:
        if self.action not in {"list", "preview", "due"} and (self.teamspace is None or self.name is None):
            raise ValueError("name the teamspace and the schedule")
        if self.action == "due" and self.name is not None:
            raise ValueError("name goes with one schedule")
        if self.action != "due" and self.days != 1:
            raise ValueError("days goes with the action due")
        if (self.timetable is not None) != (self.action in {"add", "preview"}):
            raise ValueError("timetable goes with the actions add and preview, and they with it")
        if (self.submission is not None) != (self.action == "add") and self.action != "preview":
            raise ValueError("submission goes with the actions add and preview, and add with it")
        if self.action == "preview" and (self.submission is None) != (self.teamspace is None):
            raise ValueError("a preview has a teamspace and a submission, or neither")
        if self.action != "add" and (self.overlap or self.missed != "skip"):
            raise ValueError("missed and overlap go with the action add")


SettingName = Annotated[str, Meta(min_length=1, max_length=100)]

SettingValue = Annotated[str, Meta(max_length=65_536)]


class BatchJobs(ControlOperation[BatchReply], tag="batch", frozen=True, kw_only=True):
    """The batch jobs of a teamspace, or of all; with another `action` than `list`, something about one of them."""

    action: Literal[
        "list", "describe", "create", "upload", "set", "publish", "unpublish", "delete", "download", "runs", "logs"
    ] = "list"
    teamspace: Name | None = None
    name: Name | None = None
    path: Path | None = None
    """Of `upload`: the zip, as a file that the daemon may read."""
    version: Annotated[int, Meta(ge=1, le=INT64_MAX)] | None = None
    """Of `download`: which; absent: the newest."""
    api: bool | None = None
    """Of `create` and `set`, as what follows: whether it may be run by submission."""
    timeout_seconds: Annotated[int, Meta(ge=1, le=100_000_000)] | None = None
    retries: Annotated[int, Meta(ge=0, le=100)] | None = None
    retry_timeouts: bool | None = None
    stall_after_seconds: Annotated[int, Meta(ge=0, le=604_800)] | None = None
    """0: it may be silent as long as it likes."""
    interpreter: Annotated[str, Meta(max_length=100)] | None = None
    """Empty: the machine's own."""
    mail_success: Annotated[list[Address], Meta(max_length=10)] | None = None
    """Who has the mails of success that the code sends."""
    mail_failure: Annotated[list[Address], Meta(max_length=10)] | None = None
    settings: dict[SettingName, SettingValue | None] = field(default_factory=dict)
    """Values to be set; null takes a setting away."""
    secrets: dict[SettingName, SettingValue] = field(default_factory=dict)
    """Settings that are never shown again."""
    instance: Id | None = None
    """Of `runs` and `logs`: which run; `logs` needs it."""
    retry_attempt: Annotated[int, Meta(ge=0, le=100)] = 0
    """Of `logs`: whose lines."""
    wait_seconds: Annotated[float, Meta(ge=0, le=30)] = 0.0
    """Of `logs`: so long to wait for a line where there is none yet."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    after: Annotated[int, Meta(ge=0, le=INT64_MAX)] = 0
    """The `next` of the page before; of `logs`, the number of the last line that is known."""
    before: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None
    """Of `logs`, in place of `after`: the last lines in front of the line with that number; 0: the last of all. `next`
    is then to be sent as `before`, for those in front of them."""

    def __post_init__(self) -> None:
        by_instance = self.action in {"runs", "logs"} and self.instance is not None
        if self.action not in {"list", "runs"} and not by_instance and (self.teamspace is None or self.name is None):
            raise ValueError("name the teamspace and the batch job")
        if self.action == "logs" and self.instance is None:
            raise ValueError("logs are those of one run: give instance")
        if (self.path is not None) != (self.action == "upload"):
            raise ValueError("path goes with the action upload, and it with path")
        if self.before is not None and (self.action != "logs" or self.after or self.wait_seconds):
            raise ValueError("before goes with the action logs, and without after and wait_seconds")


class FollowUps(ControlOperation[OutreachReply], tag="outreach", frozen=True, kw_only=True):
    """Outreach: who writes what to whom, and how far that is; with another `action` than a list, something about it."""

    action: Literal[
        "follow_ups",
        "associates",
        "scripts",
        "suppressions",
        "mails",
        "describe",
        "import",
        "queue",
        "preview",
        "write",
        "stop",
        "suppress",
        "allow",
        "resolve",
        "pause",
        "resume",
    ] = "follow_ups"
    """`preview`: what `queue` would do now; `write`: the next mail of a follow-up as it would be written now."""
    teamspace: Name | None = None
    associate: Name | None = None
    """Of `queue` and `preview`: absent: all active ones. `pause` and `resume` are about its mailbox."""
    follow_up: Annotated[int, Meta(ge=1, le=INT64_MAX)] | None = None
    """Of `describe`, `write` and `stop`."""
    mail: MailId | None = None
    """Of `resolve`."""
    sent: bool | None = None
    """Of `resolve`: whether it was."""
    status: FollowUpStatus | None = None
    """Of `follow_ups`: only these."""
    state: Literal["sending", "sent", "unknown", "refused", "not_sent", "withdrawn"] | None = None
    """Of `mails`: only these; absent: those of unknown outcome."""
    address: Address | None = None
    """Of a list: only this contact's. Of `suppress` and `allow`: this, or `domain`."""
    domain: Domain | None = None
    detail: HeaderText = ""
    """A remark of the person who does it."""
    rows: ImportRows | None = None
    """Of `import`."""
    limit: Annotated[int, Meta(ge=-1_000_000, le=1_000_000)] | None = None
    """Of lists: how many, 100 where nothing is said. Of `queue` and `preview`: as many as are queued at most for each
    associate; 0 or less: none."""
    after: Annotated[int, Meta(ge=0, le=INT64_MAX)] = 0
    """The `next` of the page before."""

    def __post_init__(self) -> None:
        lists = {"follow_ups", "associates", "scripts", "suppressions", "mails"}
        if self.teamspace is None and self.action not in lists:
            raise ValueError("name the teamspace")
        if self.action in {"describe", "write", "stop"} and self.follow_up is None:
            raise ValueError("name the follow_up")
        if (self.action == "import") != (self.rows is not None):
            raise ValueError("rows go with the action import, and it with rows")
        if self.action == "resolve" and (self.mail is None or self.sent is None):
            raise ValueError("name the mail, and whether it was sent")
        if self.action in {"pause", "resume"} and self.associate is None:
            raise ValueError("name the associate")
        if self.action in {"suppress", "allow"} and (self.address is None) == (self.domain is None):
            raise ValueError("give an address or a domain")
        if self.action in lists and self.limit is not None and not 1 <= self.limit <= 1000:
            raise ValueError("limit must be from 1 to 1000")


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
    value: bool | int | float | str | list[str] | UnsetType | None = UNSET

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


class Tokens(ControlOperation[TokensReply], tag="tokens", frozen=True, kw_only=True):
    """The API tokens by which HTTP is used; with another `action` than `list`, something about one of them."""

    action: Literal["list", "create", "rotate", "revoke"] = "list"
    """`rotate`: a new secret; the one before is taken for a while longer."""
    name: Name | None = None
    """What it is called in lists and in the audit trail."""
    scopes: Annotated[list[TokenScope], Meta(max_length=3)] = field(default_factory=list)
    """Of `create`: what it may do."""
    teamspace: Name | None = None
    """Of `create`: the only one that it can be used for; absent: all of them."""
    role: Role = "member"
    """Of `create`: as whom its requests are judged."""
    expires_at: AwareTime | None = None
    """Of `create` and `rotate`: it is not taken from then on; absent: until it is revoked, or as before."""
    overlap_seconds: Annotated[int, Meta(ge=0, le=2_678_400)] = 86_400
    """Of `rotate`: so long the secret before is taken."""

    def __post_init__(self) -> None:
        if self.action != "list" and self.name is None:
            raise ValueError("name the token")
        if (self.action == "create") != bool(self.scopes):
            raise ValueError("scopes go with the action create, and it with at least one of them")
        if self.action != "create" and (self.teamspace is not None or self.role != "member"):
            raise ValueError("teamspace and role go with the action create")
        if self.action not in {"create", "rotate"} and self.expires_at is not None:
            raise ValueError("expires_at goes with the actions create and rotate")


class Links(ControlOperation[LinksReply], tag="links", frozen=True, kw_only=True):
    """A link by which one person signs in once, to pages in a browser; or the end of what was begun by such links."""

    action: Literal["create", "end"] = "create"
    """`end`: who has signed in is signed out at once, and links that nobody has taken yet are good no more."""
    person: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    """Whom the link is for, as the audit trail will tell; of `end`: absent: everybody of the teamspace."""
    teamspace: Name | None = None
    """Of `create`: the only one that the person sees; absent: all of them. Of `end`: absent: wherever the person is."""
    role: Role = "member"
    """Of `create`: as whom the person's requests are judged; none above the role of whom asks."""

    def __post_init__(self) -> None:
        if self.person is not None and not self.person.isprintable():
            raise ValueError("person takes printable characters")
        if self.action == "create" and self.person is None:
            raise ValueError("name the person")
        if self.action == "end" and self.person is None and self.teamspace is None:
            raise ValueError("name the person, the teamspace or both")
        if self.action == "end" and self.role != "member":
            raise ValueError("role goes with the action create")


class Reload(ControlOperation[Done], tag="reload", frozen=True, kw_only=True):
    """Read the configuration file again. Refused with every fault it has."""


class Drain(ControlOperation[Done], tag="drain", frozen=True, kw_only=True):
    """Start nothing more, checkpoint what runs and end the daemon. The answer comes when it begins."""


SUBMIT_OPERATIONS: Final[tuple[type[Operation[Reply]], ...]] = (Ping, Get, Follow, ContactEvent)
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
    BatchJobs,
    FollowUps,
    Tokens,
    Links,
    Reload,
    Drain,
)
"""What the control socket allows, besides submissions."""

REPLY_TYPES: Final[dict[type[Operation[Reply]], type[Reply]]] = {
    operation: get_args(operation.__dict__["__orig_bases__"][0])[0] for operation in CONTROL_OPERATIONS
}
"""What answers each operation where it is not refused; a submission is answered by Receipt."""

Request = Submission | Operation[Reply]
