"""Tables and their columns."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct, field

from leadline_protocol.messages.replies.base import Reply
from leadline_protocol.messages.replies.jobs import JobView
from leadline_protocol.messages.words import (
    ColumnSpec,
    Ref,
)


class ColumnView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A column of a table."""

    name: str
    type: ColumnSpec
    filled: int | None = None
    """So many leads have a value in it; only in the answer to `describe`."""


class TableView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A table."""

    teamspace: str
    table: str
    leads: int
    columns: list[ColumnView]
    created_at: datetime
    jobs: int = 0
    """Jobs on it that have not ended."""
    key: list[str] = field(default_factory=list)
    """The columns by which two rows are the same lead."""
    retention_days: int | None = None
    """Its leads go so many days after they were added; absent: they stay."""
    size_bytes: int | None = None
    """What its leads take; only in the answer to `describe`."""
    sampled: int | None = None
    """`filled` and `size_bytes` are estimates from so many leads; absent: they are exact."""


class ModuleView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A module that fills columns."""

    module: str
    title: str = ""
    """What it does, in its author's words."""
    inputs: list[str] = field(default_factory=list)
    """What it needs to know of a lead; a lead without is skipped."""
    optional_inputs: list[str] = field(default_factory=list)
    outputs: dict[str, ColumnSpec] = field(default_factory=dict)
    """What it can find; nothing for `ai_prompt`, which fills whatever it is asked for."""
    providers: list[str] = field(default_factory=list)
    """Of `ai_prompt`: whom `params.provider` may name."""
    credits_per_lead: float = 0.0
    charge_on: Annotated[str, Meta(extra_json_schema={"enum": ["result", "request"]})] = "result"
    """When they are due: with a lead's result, or once there is an answer about it."""


class TablesReply(Reply, frozen=True, kw_only=True):
    """Tables by teamspace and name, or the one that something was done to."""

    tables: list[TableView]
    next: tuple[str, str] | None = None
    """To be sent as `after` for the next page; absent on the last."""
    jobs: list[JobView] = field(default_factory=list)
    """Of `describe`: the newest jobs on the table; of `delete`: those that it cancels."""
    modules: list[ModuleView] = field(default_factory=list)
    """Of `modules`, by name."""
    ref: Ref = None
