"""The database that adapters to Postgres are tested on."""

from tests.postgres import database, empty_database  # noqa: F401
