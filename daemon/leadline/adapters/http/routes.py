"""Every address of the API, in one table: what it means, who may use it, and where its fields come from.

A route is an operation of the sockets under an address of its own. Its fields come from four places, and each field
from one of them: what the address itself says (`fixed`), names in the path, and of those in `takes`, the query of GET
and DELETE, or the body of the others. The same table finds the route of a request, reads it, and describes the API
(`openapi`). A few addresses are no operation: those carry files, streams or what machines ask; they stand in the
table by what answers them (`Special`).
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar
from urllib.parse import unquote

from msgspec import Struct, field

from leadline_protocol import messages as wire

Method = str
"""GET, PUT, POST, PATCH or DELETE."""


class Special(StrEnum):
    """What is no operation of the sockets."""

    SUBMIT = "submit"
    PUT_FILE = "put_file"
    GET_FILE = "get_file"
    JOB_FILE = "job_file"
    BATCH_ARCHIVE = "batch_archive"
    STREAM = "stream"
    OPENAPI = "openapi"
    METRICS = "metrics"
    HEALTH = "health"
    READY = "ready"


class Route(Struct, frozen=True, gc=False):
    """One method at one address."""

    method: Method
    path: str
    """Such as `/v1/jobs/{job}/why`; a name in braces is a field."""
    means: type[wire.Operation[wire.Reply]] | Special
    scope: wire.TokenScope | None
    """None: nobody is asked for a token."""
    summary: str
    takes: tuple[str, ...] = ()
    """Fields of the operation that may come in the query or in the body."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Name in the path → field, where they differ."""

    @property
    def in_body(self) -> bool:
        """Whether `takes` come in the body; else they come in the query."""
        return self.method not in {"GET", "DELETE"}

    @property
    def cursor(self) -> str | None:
        """The parameter that takes the `next` of the page before, where there are pages."""
        return next((name for name in ("before", "after") if name in self.takes and not self.in_body), None)

    @property
    def in_path(self) -> tuple[str, ...]:
        """The names in the path, in order."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))


_JOBS: Final = ("teamspace", "state", "states", "family", "table", "limit", "before", "nested", "explained")


def _looks() -> Iterator[Route]:
    def look(path: str, means: type[wire.Operation[Any]], summary: str, *takes: str, **fixed: Any) -> Route:
        return Route("GET", path, means, "read", summary, takes, fixed)

    yield look("/v1/ping", wire.Ping, "Is the daemon there and ready?")
    yield look("/v1/jobs", wire.Jobs, "Jobs, newest first.", *_JOBS)
    yield look("/v1/jobs/{job}", wire.Job, "One job, with what was submitted.", "refused_after", "leads_after")
    yield look("/v1/jobs/{job}/why", wire.Why, "All that keeps a job from going on, with numbers.")
    yield look("/v1/jobs/{job}/history", wire.History, "How a job came to where it is.")
    yield look("/v1/status", wire.Status, "How the daemon is.")
    yield look("/v1/teamspaces", wire.Teamspaces, "Teamspaces and what each has in the queue.", "limit", "after")
    yield look("/v1/providers", wire.Providers, "Provider accounts, their limits and who waits.", "name")
    yield look("/v1/plans", wire.Plans, "The limits in force.", "plan", "teamspace", "provider")
    yield look("/v1/usage", wire.Usage, "What a month has cost.", "month", "by", "teamspace", "limit", "after")
    yield look("/v1/notices", wire.Notices, "Mails and webhooks about jobs.", "job", "teamspace", "all", "limit")
    yield look("/v1/tables", wire.Tables, "Tables.", "teamspace", "limit", "after", action="list")
    yield look("/v1/tables/{teamspace}/{table}", wire.Tables, "One table.", action="describe")
    yield look("/v1/modules", wire.Tables, "Modules that fill columns.", "teamspace", action="modules")
    yield look(
        "/v1/schedules", wire.Schedules, "Schedules.", "teamspace", "name", "count", "limit", "after", action="list"
    )
    yield look("/v1/schedules/due", wire.Schedules, "What fires next.", "teamspace", "days", "limit", action="due")
    yield look("/v1/schedules/{teamspace}/{name}", wire.Schedules, "One schedule.", "count", action="describe")
    yield look("/v1/batch", wire.BatchJobs, "Batch jobs.", "teamspace", "limit", "after", action="list")
    yield look("/v1/batch/{teamspace}/{name}", wire.BatchJobs, "One batch job.", action="describe")
    yield look("/v1/runs", wire.BatchJobs, "Runs of batch jobs.", "teamspace", "name", "limit", "after", action="runs")
    yield look("/v1/runs/{instance}", wire.BatchJobs, "One run, with its result.", action="runs")
    yield look(
        "/v1/runs/{instance}/logs",
        wire.BatchJobs,
        "What a run has printed.",
        *("retry_attempt", "after", "before", "limit", "wait_seconds"),
        action="logs",
    )
    for things, title, filters in (
        ("follow_ups", "Follow-ups", ("associate", "status", "address")),
        ("associates", "Associates and their mailboxes", ("associate",)),
        ("scripts", "Scripts", ()),
        ("suppressions", "What is not written to", ("address", "domain")),
        ("mails", "Mails", ("state",)),
    ):
        yield look(
            f"/v1/outreach/{things}",
            wire.FollowUps,
            f"{title}.",
            *("teamspace", *filters, "limit", "after"),
            action=things,
        )
    of_one = "/v1/outreach/{teamspace}/follow_ups/{follow_up}"
    yield look(of_one, wire.FollowUps, "One follow-up with its mails.", action="describe")
    yield look(f"{of_one}/next_mail", wire.FollowUps, "Its next mail as it would be written now.", action="write")


def _acts() -> Iterator[Route]:
    def act(
        method: Method, path: str, means: type[wire.Operation[Any]], summary: str, *takes: str, **fixed: Any
    ) -> Route:
        return Route(method, path, means, "control", summary, takes, fixed)

    yield act("POST", "/v1/jobs/{job}/cancel", wire.Cancel, "End a job; what it has done stays.", "force")
    yield act("POST", "/v1/jobs/{job}/rerun", wire.Rerun, "Run an ended job again.", "leads", "from_step")
    for word, means, summary in (("pause", wire.Pause, "Begin nothing new"), ("resume", wire.Resume, "Go on")):
        yield Route(
            "POST",
            f"/v1/jobs/{{job}}/{word}",
            means,
            "control",
            f"{summary} in a job.",
            fixed={"scope": "job"},
            renamed={"job": "name"},
        )
        yield act("POST", f"/v1/{word}", means, f"{summary} somewhere.", "scope", "name")
    yield act(
        "POST",
        "/v1/providers/{name}/try",
        wire.Providers,
        "One real call to a provider.",
        *("lead", "teamspace"),
        action="try",
    )
    yield act("PATCH", "/v1/plans", wire.Plans, "Set one limit live.", "plan", "teamspace", "provider", "key", "value")
    yield act("POST", "/v1/notices/{again}/again", wire.Notices, "Send a notice once more.")
    yield act("POST", "/v1/links", wire.Links, "A link by which a person signs in once.", "person", "teamspace", "role")
    yield act(
        "DELETE", "/v1/links", wire.Links, "Sign a person out, or a teamspace.", "person", "teamspace", action="end"
    )
    yield act("POST", "/v1/reload", wire.Reload, "Read the configuration again.")
    yield act("POST", "/v1/drain", wire.Drain, "Start nothing more, and end the daemon.")
    table = "/v1/tables/{teamspace}/{table}"
    yield act("PUT", table, wire.Tables, "Make a table.", "columns", "key", action="create")
    yield act("POST", f"{table}/retain", wire.Tables, "Keep its leads for so long.", "days", action="retain")
    yield act("DELETE", table, wire.Tables, "Delete a table.", "cancel", "dry_run", action="delete")
    schedule = "/v1/schedules/{teamspace}/{name}"
    yield act(
        "PUT",
        schedule,
        wire.Schedules,
        "Make a schedule.",
        *("timetable", "submission", "missed", "overlap", "count"),
        action="add",
    )
    yield act("POST", f"{schedule}/pause", wire.Schedules, "Have it not fire.", action="pause")
    yield act("POST", f"{schedule}/resume", wire.Schedules, "Have it fire again.", action="resume")
    yield act("DELETE", schedule, wire.Schedules, "Delete a schedule.", action="delete")
    yield Route(
        "POST",
        "/v1/schedules/preview",
        wire.Schedules,
        "read",
        "When it would fire.",
        ("timetable", "count", "teamspace", "submission"),
        {"action": "preview"},
    )
    batch = "/v1/batch/{teamspace}/{name}"
    conduct = (
        *("api", "timeout_seconds", "retries", "retry_timeouts", "stall_after_seconds", "interpreter"),
        *("mail_success", "mail_failure", "settings", "secrets"),
    )
    yield act("PUT", batch, wire.BatchJobs, "Make a batch job.", *conduct, action="create")
    yield act("PATCH", batch, wire.BatchJobs, "Change how a batch job is run.", *conduct, action="set")
    yield act("DELETE", batch, wire.BatchJobs, "Delete a batch job.", action="delete")
    yield act("POST", f"{batch}/upload", wire.BatchJobs, "Give it the code of a file.", "path", action="upload")
    yield act("POST", f"{batch}/publish", wire.BatchJobs, "Let it run.", action="publish")
    yield act("POST", f"{batch}/unpublish", wire.BatchJobs, "Let it run no more.", action="unpublish")
    outreach = "/v1/outreach/{teamspace}"
    for word, summary, takes in (
        ("import", "Take associates, scripts, follow-ups and suppressions.", ("rows",)),
        ("queue", "Queue follow-ups that are due.", ("associate", "limit")),
        ("preview", "What queueing would do now.", ("associate", "limit")),
        ("suppress", "Write to an address or a domain no more.", ("address", "domain", "detail")),
        ("allow", "Take a suppression back.", ("address", "domain", "detail")),
    ):
        yield act("POST", f"{outreach}/{word}", wire.FollowUps, summary, *takes, action=word)
    yield act(
        "POST",
        f"{outreach}/follow_ups/{{follow_up}}/stop",
        wire.FollowUps,
        "Send a contact nothing more.",
        *("detail",),
        action="stop",
    )
    yield act(
        "POST",
        f"{outreach}/mails/{{mail}}/resolve",
        wire.FollowUps,
        "Say whether a mail of unknown outcome was sent.",
        *("sent", "detail"),
        action="resolve",
    )
    for word, summary in (("pause", "Let nothing leave its mailbox."), ("resume", "Let its mails go on.")):
        path = f"{outreach}/associates/{{associate}}/{word}"
        yield act("POST", path, wire.FollowUps, summary, "detail", action=word)


_SPECIAL: Final = (
    Route("POST", "/v1/jobs", Special.SUBMIT, "submit", "Submit a job, or one a line."),
    Route(
        "POST",
        "/v1/events",
        wire.ContactEvent,
        "submit",
        "Something came in from a contact.",
        ("teamspace", "event", "address", "message_id", "key", "at", "permanent", "detail"),
    ),
    Route("PUT", "/v1/files/{file}", Special.PUT_FILE, "submit", "Send a file that a submission then names as `path`."),
    Route("GET", "/v1/files/{file}", Special.GET_FILE, "read", "Fetch a file that an export was told to write."),
    Route("GET", "/v1/jobs/{job}/file", Special.JOB_FILE, "read", "Fetch the file that an export has written."),
    Route(
        "GET",
        "/v1/batch/{teamspace}/{name}/archive",
        Special.BATCH_ARCHIVE,
        "read",
        "Fetch the code of a batch job.",
        ("version",),
    ),
    Route("GET", "/v1/stream", Special.STREAM, "read", "What happens to jobs, as server-sent events."),
    Route("GET", "/v1/openapi.json", Special.OPENAPI, None, "This description."),
    Route("GET", "/metrics", Special.METRICS, "read", "Numbers for Prometheus."),
    Route("GET", "/healthz", Special.HEALTH, None, "Does the process live?"),
    Route("GET", "/readyz", Special.READY, None, "Does the queue take work?"),
)

ROUTES: Final[tuple[Route, ...]] = (*_looks(), *_acts(), *_SPECIAL)

OPERATIONS: Final = tuple(dict.fromkeys(route.means for route in ROUTES if isinstance(route.means, type)))
"""What may be asked over HTTP: not the operations that are about connections, nor tokens, which are made nearer by."""


class Addressed(Protocol):
    """Something that has an address."""

    @property
    def method(self) -> Method:
        """How it is asked for."""

    @property
    def path(self) -> str:
        """Such as `/v1/jobs/{job}/why`; a name in braces stands for any value."""


A = TypeVar("A", bound=Addressed)


class _Node(Generic[A]):
    """What may follow in an address."""

    def __init__(self) -> None:
        self.words: dict[str, _Node[A]] = {}
        self.name: _Node[A] | None = None
        self.found: dict[Method, A] = {}


class AddressTable(Generic[A]):
    """Finds what a request is for; a word goes before a name."""

    def __init__(self, addressed: Iterable[A]) -> None:
        self._root: _Node[A] = _Node()
        for each in addressed:
            node = self._root
            for part in each.path.split("/")[1:]:
                if part.startswith("{"):
                    node.name = node.name or _Node()
                    node = node.name
                else:
                    node = node.words.setdefault(part, _Node())
            assert each.method not in node.found, each
            node.found[each.method] = each

    def find(self, path: str) -> tuple[Mapping[Method, A], list[str]]:
        """What is at an address as it was sent, by method, and the values of the names in it.

        There is nothing where it leads nowhere, or where it is no text. Values are decoded after the path was taken
        apart, so that a name may hold a slash.
        """
        return _below(self._root, path.split("/")[1:]) or ({}, [])


def _below(node: _Node[A], parts: list[str]) -> tuple[Mapping[Method, A], list[str]] | None:
    """What is found below a node. Where a word leads nowhere it may be a name: a teamspace may be called `mails`."""
    if not parts:
        return (node.found, []) if node.found else None
    first, *rest = parts
    if first in node.words and (found := _below(node.words[first], rest)) is not None:
        return found
    if node.name is None or not first or (found := _below(node.name, rest)) is None:
        return None
    try:
        value = unquote(first, errors="strict")
    except UnicodeDecodeError:
        return None
    return found[0], [value, *found[1]]
