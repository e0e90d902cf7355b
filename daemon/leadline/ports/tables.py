"""The tables of all teamspaces, as those who manage them see them: made, looked at, kept for so long, deleted.

Another teamspace's table is one that is not there: whoever asks names teamspace and table, and gets that one or a
refusal.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from leadline_protocol.ids import TableId
from leadline_protocol.messages import ColumnSpec, TableView


class Tables(Protocol):
    """What can be asked and done about tables. Raises Unavailable, OutcomeUnknown and Fenced as the store does."""

    async def page(
        self, teamspace: str | None, table: str | None, after: tuple[str, str] | None, limit: int
    ) -> Sequence[TableView]:
        """Tables by teamspace and name, from behind `after` on."""
        ...

    async def find(self, teamspace: str, table: str) -> TableId:
        """The number of a table. Raises Refused with unknown_table."""
        ...

    async def create(
        self, teamspace: str, table: str, columns: Mapping[str, ColumnSpec], key: Sequence[str]
    ) -> TableView:
        """Make a table without leads. Raises Refused."""
        ...

    async def describe(self, teamspace: str, table: str) -> TableView:
        """A table, with how full its columns are. Raises Refused with unknown_table."""
        ...

    async def retain(self, table: TableId, days: int | None) -> None:
        """Let its leads go so many days after they were added; None: let them stay."""
        ...

    async def delete(self, table: TableId) -> bool:
        """Have a table gone, and its leads after it; False, and nothing happens, where a job on it has not ended."""
        ...
