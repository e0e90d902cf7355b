"""The database that the contracts' real adapters run on."""

from tests.postgres import database  # noqa: F401
