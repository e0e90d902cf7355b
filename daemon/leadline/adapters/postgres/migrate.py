"""Brings the schema up to date: the files of migrations/, in the order of their numbers, each once.

A migration expands; what it makes superfluous is contracted a release later, so that the release before still runs on
the new schema. A file that was applied anywhere is never edited: its checksum is stored with its number, and a
database that has seen another text, or a number that this code does not have, is refused rather than guessed about.
"""

import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from msgspec import Struct

from leadline.adapters.postgres.fence import migration_transaction
from leadline.adapters.postgres.pool import Connection, Connections, check_server, translated
from leadline.adapters.postgres.rights import see_to_rights
from leadline.ports.store import SchemaChanged, SchemaTooNew

_FILE_NAME: Final = re.compile(r"^(\d{4})_\w+\.sql$")

_TABLE: Final = """CREATE TABLE IF NOT EXISTS migration (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied timestamptz NOT NULL DEFAULT now()
);"""

_RECORD: Final = "INSERT INTO migration (number, name, checksum) VALUES ({number}, '{name}', '{checksum}');"


class Migration(Struct, frozen=True):
    """One step of the schema."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of its text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def recorded(self) -> str:
        """Its statements, and the one that notes that they have been carried out."""
        return f"{self.sql}\n{_RECORD.format(number=self.number, name=self.name, checksum=self.checksum)}"


def _read() -> Sequence[Migration]:
    found = [
        Migration(int(match[1]), file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in (files(__package__) / "migrations").iterdir()
        if (match := _FILE_NAME.match(file.name))
    ]
    found.sort(key=lambda migration: migration.number)
    numbers = [migration.number for migration in found]
    assert len(set(numbers)) == len(numbers), f"two migrations have the same number: {numbers}"
    return found


MIGRATIONS: Final = _read()
"""All steps, in order."""


def migration_sql(migrations: Sequence[Migration] = MIGRATIONS) -> str:
    """All of it as a script, for who wants to read or apply it by hand: in one transaction (psql --single-transaction),
    and without what was applied already.
    """
    steps = "\n\n".join(f"-- {migration.name}\n{migration.recorded}" for migration in migrations)
    return f"{_TABLE}\n\n{steps}\n"


async def migrate(connection: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> Sequence[str]:
    """Apply what the database has not seen, all of it or nothing, and return the names of that.

    Raises SchemaTooNew, SchemaChanged, UnfitDatabase, Unavailable. Several callers at a time wait for each other.
    """
    async with migration_transaction(connection):
        new = await connection.fetchval("SELECT to_regclass('migration')") is None
        rows = [] if new else await connection.fetch("SELECT number, name, checksum FROM migration")
        applied = {row["number"]: row for row in rows}
        ours = {migration.number for migration in migrations}
        for number, row in applied.items():
            if number not in ours:
                raise SchemaTooNew(f"the database has migration {row['name']}, which this Leadline does not know")
        pending = [migration for migration in migrations if migration.number not in applied]
        for migration in migrations:
            if migration not in pending and migration.checksum != applied[migration.number]["checksum"]:
                raise SchemaChanged(f"the database was migrated with another text of {migration.name}")
        if pending:
            await see_to_rights(connection)
        if new:
            await connection.execute(_TABLE)
        for migration in pending:
            await connection.execute(migration.recorded)
    return [migration.name for migration in pending]


async def migrate_database(url: str) -> Sequence[str]:
    """Migrate the database at a URL over a connection of its own; raises as `migrate` does, and UnfitDatabase."""
    connection = await Connections(url, "leadline db migrate").dedicated()
    try:
        await check_server(connection)
        with translated(connection):
            return await migrate(connection)
    finally:
        await connection.close()
