"""The place of a daemon."""

from collections.abc import Iterator

import pytest

from tests.daemon.running import Place, remove, short_folder
from tests.postgres import database  # noqa: F401


@pytest.fixture
def place(database: str) -> Iterator[Place]:  # noqa: F811
    folder = short_folder()
    yield Place(database, folder)
    remove(folder)
