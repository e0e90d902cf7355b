"""The stores that the contract holds for, behind one face: what a test needs beside the port itself."""

from collections.abc import Mapping
from typing import Protocol

from leadline.adapters.postgres.store import PostgresStore
from leadline.core.effects import AdmittedJob, AttemptRow, EndedJob, JobChange, Records, SlotRow
from leadline.core.events import Key, NewJob
from leadline.core.model import Counts, Family, JobState
from leadline.ports.store import Recovered, Store
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import Instant, JobId, TeamspaceId
from tests.fakes.store import Disk, FakeStore
from tests.fakes.store import Key as StoredKey
from tests.postgres import meddle

KINDS: Mapping[str, int] = {"noop": 0, "chain": 1, "enrich": 1, "outreach": 3}
NOOP, CHAIN, ENRICH, OUTREACH = range(4)
ACME, BETA = TeamspaceId(1), TeamspaceId(2)
NAMES = {ACME: "acme", BETA: "beta"}
STATEMENTS = {"note": "INSERT INTO noted (job, word) VALUES ($1, $2)"}
T = 1_700_000_000_000_000
"""An instant."""


class Place(Protocol):
    """Where stores keep things: several stores of one place are daemons on one database."""

    async def prepare(self) -> None:
        """Make it ready for daemons."""
        ...

    def daemon(self) -> "Daemon":
        """A daemon that has not taken over yet."""
        ...

    async def expire_keys(self) -> None:
        """Let thirty days pass for all idempotency keys."""
        ...

    async def noted(self) -> list[tuple[int, str]]:
        """What the statement `note` has stored."""
        ...

    async def close(self) -> None:
        """Shut all daemons down."""
        ...


class Daemon(Protocol):
    """A store, and what a daemon does around it."""

    @property
    def store(self) -> Store:
        """The store."""
        ...

    async def progress(self, job: int, number: int, counts: Counts, activity: str = "") -> None:
        """What an attempt stores in a transaction of its own."""
        ...

    async def crash(self) -> None:
        """Gone from one moment to the next."""
        ...


class FakePlace:
    """A disk."""

    def __init__(self) -> None:
        self.disk = Disk()

    async def prepare(self) -> None:
        pass

    def daemon(self) -> "FakeDaemon":
        return FakeDaemon(FakeStore(self.disk, queries=STATEMENTS))

    async def expire_keys(self) -> None:
        for place, key in list(self.disk.keys.items()):
            self.disk.keys[place] = StoredKey(key.job, key.body_hash, 0)

    async def noted(self) -> list[tuple[int, str]]:
        return [(int(str(job)), str(word)) for _, (job, word) in self.disk.statements]

    async def close(self) -> None:
        pass


class FakeDaemon:
    """A daemon on a disk."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store

    async def progress(self, job: int, number: int, counts: Counts, activity: str = "") -> None:
        self.store.progress(JobId(job), number, counts, activity)

    async def crash(self) -> None:
        self.store.crash()


class PostgresPlace:
    """A database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._stores: list[PostgresStore] = []

    async def prepare(self) -> None:
        async with meddle(self.url) as connection:
            await connection.execute("CREATE TABLE noted (job bigint, word text)")

    def daemon(self) -> "PostgresDaemon":
        store = PostgresStore(self.url, queries=STATEMENTS)
        self._stores.append(store)
        return PostgresDaemon(store)

    async def expire_keys(self) -> None:
        async with meddle(self.url) as connection:
            await connection.execute("UPDATE submission_key SET expires = now()")

    async def noted(self) -> list[tuple[int, str]]:
        async with meddle(self.url) as connection:
            return [(job, word) for job, word in await connection.fetch("SELECT job, word FROM noted")]

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


class PostgresDaemon:
    """A daemon on a database."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store

    async def progress(self, job: int, number: int, counts: Counts, activity: str = "") -> None:
        async with self.store.work(JobId(job), number) as connection:
            await connection.execute(
                "UPDATE attempt SET total = $2, done = $3, failed = $4, skipped = $5, unknown = $6, activity = $7"
                " WHERE job = $1",
                job, counts.total, counts.done, counts.failed, counts.skipped, counts.unknown, activity,
            )  # fmt: skip

    async def crash(self) -> None:
        await self.store.close()


# ---------------------------------------------------------------------------------------------------------- records


async def rule(daemon: Daemon, owner: str = "host, pid 1", *, force: bool = False) -> Recovered:
    """Take over."""
    return await daemon.store.take_over(owner=owner, kinds=KINDS, force=force)


def submission(kind: int = NOOP, **fields: object) -> NewJob:
    """What was submitted."""
    return NewJob("acme", kind, b'{"kind":"noop"}', **fields)  # type: ignore[arg-type]


def row(
    number: int,
    new: NewJob | None = None,
    *,
    teamspace: TeamspaceId = ACME,
    state: JobState = JobState.QUEUED,
    chain: int | None = None,
    step: int | None = None,
) -> AdmittedJob:
    """An admitted job."""
    chain_id = None if chain is None else JobId(chain)
    return AdmittedJob(
        JobId(number), T + number, teamspace, state, Instant(T + number), new or submission(), chain_id, step
    )


def key(word: str, body: str = "body") -> Key:
    """An idempotency key."""
    return Key(hashed(word), body.encode())


def hashed(word: str) -> bytes:
    """As good as a hash: as long as one, and of equal words only equal."""
    return word.encode().ljust(16)


def admission(*jobs: AdmittedJob) -> Records:
    """Jobs come in; their teamspaces are known already."""
    return Records(admitted=list(jobs))


def start(number: int, *, attempt: int = 1, slot: int = 0, teamspace: TeamspaceId = ACME) -> Records:
    """A job starts."""
    job = JobId(number)
    return Records(
        changed={job: JobChange(job, JobState.RUNNING, b"", attempt, Instant(T + 1_000))},
        attempts=[AttemptRow(job, attempt)],
        slots_taken=[SlotRow(teamspace, Family.TABLES, slot, job)],
    )


def end(
    number: int,
    state: JobState = JobState.COMPLETED,
    *,
    counts: Counts | None = None,
    reason: JobReason | None = None,
    message: str = "",
    slot: int | None = None,
    admitted: AdmittedJob | None = None,
) -> Records:
    """A job ends."""
    started = None if admitted is None else Instant(T + 1_500)
    ended = EndedJob(JobId(number), state, Instant(T + 2_000), started, counts, reason, message, admitted)
    freed = [] if slot is None else [SlotRow(ACME, Family.TABLES, slot, JobId(number))]
    return Records(ended=[ended], slots_freed=freed)


def together(*decisions: Records) -> Records:
    """Several things that happen in one decision."""
    merged = Records()
    for decision in decisions:
        for name in Records.__struct_fields__:
            whole, part = getattr(merged, name), getattr(decision, name)
            whole.update(part) if isinstance(whole, dict) else whole.extend(part)
    return merged
