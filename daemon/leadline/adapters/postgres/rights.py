"""What Leadline's role must be allowed to do in a database that somebody else looks after: seen to before a migration.

It makes tables and functions in a schema, and lends another role, leadline_expressions, the use of both; one function
it gives to that role altogether. So it needs the schema with the right to lend it, and a membership in that role which
lets it act as the role and inherits what the role may do.

Postgres itself tells of these rights one by one as they are missed, some of them only when the first filter is run, and
in words that no administrator can act on. Since Postgres 16 it is not even enough to have made a role oneself: one may
grant it then, to oneself as well, but is no full member yet.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import QUERIES
from leadline.ports.store import UnfitDatabase

OPTIONS_SINCE: Final = 160_000
"""The version since which each membership says for itself what it is good for."""


class Rights(Struct, frozen=True):
    """What the role of a connection may do, as far as migrations need it."""

    role: str
    schema: str
    """Both are quoted where they have to be."""
    version: int
    superuser: bool
    makes_roles: bool
    inherits: bool
    """Whether memberships pass on what they allow, before Postgres 16."""
    lends_schema: bool
    made: bool
    """Whether there is a role leadline_expressions; the rest is about it."""
    member: bool
    """Whether one may act as it, and may what it may."""
    grants: bool
    """Whether one may make somebody a member of it."""


def missing(rights: Rights) -> tuple[Sequence[str], Sequence[str]]:
    """The statements that would make the rights complete: those that the role may run by itself, and the others."""
    own: list[str] = []
    others: list[str] = []
    if rights.superuser:
        return own, others
    options = rights.version >= OPTIONS_SINCE
    if not rights.lends_schema:
        others.append(f"GRANT CREATE, USAGE ON SCHEMA {rights.schema} TO {rights.role} WITH GRANT OPTION")
    if not rights.made:
        (own if rights.makes_roles else others).append("CREATE ROLE leadline_expressions NOLOGIN")
    if not options and not rights.inherits:
        others.append(f"ALTER ROLE {rights.role} INHERIT")
    if not rights.member:
        grant = f"GRANT leadline_expressions TO {rights.role}{' WITH INHERIT TRUE, SET TRUE' if options else ''}"
        may = rights.grants or (rights.makes_roles and not (rights.made and options))
        (own if may else others).append(grant)
    return own, others


async def see_to_rights(connection: Connection) -> None:
    """Have all that migrations need. Raises UnfitDatabase, which says what an administrator has to run."""
    row = await connection.fetchrow(QUERIES["rights"].sql)
    assert row is not None
    own, others = missing(Rights(**row))
    if others:
        role = row["role"]
        raise UnfitDatabase(f"{role} lacks rights; let an administrator run in its database: {'; '.join(others)};")
    for statement in own:
        await connection.execute(statement)
