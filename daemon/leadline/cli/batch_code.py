"""`batch pack`, `upload` and `download`: code on its way from a folder to the daemon, and back.

A folder is packed and judged here as the daemon will judge it; what the plan allows is said by the daemon, which is the
one to know it.
"""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Annotated

from cyclopts import Parameter

from leadline.cli import terminal
from leadline.cli.batch import Name, Teamspace, conclude, saying_how_to_enable
from leadline.cli.daemon import Failed, FileOrDash, Misused, NoDaemon, Placed, control
from leadline.cli.files import EXPORTS, INCOMING, fetch, hand_over
from leadline.cli.jobs import Flag, Json
from leadline.cli.words import counted, shown, size
from leadline.core.quota.quotas import Quotas, check_archive
from leadline_protocol.errors import OutcomeUnknown, Refused, Unreachable
from leadline_protocol.messages import BatchJobs, BatchReply


def upload(
    name: Name,
    source: Annotated[Path, Parameter(name="FOLDER|ZIP", help="The folder, or the zip; main.py is at its root.")],
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    json: Json = False,
) -> None:
    """Upload code: it is what runs from the next run on. The versions before it stay."""
    if source.is_dir():
        with TemporaryDirectory(prefix="leadline-") as folder:
            packed = Path(folder, f"{source.resolve().name or 'code'}.zip")
            _pack(source, packed)
            reply = _uploaded(name, packed, place, teamspace)
    else:
        reply = _uploaded(name, source, place, teamspace)
    (view,) = reply.batch_jobs
    conclude(reply, f"Version {view.version} is what runs from the next run on.", json=json)


def _uploaded(name: str, file: Path, place: Placed, teamspace: str) -> BatchReply:
    with control(place) as daemon, saying_how_to_enable(teamspace):
        path = hand_over(file, daemon.state_dir / INCOMING)
        try:
            return daemon.client.call(BatchJobs(action="upload", teamspace=teamspace, name=name, path=path))
        except Refused:
            (daemon.state_dir / INCOMING / path).unlink(missing_ok=True)
            raise
        except (Unreachable, OutcomeUnknown) as error:
            raise NoDaemon(f"{error}; `leadline batch describe` will tell whether the code was taken") from error


def _pack(folder: Path, target: Path) -> None:
    from leadline.features.batch.archive import pack as packed

    try:
        with target.open("x+b") as file:
            packed(folder, file)
    except Refused as refused:
        raise Failed(f"{folder} cannot be packed: {refused.message}") from refused


def download(
    name: Name,
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    version: Annotated[int | None, Parameter(help="Which one, as `describe` lists them [the newest].")] = None,
    output: Annotated[
        FileOrDash | None, Parameter(name=("--output", "-o"), help="Put the zip there; - for standard output.")
    ] = None,
    json: Json = False,
) -> None:
    """Have code back as it was uploaded once; prints where the zip is."""
    if output is not None and str(output) != "-" and not output.parent.is_dir():
        raise Misused(f"There is no folder {output.parent}")
    with control(place) as daemon, saying_how_to_enable(teamspace):
        asked = BatchJobs(action="download", teamspace=teamspace, name=name, version=version)
        reply = daemon.client.call(asked)
        assert reply.path is not None, "a download is a file"
        written = daemon.state_dir / EXPORTS / reply.path
    if output is not None:
        fetch(written, output)
    if str(output) == "-":
        return
    if json:
        terminal.json_line({"zip": str(output or written)})
    else:
        terminal.say(shown(str(output or written)))


def pack(
    folder: Annotated[Path, Parameter(name="FOLDER", help="The folder; main.py is at its root.")],
    /,
    *,
    output: Annotated[Path | None, Parameter(help="The zip to write; by default FOLDER.zip.")] = None,
    force: Annotated[Flag, Parameter(help="Write over a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Pack a folder into a zip, and say whether it can be run: nothing in it is, now."""
    from leadline.features.batch.archive import pack as packed

    if not folder.is_dir():
        raise Failed(f"{folder} is no folder")
    whole = folder.resolve()
    target = whole.parent / f"{whole.name or 'code'}.zip" if output is None else output
    if target.is_dir():
        raise Failed(f"{target} is a folder: name the zip with --output")
    if target.resolve().is_relative_to(whole):
        raise Failed(f"{target} lies in {folder}, and would be packed into itself: give another --output")
    if target.exists() and not force:
        raise Failed(f"{target} is there already: give another --output, or --force")
    with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as file:
        try:
            code = packed(folder, file)
            file.flush()
            bytes_packed = os.fstat(file.fileno()).st_size
            check_archive(Quotas(), bytes_packed)
        except Refused as refused:
            Path(file.name).unlink()
            raise Failed(f"{folder} cannot be packed: {refused.message}") from refused
        except BaseException:
            Path(file.name).unlink()
            raise
    Path(file.name).chmod(0o644)
    Path(file.name).replace(target)
    if json:
        terminal.json_line(
            {
                "zip": str(target),
                "bytes": bytes_packed,
                "files": code.files,
                "unpacked_bytes": code.unpacked_bytes,
                "takes_event": code.takes_event,
                "requirements": code.requirements is not None,
            }
        )
        return
    terminal.say(f"{shown(str(target))}: {counted(code.files, 'file')}, {size(bytes_packed)}.")
    terminal.say(f"  It is called as main({'event' if code.takes_event else ''}).")
    if code.requirements is not None:
        terminal.say("  The packages in requirements.txt are installed before it runs.")
