"""`job ID --refused`: the rows of an upload that were not taken, as a file to repair and upload again.

There may be as many as the file has rows, so they are asked for and written page by page.
"""

import csv
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from leadline.cli import terminal
from leadline.cli.daemon import Daemon, Failed
from leadline.cli.words import shown
from leadline.features.tables import repair
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Job, JobReply, RefusedRow


def show(daemon: Daemon, job: JobId, *, json: bool) -> None:
    """Print them as they come."""
    first, rows = _asked(daemon, job)
    if json:
        for row in rows:
            terminal.json_line(row)
        return
    _write(sys.stdout, first.headers, rows, safe=terminal.is_terminal(sys.stdout))


def save(daemon: Daemon, job: JobId, output: Path) -> None:
    """Write them into a file, whole or not at all."""
    first, rows = _asked(daemon, job)
    partial = output.with_name(f".{output.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            with partial.open("x", encoding="utf-8-sig", newline="") as file:
                count = _write(file, first.headers, rows, safe=False)
            partial.rename(output)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Failed(f"{output} could not be written: {error.strerror}") from error
    terminal.remark(f"{count:,} {'row' if count == 1 else 'rows'} in {output}; repair them and upload it again")


def _asked(daemon: Daemon, job: JobId) -> tuple[JobReply, Iterator[RefusedRow]]:
    """The first page, and the rows of all."""
    first = daemon.client.call(Job(job=job, refused_after=0))

    def rows() -> Iterator[RefusedRow]:
        page = first.refused
        while page:
            yield from page
            page = daemon.client.call(Job(job=job, refused_after=page[-1].row)).refused

    return first, rows()


def _write(file: TextIO, headers: Iterable[str], rows: Iterable[RefusedRow], *, safe: bool) -> int:
    """Write rows as CSV; `safe` takes out what would act on a terminal. Returns how many there were."""
    table = csv.writer(file, lineterminator="\n")
    count = 0
    table.writerow(repair.heading(list(headers)))
    for row in rows:
        count += 1
        line = repair.line(row.row, row.line, row.reason, row.detail, row.raw)
        table.writerow(map(shown, line) if safe else line)
    return count
