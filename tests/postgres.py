"""One Postgres server for a whole run of the tests, and a fresh database for each that wants one.

Each database is a copy of a template that has been migrated, and in which a tripwire is on every table: a write that
did not begin by taking the leader's row is refused, whoever sends it and however (COPY included). So every test that
writes to a database also shows that there is no way round the fence. `meddle` opens a connection that may. What
tenants' sessions put down in lead_change counts for nothing until the daemon carries it over to the leads.

Use it by `from tests.postgres import database  # noqa: F401` in a conftest.py.
"""

import asyncio
import atexit
import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest

from leadline.adapters.embedded_postgres import embedded_postgres
from leadline.adapters.postgres.migrate import migrate

T = TypeVar("T")

FREE_BYTES_MIN = 2 << 30

TRIPWIRE = """
CREATE FUNCTION tripwire() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_locks
        WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation = 'leader'::regclass
            AND mode IN ('RowShareLock', 'RowExclusiveLock')
    ) THEN
        RAISE EXCEPTION 'a write to % did not pass the fence', TG_TABLE_NAME;
    END IF;
    RETURN NULL;
END $$;
DO $$
DECLARE name text;
BEGIN
    FOR name IN
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
            AND relname NOT IN ('migration', 'lead_change')
    LOOP
        EXECUTE format(
            'CREATE TRIGGER tripwire BEFORE INSERT OR UPDATE OR DELETE ON %I EXECUTE FUNCTION tripwire()', name
        );
    END LOOP;
END $$;
"""


class Server:
    """The server of this run. Its loop turns only while something is asked of it: in between its supervisor sleeps."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count(1)
        self._state = Path(tempfile.mkdtemp(prefix="leadline-tests-", dir=_quick_folder()))
        self._state.chmod(0o711)
        self._over = asyncio.Event()
        ready: asyncio.Future[str] = self._loop.create_future()
        self._running = self._loop.create_task(self._run(ready))
        self._url = self._do(self._first(ready))
        self._do(self._make_template())

    async def _first(self, ready: "asyncio.Future[str]") -> str:
        """The server's URL when it is ready. Raises what keeps it from starting."""
        while not ready.done():
            await asyncio.wait({self._running}, timeout=0.01)
            if self._running.done():
                self._running.result()
        return ready.result()

    async def _run(self, ready: "asyncio.Future[str]") -> None:
        async with embedded_postgres(self._state) as server:
            ready.set_result(server.url)
            await self._over.wait()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def url(self, database: str) -> str:
        """Where clients of a database connect."""
        return self._url.replace("/leadline?", f"/{database}?")

    async def _make_template(self) -> None:
        await self._execute("CREATE DATABASE template_leadline")
        connection = await asyncpg.connect(self.url("template_leadline"))
        try:
            await migrate(connection)
            await connection.execute(TRIPWIRE)
        finally:
            await connection.close()

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def create(self, *, empty: bool = False) -> str:
        """A new database: a copy of the template, or an empty one. Returns its name."""
        name = f"test_{next(self._numbers)}"
        self._do(self._execute(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else 'template_leadline'}"))
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self._do(self._execute(f"DROP DATABASE {name} WITH (FORCE)"))

    def stop(self) -> None:
        """End the server and remove what it stored."""
        self._over.set()
        self._loop.run_until_complete(self._running)
        self._loop.close()
        shutil.rmtree(self._state)


def _quick_folder() -> Path | None:
    """Memory, where there is enough: what these tests kill is processes, not machines."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > FREE_BYTES_MIN:
        return memory
    return None


@functools.cache
def server() -> Server:
    """The one server, started when it is first asked for and stopped when this process ends."""
    started = Server()
    mine = os.getpid()
    atexit.register(lambda: started.stop() if os.getpid() == mine else None)
    return started


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of a fresh, migrated database."""
    name = server().create()
    yield server().url(name)
    server().drop(name)


@pytest.fixture
def empty_database() -> Iterator[str]:
    """The URL of a fresh database with nothing in it."""
    name = server().create(empty=True)
    yield server().url(name)
    server().drop(name)


async def disarm(url: str) -> None:
    """Take the tripwires out of a database, to see what would happen without the fence."""
    async with meddle(url) as connection:
        await connection.execute("DROP FUNCTION tripwire CASCADE")


@asynccontextmanager
async def meddle(url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection of a superuser whom no tripwire stops."""
    connection = await asyncpg.connect(url, server_settings={"session_replication_role": "replica"})
    try:
        yield connection
    finally:
        await connection.close()
