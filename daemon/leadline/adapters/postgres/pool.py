"""The connections to Postgres, what the server must be like, and what its errors mean to the queue.

There are five sorts: the owner's session, which holds the lock that keeps a second daemon out; the writer, on which
decisions are committed one after the other; readers, for the store's own questions; askers, for those of slices; and
workers, for their transactions (of two pools, so that who works may ask). The planner is tied down on all of them:
their statements find every row by its key, whatever the statistics say, and a table that was empty when a statement was
planned may hold a million rows a minute later. Left free, it joins 5,000 results with their leads by reading the whole
table, for every 5,000 of a million; and who filters a table wants its leads in the order of their key.
"""

import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg

from leadline.adapters.postgres.queries import QUERIES
from leadline.ports.store import Contended, Unavailable, UnfitDatabase

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool

VERSION_MIN: Final = 140_000

CONNECT_SECONDS: Final = 10.0

ANSWER_SECONDS: Final = 75.0
"""For how long an answer is waited for. The server lets no statement run so long (statement_timeout), so whoever keeps
silent for longer is not there any more: a host that lost its power, a network that swallows everything."""

SENT_AHEAD_BYTES: Final = 2 * 1024 * 1024
"""What the kernel holds for the server of a decision's rows, where net.core.wmem_max allows so much: about a decision
of 8,000 jobs. The server then stores them while the next decision is being made. With the usual 208 KiB it has to wait
for more as soon as the daemon's one thread is busy with something else, which costs a tenth of all submissions."""

READERS: Final = 4
ASKERS: Final = 8
WORKERS: Final = 8
"""Sessions of each sort at most; they are opened when they are needed."""

SETTINGS: Final[dict[str, str]] = {
    "synchronous_commit": "on",
    "idle_in_transaction_session_timeout": "10s",
    "tcp_user_timeout": "10s",
    "statement_timeout": "60s",
    "lock_timeout": "30s",
    "jit": "off",
    "timezone": "UTC",
}
"""Of every session. A daemon that was stopped in the middle of a transaction holds up its successor for 10 s at most.
"""

BY_KEY: Final[dict[str, str]] = {
    **{f"enable_{way}": "off" for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "material")},
    "plan_cache_mode": "force_generic_plan",
}
"""Of the sessions whose statements find each row by its key."""

TROUBLE: Final = (
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.InsufficientResourcesError,  # 53: disk full, out of memory, too many connections
    asyncpg.OperatorInterventionError,  # 57: shutdown, crash, cancelled, starting up
    asyncpg.PostgresSystemError,  # 58: the server cannot read or write a file
    asyncpg.TransactionRollbackError,  # 40: deadlock, serialisation
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,  # asked while the server's last words are in and the end of the stream is not
)
"""Errors that say nothing about the statement and all about the database: trying later may succeed."""

ANY: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Whatever may come out of a connection."""


@contextmanager
def translated(connection: Connection) -> Iterator[None]:
    """Lets what happens to the database come out as Unavailable; what a statement itself did wrong stays as it is."""
    try:
        yield
    except ANY as error:
        if isinstance(error, TimeoutError):
            give_up(connection)
        if isinstance(error, asyncpg.TransactionRollbackError):
            raise Contended(f"the database took it back: {_told(error)}") from error
        if is_trouble(error) or is_lost(connection):
            raise Unavailable(f"the database is not available: {_told(error)}") from error
        raise


def is_trouble(error: BaseException) -> bool:
    """Whether an error says nothing about the statement.

    Postgres has one code for what its own files do not allow, such as a disk that has become read-only, and for what
    a role may not do; where it comes from tells them apart.
    """
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return error.as_dict().get("server_source_filename") not in {"aclchk.c", "acl.c", "user.c"}
    return isinstance(error, TROUBLE)


def is_lost(connection: Connection) -> bool:
    """Whether a connection is closed; one of a pool may not even answer that any more."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def give_up(connection: Connection) -> None:
    """Close a connection without asking the server."""
    with suppress(asyncpg.InterfaceError):  # the pool has done so already
        connection.terminate()


@contextmanager
def connecting() -> Iterator[None]:
    """Whatever keeps us from connecting, a wrong password included, may be put right while the daemon waits."""
    try:
        yield
    except ANY as error:
        raise Unavailable(f"cannot connect to the database: {_told(error)}") from error


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__


class Connections:
    """Opens connections to one database under one name."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self.name: Final = name
        """What the server shows as the application's name: the sessions of one daemon have it in common."""

    async def dedicated(self) -> "asyncpg.Connection[asyncpg.Record]":
        """A session of its own, by key, that no idleness ends. Raises Unavailable."""
        with connecting():
            connection = await asyncpg.connect(
                self._url,
                timeout=CONNECT_SECONDS,
                command_timeout=ANSWER_SECONDS,
                server_settings=self._settings(SETTINGS | BY_KEY),
            )
            _take_large_pieces(connection)
            if connection.get_server_version() >= (14,):
                await connection.execute("SET idle_session_timeout = 0")
            return connection

    async def readers(self) -> Pool:
        """Sessions for the store's own questions, by key. They leave nothing behind that had to be reset."""
        return await self._pool(READERS, _leave_as_it_is)

    async def askers(self) -> Pool:
        """Sessions for the questions of slices."""
        return await self._pool(ASKERS)

    async def workers(self) -> Pool:
        """Sessions for the transactions of slices. What is set in one is set for the transaction."""
        return await self._pool(WORKERS, _leave_as_it_is)

    async def _pool(self, size: int, reset: Callable[[Connection], Awaitable[None]] | None = None) -> Pool:
        with connecting():
            return await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=size,
                reset=reset,
                timeout=CONNECT_SECONDS,
                command_timeout=ANSWER_SECONDS,
                server_settings=self._settings(SETTINGS | BY_KEY),
            )

    def _settings(self, settings: dict[str, str]) -> dict[str, str]:
        return {**settings, "application_name": self.name}


def _take_large_pieces(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Have the kernel hold much of what is sent and not read yet; it gives what it may."""
    transport = connection._transport  # type: ignore[attr-defined]  # noqa: SLF001  there is no other way to it
    sock = transport.get_extra_info("socket")
    if sock.family is socket.AF_UNIX:  # a TCP connection's buffer grows by itself
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_AHEAD_BYTES)


async def _leave_as_it_is(_: Connection) -> None:
    """Saves a round trip for each use."""


async def check_server(connection: Connection) -> None:
    """Raises UnfitDatabase where the server's settings cannot keep the promises, Unavailable where it is a standby."""
    with translated(connection):
        server = await connection.fetchrow(QUERIES["server"].sql)
    assert server is not None
    if server["version"] < VERSION_MIN:
        raise UnfitDatabase(f"Postgres {server['version'] // 10_000} is too old: 14 or later is needed")
    for setting in ("fsync", "full_page_writes"):
        if server[setting] != "on":
            raise UnfitDatabase(
                f"{setting} is {server[setting]}: a crash of the server would lose what was acknowledged"
            )
    if server["in_recovery"]:
        raise Unavailable("the database is a standby: it cannot be written to")
