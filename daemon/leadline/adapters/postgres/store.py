"""The queue's store in Postgres: what memory has decided, kept.

A decision is one transaction on the one writer connection: the fence, the records (writer.py), COMMIT. An ended job
leaves `job` for `job_ended` within the database, so that `job` holds what is live and stays small; a job that begins
and ends in one decision is written once, to `job_ended`.

Slices write in transactions of their own (`work`), on other connections: these hold their attempt's row, so that what
a retired attempt still brings is refused, and no row that a decision waits for.

Calls stay when their job has ended: they are the books. They go with their partition (`prune`).
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, Never

import anyio
import asyncpg
from msgspec import Struct
from msgspec.structs import replace

from leadline.adapters.postgres.fence import Fence, takeover_transaction
from leadline.adapters.postgres.migrate import migrate
from leadline.adapters.postgres.partitions import IDS_PER_PARTITION, Partitions
from leadline.adapters.postgres.pool import ANY, Connection, Connections, Pool, check_server, connecting, translated
from leadline.adapters.postgres.queries import NOTICES, QUERIES
from leadline.adapters.postgres.writer import NUMBER_OF, STATES, Row, Writer, stored_key
from leadline.core.effects import AccountRow, HistoryRow, PauseRow, Records, SlotRow
from leadline.core.events import KnownKey
from leadline.core.model import SECOND, Counts, Family
from leadline.core.quarantine import Crashed
from leadline.core.recovery import JobRow
from leadline.ports.store import (
    LOOK_BACK_JOBS,
    AttemptRetired,
    Contradiction,
    Fenced,
    JobFilter,
    OwnedByAnother,
    Recovered,
    StoredCall,
    StoredJob,
    Unavailable,
)
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, TeamspaceId

OWNER_LOCK: Final = 0x6C65_6164_0001
"""Key of the advisory lock that the owner's session holds: `lead`, and a number that nothing else locks."""

OUST_SECONDS: Final = 0.05
"""Between two orders to end to whoever holds the owner's lock."""

NAME_SECONDS: Final = 1.0
"""How long who has the lock may take to say its name."""

CLOSE_SECONDS: Final = 2.0
"""How long a server is waited for that is told that a session is over."""

KEEP_SECONDS: Final = 1.0
"""Between two tries of an idle owner to take its lock again from a database that is away."""

_NOWHERE: Final = 2**63 - 1
_NONE_COUNTED: Final = Counts()

Claim = Callable[[], Awaitable[None]]
"""Holds the row of the attempt for which a transaction writes."""


class PostgresStore:
    """The port `leadline.ports.store.Store` on one Postgres database, and the connections of slices to it.

    `queries` are the slices' named statements, by which an admission's `Statement` is carried out. Nothing is
    connected before `take_over`.
    """

    def __init__(
        self, url: str, *, queries: Mapping[str, str] | None = None, ids_per_partition: int = IDS_PER_PARTITION
    ) -> None:
        self._statements = dict(queries or {})
        self._connections = Connections(url, f"leadline {secrets.token_hex(4)}")
        self._owner: asyncpg.Connection[asyncpg.Record] | None = None
        self._reign: _Reign | None = None
        self._epoch = 0
        """Our own last one."""
        self._in_turn = asyncio.Lock()
        self.noticed: Callable[[], None] = lambda: None
        """Called when notices have become durable in the outbox."""
        self._partitions = Partitions(ids_per_partition)

    # -- ownership --------------------------------------------------------------------------------------------------

    async def take_over(
        self,
        *,
        owner: str,
        place: str = "",
        kinds: Mapping[str, int],
        charge_seconds: int = 90_000,
        force: bool = False,
    ) -> Recovered:
        """Become the owner; see the port. Brings the schema up to date first.

        Raises what the port says, and SchemaTooNew and SchemaChanged.
        """
        await self._resign()
        session = await self._own(force=force)
        await check_server(session)
        with translated(session):
            await session.execute(QUERIES["end_sessions"].sql, self._connections.name)
            await migrate(session)
            async with takeover_transaction(session, owner, place) as turn:
                await session.execute(QUERIES["register_kinds"].sql, list(kinds), list(kinds.values()))
                cut_off = [row["id"] for row in await session.fetch(QUERIES["close_calls_of_a_crash"].sql)]
                died = not turn.orderly and not force and self._epoch == 0
                crashed = await session.fetch(QUERIES["crashed_jobs"].sql, cut_off) if died else []
                latest = await session.fetchrow(QUERIES["latest"].sql)
                assert latest is not None
                await self._partitions.learn(session)
                made = await self._partitions.make(session, {latest["job"] + 1}, {latest["call"] + 1})
            self._partitions.note(made)
            recovered = Recovered(
                epoch=turn.epoch,
                survivor=turn.place_before is not None and not (place and turn.place_before == place),
                crashed={JobId(row["job"]): Crashed(row["settled"], row["in_flight"]) for row in crashed},
                instant=Instant(latest["instant"]),
                last_job=JobId(latest["job"]),
                last_call=CallId(latest["call"]),
                teamspaces=[
                    (TeamspaceId(row["id"]), row["name"]) for row in await session.fetch(QUERIES["teamspaces"].sql)
                ],
                slots=[
                    SlotRow(row["teamspace"], Family(row["family"]), row["slot"], row["job"])
                    for row in await session.fetch(QUERIES["slots"].sql)
                ],
                calls=[
                    StoredCall(**row)
                    for row in await session.fetch(
                        QUERIES["calls_since"].sql, latest["instant"] - charge_seconds * SECOND, cut_off
                    )
                ],
                accounts=[
                    AccountRow(AccountName(row["name"]), row["state"])
                    for row in await session.fetch(QUERIES["accounts"].sql)
                ],
                pauses=[
                    PauseRow(row["scope"], row["name"], paused=True)
                    for row in await session.fetch(QUERIES["pauses"].sql)
                ],
            )
            self._epoch = turn.epoch
            fence = Fence(turn.epoch, session, self._connections.dedicated)
            self._reign = await self._begin_reign(fence, session, kinds, recovered.teamspaces)
            # Asked last, as our own clock goes on from there: what lies between is taken from every window's end.
            at = await session.fetchval(QUERIES["clock"].sql)
        return replace(recovered, instant=Instant(max(recovered.instant, at)))

    async def keep(self) -> Never:
        """Stay the owner; see the port. Without a database it tries again for as long as that takes."""
        reign = self._present()
        while True:
            await _until_closed(reign.fence.witness)
            try:
                async with self._in_turn:
                    await self._reconnect(reign)
            except Unavailable:
                await anyio.sleep(KEEP_SECONDS)

    async def end_in_order(self) -> None:
        """Note that this owner ends as it was told to; see the port."""
        async with self._in_turn:
            reign = self._present()
            await self._reconnect(reign)
            async with reign.fence.write_transaction(reign.writer.connection):
                await reign.writer.connection.execute(QUERIES["end_in_order"].sql, reign.fence.epoch)

    async def close(self) -> None:
        """Let go of the database: another daemon may own it now, and is not refused as long as the server answers."""
        await self._resign()
        owner, self._owner = self._owner, None
        if owner is not None:
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await owner.close(timeout=CLOSE_SECONDS)  # which gives up the lock before it is over

    async def _own(self, *, force: bool) -> "asyncpg.Connection[asyncpg.Record]":
        """The session that holds the owner's lock: the one there is, or a new one.

        A session of our own that the server still believes in, after a break in the network, is ended. With `force`
        those of every other daemon are, whoever has the lock: a transaction that one of them left open would hold up
        the change of epochs. Raises OwnedByAnother.
        """
        if self._owner is not None and not self._owner.is_closed():
            return self._owner
        session = await self._connections.dedicated()
        try:
            with translated(session):
                if force:
                    await session.execute(QUERIES["end_other_daemons"].sql, self._connections.name)
                if not await session.fetchval(QUERIES["try_own"].sql, OWNER_LOCK):
                    holder = await session.fetchval(QUERIES["holder"].sql, OWNER_LOCK)
                    if holder not in {None, self._connections.name} and not force:
                        raise OwnedByAnother(await _name_of_owner(session, self._epoch))
                    await self._oust(session)
        except BaseException:
            session.terminate()
            raise
        self._owner = session
        return session

    async def _oust(self, session: Connection) -> None:
        """Have whoever holds the owner's lock end, and take it.

        It is waited for first: a daemon that is alive takes it again at once, unless somebody stands in line.
        """
        ours = asyncio.ensure_future(session.execute(QUERIES["own"].sql, OWNER_LOCK))
        ender = await self._connections.dedicated()
        try:
            with translated(ender):
                while not ours.done():
                    await ender.execute(QUERIES["end_holder"].sql, OWNER_LOCK, session.get_server_pid())
                    await asyncio.wait({ours}, timeout=OUST_SECONDS)
            await ours
        finally:
            ender.terminate()
            ours.cancel()

    async def _resign(self) -> None:
        reign, self._reign = self._reign, None
        if reign is not None:
            reign.writer.connection.terminate()
            reign.readers.terminate()
            reign.askers.terminate()
            reign.workers.terminate()

    async def _begin_reign(
        self,
        fence: Fence,
        session: Connection,
        kinds: Iterable[str],
        teamspaces: Iterable[tuple[TeamspaceId, str]],
    ) -> "_Reign":
        stored = await session.fetch(QUERIES["kinds"].sql)
        numbers = {row["name"]: row["id"] for row in stored}
        own = [numbers[name] for name in kinds]
        writer = Writer(
            await self._connections.dedicated(),
            epoch=fence.epoch,
            kinds=own,
            statements=self._statements,
            attempted=[row["job"] for row in await session.fetch(QUERIES["attempted"].sql)],
            noticed=[row["job"] for row in await session.fetch(NOTICES["noticed"].sql)],
        )
        return _Reign(
            fence=fence,
            writer=writer,
            readers=await self._connections.readers(),
            askers=await self._connections.askers(),
            workers=await self._connections.workers(),
            teamspaces={name: number for number, name in teamspaces},
            kinds={number: place for place, number in enumerate(own)},
            kind_names={row["id"]: row["name"] for row in stored},
            families={row["id"]: row["family"] for row in stored},
        )

    def _present(self) -> "_Reign":
        if self._reign is None:
            raise Unavailable("this daemon does not own the database at present")
        return self._reign

    # -- writing ----------------------------------------------------------------------------------------------------

    async def commit(self, records: Records) -> None:
        """Store one decision; see the port. Calls that overlap are carried out in the order in which they came."""
        async with self._in_turn:
            reign = self._present()
            await self._reconnect(reign)
            with _contradicted():
                await self._make_room(reign, records)
                try:
                    await self._write(reign, records)
                except asyncpg.UniqueViolationError as error:
                    if error.table_name != "submission_key":
                        raise
                    await self._write(reign, records, replace_keys=True)
            reign.writer.settle(records)
            if reign.writer.wrote_notices:
                self.noticed()
            reign.teamspaces.update((name, number) for number, name in records.teamspaces)

    async def _write(self, reign: "_Reign", records: Records, *, replace_keys: bool = False) -> None:
        async with reign.fence.write_transaction(reign.writer.connection):
            await reign.writer.write(records, replace_keys=replace_keys)

    async def _reconnect(self, reign: "_Reign") -> None:
        """Replace the sessions that were lost since the last decision; the epoch tells whether they may still write.

        Without the owner's session a second daemon would not be refused.
        """
        if reign.fence.witness.is_closed():
            try:
                reign.fence.witness = await self._own(force=False)
            except OwnedByAnother as error:
                raise Fenced(f"this daemon has been replaced by {error.owner}") from error
        if reign.writer.connection.is_closed():
            reign.writer.connection = await self._connections.dedicated()

    async def _make_room(self, reign: "_Reign", records: Records) -> None:
        """Make the partitions that these records, and those of a good while after them, go to."""
        jobs = [row.id for row in records.admitted]
        jobs += [row.id for row in records.ended if row.admitted is not None]
        calls = [row.id for row in records.calls_sent]
        if self._partitions.missing(jobs, calls):
            async with reign.fence.write_transaction(reign.writer.connection):
                made = await self._partitions.make(reign.writer.connection, jobs, calls)
            self._partitions.note(made)

    @asynccontextmanager
    async def work(self, job: JobId, number: int) -> AsyncIterator[Connection]:
        """A transaction of a slice for attempt `number` of a job; it commits at the end of the block.

        Holds the attempt's row, which the block may change: counts, activity, checkpoint. Raises AttemptRetired where
        another attempt is the present one, or none; Fenced, Unavailable and OutcomeUnknown as `commit` does. What a
        statement of the block does wrong comes out as asyncpg raised it.
        """
        async with self.work_ahead(job, number) as (connection, claim):
            await claim()
            yield connection

    @asynccontextmanager
    async def work_ahead(self, job: JobId, number: int) -> AsyncIterator[tuple[Connection, Claim]]:
        """The same, but the attempt's row is held from the block's `claim` on, which raises AttemptRetired.

        So it may overlap with the attempt's transaction before. Nothing is stored of what was not claimed.
        """
        reign = self._present()
        claimed = False

        async def claim() -> None:
            nonlocal claimed
            if await connection.fetchval(QUERIES["lock_attempt"].sql, job, number) is None:
                raise AttemptRetired(f"attempt {number} of job {job} is not the present one")
            claimed = True

        async with _lent(reign.workers) as connection, reign.fence.write_transaction(connection):
            yield connection, claim
            assert claimed, "what an attempt has written is stored as long as it is the present one, and no longer"

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Connection]:
        """A transaction of a slice that belongs to no attempt: what a submission needs before it is a job.

        Raises Fenced, Unavailable and OutcomeUnknown as `commit` does.
        """
        reign = self._present()
        async with _lent(reign.workers) as connection, reign.fence.write_transaction(connection):
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """A connection for a slice's questions; a statement sees what was committed before it. Raises Unavailable."""
        async with _lent(self._present().askers) as connection:
            with translated(connection):
                yield connection

    async def prune(self, ended_before: Instant) -> Sequence[str]:
        """Drop the partitions in which everything ended (a call: was sent) before that, and expired keys.

        Returns the names of what was dropped. Nothing that a live job or an unexpired key refers to goes, nor the
        last ids.
        """
        reign = self._present()
        async with _lent(reign.readers) as connection:
            with translated(connection):
                old = await self._partitions.older_than(connection, ended_before)
        async with self._in_turn:
            await self._reconnect(reign)
            writer = reign.writer.connection
            async with reign.fence.write_transaction(writer):
                await writer.execute(QUERIES["drop_expired_keys"].sql)
                for name in old:
                    await writer.execute(f"DROP TABLE {name}")
            self._partitions.forget(old)
        return old

    # -- reading ----------------------------------------------------------------------------------------------------

    async def live_jobs(self, page: int = 2_000) -> AsyncIterator[Sequence[JobRow]]:
        """All live jobs; see the port. For the time before the first commit: pages are not of one moment."""
        reign = self._present()
        async with _lent(reign.readers) as connection:
            with translated(connection):
                statement = await connection.prepare(QUERIES["live_jobs"].sql)
                coming = asyncio.ensure_future(statement.fetch(0, page))
                try:
                    while rows := await coming:  # the server looks for the next page while this one is made use of
                        coming = asyncio.ensure_future(statement.fetch(rows[-1]["id"], page))
                        yield [_live_job(tuple(row), reign.kinds) for row in rows]
                finally:
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)

    async def known_keys(self, keys: Sequence[tuple[str, bytes]]) -> Mapping[tuple[str, bytes], KnownKey]:
        """What is stored under these keys; see the port."""
        numbers = self._present().teamspaces
        asked = [key for key in keys if key[0] in numbers]
        if not asked:
            return {}
        stored = b"".join([stored_key(numbers[name], key_hash) for name, key_hash in asked])
        return {
            asked[place]: KnownKey(job, body_hash, STATES[state])
            for place, job, body_hash, state in await self._fetch("known_keys", stored)
        }

    async def jobs_by_id(self, jobs: Sequence[JobId]) -> Mapping[JobId, StoredJob]:
        """These jobs, live or ended; see the port."""
        return {row["id"]: _stored_job(row) for row in await self._fetch("jobs_by_id", jobs)}

    async def job(self, job: JobId) -> StoredJob | None:
        """One job, live or ended."""
        rows = await self._fetch("job", job)
        return _stored_job(rows[0]) if rows else None

    async def jobs(self, which: JobFilter) -> Sequence[StoredJob]:
        """Jobs, newest first; see the port.

        Of ended jobs at most `limit` ids are looked at for each pair of a kind and a state; live ones are walked from
        the newest until there are enough (but for those of a table), which the length of the queue bounds, or of the
        teamspace's part of it.
        """
        reign = self._present()
        kinds = [kind for kind in reign.kind_names if not which.families or reign.families.get(kind) in which.families]
        states = [NUMBER_OF[state] for state in which.states or STATES]
        before = _NOWHERE if which.before is None else which.before
        after = which.after or 0
        looked_back = after if which.after is not None else await self._look_back(which)
        ended_after = after if which.uid is None else looked_back
        narrowed = (before, which.limit, kinds, states, which.uid, after, ended_after)
        if which.table is not None:
            rows = await self._fetch("jobs_of_table", *narrowed, which.table)
        elif which.teamspace is not None:
            rows = await self._fetch("jobs_of_teamspace", *narrowed, looked_back, which.teamspace)
        else:
            rows = await self._fetch("jobs_of_all", *narrowed, looked_back)
        return [_stored_job(row) for row in rows]

    async def _look_back(self, which: JobFilter) -> int:
        """The id at which looking back ends."""
        newest = which.before
        if newest is None:
            newest = (await self._fetch("newest_job"))[0][0]
        return max(0, newest - LOOK_BACK_JOBS)

    async def steps(self, *chains: JobId) -> Sequence[StoredJob]:
        """The steps of chains; see the port."""
        return [_stored_job(row) for row in await self._fetch("steps", chains)]

    async def history(self, job: JobId) -> Sequence[HistoryRow]:
        """The job's story, oldest first."""
        return [HistoryRow(*row) for row in map(tuple, await self._fetch("history", job))]

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        async with _lent(self._present().readers) as connection:
            with translated(connection):
                return await connection.fetch(QUERIES[query].sql, *arguments)


class _Reign(Struct):
    """The connections and numbers of one epoch."""

    fence: Fence
    writer: Writer
    readers: Pool
    askers: Pool
    workers: Pool
    teamspaces: dict[str, TeamspaceId]
    kinds: Mapping[int, int]
    """The places of the kinds in the daemon's own order, by the database's numbers."""
    kind_names: Mapping[int, str]
    """By the database's numbers; also of kinds that only another version of the daemon knows."""
    families: Mapping[int, int]


async def _until_closed(connection: Connection) -> None:
    """Wait until a session has ended, whoever ended it."""
    closed = asyncio.Event()

    def tell(_: object) -> None:
        closed.set()

    connection.add_termination_listener(tell)
    if connection.is_closed():
        return
    await closed.wait()


@asynccontextmanager
async def _lent(pool: Pool) -> AsyncIterator[Connection]:
    with connecting():
        connection = await pool.acquire()
    try:
        yield connection
    finally:
        with suppress(*ANY):  # what it was lent for is over by now, whatever has become of the session meanwhile
            await pool.release(connection)


@contextmanager
def _contradicted() -> Iterator[None]:
    """What the database refuses of a decision, other than for reasons of its own, is a bug in the decision."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Contradiction(f"the database refuses the records: {error}") from error


async def _name_of_owner(session: Connection, epoch: int) -> str:
    """Who the owner said to be, which is not the one of our own last epoch; it may be about to say so."""
    with anyio.move_on_after(NAME_SECONDS):
        while True:
            try:
                if owner := await session.fetchval(QUERIES["owner"].sql, epoch):
                    return str(owner)
            except asyncpg.UndefinedTableError:
                return "a daemon that is just preparing it"
            await anyio.sleep(OUST_SECONDS)
    return "a daemon that has not said who it is"


def _live_job(row: Row, kinds: Mapping[int, int]) -> JobRow:
    job, order, teamspace, kind, state, run_at, chain, step, attempts, started, details, stop_on_failure = row
    return JobRow(
        job, order, teamspace, kinds.get(kind), STATES[state], run_at, chain, step, attempts, started, details or b"",
        stop_on_failure,
    )  # fmt: skip


def _stored_job(row: asyncpg.Record) -> StoredJob:
    """The view shown_job has the columns of StoredJob in their order, the counts as five."""
    columns: Row = tuple(row)
    fields = (*columns[:4], STATES[columns[4]], *columns[5:10], Counts(*columns[10:15]), *columns[15:26])
    return StoredJob(*fields)
