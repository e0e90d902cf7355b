"""Every key there is: its type, its bounds, its default and its sentence; and the Config that holds them.

The structs are the only description of the keys: the names, types and defaults that the daemon uses, and in each
field's `Meta` the bounds, the unit and the sentence for people.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, NewType

from msgspec import Meta, Struct, field

from leadline.core.model import Family, Limits, Rules
from leadline.core.rate_limit import Limit
from leadline_protocol.messages import Address, NoticeEvent, WebhookUrl

Source = Literal["built-in", "toml"]
"""Where a value comes from."""


DEFAULT_PLAN: Final = "default"

EVERY_TEAMSPACE: Final = "*"
"""In `submit.allow`: all teamspaces."""


class Secret:
    """A text that is not printed by mistake: only `reveal` gives it away."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str:
        raise TypeError("A secret is not pickled")


File = NewType("File", Path)
"""A file that exists."""

Folder = NewType("Folder", Path)
"""A folder that exists."""

Uid = NewType("Uid", int)
"""A user's number; in the file a name may stand for it."""

Zone = NewType("Zone", str)
"""The IANA name of a time zone."""


def _key(sentence: str, *, unit: str = "", allowed: str = "", default: str = "") -> Meta:
    """What people are told of a key, besides its type and its bounds.

    `allowed` says in words what a pattern allows, `default` what it is where that depends on the machine.
    """
    return Meta(description=sentence, extra={"unit": unit, "allowed": allowed, "default": default})


_Jobs = Annotated[int, Meta(ge=1, le=100_000, extra={"unit": "jobs"})]
_Name = Annotated[str, Meta(min_length=1, max_length=100, extra={"allowed": "a name of 1 to 100 characters"})]
_Network = Annotated[str, Meta(min_length=1, max_length=50, extra={"allowed": "a network such as 10.1.0.0/16"})]
_Address = Annotated[Address, Meta(extra={"allowed": "an e-mail address"})]
_ProviderName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        pattern=r"^[^@\s]*$",
        extra={"allowed": "a name of 1 to 100 characters without @ and white space"},
    ),
]


class Database(Struct, frozen=True, gc=False, kw_only=True):
    """Where the queue is kept, and how much of the database the tables may take."""

    url: Annotated[
        Secret | None,
        _key("The Postgres to use, 14 or later. Absent: one of the daemon's own, in the state directory."),
    ] = None
    records_per_hour: Annotated[
        int,
        Meta(ge=0, le=10**12),
        _key(
            "What uploads, formulas and result writes of all teamspaces together may write; 0: no limit.",
            unit="records/h",
        ),
    ] = 1_000_000
    interactive_share: Annotated[
        float,
        Meta(ge=0, le=1),
        _key("The part of that which is kept for jobs of at most 5,000 records, while there are any."),
    ] = 0.2


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0))


class Capacity(Struct, frozen=True, gc=False, kw_only=True):
    """How many jobs of a family may have work in hand at a time, over all teamspaces. A noop takes nothing of it."""

    tables: Annotated[_Jobs, _key("Tables jobs with work in hand, over all teamspaces.")] = 8
    batch: Annotated[
        _Jobs, _key("Batch jobs with work in hand, over all teamspaces.", default="twice the usable cores")
    ] = field(default_factory=lambda: 2 * _usable_cores())
    outreach: Annotated[_Jobs, _key("Outreach jobs with work in hand, over all teamspaces.")] = 64


class Queue(Struct, frozen=True, gc=False, kw_only=True):
    """How the one queue is run."""

    beat_seconds_max: Annotated[
        int,
        Meta(ge=11, le=3_600),
        _key("A worker that has not beaten for so long is dead; it beats every 10 s.", unit="s"),
    ] = 30
    warn_after_seconds: Annotated[
        int,
        Meta(ge=1, le=604_800),
        _key("So long without progress, while it waits for nothing, brings a warning.", unit="s"),
    ] = 120
    stall_after_seconds: Annotated[
        int, Meta(ge=1, le=604_800), _key("So long without progress, while it waits for nothing, is a stall.", unit="s")
    ] = 300
    auto_kill_stalled: Annotated[
        bool, _key("Whether stalled jobs are killed and resumed by the daemon; else they are flagged for a person.")
    ] = True
    max_stall_kills: Annotated[
        int,
        Meta(ge=1, le=100),
        _key("After so many kills in a row without one lead finished the job fails.", unit="kills"),
    ] = 2
    yield_slot_after_seconds: Annotated[
        int,
        Meta(ge=1, le=604_800),
        _key("A job that is known to wait longer lets its teamspace's next job run.", unit="s"),
    ] = 900
    history_days: Annotated[
        int,
        Meta(ge=1, le=36_500),
        _key("Ended jobs, their stories and the books of their calls are kept so long at least.", unit="days"),
    ] = 90
    default_plan: Annotated[_Name, _key("The plan of the teamspaces that are not named in [teamspaces].")] = (
        DEFAULT_PLAN
    )
    capacity: Capacity = Capacity()


class Slots(Struct, frozen=True, gc=False, kw_only=True):
    """How many jobs of a family one teamspace may run at a time, waits included."""

    tables: Annotated[_Jobs, _key("Tables jobs that one teamspace runs at a time.")] = 1
    batch: Annotated[_Jobs, _key("Batch jobs that one teamspace runs at a time.")] = 5
    outreach: Annotated[
        _Jobs | None, _key("Outreach jobs that one teamspace runs at a time. Absent: one for each of its mailboxes.")
    ] = None
    noop: Annotated[_Jobs, _key("Noop jobs that one teamspace runs at a time.")] = 1


class BatchPlan(Struct, frozen=True, gc=False, kw_only=True):
    """What a teamspace's batch jobs, its own Python, may take."""

    enabled: Annotated[bool, _key("Whether it may have batch jobs at all.")] = False
    super_admin_only: Annotated[bool, _key("Whether super-admins alone manage its batch jobs; else admins do.")] = False
    jobs_max: Annotated[
        int, Meta(ge=0, le=10_000), _key("Batch jobs that it may have, drafts included.", unit="batch jobs")
    ] = 5
    executions_per_day: Annotated[
        int, Meta(ge=0, le=100_000), _key("Executions of all its batch jobs in a day; a retry is none.")
    ] = 24
    invocations_per_day: Annotated[
        int,
        Meta(ge=0, le=100_000),
        _key("Executions of one batch job in a day, by its schedules and by API together."),
    ] = 10
    seconds_per_day: Annotated[
        int,
        Meta(ge=1, le=100_000_000),
        _key("What all attempts of a day may take together, and the longest timeout of a batch job.", unit="s"),
    ] = 14_400
    reserve: Annotated[
        bool, _key("Whether what runs counts with all that it may still take when another is to start.")
    ] = False
    retries_max: Annotated[int, Meta(ge=0, le=100), _key("Retries that a batch job may have.")] = 1
    gap_minutes: Annotated[
        int,
        Meta(ge=0, le=10_080),
        _key("From one start of a batch job by schedule to the next at least.", unit="min"),
    ] = 60
    archive_bytes_max: Annotated[
        int, Meta(ge=1, le=64 * 1024 * 1024), _key("The size of a zip with code, packed.", unit="bytes")
    ] = 4_194_304
    own_database: Annotated[
        Literal["none", "read", "write"], _key("What code may do with the teamspace's own leads.")
    ] = "none"
    etl_database: Annotated[
        Literal["none", "read", "write"],
        _key("What code may do with the database whose address the teamspace has set."),
    ] = "none"
    reaches: Annotated[
        list[_Network],
        _key("The networks that code may connect to, never but the public internet. Empty: it has no network."),
    ] = field(default_factory=lambda: ["0.0.0.0/0"])
    builds: Annotated[
        bool,
        _key("Whether packages may be built from sources, in a sandbox; else wheels alone are taken."),
    ] = False
    memory_bytes_max: Annotated[
        int, Meta(ge=64 * 1024 * 1024), _key("What one run may take of the memory, with its files.", unit="bytes")
    ] = 512 * 1024 * 1024
    scratch_bytes_max: Annotated[
        int, Meta(ge=1024 * 1024), _key("What one run may write into its scratch folder.", unit="bytes")
    ] = 256 * 1024 * 1024
    processes_max: Annotated[int, Meta(ge=4, le=4_096), _key("Processes and threads of one run.", unit="processes")] = (
        64
    )
    log_bytes_max: Annotated[
        int,
        Meta(ge=1024, le=1024 * 1024 * 1024),
        _key("What one run may print; who prints more is ended.", unit="bytes"),
    ] = 1024 * 1024


class Plan(Struct, frozen=True, gc=False, kw_only=True):
    """The limits of the teamspaces that have this plan; what it does not say it takes from the plan `default`."""

    slots: Slots = Slots()
    max_queued: Annotated[
        int,
        Meta(ge=1, le=100_000_000),
        _key(
            "A teamspace with so many jobs queued is refused more; a chain counts once.",
            unit="jobs",
        ),
    ] = 10_000
    weight: Annotated[
        float, Meta(gt=0, le=1_000), _key("Its share where teamspaces compete for a provider, beside weights of 1.")
    ] = 1.0
    retention_days: Annotated[
        int | None,
        Meta(ge=1, le=36_500),
        _key(
            "Leads go so long after they were added, from tables that do not say themselves. Absent: they stay.",
            unit="days",
        ),
    ] = None
    zone: Annotated[Zone, _key("The time zone in which its days begin.")] = Zone("UTC")
    batch: BatchPlan = BatchPlan()

    def limits(self) -> Limits:
        """The same as the core takes it."""
        return Limits(slots=_by_family(self.slots), max_queued=self.max_queued, weight=self.weight)


class EtlDatabase(Struct, frozen=True, gc=False, kw_only=True):
    """A Postgres of a teamspace's own that its batch jobs may query."""

    secret: Annotated[
        Secret | None, _key("Its address, with user and password; better kept in a file, see `secret_file`.")
    ] = None
    secret_file: Annotated[
        File | None, _key("The file that holds that address. A plain name may be a systemd credential of the service.")
    ] = None


class Teamspace(Struct, frozen=True, gc=False, kw_only=True):
    """What is said of one teamspace."""

    plan: Annotated[_Name, _key("Its plan, one of [plans].")]
    etl: EtlDatabase = EtlDatabase()


class Submit(Struct, frozen=True, gc=False, kw_only=True):
    """Who may submit."""

    allow: Annotated[
        dict[Uid, list[_Name]] | None,
        _key(
            "A user, by name or number, and the teamspaces it may submit for; '*' stands for all of them. Users that "
            "are not named may submit for none. Absent: everybody for all."
        ),
    ] = None

    def allows(self, uid: int, teamspace: str) -> bool:
        """Whether a peer of this uid may submit for a teamspace."""
        if self.allow is None:
            return True
        teamspaces = self.allow.get(Uid(uid), [])
        return teamspace in teamspaces or EVERY_TEAMSPACE in teamspaces


class Files(Struct, frozen=True, gc=False, kw_only=True):
    """Which files the daemon may read."""

    upload_folders: Annotated[
        list[Folder], _key("Folders, besides STATE/incoming, at or below which an upload may name a file.")
    ] = []
    module_folders: Annotated[
        list[Folder],
        _key("Folders with packages of Python modules, as `pip install --target` makes them; they go before others."),
    ] = []


class OwnKey(Struct, frozen=True, gc=False, kw_only=True):
    """A teamspace's own credential at a provider: an account of its own, with limits of its own."""

    secret: Annotated[Secret | None, _key("The teamspace's credential; better kept in a file, see `secret_file`.")] = (
        None
    )
    secret_file: Annotated[File | None, _key("The file that holds the teamspace's credential.")] = None
    limits: Annotated[
        list[Limit] | None, _key("All limits of this credential. Absent: the same as those of the provider, once more.")
    ] = None


class Provider(Struct, frozen=True, gc=False, kw_only=True):
    """An outside service. What is absent is as its module says."""

    module: Annotated[File | None, _key("The module file that describes it; either this or `preset`.")] = None
    preset: Annotated[_Name | None, _key("The module that comes with Leadline under this name.")] = None
    secret: Annotated[Secret | None, _key("Its credential; better kept in a file of its own, see `secret_file`.")] = (
        None
    )
    secret_file: Annotated[
        File | None,
        _key("The file that holds its credential. A plain name may be a systemd credential of the service."),
    ] = None
    base_url: Annotated[
        str | None,
        Meta(pattern=r"^https?://[^\s/]\S*$"),
        _key(
            "Where it is.",
            allowed="a URL that begins with http:// or https://",
        ),
    ] = None
    limits: Annotated[
        list[Limit] | None,
        _key("All its limits, each a table of the shape window, concurrent, daily or bucket."),
    ] = None
    pace_per_second: Annotated[
        float | None, Meta(gt=0, le=100_000), _key("Calls are spread evenly, so many a second at most.", unit="calls/s")
    ] = None
    call_timeout_seconds: Annotated[
        float | None,
        Meta(gt=0, le=86_400),
        _key("A call is ended after so long. Absent: as its module says.", unit="s"),
    ] = None
    flight_seconds: Annotated[
        float | None,
        Meta(gt=0, le=600),
        _key("So long after it was sent a request may still reach it. Absent: as its module says.", unit="s"),
    ] = None
    credits_per_lead: Annotated[
        float | None, Meta(ge=0, le=1_000_000), _key("What a lead costs there. Absent: as its module says.")
    ] = None
    credits_per_1000_input_tokens: Annotated[
        float | None,
        Meta(ge=0, le=1_000_000),
        _key("What a thousand tokens of a prompt cost at an AI endpoint. Absent: as its module says."),
    ] = None
    credits_per_1000_output_tokens: Annotated[
        float | None,
        Meta(ge=0, le=1_000_000),
        _key("What a thousand tokens of an answer cost at an AI endpoint. Absent: as its module says."),
    ] = None
    settings: Annotated[
        dict[_Name, str], _key("What only its module knows the meaning of, such as the model of an AI endpoint.")
    ] = {}
    own: dict[_Name, OwnKey] = {}
    """By teamspace."""


class PythonModule(Struct, frozen=True, gc=False, kw_only=True):
    """A Python module that is installed. What is absent is as its package says."""

    processes: Annotated[
        int,
        Meta(ge=1, le=256),
        _key("Its worker processes at most; they are started when they are needed.", unit="processes"),
    ] = 2
    memory_bytes_max: Annotated[
        int | None,
        Meta(ge=64 * 1024 * 1024),
        _key("What one of its processes may take of the memory (RLIMIT_DATA). Absent: any amount.", unit="bytes"),
    ] = None
    secret: Annotated[Secret | None, _key("Its credential; better kept in a file of its own, see `secret_file`.")] = (
        None
    )
    secret_file: Annotated[
        File | None,
        _key("The file that holds its credential. A plain name may be a systemd credential of the service."),
    ] = None
    limits: Annotated[
        list[Limit] | None,
        _key("All its limits, besides that of its processes, each shaped as those of a provider."),
    ] = None
    pace_per_second: Annotated[
        float | None, Meta(gt=0, le=100_000), _key("Leads are spread evenly, so many a second at most.", unit="calls/s")
    ] = None
    timeout_seconds: Annotated[
        float | None,
        Meta(gt=0, le=86_400),
        _key("A lead that takes longer has its process killed. Absent: as its package says.", unit="s"),
    ] = None
    settings: Annotated[dict[_Name, str], _key("Its own settings; its package says which there are.")] = {}


class Smtp(Struct, frozen=True, gc=False, kw_only=True):
    """The mail server that takes notices."""

    host: Annotated[_Name | None, _key("The mail server. Absent: no mails are sent.")] = None
    port: Annotated[int, Meta(ge=1, le=65_535), _key("Its port.")] = 587
    tls: Annotated[
        Literal["starttls", "implicit", "none"],
        _key("How the connection is encrypted; where it cannot be so, nothing is sent."),
    ] = "starttls"
    user: Annotated[_Name | None, _key("The user to log in as. Absent: without logging in.")] = None
    secret: Annotated[Secret | None, _key("That user's password; better kept in a file, see `secret_file`.")] = None
    secret_file: Annotated[
        File | None,
        _key("The file that holds that password. A plain name may be a systemd credential of the service."),
    ] = None


class TeamspaceNotices(Struct, frozen=True, gc=False, kw_only=True):
    """Whom to tell of all jobs of a teamspace but noops, from the next submission on."""

    webhook: Annotated[
        WebhookUrl | None,
        _key("Is sent a JSON object for each event.", allowed="a URL that begins with http:// or https://"),
    ] = None
    mail: Annotated[list[_Address], Meta(max_length=10), _key("E-mail addresses that are written to.")] = []
    on: Annotated[list[NoticeEvent], Meta(min_length=1), _key("Of which events they are told.")] = field(
        default_factory=lambda: ["completed", "partial", "failed", "stalled"]
    )
    secret: Annotated[
        Secret | None, _key("Signs what webhooks of this teamspace are sent; better kept in a file, see `secret_file`.")
    ] = None
    secret_file: Annotated[File | None, _key("The file that holds that secret. Absent, both: nothing is signed.")] = (
        None
    )


class Notices(Struct, frozen=True, gc=False, kw_only=True):
    """Notices of jobs by mail and webhook."""

    sender: Annotated[_Address | None, _key("The address that mails come from.")] = None
    allow_networks: Annotated[
        list[_Network],
        _key("Networks such as 10.1.0.0/16 to which webhooks may go although they are not public."),
    ] = []
    smtp: Smtp = Smtp()
    teamspaces: dict[_Name, TeamspaceNotices] = {}


class Log(Struct, frozen=True, gc=False, kw_only=True):
    """What the daemon writes on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], _key("The least important thing that is worth a line.")
    ] = "info"
    format: Annotated[Literal["text", "json"], _key("Lines for people, or JSON objects.")] = "text"


class BatchRuns(Struct, frozen=True, gc=False, kw_only=True):
    """How tenants' code is run on this machine."""

    sandbox: Annotated[
        bool,
        _key("Whether it runs in a sandbox. Without one it can do all that the daemon's user can: trusted code only."),
    ] = True
    interpreters: Annotated[
        dict[_Name, File],
        _key(
            "The Pythons that a batch job can choose from, by the names that it calls them. Absent: the machine's own."
        ),
    ] = {}
    package_index: Annotated[
        Secret | None,
        _key("Where the packages come from that code asks for: a URL on the public internet. Absent: PyPI."),
    ] = None
    packages_bytes_max: Annotated[
        int,
        Meta(ge=1024 * 1024),
        _key("What installed packages that are not in use may take; the longest unused go first.", unit="bytes"),
    ] = 4 * 1024 * 1024 * 1024


class OutreachSmtp(Smtp, frozen=True, gc=False, kw_only=True):
    """The mail server of the mailboxes that name none of their own."""


class Outreach(Struct, frozen=True, gc=False, kw_only=True):
    """How follow-up mails are queued and sent. Schedules are as these say when a teamspace has its first associate."""

    queue_cron: Annotated[
        str, Meta(min_length=9, max_length=200), _key("When the follow-ups that are due are queued: a cron line.")
    ] = "0 * * * *"
    queue_limit: Annotated[
        int, Meta(ge=1, le=1_000_000), _key("As many follow-ups are queued at most, of each associate each time.")
    ] = 25
    spacing_seconds: Annotated[
        int,
        Meta(ge=0, le=86_400),
        _key("What is queued at a time starts so far apart, for each associate.", unit="s"),
    ] = 60
    keywords: Annotated[
        list[_Name], Meta(min_length=1), _key("Keywords of the scripts whose follow-ups are queued, exactly so.")
    ] = field(default_factory=lambda: ["Long Term", "Follow Up"])
    first_mail_keywords: Annotated[
        list[_Name], Meta(min_length=1), _key("Keywords of the scripts that first mails are taken from.")
    ] = field(default_factory=lambda: ["Initial Outreach"])
    weekday_cron: Annotated[
        str, Meta(min_length=9, max_length=200), _key("When first mails are begun on weekdays: a cron line.")
    ] = "0 9 * * 1-5"
    weekend_cron: Annotated[
        str, Meta(min_length=9, max_length=200), _key("When first mails are begun at weekends: a cron line.")
    ] = "0 10 * * 6,0"
    first_mails: Annotated[
        int, Meta(ge=0, le=1_000_000), _key("First mails that are begun each time on weekdays, in each teamspace.")
    ] = 50
    weekend_share: Annotated[
        float, Meta(ge=0, le=10), _key("The part of that which is begun each time at weekends.")
    ] = 0.2
    first_mail_within_days: Annotated[
        int, Meta(ge=1, le=3_650), _key("Whoever has had no first mail by then gets none.", unit="days")
    ] = 30
    domain_per_day: Annotated[
        int,
        Meta(ge=0, le=1_000_000),
        _key("Mails to addresses of one domain in a day, from all mailboxes of a teamspace; 0: any number."),
    ] = 0
    unsubscribe_url: Annotated[
        WebhookUrl | None,
        _key(
            "Where `unsubscribe_listen` is reached from the internet, by https. Absent: no mail can be unsubscribed by"
            " one click, and nobody listens.",
            allowed="a URL that begins with https://",
        ),
    ] = None
    unsubscribe_listen: Annotated[
        str,
        Meta(min_length=3, max_length=300, pattern=r"^.+:\d{1,5}$", extra={"allowed": "ADDRESS:PORT"}),
        _key("Where one-click unsubscribing is listened for."),
    ] = "127.0.0.1:8025"
    smtp: OutreachSmtp = OutreachSmtp()


class Http(Struct, frozen=True, gc=False, kw_only=True):
    """The API over HTTP, which always listens on a Unix socket beside the others."""

    listen: Annotated[
        str | None,
        Meta(min_length=3, max_length=300, pattern=r"^.+:\d{1,5}$", extra={"allowed": "ADDRESS:PORT"}),
        _key("Where it listens besides, such as 127.0.0.1:8021, without TLS. Absent: nowhere."),
    ] = None
    public_url: Annotated[
        str | None,
        Meta(
            max_length=300,
            pattern=r"^https?://([^\s/?#@:\[\]]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?\Z",
            extra={"allowed": "http:// or https:// and a host, with nothing after it"},
        ),
        _key("By which address browsers reach it, such as https://jobs.example.com. Absent: by `listen`."),
    ] = None
    requests_per_second: Annotated[
        float, Meta(gt=0, le=100_000), _key("Requests that one token may send.", unit="requests/s")
    ] = 100.0
    upload_bytes_max: Annotated[int, Meta(ge=1, le=2**50), _key("The size of a file that is sent.", unit="bytes")] = (
        2 * 1024 * 1024 * 1024
    )


class Service(Struct, frozen=True, gc=False, kw_only=True):
    """How the daemon gets on with its service manager."""

    drain_seconds: Annotated[
        float,
        Meta(ge=0, le=3_600),
        _key("At a stop, calls in flight have so long to end before they are cut.", unit="s"),
    ] = 30.0


class Sections(Struct, frozen=True, gc=False, kw_only=True):
    """The top level of the file."""

    database: Database = Database()
    queue: Queue = field(default_factory=Queue)
    plans: dict[_Name, Plan] = field(default_factory=lambda: {DEFAULT_PLAN: Plan()})
    teamspaces: dict[_Name, Teamspace] = {}
    submit: Submit = Submit()
    files: Files = Files()
    providers: dict[_ProviderName, Provider] = {}
    modules: dict[_ProviderName, PythonModule] = {}
    batch: BatchRuns = BatchRuns()
    outreach: Outreach = field(default_factory=Outreach)
    notices: Notices = field(default_factory=Notices)
    http: Http = Http()
    log: Log = Log()
    service: Service = Service()


class Config(Sections, frozen=True, gc=False, kw_only=True):
    """Everything that was configured, and where it was read."""

    path: Path | None = None
    """The file; None: there is none."""
    given: frozenset[str] = frozenset()
    """The keys that stand in the file."""

    def plan_of(self, teamspace: str) -> str:
        """The name of the plan that the file gives a teamspace."""
        named = self.teamspaces.get(teamspace)
        return self.queue.default_plan if named is None else named.plan

    def limits_of(self, plan: str) -> Limits:
        """The limits of a plan, as the core takes them. Raises KeyError where there is no such plan."""
        return self.plans[plan].limits()

    def rules(self) -> Rules:
        """The numbers that bind over everything, as the core takes them."""
        queue = self.queue
        return Rules(
            capacity=_by_family(queue.capacity),
            default_limits=self.limits_of(queue.default_plan),
            beat_seconds_max=queue.beat_seconds_max,
            warn_after_seconds=queue.warn_after_seconds,
            stall_after_seconds=queue.stall_after_seconds,
            auto_kill_stalled=queue.auto_kill_stalled,
            max_stall_kills=queue.max_stall_kills,
            yield_slot_after_seconds=queue.yield_slot_after_seconds,
        )


def _by_family(numbers: Slots | Capacity) -> Mapping[Family, int | None]:
    return {family: getattr(numbers, family.word, None) for family in Family}
