"""`upload` and `export`: files that travel to the daemon and back through the folders of its state directory.

The daemon opens no file that is merely named to it: it may not be able to read it, and must not be talked into reading
another one. So a file is put where it is looked for, whole or not at all, and the job names it by its plain name.
"""

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from leadline.cli import terminal
from leadline.cli.daemon import Daemon, Failed, FileOrDash, Misused, NoDaemon, Placed, any_socket
from leadline.cli.following import await_receipt, is_failure, verdict
from leadline.cli.jobs import Flag, Json
from leadline.cli.words import counted, shown
from leadline_protocol import messages
from leadline_protocol.errors import OutcomeUnknown, Refused, Unreachable
from leadline_protocol.messages import Receipt

INCOMING: Final = "incoming"
EXPORTS: Final = "exports"

_BY_SUFFIX: Final[Mapping[str, messages.FileFormat]] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".xlsx": "xlsx"}

Table = Annotated[str, Parameter(help="The table.")]
Teamspace = Annotated[str, Parameter(help="The teamspace that it belongs to.")]
Wait = Annotated[Flag, Parameter(help="Wait until the job has ended, and say how it did.")]


def upload(
    file: Annotated[Path, Parameter(help="The file: CSV of any dialect, JSON Lines or XLSX.")],
    /,
    *,
    place: Placed,
    table: Table,
    teamspace: Teamspace,
    key: Annotated[
        str | None, Parameter(help="The columns, apart by commas, that make two rows the same lead [email].")
    ] = None,
    on_duplicate: Annotated[
        Literal["skip", "update", "fill"],
        Parameter(help="What becomes of a lead that is there already: `fill` writes its empty cells only."),
    ] = "skip",
    format: Annotated[  # noqa: A002  the option's name
        messages.FileFormat | None, Parameter(help="The kind of file, where looking at it goes wrong.")
    ] = None,
    sheet: Annotated[str | None, Parameter(help="The sheet of a spreadsheet [the first].")] = None,
    rename: Annotated[
        list[str] | None,
        Parameter(
            help="HEADER=COLUMN: what a column is called that should not get its header's name; as often as needed."
        ),
    ] = None,
    type: Annotated[  # noqa: A002  the option's name
        list[str] | None,
        Parameter(help="COLUMN=TYPE: of which type a column is, where that should not be guessed; as often as needed."),
    ] = None,
    wait: Wait = False,
    json: Json = False,
) -> int:
    """Read a file of leads into a table; the table is created where there is none."""
    mapping, types = _pairs(rename, "--rename"), _pairs(type, "--type")
    with any_socket(place) as daemon:
        name = hand_over(file, daemon.state_dir / INCOMING)
        submission = messages.Upload(
            teamspace=teamspace,
            idempotency_key=f"leadline-upload-{name}",
            table=table,
            path=name,
            key=_split(key),
            on_duplicate=on_duplicate,
            format=format,
            sheet=sheet,
            mapping=mapping,
            types=types,  # type: ignore[arg-type]  # the daemon tells which types there are
        )
        try:
            receipt = daemon.client.submit(submission)
        except Refused:
            (daemon.state_dir / INCOMING / name).unlink(missing_ok=True)
            raise
        except (Unreachable, OutcomeUnknown) as error:
            raise NoDaemon(
                f"{error}; the file is at {daemon.state_dir / INCOMING / name}, "
                "and `leadline jobs` will tell whether the job was taken"
            ) from error
        return conclude(daemon, receipt, wait=wait, json=json)


def export(
    *,
    place: Placed,
    table: Table,
    teamspace: Teamspace,
    columns: Annotated[str | None, Parameter(help="Only these columns, apart by commas, in this order.")] = None,
    where: Annotated[str | None, Parameter(help="Only leads for which this expression is true.")] = None,
    output: Annotated[
        FileOrDash | None,
        Parameter(name=("--output", "-o"), help="Wait and put the file there; - for standard output."),
    ] = None,
    format: Annotated[  # noqa: A002  the option's name
        messages.FileFormat | None, Parameter(help="The kind of file [by the name of the output, else csv].")
    ] = None,
    wait: Wait = False,
    json: Json = False,
) -> int:
    """Write leads of a table to a file; prints where it is."""
    if output is not None and str(output) != "-" and not output.parent.is_dir():
        raise Misused(f"There is no folder {output.parent}")
    chosen = format or _BY_SUFFIX.get("" if output is None else output.suffix.lower(), "csv")
    name = f"{_plain(table)}-{secrets.token_hex(4)}.{chosen}"
    with any_socket(place) as daemon:
        submission = messages.Export(
            teamspace=teamspace,
            idempotency_key=f"leadline-export-{name}",
            table=table,
            path=name,
            format=chosen,
            columns=_split(columns),
            where=where,
        )
        receipt = daemon.client.submit(submission)
        exported = daemon.state_dir / EXPORTS / name
        if output is None:
            status = conclude(daemon, receipt, wait=wait, json=json)
            if not json:
                terminal.say(str(exported))
            return status
        ended = await_receipt(daemon, receipt)
        if json:
            terminal.json_line(ended)
        else:
            terminal.remark(verdict(ended))
        if is_failure(ended) or ended.state == "skipped":
            return 1
        fetch(exported, output)
    return 0


def conclude(daemon: Daemon, receipt: Receipt, *, wait: bool, json: bool) -> int:
    """Tell of a receipt and, where that is wanted, of the job's end; the exit status."""
    tell(receipt, json=json)
    if not wait:
        return 0
    ended = await_receipt(daemon, receipt)
    if json:
        terminal.json_line(ended)
    else:
        terminal.say(verdict(ended))
    return int(is_failure(ended))


def tell(receipt: Receipt, *, json: bool) -> None:
    """Tell of a receipt: the number of the job, its place in the queue, its warnings."""
    if json:
        terminal.json_line(receipt)
        return
    place = f", {counted(receipt.jobs_ahead, 'job')} before it" if receipt.jobs_ahead else ""
    steps = f" with the steps {', '.join(map(str, receipt.steps))}" if receipt.steps else ""
    known = " It was submitted before under this key." if receipt.duplicate else ""
    terminal.say(f"Job {receipt.job}{steps} is {terminal.state(receipt.state)}{place}.{known}")
    for warning in receipt.warnings:
        terminal.warn(shown(warning.message))
    sys.stdout.flush()


def hand_over(file: Path, incoming: Path) -> str:
    """Put a copy of the file into the daemon's folder, durably, whole or not at all; its name there."""
    suffix = re.sub(r"[^A-Za-z0-9.]+", "", file.suffix)  # it tells the daemon what kind of file this is
    name = f"{_plain(file.stem)}-{secrets.token_hex(4)}{suffix}"
    partial = incoming / f".{name}.part"
    try:
        with file.open("rb") as source:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)
            try:
                with os.fdopen(descriptor, "wb") as copy:
                    _share(descriptor, incoming.stat().st_gid)
                    shutil.copyfileobj(source, copy, 1024 * 1024)
                    copy.flush()
                    os.fsync(descriptor)
                partial.rename(incoming / name)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise Failed(_what_hinders(error, file, incoming)) from error
    folder = os.open(incoming, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return name


def _share(descriptor: int, group: int) -> None:
    """Let the folder's group, of which the daemon is, read the file, whatever the umask and the user's own group."""
    os.fchmod(descriptor, 0o660)
    with suppress(PermissionError):
        os.fchown(descriptor, -1, group)


def _what_hinders(error: OSError, file: Path, incoming: Path) -> str:
    if error.filename == str(file):
        return f"{file}: {error.strerror}"
    if isinstance(error, FileNotFoundError):
        return f"There is no folder {incoming}: say with --state-dir where the daemon keeps its state"
    if isinstance(error, PermissionError):
        return f"You may not write to {incoming}: that takes a member of its group"
    return f"The file could not be put into {incoming}: {error.strerror}"


@contextmanager
def whole_or_not_at_all(output: Path) -> Iterator[Path]:
    """Where to write what becomes this file when the block has ended well, and is gone otherwise. Raises OSError."""
    partial = output.with_name(f".{output.name}.{secrets.token_hex(4)}.part")
    try:
        yield partial
        partial.rename(output)
    except BaseException:  # an interrupt from the keyboard leaves nothing behind either
        partial.unlink(missing_ok=True)
        raise


def fetch(exported: Path, output: Path) -> None:
    """Copy an exported file to where it is wanted, whole or not at all."""
    try:
        with exported.open("rb") as source:
            if str(output) == "-":
                shutil.copyfileobj(source, sys.stdout.buffer)
                return
            with whole_or_not_at_all(output) as partial, partial.open("xb") as copy:
                shutil.copyfileobj(source, copy, 1024 * 1024)
    except OSError as error:
        raise Failed(f"The file is at {exported}, but could not be copied to {output}: {error.strerror}") from error


def _pairs(options: list[str] | None, name: str) -> dict[str, str] | None:
    """What `A=B`, given several times, says. A header may hold a = of its own."""
    if not options:
        return None
    pairs = [option.rpartition("=") for option in options]
    for before, _, behind in pairs:
        if not before or not behind:
            raise Misused(f"{name} takes two names with = between them")
    return {before: behind for before, _, behind in pairs}


def _split(names: str | None) -> list[str] | None:
    return None if names is None else [name.strip() for name in names.split(",")]


def _plain(name: str) -> str:
    """The name as far as it makes a plain file name everywhere."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".-")[:80]
