"""Queries of tenants' own code (`features.batch.request_ports.Database`), on a connection of their own each.

What they may reach is the affair of the role that they log in as: it is to be one that may do nothing else, and the
server holds it to that. Here it is seen to that they take no more than they may: each statement goes by itself in the
extended protocol, where a second one behind it is refused; reading is done in a READ ONLY transaction, which nothing
that can be said in it turns into another, and it is committed only if it has written nothing (EXPLAIN ANALYZE CREATE
TABLE does all the same); time, and what comes back, are bounded, the latter before it is in memory.

Statements are looked at for their first word only. Those that lead out of the transaction, or to the server's files and
programs (COPY), have others than the ones that may be said.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Final

import asyncpg
import msgspec

from leadline.adapters.postgres.pool import Connection
from leadline.features.batch.request_ports import (
    BadRequest,
    ColumnKind,
    NotAllowed,
    Query,
    QueryFailed,
    Rows,
    Written,
)

SECONDS_MAX: Final = 60.0
"""For a query, connecting and all its statements."""

RECEIVED_BYTES_MAX: Final = 16 << 20
"""What the server may send for a query."""

STATEMENTS_MAX: Final = 1_000

SETTINGS: Final = {
    "statement_timeout": "60s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",
    "timezone": "UTC",
    "application_name": "leadline batch",
}

READING: Final = frozenset({"SELECT", "WITH", "VALUES", "TABLE", "EXPLAIN"})
WRITING: Final = frozenset(
    {"INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "CREATE", "ALTER", "DROP", "REFRESH", "COMMENT"}
)
"""First words of statements."""

_HAS_WRITTEN: Final = "SELECT pg_catalog.txid_current_if_assigned() IS NOT NULL"

_PREFETCH: Final = 100
_CONNECT_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 1.0

_KINDS: Final[Mapping[str, ColumnKind]] = {
    "timestamp": "timestamp",
    "timestamptz": "timestamp",
    "date": "date",
    "numeric": "decimal",
    "bytea": "bytes",
}

_TOKEN: Final = re.compile(
    r"""
      (?P<blank> \s+ | --[^\n]* )
    | (?P<comment> /\* )
    | (?P<end> ; )
    | (?P<text> (?<![\w$])[eE]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
              | (?<![\w$])\$(?P<tag>[^\W\d]\w*)?\$ .*? \$(?(tag)(?P=tag))\$ )
    | (?P<word> \w[\w$]* | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")


class BatchDatabase:
    """One database as one teamspace may use it; one query at a time."""

    def __init__(self, dsn: str, *, write: bool, user: str | None = None, password: str | None = None) -> None:
        """Whoever sets the DSN answers for where it leads; `user` logs in instead of its."""
        self._dsn = dsn
        self._user = user
        self._password = password
        self._write = write
        self._turn = asyncio.Lock()

    async def run(self, query: Query) -> Rows | Written:
        """Run statements. Raises BadRequest, NotAllowed, QueryFailed."""
        statements = self._allowed(query)
        async with self._turn:
            return await self._in_turn(statements, query.parameters)

    async def _in_turn(self, statements: Sequence[str], parameters: Sequence[object]) -> Rows | Written:
        """Run them, all in one transaction. Raises BadRequest, NotAllowed, QueryFailed."""
        try:
            async with asyncio.timeout(SECONDS_MAX), self._connected() as (connection, meter):
                return await self._carried_out(connection, meter, statements, parameters)
        except TimeoutError as error:
            raise QueryFailed(f"the database took longer than {SECONDS_MAX:.0f} s") from error
        except asyncpg.ReadOnlySQLTransactionError as error:
            raise NotAllowed(self._why_refused()) from error
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError) as error:
            raise QueryFailed("the connection to the database was lost") from error
        except asyncpg.PostgresError as error:
            raise QueryFailed(str(error)) from error
        except asyncpg.InternalClientError as error:
            raise QueryFailed("the driver does not know a type of the result: cast it to text") from error

    def _why_refused(self) -> str:
        """What to say of a statement that the server refused because it would write."""
        return "the plan allows to read only"

    def _allowed(self, query: Query) -> Sequence[str]:
        """The statements of a query. Raises BadRequest, NotAllowed."""
        statements = list(split(query.sql)) if query.multi else [query.sql]
        if not 0 < len(statements) <= STATEMENTS_MAX:
            raise BadRequest(f"there must be 1 to {STATEMENTS_MAX} statements")
        if query.parameters and len(statements) > 1:
            raise BadRequest("several statements have no parameters")
        for statement in statements:
            word = first_word(statement).upper()
            if word in WRITING and not self._write:
                raise NotAllowed("the plan allows to read only")
            if word not in READING | WRITING:
                known = ", ".join(sorted(READING | WRITING if self._write else READING))
                raise BadRequest(f"{word[:20]!r} is no statement that can be run here: {known}")
        return statements

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[Connection, "_Meter"]]:
        try:
            connection = await asyncpg.connect(
                self._dsn,
                user=self._user,
                password=self._password,
                timeout=_CONNECT_SECONDS,
                server_settings=SETTINGS,
                statement_cache_size=0,
            )
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
            raise QueryFailed("the database cannot be reached") from error
        try:
            yield connection, _Meter.put_into(connection)
        finally:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await connection.close(timeout=_CLOSE_SECONDS)

    async def _carried_out(
        self, connection: Connection, meter: "_Meter", statements: Sequence[str], parameters: Sequence[object]
    ) -> Rows | Written:
        writes = self._writes(statements)
        await connection.execute(f"START TRANSACTION READ {'WRITE' if writes else 'ONLY'}")
        found: Rows | Written = Written(0)
        try:
            for statement in statements:
                # From its first snapshot on a transaction that reads cannot be turned into one that writes.
                await connection.execute("SELECT")
                found = await _one(connection, statement, parameters)
                if not connection.is_in_transaction():
                    raise BadRequest("a statement may not end the transaction")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            if meter.over:
                raise QueryFailed(f"the result is larger than {RECEIVED_BYTES_MAX} bytes") from error
            raise
        if not writes and await connection.fetchval(_HAS_WRITTEN):
            raise NotAllowed(self._why_refused())
        await self._commit(connection)
        return found

    def _writes(self, statements: Sequence[str]) -> bool:  # noqa: ARG002  there are databases where that matters
        """Whether the transaction of these statements may write."""
        return self._write

    async def _commit(self, connection: Connection) -> None:
        await connection.execute("COMMIT")


class _Meter(asyncio.Protocol):
    """Stands before a connection's own protocol, and ends the connection where the server sends too much.

    A row, or a single value, may have a gigabyte, and is put together before anybody sees it.
    """

    def __init__(self, transport: asyncio.Transport, inner: asyncio.Protocol) -> None:
        self._transport = transport
        self._inner = inner
        self._left = RECEIVED_BYTES_MAX
        self.over = False

    @classmethod
    def put_into(cls, connection: Connection) -> "_Meter":
        """Measure a connection from now on."""
        transport = connection._transport  # type: ignore[union-attr]  # noqa: SLF001  there is no other way to it
        meter = cls(transport, transport.get_protocol())
        transport.set_protocol(meter)
        return meter

    def data_received(self, data: bytes) -> None:
        """Pass it on, as long as it is not too much."""
        self._left -= len(data)
        if self._left < 0:
            self.over = True
            self._transport.abort()
        else:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._inner.resume_writing()


def split(sql: str) -> Iterator[str]:
    """The statements of a text, without those that are empty.

    Postgres has the last word: of one that it takes for several it carries out none.
    """
    begin, said = 0, False
    for name, start, end in _tokens(sql):
        if name == "end":
            if said:
                yield sql[begin:start]
            begin, said = end, False
        elif name not in {"blank", "comment"}:
            said = True
    if said:
        yield sql[begin:]


def first_word(statement: str) -> str:
    """What a statement begins with, brackets left aside."""
    for name, start, end in _tokens(statement):
        if name not in {"blank", "comment"} and statement[start:end] != "(":
            return statement[start:end]
    return ""


def _tokens(sql: str) -> Iterator[tuple[str, int, int]]:
    place = 0
    while (token := _TOKEN.match(sql, place)) is not None:
        end = _comment_end(sql, place) if token["comment"] else token.end()
        yield str(token.lastgroup), place, end
        place = end


def _comment_end(sql: str, place: int) -> int:
    """Where a comment ends that may hold others."""
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, place):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)


async def _one(connection: Connection, sql: str, parameters: Sequence[object]) -> Rows | Written:
    """Carry out one statement."""
    statement = await connection.prepare(sql)
    wanted = [each.name for each in statement.get_parameters()]
    if len(wanted) != len(parameters):
        raise BadRequest(f"the statement has {len(wanted)} parameters, and {len(parameters)} were given")
    given = [_argument(value, kind) for value, kind in zip(parameters, wanted, strict=True)]
    attributes = statement.get_attributes()
    if not attributes:
        await statement.fetch(*given)
        last = (statement.get_statusmsg() or "0").split()[-1]
        return Written(int(last) if last.isdecimal() else 0)
    columns = [(each.name, _KINDS.get(each.type.name, "other")) for each in attributes]
    documents = [each.type.name in {"json", "jsonb"} for each in attributes]
    rows = []
    try:
        async for record in statement.cursor(*given, prefetch=_PREFETCH):
            values = [_value(value, document) for value, document in zip(record.values(), documents, strict=True)]
            rows.append(msgspec.Raw(msgspec.json.encode(values, enc_hook=_text)))
    except (ValueError, OverflowError) as error:
        raise QueryFailed(f"a value has no counterpart in Python: {error}") from error
    return Rows(columns, rows)


def _argument(value: object, kind: str) -> object:
    """A parameter as the driver wants it for its type."""
    try:
        if isinstance(value, str):
            match kind:
                case "timestamp" | "timestamptz":
                    return datetime.fromisoformat(value)
                case "date":
                    return date.fromisoformat(value)
                case "numeric":
                    return Decimal(value)
        if isinstance(value, int | float) and kind == "numeric":
            return Decimal(str(value))
    except (ValueError, ArithmeticError) as error:
        raise BadRequest(f"{value!r} is no {kind}") from error
    return value


def _value(value: object, document: bool) -> object:
    """A value of a column as it is to be encoded; a document is JSON already."""
    if document and isinstance(value, str):
        return msgspec.Raw(value.encode())
    return value.isoformat() if isinstance(value, datetime) else value


def _text(value: object) -> object:
    """What JSON has no form for; decimals, bytes, days and some more are encoded by themselves."""
    return list(value.values()) if isinstance(value, asyncpg.Record) else str(value)
