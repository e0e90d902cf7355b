"""Leads that a job has not done, as a CSV file: what each is, how it ended, and why.

Each stands with what it holds now, behind four columns that say how it fared in the job. What a spreadsheet would run
as a formula is defused.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from leadline.features.tables.formula_cells import csv_cell, defused
from leadline_protocol.errors import ErrorCode, Refused

KINDS: Final = frozenset({"enrich", "formula"})
"""Of jobs that keep how each lead fared. An export skips those that were deleted since, and counts them only."""

HEADERS: Final = ("not_done_lead", "not_done_state", "not_done_reason", "not_done_detail")

DELETED: Final = "it was deleted since"


def require_leads(kind: str) -> None:
    """Raises Refused for a kind of job that does not keep how each lead fared."""
    if kind not in KINDS:
        raise Refused(ErrorCode.NOT_FOUND, f"of a job of the kind {kind} it is not kept how each lead fared", at="job")


def heading(columns: Sequence[str]) -> Sequence[str]:
    """The first line of the file."""
    return [*HEADERS, *map(defused, columns)]


def line(
    lead: int, state: str, reason: str | None, detail: str, cells: Mapping[str, Any] | None, columns: Sequence[str]
) -> Sequence[str]:
    """The line of a lead, with its cells in these columns."""
    told = detail if cells is not None else "; ".join(filter(None, (detail, DELETED)))
    held = cells or {}
    return [str(lead), state, reason or "", defused(told), *(csv_cell(held.get(name)) for name in columns)]
