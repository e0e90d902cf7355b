"""What a run of tenants' code may have of the daemon, by role; and the ways in which it is told that it may not.

Each role is one teamspace's, job's and run's own: whoever makes them has seen to it. What is not there, the plan does
not allow.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, Protocol

import msgspec
from msgspec import Meta, Struct

from leadline_protocol.errors import LeadlineError
from leadline_protocol.ids import LeadId

SUBJECT_CHARACTERS_MAX: Final = 255

DatabaseName = Literal["own", "etl"]
"""The teamspace's own leads; the database that is set for it."""

QUESTIONS_MAX: Final = 1 << 54
"""More than the number of any question of one attempt at a run."""

ColumnKind = Literal["timestamp", "date", "decimal", "bytes", "other"]
"""How JSON holds a column's values: the first three as text, in the form of ISO 8601 where they are moments; bytes in
base 64; all others as what they are."""


class Declined(LeadlineError):
    """The code cannot have what it asked for. The class's name and the message are what it is told."""


class BadRequest(Declined):
    """It makes no sense, or is too large."""


class NotAllowed(Declined):
    """The plan has no such thing, or the job may not have it."""


class LimitReached(Declined):
    """There is no more of it."""


class QueryFailed(Declined):
    """The database refused the statement or took too long for it, or the result is too large."""


class ProviderFailed(Declined):
    """The provider gave no answer, or was not asked."""


class Mail(Struct, frozen=True):
    """A mail about the run to those who are named with the job for its type."""

    type: Literal["success", "failure"]
    subject: str
    """One line of at most SUBJECT_CHARACTERS_MAX characters, of which none is a control character."""
    body: str
    html: bool


class Query(Struct, frozen=True):
    """Statements of SQL."""

    sql: str
    parameters: Sequence[str | int | float | bool | None]
    """What stands for $1, $2 and so on."""
    multi: bool
    """There may be several: all or none, and what the last returns counts."""


class Rows(Struct, frozen=True):
    """What a statement has returned."""

    columns: Sequence[tuple[str, ColumnKind]]
    rows: Sequence[msgspec.Raw]
    """Each a JSON list of its values, by the kinds of their columns."""


class Written(Struct, frozen=True):
    """A statement without rows."""

    written: int
    """How many it has changed."""


class ProviderRequest(Struct, frozen=True):
    """One request to a provider, but for what is the provider's own: its address and its key."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: Annotated[str, Meta(pattern=r"\A/(?!/)[!-~]*\Z", max_length=2_000)]
    query: Mapping[str, str] = {}
    headers: Mapping[
        Annotated[str, Meta(pattern=r"\A[A-Za-z0-9-]+\Z", max_length=100)],
        Annotated[str, Meta(pattern=r"\A[ -~]*\Z", max_length=2_000)],
    ] = {}
    body: msgspec.Raw = msgspec.Raw(b"null")
    """JSON; null: there is none."""


class ProviderResponse(Struct, frozen=True):
    """What a provider has answered, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    text: str


def mark_of(retry: int, number: int) -> LeadId:
    """By which the row of a call says for which question of which attempt it is; no lead has such a number.

    A question's number is stored so in the transaction that lets its call go.
    """
    return LeadId(-(retry * QUESTIONS_MAX + number))


class Settings(Protocol):
    """The job's settings, secrets among them."""

    async def read(self) -> Mapping[str, object]:
        """All of them, as JSON has them."""
        ...


class Mails(Protocol):
    """The way of mails out of the house."""

    async def store(self, number: int, mail: Mail) -> None:
        """Have it sent: once, for each number. Raises NotAllowed where nobody is named."""
        ...


class Database(Protocol):
    """A database as the plan allows it."""

    async def run(self, query: Query) -> Rows | Written:
        """Run statements. Raises BadRequest, NotAllowed, QueryFailed."""
        ...


class Providers(Protocol):
    """Providers, under their limits and with the teamspace's keys."""

    async def call(self, number: int, provider: str, request: ProviderRequest) -> ProviderResponse:
        """Send it when it is its turn; of one number once.

        Raises BadRequest, NotAllowed, LimitReached, ProviderFailed; Stopped where there is to be no answer from here.
        """
        ...


class Progress(Protocol):
    """How far the run says that it is."""

    async def tell(self, done: float, total: float | None) -> None:
        """Replace what was told before."""
        ...


class World(Struct, frozen=True):
    """What a run may have."""

    settings: Settings
    progress: Progress
    mails: Mails | None = None
    databases: Mapping[DatabaseName, Database] = {}
    providers: Providers | None = None
