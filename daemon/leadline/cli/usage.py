"""What a month has cost: `usage`."""

import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, get_args

from cyclopts import Parameter

from leadline.cli import terminal
from leadline.cli.daemon import Misused, Placed, control
from leadline.cli.jobs import Flag, Json
from leadline.cli.words import number, shown
from leadline_protocol.messages import Usage, UsageBy, UsageRow

BY: Sequence[UsageBy] = get_args(UsageBy)

_MONTH = re.compile(r"\d{4}-\d{2}", re.ASCII)


def usage(
    *,
    place: Placed,
    month: Annotated[str | None, Parameter(help="Such as 2026-11, in UTC; absent: the present one.")] = None,
    by: Annotated[str, Parameter(help="teamspace, provider, or both with a comma between.")] = ",".join(BY),
    teamspace: Annotated[str | None, Parameter(help="Only this teamspace.")] = None,
    csv: Annotated[Flag, Parameter(name="--csv", help="As CSV.")] = False,
    json: Json = False,
) -> None:
    """Tell what a month has cost, in credits: the sums of the ledger."""
    if csv and json:
        raise Misused("Give --csv or --json, not both")
    wanted = [each.strip() for each in by.split(",")]
    if not set(wanted) <= set(BY):
        raise Misused(f"--by takes {' and '.join(BY)}, not {by}")
    if month is not None and not _MONTH.fullmatch(month):
        raise Misused(f"--month takes a year and a month, such as 2026-11, not {month}")
    month = month or f"{datetime.now(UTC):%Y-%m}"
    asked = Usage(month=month, by=[each for each in BY if each in wanted], teamspace=teamspace)
    rows = _rows(place, asked)
    if json:
        for row in rows:
            terminal.json_line(row)
    elif csv:
        _as_csv(rows, asked.by)
    else:
        _as_table(list(rows), asked)


def _rows(place: Placed, asked: Usage) -> Iterator[UsageRow]:
    from msgspec.structs import replace

    with control(place) as daemon:
        while True:
            page = daemon.client.call(asked)
            yield from page.usage
            if page.next is None:
                return
            asked = replace(asked, after=page.next)


def _names(row: UsageRow, by: Sequence[UsageBy]) -> list[str]:
    return [(row.teamspace if each == "teamspace" else row.provider) or "" for each in by]


def _as_csv(rows: Iterator[UsageRow], by: Sequence[UsageBy]) -> None:
    """One row after the other as they come."""
    import csv

    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow([*by, "calls", "credits", "perhaps"])
    for row in rows:
        table.writerow([*_names(row, by), row.calls, f"{row.credits:f}", f"{row.perhaps or Decimal(0):f}"])


def _as_table(rows: Sequence[UsageRow], asked: Usage) -> None:
    terminal.columns(
        (*(each.upper() for each in asked.by), "CALLS", "CREDITS", "PERHAPS"),
        [
            (
                *map(shown, _names(row, asked.by)),
                number(row.calls),
                f"{row.credits:f}",
                "" if row.perhaps is None else f"{row.perhaps:f}",
            )
            for row in rows
        ],
        right=("CALLS", "CREDITS", "PERHAPS"),
    )
    total = sum((row.credits for row in rows), Decimal(0))
    perhaps = sum((row.perhaps or Decimal(0) for row in rows), Decimal(0))
    besides = f", and perhaps {perhaps:f} more" if perhaps else ""
    terminal.remark(f"{asked.month} (UTC): {total:f} credits{besides}.")
