"""`batch pack`: a folder with a batch job's code as the zip that is uploaded, judged as the daemon will judge it."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated

from cyclopts import App, Parameter

from leadline.cli import terminal
from leadline.cli.daemon import Failed
from leadline.cli.jobs import Flag, Json
from leadline.cli.words import counted, shown, size
from leadline.core.quota.quotas import Quotas, check_archive
from leadline_protocol.errors import Refused

batch = App(name="batch", help="Your own Python as jobs: pack a folder into the zip that is uploaded.")


@batch.command
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
