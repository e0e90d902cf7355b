"""Who logs in for the queries of a teamspace's batch jobs: a role of its own, for its own leads and no more.

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

from leadline.adapters.postgres.batch_leads import BatchLeads
from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import parse
from leadline.adapters.postgres.store import PostgresStore
from leadline.features.batch.request_ports import QueryFailed
from leadline.ports.store import UnfitDatabase

QUERIES: Final = parse((files(__package__) / "batch_access.sql").read_text(encoding="utf-8"))

_ITERATIONS: Final = 4096
"""As Postgres has it; the password is random and long."""


BUSY_SECONDS: Final = 10.0
"""So long changes wait for jobs that write to the same leads."""

_BUSY_PAUSE_SECONDS: Final = 0.05


class BatchAccess:
    """Lets teamspaces' code query Leadline's own database."""

    def __init__(self, store: PostgresStore, url: str) -> None:
        """`url` is that of the store's database."""
        self._store = store
        self._url = url
        self._logins: dict[str, tuple[str, str]] = {}
        """Role and password of a teamspace."""
        self._opened: dict[str, tuple[bool, BatchLeads]] = {}
        """What a teamspace's code may query, and whether it may change it."""
        self._opening = asyncio.Lock()

    async def open(self, teamspace: str, *, write: bool) -> BatchLeads:
        """What a teamspace's code may query, for reading or for changing it too.

        Opened for reading, it is for writing no more: only queries that are on their way still change something. Raises
        UnfitDatabase where our own role may make none, and Fenced, Unavailable and OutcomeUnknown as the store does.
        """
        async with self._opening:
            if self._opened.get(teamspace, (None,))[0] is not write:
                role, password = await self._login(teamspace, write=write)
                keep = self._keep if write else None
                self._opened[teamspace] = (write, BatchLeads(self._url, role, password, keep))
            return self._opened[teamspace][1]

    async def _login(self, teamspace: str, *, write: bool) -> tuple[str, str]:
        async with self._store.write() as connection:
            if not self._logins:  # what daemons before have left
                await connection.execute(QUERIES["forget_all_changes"].sql)
            known = self._logins.get(teamspace)
            role, password = known or (await self._role(connection, teamspace), secrets.token_urlsafe(32))
            if known is None:
                await connection.execute(
                    await connection.fetchval(QUERIES["set_reader_password"].sql, role, scram_verifier(password))
                )
            rights = QUERIES["let_change" if write else "let_read"]
            await connection.execute(await connection.fetchval(rights.sql, role))
        self._logins[teamspace] = role, password
        return role, password

    async def _role(self, connection: Connection, teamspace: str) -> str:
        """The role of a teamspace, made if there was none."""
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
        for name in ("grant_schema", "grant_views"):
            await connection.execute(await connection.fetchval(QUERIES[name].sql, role, rights["schema"]))
        await connection.execute(QUERIES["store_reader"].sql, role, teamspace)
        return role

    async def _keep(self, transaction: str) -> None:
        """Carry over what a transaction of a teamspace's code has changed, all of it or nothing.

        Raises QueryFailed where jobs write to the same leads for too long, and what the store does.
        """
        began = asyncio.get_running_loop().time()
        while not await self._store_changes(transaction):
            if asyncio.get_running_loop().time() - began > BUSY_SECONDS:
                async with self._store.write() as connection:
                    await connection.execute(QUERIES["forget_changes"].sql, transaction)
                raise QueryFailed("nothing was changed: jobs are writing to these leads; try again later")
            await asyncio.sleep(_BUSY_PAUSE_SECONDS)

    async def _store_changes(self, transaction: str) -> bool:
        async with self._store.write() as connection:
            return bool(await connection.fetchval(QUERIES["store_changes"].sql, transaction))


def scram_verifier(password: str) -> str:
    """What a server keeps of a password (RFC 5803), in the form of PostgreSQL's pg_authid.rolpassword."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (b64encode(each).decode() for each in (salt, stored, server))
    return f"SCRAM-SHA-256${_ITERATIONS}:{salt64}${stored64}:{server64}"
