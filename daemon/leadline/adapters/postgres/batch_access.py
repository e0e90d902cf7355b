"""Who logs in for the queries of a teamspace's batch jobs: a role of its own, that reads its own leads and no more.

What a role may do is the server's to say, and which rows it is shown hangs on the name that it has logged in with. Its
password is made when a daemon first needs it, told to the server in a form that it cannot be read from, and kept
nowhere.
"""

import asyncio
import hashlib
import hmac
import secrets
from base64 import b64encode
from importlib.resources import files
from typing import Final

from leadline.adapters.postgres.batch_database import BatchDatabase
from leadline.adapters.postgres.queries import parse
from leadline.adapters.postgres.store import PostgresStore
from leadline.ports.store import UnfitDatabase

QUERIES: Final = parse((files(__package__) / "batch_access.sql").read_text(encoding="utf-8"))

_ITERATIONS: Final = 4096
"""As Postgres has it; the password is random and long."""


class BatchAccess:
    """Lets teamspaces' code query Leadline's own database."""

    def __init__(self, store: PostgresStore, url: str) -> None:
        """`url` is that of the store's database."""
        self._store = store
        self._url = url
        self._opened: dict[str, BatchDatabase] = {}
        self._opening = asyncio.Lock()

    async def open(self, teamspace: str) -> BatchDatabase:
        """What a teamspace's code may query, for reading.

        Raises UnfitDatabase where our own role may make none, and Fenced, Unavailable and OutcomeUnknown as the store
        does.
        """
        async with self._opening:
            if teamspace not in self._opened:
                password = secrets.token_urlsafe(32)
                role = await self._make(teamspace, password)
                self._opened[teamspace] = BatchDatabase(self._url, write=False, own=True, user=role, password=password)
            return self._opened[teamspace]

    async def _make(self, teamspace: str, password: str) -> str:
        async with self._store.write() as connection:
            database = await connection.fetchval("SELECT current_database() || ' ' || current_schema()")
            # Roles are those of the whole server: so each database has others.
            role = f"leadline_batch_{hashlib.sha256(f'{database} {teamspace}'.encode()).hexdigest()[:24]}"
            rights = await connection.fetchrow(QUERIES["reader_rights"].sql, role)
            assert rights is not None
            if not rights["makes_roles"]:
                raise UnfitDatabase(
                    "batch jobs cannot query their leads: let an administrator run: ALTER ROLE CURRENT_USER CREATEROLE;"
                    " as the role that Leadline logs in as"
                )
            if not rights["made"]:
                await connection.execute(await connection.fetchval(QUERIES["create_reader"].sql, role))
            await connection.execute(
                await connection.fetchval(QUERIES["set_reader_password"].sql, role, scram_verifier(password))
            )
            for name in ("grant_schema", "grant_views"):
                await connection.execute(await connection.fetchval(QUERIES[name].sql, role, rights["schema"]))
            await connection.execute(QUERIES["store_reader"].sql, role, teamspace)
        return role


def scram_verifier(password: str) -> str:
    """What a server keeps of a password (RFC 5803), in the form of PostgreSQL's pg_authid.rolpassword."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (b64encode(each).decode() for each in (salt, stored, server))
    return f"SCRAM-SHA-256${_ITERATIONS}:{salt64}${stored64}:{server64}"
