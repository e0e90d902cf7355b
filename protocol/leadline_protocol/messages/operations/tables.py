"""Tables, and the modules that fill their columns."""

from typing import Annotated, Literal

from msgspec import Meta, field

from leadline_protocol.messages.operations.base import ControlOperation
from leadline_protocol.messages.replies.tables import TablesReply
from leadline_protocol.messages.words import ColumnSpec, Name


class Tables(ControlOperation[TablesReply], tag="tables", frozen=True, kw_only=True):
    """The tables of a teamspace, or of all; with another `action`, something about one of them, or the modules."""

    action: Literal["list", "describe", "create", "retain", "delete", "modules"] = "list"
    """`modules`: which there are to fill columns; they are the same for all tables."""
    teamspace: Name | None = None
    table: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    after: tuple[Name, Name] | None = None
    """The `next` of the page before."""
    columns: dict[Name, ColumnSpec] = field(default_factory=dict)
    """Of `create`: its columns, with their types."""
    key: list[Name] = field(default_factory=list)
    """Of `create`: the columns by which two rows are the same lead; absent: the first upload says."""
    days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    """Of `retain`: leads go so many days after they were added; null: they stay."""
    cancel: bool = False
    """Of `delete`: cancel the jobs on it and wait for their end."""
    dry_run: bool = False
    """Of `delete`: only say what would go."""

    def __post_init__(self) -> None:
        if self.action not in {"list", "modules"} and (self.teamspace is None or self.table is None):
            raise ValueError("name the teamspace and the table")
        for action, words in (("create", ("columns", "key")), ("retain", ("days",)), ("delete", ("cancel", "dry_run"))):
            for word in words:
                if self.action != action and getattr(self, word):
                    raise ValueError(f"{word} goes with the action {action}")
