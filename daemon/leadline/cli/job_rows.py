"""`job ID --refused` and `job ID --not-done`: rows that were not taken and leads that were not done, as CSV files.

There may be as many as the file has rows or the table leads, so they are asked for and written page by page.
"""

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from msgspec import Struct

from leadline.cli import terminal
from leadline.cli.daemon import Daemon, Failed
from leadline.cli.files import whole_or_not_at_all
from leadline.cli.words import counted, shown
from leadline.features.tables import not_done as not_done_file
from leadline.features.tables import repair
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Job, LeadNotDone, RefusedRow


class Rows(Struct):
    """What one of the two options brings."""

    heading: Sequence[str]
    rows: Iterator[RefusedRow] | Iterator[LeadNotDone]
    line: Callable[[RefusedRow | LeadNotDone], Sequence[str]]
    what: str
    """What one of them is called, so that they can be counted."""
    advice: str
    """What the file is good for."""


def refused(daemon: Daemon, job: JobId) -> Rows:
    """The rows of an upload that were not taken."""
    first = daemon.client.call(Job(job=job, refused_after=0))

    def rows() -> Iterator[RefusedRow]:
        page = first.refused
        while page:
            yield from page
            page = daemon.client.call(Job(job=job, refused_after=page[-1].row)).refused

    def line(row: RefusedRow | LeadNotDone) -> Sequence[str]:
        assert isinstance(row, RefusedRow)
        return repair.line(row.row, row.line, row.reason, row.detail, row.raw)

    return Rows(repair.heading(first.headers), rows(), line, "row", "repair them and upload it again")


def not_done(daemon: Daemon, job: JobId) -> Rows:
    """The leads that a job is through with and has not done. Raises Failed for a job that keeps no such list."""
    first = daemon.client.call(Job(job=job, leads_after=0))
    match first.view.kind:
        case "chain":
            steps = ", ".join(str(step.job) for step in first.steps)
            raise Failed(f"job {job} is a chain; ask for the leads of one of its steps: {steps}")
        case "upload":
            raise Failed(f"job {job} is an upload; `leadline job {job} --refused` lists the rows that were not taken")
        case kind if kind not in not_done_file.KINDS:
            raise Failed(f"job {job} is of the kind {kind}, of which it is not kept how each lead fared")

    def rows() -> Iterator[LeadNotDone]:
        page = first.leads
        while page:
            yield from page
            page = daemon.client.call(Job(job=job, leads_after=page[-1].lead)).leads

    def line(lead: RefusedRow | LeadNotDone) -> Sequence[str]:
        assert isinstance(lead, LeadNotDone)
        return not_done_file.line(lead.lead, lead.state, lead.reason, lead.detail, lead.cells, first.columns)

    again = f"`leadline rerun {job}` asks for those again that may have another answer"
    return Rows(not_done_file.heading(first.columns), rows(), line, "lead", again)


def show(rows: Rows, *, json: bool) -> None:
    """Print them as they come."""
    if json:
        for row in rows.rows:
            terminal.json_line(row)
        return
    _write(sys.stdout, rows, safe=terminal.is_terminal(sys.stdout))


def save(rows: Rows, output: Path) -> None:
    """Write them into a file, whole or not at all."""
    try:
        with whole_or_not_at_all(output) as partial, partial.open("x", encoding="utf-8-sig", newline="") as file:
            count = _write(file, rows, safe=False)
    except OSError as error:
        raise Failed(f"{output} could not be written: {error.strerror}") from error
    terminal.remark(f"{counted(count, rows.what)} in {output}; {rows.advice}")


def _write(file: TextIO, rows: Rows, *, safe: bool) -> int:
    """Write rows as CSV; `safe` takes out what would act on a terminal. Returns how many there were."""
    table = csv.writer(file, lineterminator="\n")
    count = 0
    table.writerow(map(shown, rows.heading) if safe else rows.heading)
    for row in rows.rows:
        count += 1
        line = rows.line(row)
        table.writerow(map(shown, line) if safe else line)
    return count
