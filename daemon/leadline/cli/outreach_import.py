"""`outreach import`: the rows of a file, to the daemon in pieces that one line of the protocol holds.

A row that the daemon does not take is told with its place in the file, and the rest goes on. To import a file again is
no fault: what is known stays, or is replaced by the same.
"""

import sys
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, Literal

import msgspec
from cyclopts import Parameter

from leadline.cli import terminal
from leadline.cli.daemon import Daemon, FileOrDash, Misused, Placed, control
from leadline.cli.following import LINE_SECONDS, patiently
from leadline.cli.jobs import Json
from leadline.cli.outreach import Teamspace, command
from leadline.cli.outreach_rows import Fault, Found, RowFile
from leadline.cli.words import counted, number, percent, shown
from leadline_protocol.codec import LINE_BYTES_MAX, PARTS_MAX
from leadline_protocol.errors import ErrorCode, LeadlineError, Refused
from leadline_protocol.messages import FollowUps, Imported, ImportFault

if TYPE_CHECKING:
    import rich.progress

ROWS_MAX: Final = 1000
"""As many as one request holds."""
ENVELOPE_BYTES: Final = 4 * 1024
"""For all of a request but its rows."""
ENVELOPE_PARTS: Final = 20

_UNREADABLE: Final = frozenset({ErrorCode.BAD_JSON, ErrorCode.BAD_REQUEST, ErrorCode.TOO_LARGE})
"""What a whole request is refused with for one of its rows."""


class Tally(msgspec.Struct):
    """What has come of the rows so far."""

    added: int = 0
    changed: int = 0
    known: int = 0
    faults: int = 0

    @property
    def taken(self) -> int:
        """Rows that are there now."""
        return self.added + self.changed + self.known


class _Piece(msgspec.Struct):
    """Lines that are seen to together: the rows among them, and what is wrong with the others."""

    found: list[Found] = []
    faults: list[Fault] = []


def import_(
    file: Annotated[FileOrDash, Parameter(name="FILE", help="JSON Lines or CSV; - is standard input.")],
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    type: Annotated[  # noqa: A002  the option's name
        Literal["follow_up", "suppression"] | None,
        Parameter(help="What the rows are that do not say it themselves; those of CSV are follow-ups otherwise."),
    ] = None,
    associate: Annotated[str | None, Parameter(help="The associate of follow-ups that name none.")] = None,
    script: Annotated[str | None, Parameter(help="The script of follow-ups that name none.")] = None,
    rename: Annotated[
        list[str] | None,
        Parameter(help="HEADER=COLUMN: what a column of CSV is called here; as often as needed.", negative=""),
    ] = None,
    json: Json = False,
) -> int:
    """Import associates, scripts, follow-ups and suppressions. The exit status is 1 if a line was not taken."""
    given = {"associate": associate, "script": script}
    defaults = {key: value for key, value in given.items() if value is not None}
    dash = str(file) == "-"
    total = None if dash else file.stat().st_size
    with nullcontext(sys.stdin.buffer) if dash else file.open("rb") as source, control(place) as daemon:
        rows = _opened(source, file, type, defaults, _renamed(rename or []))
        with _Report("-" if dash else str(file), rows, total, json=json) as report:
            tally = _import(daemon, teamspace, rows, report)
    if json:
        terminal.json_line(tally)
        return int(tally.faults > 0)
    if rows.left_out:
        terminal.remark(f"Columns that were left out: {shown(', '.join(rows.left_out))}.")
    terminal.say(f"{_in_words(tally)} in {shown(teamspace)}.")
    if (word := _next(rows.types)) is not None and tally.taken:
        terminal.say(f"Next: {command(word, teamspace)}")
    return int(tally.faults > 0)


def _opened(
    source: BinaryIO,
    file: Path,
    kind: Literal["follow_up", "suppression"] | None,
    defaults: Mapping[str, str],
    rename: Mapping[str, str],
) -> RowFile:
    return RowFile(source, name=str(file), folder=file.parent, kind=kind, defaults=defaults, rename=rename)


def _import(daemon: Daemon, teamspace: str, file: RowFile, report: "_Report") -> Tally:
    tally = Tally()
    for piece in _pieces(file.rows()):
        faults = piece.faults
        try:
            for found, imported in _handed_in(daemon, teamspace, piece.found):
                tally.added += imported.added
                tally.changed += imported.changed
                tally.known += imported.known
                faults += [Fault(found[each.row].line, each.code, each.message, each.at) for each in imported.faults]
        except LeadlineError:
            if tally.taken:
                report.say(f"What stands before line {piece.found[0].line} is imported; import the file once more.")
            raise
        for fault in sorted(faults, key=lambda each: each.line):
            report.fault(fault)
        tally.faults += len(faults)
        report.moved(tally)
    return tally


def _handed_in(daemon: Daemon, teamspace: str, piece: list[Found]) -> Iterator[tuple[list[Found], Imported]]:
    """What has come of rows; a row for which all are refused is found by halves."""
    if not piece:
        return
    asked = FollowUps(action="import", teamspace=teamspace, rows=[each.row for each in piece])
    try:
        imported = patiently(daemon, asked).imported
    except Refused as refused:
        if refused.code not in _UNREADABLE or (refused.at is not None and not refused.at.startswith("rows")):
            raise
        if len(piece) > 1:
            half = len(piece) // 2
            yield from _handed_in(daemon, teamspace, piece[:half])
            yield from _handed_in(daemon, teamspace, piece[half:])
            return
        fault = ImportFault(row=0, code=refused.code, message=refused.message, at=_within(refused.at))
        yield piece, Imported(added=0, changed=0, known=0, faults=[fault])
        return
    assert imported is not None, "that is what is asked for"
    yield piece, imported


def _within(at: str | None) -> str | None:
    """The place within a row, of one within the request."""
    return None if at is None else at.removeprefix("rows[0]").lstrip(".") or None


def _pieces(rows: Iterator[Found | Fault]) -> Iterator[_Piece]:
    """Rows, as many at a time as one request holds."""
    piece, bytes_, parts = _Piece(), ENVELOPE_BYTES, ENVELOPE_PARTS
    for found in rows:
        if isinstance(found, Fault):
            piece.faults.append(found)
            continue
        try:
            row_bytes = len(msgspec.json.encode(found.row)) + 1
        except UnicodeError:
            piece.faults.append(Fault(found.line, ErrorCode.BAD_JSON, "half a character (a lone surrogate) is in it"))
            continue
        row_parts = _parts(found.row)
        if ENVELOPE_BYTES + row_bytes > LINE_BYTES_MAX or ENVELOPE_PARTS + row_parts > PARTS_MAX:
            message = f"larger than a request may be: {LINE_BYTES_MAX // 1024} KiB, {number(PARTS_MAX)} parts"
            piece.faults.append(Fault(found.line, ErrorCode.TOO_LARGE, message))
            continue
        is_full = len(piece.found) == ROWS_MAX
        if is_full or bytes_ + row_bytes > LINE_BYTES_MAX or parts + row_parts > PARTS_MAX:
            yield piece
            piece, bytes_, parts = _Piece(), ENVELOPE_BYTES, ENVELOPE_PARTS
        piece.found.append(found)
        bytes_ += row_bytes
        parts += row_parts
    yield piece


def _parts(value: object) -> int:
    """How many objects, arrays and keys it holds, itself included."""
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(_parts, value.values()))
    return 1 + sum(map(_parts, value)) if isinstance(value, list) else 0


def _next(types: Container[str]) -> str | None:
    """The command that shows what has come of rows of these types."""
    words = {"follow_up": "preview", "associate": "associates", "script": "scripts", "suppression": "suppressions"}
    return next((word for type_, word in words.items() if type_ in types), None)


def _in_words(tally: Tally) -> str:
    known = f", {number(tally.known)} known already" if tally.known else ""
    faults = f", {counted(tally.faults, 'line')} not taken" if tally.faults else ""
    return f"{number(tally.added)} added, {number(tally.changed)} changed{known}{faults}"


def _renamed(options: list[str]) -> dict[str, str]:
    """What each header is called here; a header may hold a = of its own."""
    renamed = {}
    for option in options:
        header, _, column = (part.strip() for part in option.rpartition("="))
        if not header or not column:
            raise Misused(f"--rename takes HEADER=COLUMN, not {option}")
        renamed[header] = column
    return renamed


class _Report(ExitStack):
    """Tells of faults as they come, and how far it is: by a bar on a terminal, else by a line now and then."""

    def __init__(self, name: str, file: RowFile, total_bytes: int | None, *, json: bool) -> None:
        super().__init__()
        self._name: Final = name
        self._file: Final = file
        self._total: Final = total_bytes
        self._json: Final = json
        self._bar: rich.progress.Progress | None = None
        self._told = time.monotonic()

    def moved(self, tally: Tally) -> None:
        """Some rows more have been handed in, of a file that has more."""
        if self._total is not None and self._file.bytes_read >= self._total:
            return
        if terminal.is_terminal(sys.stderr):
            self._draw()
        elif time.monotonic() - self._told >= LINE_SECONDS:
            self._told = time.monotonic()
            of = "" if self._total is None else f", {percent(self._file.bytes_read, self._total)} of the file"
            terminal.remark(f"{terminal.now():%H:%M:%S} {_in_words(tally)}{of}")

    def fault(self, fault: Fault) -> None:
        """A line was not taken."""
        if self._json:
            terminal.json_line({"file": self._name, **msgspec.to_builtins(fault)})
            return
        at = f" (at {fault.at})" if fault.at else ""
        self.say(f"{self._name}:{fault.line}: {fault.code}: {fault.message}{at}")

    def say(self, text: str) -> None:
        """A line on standard error, above the bar."""
        if self._bar is None:
            terminal.remark(shown(text))
        else:
            self._bar.console.print(shown(text), markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            console = Console(stderr=True, no_color=not terminal.has_colours(sys.stderr))
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TaskProgressColumn())
            self._bar = self.enter_context(Progress(*columns, console=console, transient=True))
            self._bar.add_task("import", total=self._total)
        self._bar.update(self._bar.task_ids[0], completed=self._file.bytes_read)
