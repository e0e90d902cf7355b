"""Reads the named statements of a .sql file.

SQL is read, reviewed and explained by people and by psql, so it lives in files of its own and Python knows it by
name. A file is a sequence of statements, each opened by a line `-- name: …` and described by the comment lines below
that.

Rows are inserted in two ways, COPY for many and an INSERT for few, that must agree on the columns: COPY takes them
from the INSERT's text.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from msgspec import Struct

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_INSERT: Final = re.compile(r"\bINSERT INTO (\w+) \(([^)]*)\)")


class Query(Struct, frozen=True):
    """One statement of a file."""

    name: str
    description: str
    sql: str

    @property
    def target(self) -> tuple[str, tuple[str, ...]]:
        """The table and the columns that it inserts into."""
        insert = _INSERT.search(self.sql)
        assert insert is not None, f"{self.name} does not insert"
        return insert[1], tuple(column.strip() for column in insert[2].split(","))


def parse(text: str) -> Mapping[str, Query]:
    """The statements of a file by name; what comes before the first is the file's own description."""
    _, *parts = _NAME.split(text)
    queries: dict[str, Query] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        assert name not in queries, f"two statements are called {name}"
        lines = body.strip().splitlines()
        description = " ".join(line[3:] for line in lines if line.startswith("-- "))
        sql = "\n".join(line for line in lines if not line.startswith("--")).strip()
        queries[name] = Query(name, description, sql)
    return queries


QUERIES: Final = parse((files(__package__) / "queries.sql").read_text(encoding="utf-8"))
"""The store's own statements."""

NOTICES: Final = parse((files(__package__) / "notices.sql").read_text(encoding="utf-8"))
"""Those of the outbox, of which two are part of decisions."""
