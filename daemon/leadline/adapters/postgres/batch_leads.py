"""Queries of tenants' own code to Leadline's own database: a teamspace's leads, read and, where it may, changed.

Nothing that is said here writes a lead. UPDATE of the view puts down what is to change, which that transaction alone
sees; when it has committed, the daemon carries it over (`keep`), in a transaction of its own that passes the fence.
What a plan forbids is forbidden twice: by the rights of the role, and by a transaction that is READ ONLY.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from leadline.adapters.postgres.batch_database import READING, BatchDatabase, first_word
from leadline.adapters.postgres.pool import Connection
from leadline.features.batch.request_ports import NotAllowed, Query, Rows, Written

CHANGING: Final = frozenset({"UPDATE", "WITH"})
"""First words of statements that may change leads."""

OF_THE_QUEUE: Final = re.compile(
    r"(pg_(?:try_)?advisory_|pg_notify|pg_settings|set_config|query_to_|ts_stat|ts_rewrite|u&\""
    r"|lo_(?:create?|from_bytea|import|export|open|put|truncate|unlink)\b|lowrite)",
    re.IGNORECASE,
)
"""What may not be named: the queue's locks and signals, the memory and time of a session, large objects, and what would
carry out a text or hide a name. A role cannot be forbidden any of it."""

_ONLY: Final = "all that can be written here is data of leads, by UPDATE leads SET data = ...; leads come by uploads"

_DONE: Final = """SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text AS transaction, EXISTS (
    SELECT FROM pg_catalog.pg_class WHERE xmin = pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.xid
) AS made"""
"""Which transaction this is, if it has changed anything; whether it has made a table, as `SELECT INTO` does."""


class BatchLeads(BatchDatabase):
    """The leads of one teamspace; one query at a time."""

    def __init__(self, dsn: str, user: str, password: str, keep: Callable[[str], Awaitable[None]] | None) -> None:
        """`keep` carries over what the transaction of that id has changed; None: nothing may be changed."""
        super().__init__(dsn, write=keep is not None, user=user, password=password)
        self._keep = keep
        self._changed: str | None = None
        """The transaction that was committed last, if it may have changed something."""

    def _allowed(self, query: Query) -> Sequence[str]:
        statements = super()._allowed(query)
        found = OF_THE_QUEUE.search(query.sql)
        if found is not None:
            raise NotAllowed(f"{found[1]} may not be named here")
        changes = self._writes(statements)
        for word in map(_word, statements):
            # EXPLAIN ANALYZE would hide what it does.
            if word not in READING | CHANGING or (changes and word == "EXPLAIN"):
                raise NotAllowed(f"{word}: {_ONLY}")
        return statements

    def _why_refused(self) -> str:
        return _ONLY if self._write else super()._why_refused()

    async def _in_turn(self, statements: Sequence[str], parameters: Sequence[object]) -> Rows | Written:
        found = await super()._in_turn(statements, parameters)
        if self._keep is not None and self._changed is not None:
            await self._keep(self._changed)
        return found

    def _writes(self, statements: Sequence[str]) -> bool:
        return self._write and any(_word(each) in CHANGING for each in statements)

    async def _commit(self, connection: Connection) -> None:
        done = await connection.fetchrow(_DONE)
        assert done is not None
        if done["made"]:
            raise NotAllowed(_ONLY)
        await super()._commit(connection)
        self._changed = done["transaction"]


def _word(statement: str) -> str:
    return first_word(statement).upper()
