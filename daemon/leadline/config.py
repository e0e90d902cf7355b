"""One frozen Config: everything a person may set, checked once, before anything is started.

A configuration that is wrong should be put right in one go. So the TOML is walked key by key, each leaf judged by the
declared type of its field, and every fault is gathered with its path and with what is allowed there; msgspec, which
does the judging, would stop at the first. A key at fault counts as its default while the walk goes on. Rules that join
several keys are judged at the end, where none of these keys is at fault by itself.

The structs below are the only description of the keys there is: the names, types and defaults that the daemon uses, and
in each field's `Meta` the bounds, the unit and the sentence for people. `reference` and `describe` read them, so that
`config show`, the documentation and the sample configuration cannot tell of keys that are not there.

The complication is what a Config is besides its keys: secrets, which must not be printed by mistake (`Secret`); paths,
which are taken from the folder of the file that names them; and plans, of which each takes what it does not say from
the plan `default`. All that is settled here, so that a Config can be used as it is.

Where things are kept, `state_dir` and `runtime_dir`, is no configuration: a command finds the daemon without any.
"""

import difflib
import json
import math
import os
import pwd
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NewType, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta, Struct, field

from leadline.core.model import Family, Limits, Rules
from leadline.core.rate_limit import DailyLimit, Limit, RateLimiter
from leadline_protocol.errors import LeadlineError, Refused
from leadline_protocol.messages import Address, NoticeEvent, WebhookUrl

SYSTEM_CONFIG: Final = Path("/etc/leadline/leadline.toml")
SYSTEM_STATE: Final = Path("/var/lib/leadline")
SYSTEM_RUNTIME: Final = Path("/run/leadline")

SUBMIT_SOCKET: Final = "submit.sock"
CONTROL_SOCKET: Final = "control.sock"

SOCKET_PATH_BYTES_MAX: Final = 107
"""What `sockaddr_un` of Linux holds, without its closing NUL."""

DEFAULT_PLAN: Final = "default"

EVERY_TEAMSPACE: Final = "*"
"""In `submit.allow`: all teamspaces."""

Source = Literal["built-in", "toml"]
"""Where a value comes from."""


class Fault(Struct, frozen=True, gc=False):
    """One thing that is wrong: the path of a key, or of the file itself, and what is allowed there."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ConfigError(LeadlineError):
    """The configuration cannot be used; `faults` holds all that is wrong with it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults: Final = list(faults)


class SocketPathTooLong(LeadlineError):
    """No Unix socket can be made in the runtime directory: its path is longer than the system allows."""


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


# The keys -------------------------------------------------------------------------------------------------------------

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


class Service(Struct, frozen=True, gc=False, kw_only=True):
    """How the daemon gets on with its service manager."""

    drain_seconds: Annotated[
        float,
        Meta(ge=0, le=3_600),
        _key("At a stop, calls in flight have so long to end before they are cut.", unit="s"),
    ] = 30.0


class _Sections(Struct, frozen=True, gc=False, kw_only=True):
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
    log: Log = Log()
    service: Service = Service()


class Config(_Sections, frozen=True, gc=False, kw_only=True):
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


# Reading --------------------------------------------------------------------------------------------------------------


def find(option: Path | None) -> Path | None:
    """The file to read: the option, else $LEADLINE_CONFIG, else the system's, if there is one; None: defaults."""
    if option is not None:
        return option
    if variable := os.environ.get("LEADLINE_CONFIG"):
        return Path(variable)
    return SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else None


def load(option: Path | None = None) -> Config:
    """The configuration in force; raises ConfigError with every fault of it.

    Secrets are read from their files here, paths made absolute from the folder of the file, plans completed from the
    plan `default`.
    """
    path = find(option)
    if path is None:
        return Config()
    path = path.absolute()
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError([Fault(str(path), f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Fault(str(path), f"is not UTF-8 at byte {error.start}")]) from None
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """The configuration that the text of a file stands for, see `load`; `path` is the file's."""
    import tomllib  # only who has a file pays for it

    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Fault(str(path), f"is not TOML: {error}")]) from None
    reading = _Reading(path.parent)
    sections = reading.value(_Sections, tree, "")
    given = frozenset(reading.given)
    values = {name: getattr(sections, name) for name in _Sections.__struct_fields__}
    values["plans"] = _complete_plans(sections.plans, given)
    values["providers"] = {name: _revealed(reading, name, each) for name, each in sections.providers.items()}
    values["modules"] = {
        name: _with_secret(reading, each, _join("modules", name)) for name, each in sections.modules.items()
    }
    values["teamspaces"] = {
        name: msgspec.structs.replace(each, etl=_with_secret(reading, each.etl, _join(f"teamspaces.{name}", "etl")))
        for name, each in sections.teamspaces.items()
    }
    values["notices"] = _notices_revealed(reading, sections.notices)
    smtp = _with_secret(reading, sections.outreach.smtp, "outreach.smtp")
    values["outreach"] = msgspec.structs.replace(sections.outreach, smtp=smtp)
    config = Config(**values, path=path, given=given)
    at_fault = {fault.path for fault in reading.faults}
    faults = [*reading.faults, *(fault for keys, fault in _contradictions(config) if at_fault.isdisjoint(keys))]
    if faults:
        raise ConfigError(faults)
    return config


def plan(tree: Mapping[str, Any]) -> Plan:
    """A plan of these values, and of the built-in ones. Raises ConfigError with every fault."""
    reading = _Reading(Path())
    found: Plan = reading.value(Plan, tree, "")
    if reading.faults:
        raise ConfigError(reading.faults)
    return found


class _Reading:
    """A walk through what TOML made of a file: which keys it gives, and what is wrong with them.

    Each step answers the value found, as the wanted type, or NODEFAULT where it is at fault.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder
        self.faults: Final[list[Fault]] = []
        self.given: Final[set[str]] = set()

    def value(self, wanted: Any, found: Any, path: str) -> Any:
        """What was found at a path, read as a type as it is written in an annotation."""
        self.given.add(path)
        bare, metas = _unwrapped(wanted)
        if _is_struct(bare):
            return self._struct(bare, found, path)
        origin, arguments = get_origin(bare), get_args(bare)
        if origin is dict:
            return self._table(arguments[0], arguments[1], found, path)
        if origin is list:
            return self._list(arguments[0], found, path)
        if origin in (Union, UnionType):
            return self._shape(arguments, found, path)
        return self._leaf(bare, metas, found, path)

    def secret(self, file: File, path: str) -> Secret | None:
        """The secret that a file holds."""
        try:
            text = file.read_bytes().decode().strip()
        except OSError as error:
            self._refuse(path, f"{file} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self._refuse(path, f"{file} is not a text in UTF-8")
        else:
            if text:
                return Secret(text)
            self._refuse(path, f"{file} is empty")
        return None

    def _struct(self, wanted: type[Struct], found: Any, path: str, tag_field: str | None = None) -> Any:
        if not isinstance(found, dict):
            return self._refuse(path, f"must be a table of keys{_but(found)}")
        fields = {each.name: each for each in msgspec.structs.fields(wanted)}
        values = {}
        for key, value in found.items():
            if key in fields:
                values[key] = self.value(fields[key].type, value, _join(path, key))
            elif key != tag_field:
                self._refuse(_join(path, key), _no_such_key(key, fields))
        for name, each in fields.items():
            if each.required and name not in values:
                values[name] = self._refuse(
                    _join(path, name), f"is missing; it must be {_allowed(*_unwrapped(each.type))}"
                )
        if any(values.get(name) is NODEFAULT for name, each in fields.items() if each.required):
            return NODEFAULT
        return wanted(**{name: value for name, value in values.items() if value is not NODEFAULT})

    def _table(self, key_type: Any, item_type: Any, found: Any, path: str) -> Any:
        if not isinstance(found, dict):
            return self._refuse(path, f"must be a table of keys{_but(found)}")
        table = {}
        for name, value in found.items():
            key = self._leaf(*_unwrapped(key_type), name, _join(path, name))
            item = self.value(item_type, value, _join(path, name))
            if key is not NODEFAULT and item is not NODEFAULT:
                table[key] = item
        return table

    def _list(self, item_type: Any, found: Any, path: str) -> Any:
        if not isinstance(found, list):
            return self._refuse(path, f"must be a list{_but(found)}")
        items = [self.value(item_type, value, f"{path}[{index}]") for index, value in enumerate(found)]
        return [item for item in items if item is not NODEFAULT]

    def _shape(self, shapes: Sequence[type[Struct]], found: Any, path: str) -> Any:
        """One of several kinds of table, told apart by a word in them."""
        tag_field = str(shapes[0].__struct_config__.tag_field)
        by_tag = {each.__struct_config__.tag: each for each in shapes}
        if not isinstance(found, dict):
            return self._refuse(path, f"must be a table of keys{_but(found)}")
        word = found.get(tag_field)
        if not isinstance(word, str) or word not in by_tag:
            return self._refuse(_join(path, tag_field), f"must be one of {_listed(by_tag)}{_but(word)}")
        limit = self._struct(by_tag[word], found, path, tag_field)
        if isinstance(limit, DailyLimit) and not _is_zone(limit.zone):
            return self._refuse(_join(path, "zone"), f"must be a time zone such as Europe/Berlin{_but(limit.zone)}")
        return limit

    def _leaf(self, bare: Any, metas: Sequence[Meta], found: Any, path: str) -> Any:
        if bare is Secret:
            # What was found is not repeated: it may be the secret.
            return Secret(found) if isinstance(found, str) and found else self._refuse(path, "must be a text")
        if bare is Uid:
            return self._uid(found, path)
        if bare is Zone:
            known = isinstance(found, str) and _is_zone(found)
            return found if known else self._refuse(path, f"must be a time zone such as Europe/Berlin{_but(found)}")
        if bare is File or bare is Folder:
            return self._place(bare, found, path)
        try:
            value = msgspec.convert(found, Annotated[bare, *metas] if metas else bare)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(value)
        except ValueError:
            return self._refuse(path, f"must be {_allowed(bare, metas)}{_but(found)}")
        return value

    def _uid(self, name: str, path: str) -> Any:
        if name.isascii() and name.isdecimal():
            return Uid(int(name))
        try:
            return Uid(pwd.getpwnam(name).pw_uid)
        except (KeyError, ValueError):
            return self._refuse(path, "there is no user of this name on this machine")

    def _place(self, bare: Any, found: Any, path: str) -> Any:
        """The path made absolute: a plain name may be a credential of the service, else the file's folder counts."""
        if not isinstance(found, str) or not found or "\0" in found:
            return self._refuse(path, f"must be {_allowed(bare, ())}{_but(found)}")
        place = self._folder / found
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        if credentials and "/" not in found and (Path(credentials) / found).is_file():
            place = Path(credentials) / found
        try:
            if not (place.is_dir() if bare is Folder else place.is_file()):
                return self._refuse(path, f"there is no {'folder' if bare is Folder else 'file'} {place}")
        except PermissionError:
            return self._refuse(path, f"{place} may not be looked at by this user")
        return place

    def _refuse(self, path: str, message: str) -> Any:
        self.faults.append(Fault(path, message))
        return NODEFAULT


_Keyed = TypeVar("_Keyed", EtlDatabase, Provider, OwnKey, PythonModule, Smtp, TeamspaceNotices)


def _revealed(reading: _Reading, name: str, provider: Provider) -> Provider:
    """A provider with the secrets that its files hold."""
    path = _join("providers", name)
    own = {
        teamspace: _with_secret(reading, key, _join(_join(path, "own"), teamspace))
        for teamspace, key in provider.own.items()
    }
    return msgspec.structs.replace(_with_secret(reading, provider, path), own=own)


def _notices_revealed(reading: _Reading, notices: Notices) -> Notices:
    """The same with the secrets that its files hold."""
    teamspaces = {
        name: _with_secret(reading, each, _join("notices.teamspaces", name))
        for name, each in notices.teamspaces.items()
    }
    return msgspec.structs.replace(
        notices, smtp=_with_secret(reading, notices.smtp, "notices.smtp"), teamspaces=teamspaces
    )


def _with_secret(reading: _Reading, each: _Keyed, path: str) -> _Keyed:
    """What may have a secret, with the one that its file holds."""
    if each.secret_file is None or each.secret is not None:
        return each
    secret = reading.secret(each.secret_file, _join(path, "secret_file"))
    return msgspec.structs.replace(each, secret=secret)


def _complete_plans(plans: Mapping[str, Plan], given: frozenset[str]) -> dict[str, Plan]:
    """Plans that say everything: what one does not is taken from `default`, which is there in any case."""
    default = plans.get(DEFAULT_PLAN, Plan())
    filled = {name: _filled(plan, default, _join("plans", name), given) for name, plan in plans.items()}
    return {DEFAULT_PLAN: default, **filled}


def _filled(plan: Any, default: Any, path: str, given: frozenset[str]) -> Any:
    values = {}
    for name in plan.__struct_fields__:
        place, own, other = _join(path, name), getattr(plan, name), getattr(default, name)
        if isinstance(own, Struct):
            values[name] = _filled(own, other, place, given)
        else:
            values[name] = own if place in given else other
    return type(plan)(**values)


def _contradictions(config: Config) -> Iterator[tuple[tuple[str, ...], Fault]]:
    """What is wrong with keys together: the fault, and the keys that must each be right by themselves to judge it."""
    queue = config.queue
    plans = _listed(config.plans)
    if queue.default_plan not in config.plans:
        yield ("queue.default_plan",), Fault("queue.default_plan", f"must be one of the plans {plans}")
    if queue.warn_after_seconds >= queue.stall_after_seconds:
        yield (
            ("queue.warn_after_seconds", "queue.stall_after_seconds"),
            Fault(
                "queue.warn_after_seconds",
                f"must be less than queue.stall_after_seconds, which is {queue.stall_after_seconds}",
            ),
        )
    for name, teamspace in config.teamspaces.items():
        if teamspace.plan not in config.plans:
            path = _join(_join("teamspaces", name), "plan")
            yield (path, _join("plans", teamspace.plan)), Fault(path, f"must be one of the plans {plans}")
    for name, provider in config.providers.items():
        yield from _provider_contradictions(provider, _join("providers", name), config.given)
    for name, module in config.modules.items():
        path = _join("modules", name)
        if name in config.providers:
            yield (path, _join("providers", name)), Fault(path, "a provider has this name")
        yield from _key_contradictions(module, path, config.given)
    yield from _notice_contradictions(config.notices, config.given)
    yield from _outreach_contradictions(config.outreach, config.given)


def _notice_contradictions(notices: Notices, given: frozenset[str]) -> Iterator[tuple[tuple[str, ...], Fault]]:
    for position, network in enumerate(notices.allow_networks):
        if not _is_network(network):
            path = f"notices.allow_networks[{position}]"
            yield (path,), Fault(path, f"must be a network such as 10.1.0.0/16, not {network}")
    if notices.smtp.host is not None and notices.sender is None:
        yield ("notices.smtp.host", "notices.sender"), Fault("notices.sender", "is missing; mails come from somebody")
    places = ["notices.smtp"]
    for name, each in notices.teamspaces.items():
        path = _join("notices.teamspaces", name)
        places.append(path)
        if each.mail and notices.smtp.host is None:
            yield (f"{path}.mail", "notices.smtp.host"), Fault(f"{path}.mail", "needs notices.smtp.host")
        if each.webhook is None and not each.mail:
            yield (f"{path}.webhook", f"{path}.mail"), Fault(path, "needs a webhook or mail")
    for path in places:
        if {f"{path}.secret", f"{path}.secret_file"} <= given:
            yield (), Fault(path, "may have a secret or a secret_file, not both")


def _outreach_contradictions(outreach: Outreach, given: frozenset[str]) -> Iterator[tuple[tuple[str, ...], Fault]]:
    for key in ("queue_cron", "weekday_cron", "weekend_cron"):
        path = f"outreach.{key}"
        if (fault := cron_fault(getattr(outreach, key))) is not None:
            yield (path,), Fault(path, fault)
    if outreach.unsubscribe_url is not None and not outreach.unsubscribe_url.startswith("https://"):
        path = "outreach.unsubscribe_url"
        yield (path,), Fault(path, "must begin with https://: mail programs take nothing else")
    if {"outreach.smtp.secret", "outreach.smtp.secret_file"} <= given:
        yield (), Fault("outreach.smtp", "may have a secret or a secret_file, not both")


def cron_fault(line: str) -> str | None:
    """What is wrong with a cron line; None: nothing."""
    from leadline.core.calendar.schedules import read_schedule
    from leadline_protocol.schedules import Cron

    try:
        read_schedule(Cron(line, "UTC"))
    except Refused as refused:
        return refused.message
    return None


def _is_network(text: str) -> bool:
    from ipaddress import ip_network

    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _provider_contradictions(
    provider: Provider, path: str, given: frozenset[str]
) -> Iterator[tuple[tuple[str, ...], Fault]]:
    module, preset = (f"{path}.{key}" for key in ("module", "preset"))
    if provider.module is None and provider.preset is None:
        yield (module, preset), Fault(path, "needs a module or a preset")
    if {module, preset} <= given:
        yield (), Fault(path, "may have a module or a preset, not both")
    yield from _key_contradictions(provider, path, given)
    for teamspace, key in provider.own.items():
        place = _join(_join(path, "own"), teamspace)
        if key.secret is None and key.secret_file is None:
            yield (f"{place}.secret", f"{place}.secret_file"), Fault(place, "needs a secret or a secret_file")
        yield from _key_contradictions(key, place, given)


def _key_contradictions(
    key: Provider | OwnKey | PythonModule, path: str, given: frozenset[str]
) -> Iterator[tuple[tuple[str, ...], Fault]]:
    secret, secret_file, limits = (f"{path}.{name}" for name in ("secret", "secret_file", "limits"))
    if {secret, secret_file} <= given:
        yield (), Fault(path, "may have a secret or a secret_file, not both")
    try:
        RateLimiter(key.limits or (), next_reset=lambda _, instant: instant)
    except ValueError:
        yield (limits,), Fault(limits, "has two limits of the same shape, unit and period")


def _is_zone(name: str) -> bool:
    from leadline.core.calendar.zones import zone_names

    return name in zone_names()


# Telling --------------------------------------------------------------------------------------------------------------


class Key(Struct, frozen=True, gc=False, kw_only=True):
    """What may be set: for documentation, and to check a sample configuration against."""

    name: str
    """The path, in which NAME stands for whatever name people choose."""
    type: str
    """What is allowed, in words."""
    default: str
    """As it would be written in TOML; empty: absent; of some keys words, as it depends on the machine."""
    unit: str
    """Empty where there is none."""
    sentence: str
    """What it means."""
    required: bool


class Setting(Struct, frozen=True, gc=False, kw_only=True):
    """One key with its value in force."""

    key: str
    value: Any
    """As JSON has it; None: absent; a secret is only stars."""
    source: Source


_NAMED_PLAN: Final = re.compile(r"""^plans\.([\w-]+|"(\\.|[^"\\])*")\.""")


def reference() -> list[Key]:
    """Every key there is, in the order of the documentation."""
    return list(_keys_of(_Sections, ""))


def limits() -> list[Key]:
    """Every key of a plan."""
    return list(_keys_of(Plan, ""))


def describe(config: Config) -> list[Setting]:
    """Every key with its value and where that comes from, in the order of the documentation."""
    settings = []
    for path, value, key in _values_of(config, _Sections, ""):
        inherited = _NAMED_PLAN.sub(f"plans.{DEFAULT_PLAN}.", key)
        source: Source = "toml" if key in config.given or inherited in config.given else "built-in"
        settings.append(Setting(key=path, value=value, source=source))
    return settings


def key_of(*names: str) -> str:
    """The path of a key: `key_of("plans", "north.east", "slots.tables")` is `plans."north.east".slots.tables`.

    The last name is a path already.
    """
    *parents, last = names
    return ".".join([*map(_quoted, parents), last])


def toml_text(value: Any) -> str:
    """A value of JSON as TOML writes it on one line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{_quoted(str(key))} = {toml_text(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml_text, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _keys_of(wanted: type[Struct], path: str) -> Iterator[Key]:
    for each in msgspec.structs.fields(wanted):
        bare, metas = _unwrapped(each.type)
        name = _join(path, each.name)
        arguments = get_args(bare)
        if _is_struct(bare):
            yield from _keys_of(bare, name)
        elif get_origin(bare) is dict and _is_struct(arguments[1]):
            yield from _keys_of(arguments[1], f"{name}.NAME")
        else:
            default = each.default if each.default is not NODEFAULT else None
            if default is None and each.default_factory is not NODEFAULT:
                default = each.default_factory()
            yield Key(
                name=name,
                type=_allowed(bare, metas),
                default=_said(metas, "default") or ("" if default is None else toml_text(msgspec.to_builtins(default))),
                unit=_said(metas, "unit"),
                sentence=next((meta.description for meta in metas if meta.description), ""),
                required=each.required,
            )


def _values_of(found: Struct, wanted: type[Struct], path: str) -> Iterator[tuple[str, Any, str]]:
    """The path of each key, its value, and the path under which it counts as given."""
    for each in msgspec.structs.fields(wanted):
        value = getattr(found, each.name)
        name = _join(path, each.name)
        arguments = get_args(_unwrapped(each.type)[0])
        if isinstance(value, Struct):
            yield from _values_of(value, type(value), name)
        elif isinstance(value, dict) and _is_struct(arguments[1]):
            for key, item in value.items():
                yield from _values_of(item, type(item), _join(name, key))
        elif isinstance(value, dict) and value:
            yield from ((_join(name, str(key)), item, name) for key, item in value.items())
        else:
            yield name, msgspec.to_builtins(value, enc_hook=str), name


# Words and types ------------------------------------------------------------------------------------------------------


def _unwrapped(wanted: Any) -> tuple[Any, list[Meta]]:
    """The type within Annotated and `| None`, and what is said of it, the outermost first."""
    metas: list[Meta] = []
    while True:
        if get_origin(wanted) is Annotated:
            wanted, *more = get_args(wanted)
            metas = [*metas, *more]
        elif NoneType in get_args(wanted):
            [wanted] = [each for each in get_args(wanted) if each is not NoneType]
        else:
            return wanted, metas


def _is_struct(bare: Any) -> bool:
    return isinstance(bare, type) and issubclass(bare, Struct)


def _join(path: str, key: str) -> str:
    """The path of a key, as TOML writes it."""
    return f"{path}.{_quoted(key)}" if path else _quoted(key)


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _listed(words: Iterable[Any]) -> str:
    return ", ".join(map(str, words))


def _said(metas: Iterable[Meta], what: str) -> str:
    return next((meta.extra[what] for meta in metas if meta.extra and meta.extra.get(what)), "")


def _no_such_key(key: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(key, known, 1)
    return f"there is no such key; {f'did you mean {close[0]}?' if close else f'known here: {_listed(known)}'}"


def _but(found: Any) -> str:
    """What was found instead, if it can be said in a few words."""
    match found:
        case None:
            return ""
        case bool() | int() | float():
            return f", not {found}".lower()
        case str() if len(found) <= 60:
            return f", not {json.dumps(found, ensure_ascii=False)}"
        case str():
            return f", not a text of {len(found)} characters"
        case dict():
            return ", not a table"
        case list():
            return ", not a list"
        case _:
            return f", not a {type(found).__name__}"


def _allowed(bare: Any, metas: Sequence[Meta]) -> str:
    """What is allowed, in words that follow 'must be'."""
    if words := _said(metas, "allowed"):
        return words
    if bare is bool:
        return "true or false"
    if bare is int or bare is float:
        return ("a whole number" if bare is int else "a number") + _range(metas)
    if bare is Zone:
        return "a time zone such as Europe/Berlin"
    if bare is File or bare is Folder:
        return "the path of a folder" if bare is Folder else "the path of a file"
    if get_origin(bare) is Literal:
        return f"one of {_listed(get_args(bare))}"
    if isinstance(bare, type) and issubclass(bare, Enum):
        return f"one of {_listed(each.value for each in bare)}"
    arguments = [_unwrapped(each) for each in get_args(bare)]
    if get_origin(bare) is dict:
        return f"a table; each value is {_allowed(*arguments[1])}"
    if get_origin(bare) is list:
        return f"a list; each item is {_allowed(*arguments[0])}"
    if get_origin(bare) in (Union, UnionType):
        shapes = [each.__struct_config__ for each, _ in arguments]
        return f"a table whose {shapes[0].tag_field} is one of {_listed(shape.tag for shape in shapes)}"
    pattern = next((meta.pattern for meta in metas if meta.pattern), None)
    return f"a text like {pattern}" if pattern else "a text"


def _range(metas: Iterable[Meta]) -> str:
    bounds = {name: next((b for meta in metas if (b := getattr(meta, name)) is not None), None) for name in _BOUNDS}
    ge, gt, le = (None if bound is None else f"{bound:,}" for bound in bounds.values())
    if ge is not None and le is not None:
        return f" from {ge} to {le}"
    low = f" of at least {ge}" if ge is not None else f" above {gt}" if gt is not None else ""
    return low + (f"{' and' if low else ''} at most {le}" if le is not None else "")


_BOUNDS: Final = ("ge", "gt", "le")

# Places ---------------------------------------------------------------------------------------------------------------


def state_dir(option: Path | None) -> Path:
    """Where state is kept: the option, else $STATE_DIRECTORY, else the system's for root, else the user's own."""
    if option is not None:
        return option.absolute()
    if variable := os.environ.get("STATE_DIRECTORY"):
        return Path(variable.partition(":")[0]).absolute()  # systemd lists every directory it made
    if os.geteuid() == 0:
        return SYSTEM_STATE
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "leadline"


def runtime_dir(option: Path | None, state: Path) -> Path:
    """Where the sockets are: the option, else $RUNTIME_DIRECTORY, else the system's for root, else the user's own.

    Where there is no $XDG_RUNTIME_DIR either, the folder `run` in the state directory. Raises SocketPathTooLong.
    """
    if option is not None:
        folder = option.absolute()
    elif variable := os.environ.get("RUNTIME_DIRECTORY"):
        folder = Path(variable.partition(":")[0]).absolute()
    elif os.geteuid() == 0:
        folder = SYSTEM_RUNTIME
    elif variable := os.environ.get("XDG_RUNTIME_DIR"):
        folder = Path(variable) / "leadline"
    else:
        folder = state / "run"
    longest = max(len(os.fsencode(folder / name)) for name in (SUBMIT_SOCKET, CONTROL_SOCKET))
    if longest > SOCKET_PATH_BYTES_MAX:
        raise SocketPathTooLong(
            f"{folder / CONTROL_SOCKET} is {longest} bytes long and a Unix socket's path may have "
            f"{SOCKET_PATH_BYTES_MAX}: choose a shorter --runtime-dir"
        )
    return folder
