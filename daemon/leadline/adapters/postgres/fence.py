"""The one way to open a write transaction.

A daemon that lost its database for a while may have been replaced. What it writes then must not land, however late
its packets arrive. So each write transaction begins by taking the row of `leader` FOR SHARE at the epoch of this
daemon: where the row has another epoch there is nothing to take and the transaction ends as `Fenced`; where it could
be taken, a take-over, which changes the row, has to wait until the transaction is over. (Reading the epoch without
locking it would let a transaction commit after the take-over.) Nothing else of the store begins a transaction, but
for the take-over itself and the migrations, which come before any epoch and stand here too; a test holds it to that.

The complication is a COMMIT whose answer never comes. It may have been carried out, so taking it for failed would
break a promise, and so would the contrary. Postgres remembers what became of a transaction by its id, which the fence
has returned, and can be asked. One trap: when the server crashes, ids whose transactions left no trace on disk are
given out again, and another's "committed" would be taken for ours. A session that was open before and still answers
proves that there was no crash; the owner's session, open since the take-over, is that witness. Without it "committed"
counts as unknown.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
import asyncpg
from msgspec import Struct

from leadline.adapters.postgres.pool import ANY, Connection, give_up, translated
from leadline.adapters.postgres.queries import QUERIES
from leadline.ports.store import Fenced, OutcomeUnknown, Unavailable

COMMIT_SECONDS: Final = 30.0
"""How long a COMMIT may take before its connection is given up; a disk that stalls for longer is as good as gone."""

LOOK_UP_SECONDS: Final = 15.0
"""How long to ask what became of a COMMIT. Longer than an orphaned transaction may live
(idle_in_transaction_session_timeout), so that one that the COMMIT never reached has ended by itself."""

UNWITNESSED_SECONDS: Final = 3.0
"""How long to ask without a witness: all there is to be learned then is that it did not take place."""

LOOK_UP_PAUSE_SECONDS: Final = 0.05

WITNESS_SECONDS: Final = 2.0
"""How long the witness may take to answer before a new connection is tried instead."""

MIGRATION_LOCK: Final = 0x6C65_6164_0002
"""Key of the advisory lock of migrations: `lead`, and a number that nothing else of Leadline locks."""


class Fence:
    """An epoch of this daemon; every write of that epoch goes through `write_transaction`."""

    def __init__(self, epoch: int, witness: Connection, connect: Callable[[], Awaitable[Connection]]) -> None:
        self.epoch: Final = epoch
        self.witness = witness
        """A session that is open for as long as the server has not crashed; see the module's description."""
        self._connect = connect
        self._witness_free = asyncio.Lock()

    @asynccontextmanager
    async def write_transaction(self, connection: Connection) -> AsyncIterator[None]:
        """A transaction that commits at the end of the block, if this daemon is still the owner then.

        Raises Fenced where it is not; Unavailable where nothing was stored; OutcomeUnknown where nobody can say. What
        the block itself raises comes out as it is, after a rollback. A block that is cancelled during the commit is
        not told how that ended.
        """
        witness = self.witness  # the one that is open now: a later one may have been opened after a crash
        async with _transaction(connection):
            transaction = await connection.fetchval(QUERIES["fence"].sql, self.epoch)
            if transaction is None:
                raise Fenced(f"epoch {self.epoch} is over: another daemon owns the database")
            yield
        failure = await _try_commit(connection)
        if failure is None:
            return
        committed = await self._look_up(transaction, witness)
        if committed is None:
            raise OutcomeUnknown(
                "the connection was lost during a COMMIT, and its outcome cannot be found out"
            ) from failure
        if not committed:
            raise Unavailable(f"the transaction did not commit: {failure}") from failure

    async def _look_up(self, transaction: str, witness: Connection) -> bool | None:
        """Whether a transaction has committed; None where that cannot be found out in time."""
        began = anyio.current_time()
        with anyio.move_on_after(LOOK_UP_SECONDS, shield=True) as patience:
            while True:
                outcome, trusted = await self._ask(transaction, witness)
                if outcome == "aborted":
                    return False
                if outcome == "committed":
                    return True if trusted else None
                if outcome == "unknown":
                    return None
                if not trusted:
                    patience.deadline = min(patience.deadline, began + UNWITNESSED_SECONDS)
                await anyio.sleep(LOOK_UP_PAUSE_SECONDS)
        return None

    async def _ask(self, transaction: str, witness: Connection) -> tuple[str, bool]:
        """What the server says of a transaction, and whether it is certainly ours of which it says that."""
        try:
            async with self._witness_free:
                return await _outcome(witness, transaction, WITNESS_SECONDS), True
        except ANY:
            pass
        try:
            connection = await self._connect()
            try:
                return await _outcome(connection, transaction, LOOK_UP_SECONDS), False
            finally:
                give_up(connection)
        except (*ANY, Unavailable):
            return "unreachable", False


async def _outcome(connection: Connection, transaction: str, seconds: float) -> str:
    try:
        return str(await connection.fetchval(QUERIES["outcome"].sql, transaction, timeout=seconds) or "unknown")
    except asyncpg.InvalidParameterValueError:
        return "aborted"  # an id that the server has not given out yet: it has forgotten ours, with all it did


class Turn(Struct, frozen=True):
    """A change of owners."""

    epoch: int
    """That of the new owner."""
    place_before: str | None
    """Where the owner before lived; None: there was none."""
    orderly: bool
    """Whether its last owner ended as it was told to."""


@asynccontextmanager
async def takeover_transaction(connection: Connection, owner: str, place: str) -> AsyncIterator[Turn]:
    """The transaction that makes this daemon the owner. To repeat it is always safe.

    Its first statement waits for the write transactions of the owner before, and fences what would come after.
    """
    async with _transaction(connection):
        row = await connection.fetchrow(QUERIES["bump_epoch"].sql, owner, place)
        assert row is not None, "the table `leader` has one row"
        yield Turn(row["epoch"], row["place_before"], row["orderly"])
    await _commit_or_repeat(connection, "take-over")


@asynccontextmanager
async def migration_transaction(connection: Connection) -> AsyncIterator[None]:
    """The transaction in which the schema changes; to repeat it is always safe. Several wait for each other."""
    async with _transaction(connection):
        await connection.execute(QUERIES["lock_migrations"].sql, MIGRATION_LOCK)
        yield
    await _commit_or_repeat(connection, "migration")


async def _commit_or_repeat(connection: Connection, what: str) -> None:
    failure = await _try_commit(connection)
    if failure is not None:
        raise Unavailable(f"the {what} did not commit, or nobody knows: {failure}") from failure


@asynccontextmanager
async def _transaction(connection: Connection) -> AsyncIterator[None]:
    """Begin, and roll back where the block fails. Committing is left to the caller."""
    try:
        with translated(connection):
            await connection.execute("BEGIN")
            yield
    except BaseException:
        await _roll_back(connection)
        raise


async def _roll_back(connection: Connection) -> None:
    """End a transaction without effect, by losing the connection if need be."""
    with anyio.move_on_after(1.0, shield=True):
        try:
            await connection.execute("ROLLBACK")
        except ANY:
            give_up(connection)
        return
    give_up(connection)


async def _commit(connection: Connection) -> str:
    return await connection.execute("COMMIT")


async def _try_commit(connection: Connection) -> BaseException | None:
    """Send COMMIT and return what went wrong, if anything did; then the connection is gone.

    Not anyio's timeout: cancelling the request would have asyncpg ask the server to cancel, and a COMMIT that waits
    for a synchronous standby then returns without it.
    """
    committing = asyncio.create_task(_commit(connection))
    committing.add_done_callback(lambda task: task.cancelled() or task.exception())  # else asyncio complains of it
    try:
        await asyncio.wait({committing}, timeout=COMMIT_SECONDS)
    except asyncio.CancelledError:
        give_up(connection)
        raise
    if not committing.done():
        give_up(connection)
        return TimeoutError(f"no answer to COMMIT for {COMMIT_SECONDS:g} s")
    failure = committing.exception()
    if failure is None:
        assert committing.result() == "COMMIT", "a statement of the transaction failed and somebody went on regardless"
        return None
    give_up(connection)
    return failure
