"""API tokens in Postgres (`ports.api_tokens.TokenStore`)."""

from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from typing import Final

from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import parse
from leadline.adapters.postgres.store import PostgresStore
from leadline.ports.api_tokens import StoredToken

QUERIES: Final = parse((files(__package__) / "api_tokens.sql").read_text(encoding="utf-8"))


class PostgresApiTokens:
    """Tokens as stored."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def tokens(self) -> Sequence[StoredToken]:
        """All of them, by name, the present secret of each last."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["tokens"].sql)
        return [StoredToken(**{**row, "scopes": frozenset(row["scopes"])}) for row in rows]

    async def add(self, token: StoredToken) -> bool:
        """Keep a new token; False where there is one of its name."""
        async with self._store.write() as connection:
            return await _add(connection, token)

    async def rotate(self, token: StoredToken, older_until: datetime) -> bool:
        """Put a new secret in the present one's place; False where there is none."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["drop_old_secrets"].sql, token.name, token.created)
            rotated = await connection.execute(QUERIES["rotate_token"].sql, token.name, token.created, older_until)
            return rotated == "UPDATE 1" and await _add(connection, token)

    async def revoke(self, name: str) -> bool:
        """Forget a token with all its secrets; False where there is none."""
        async with self._store.write() as connection:
            revoked: str = await connection.execute(QUERIES["revoke_token"].sql, name)
        return revoked != "DELETE 0"


async def _add(connection: Connection, token: StoredToken) -> bool:
    added: str = await connection.execute(
        QUERIES["add_token"].sql,
        token.hash,
        token.name,
        sorted(token.scopes),
        token.teamspace,
        token.role,
        token.created,
        token.expires,
    )
    return added == "INSERT 0 1"
