"""A file becomes leads: taken in by pieces, kept under a name of its own, and handed to an upload.

Two people may send files of the same name at the same moment, so a file is kept under a name that nobody else has; its
end stays, for it tells what the file is where its beginning leaves a doubt. A file whose upload is refused is removed.
"""

import secrets
from pathlib import PurePosixPath
from typing import Any, Final

from aiohttp import web

from leadline.adapters.http.confinement import FILE_NAME_BYTES_MAX
from leadline.adapters.http.pages import tables
from leadline.adapters.http.pages.rendering import size
from leadline.adapters.http.pages.typed import Typed
from leadline.adapters.http.pages.visit import Visit
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused

SUFFIXES: Final = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".xlsx")
"""How the names of files end that can be read."""


async def into_new(visit: Visit) -> web.StreamResponse:
    """Into a table that is named in the form, or by the file; it is made where there is none."""
    try:
        return await _upload(visit, visit.form.fields.get("table", "").strip() or None)
    except Refused as no:
        return await tables.listing(visit, Typed(visit.form.fields, no))


async def into_table(visit: Visit) -> web.StreamResponse:
    """Into the table of the page."""
    try:
        return await _upload(visit, visit.values[0])
    except Refused as no:
        return await tables.described(visit, upload=Typed(visit.form.fields, no))


async def _upload(visit: Visit, table: str | None) -> web.StreamResponse:
    fields, file = visit.form.fields, visit.form.file
    teamspace = visit.certain_teamspace
    if file is None or not file.name:
        raise Refused(ErrorCode.BAD_REQUEST, "choose a file first", at="file")
    shown = plain_name(file.name)
    if not shown.lower().endswith(SUFFIXES):
        message = "this is no file that can be read here: save it as CSV, Excel (XLSX) or JSON Lines"
        raise Refused(ErrorCode.BAD_REQUEST, message, at="file")
    submission: dict[str, Any] = {
        "kind": "upload",
        "teamspace": teamspace,
        "table": table or PurePosixPath(shown).stem,
        "path": stored_name(shown, secrets.token_hex(6)),
        "on_duplicate": fields.get("on_duplicate", "skip"),
    }
    if key := tables.names(fields.get("key", "")):
        submission["key"] = key
    try:
        await visit.reach.take_file(visit.caller, submission["path"], file)
    except Refused as no:
        if no.code is not ErrorCode.TOO_LARGE:
            raise
        largest = size(visit.reach.desk.numbers().upload_bytes_max)
        message = f"it is too large: a file may have at most {largest}. Divide it, and upload one part after another"
        raise Refused(no.code, message, at="file") from None
    try:
        receipt = await visit.submit(submission)
    except Refused:
        await visit.reach.drop_file(visit.caller, submission["path"])
        raise
    assert isinstance(receipt, wire.Receipt)
    return visit.see(f"/jobs/{receipt.job}", said="uploading")


def plain_name(name: str) -> str:
    """The name of a file as a mere name that can be shown: without folders, and nothing in it that is no character."""
    last = name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(character if character.isprintable() else "_" for character in last)
    name = printable.strip()
    return f"file{name}" if not name or name.startswith(".") else name


def stored_name(name: str, token: str) -> str:
    """What a file of that name is kept as; `token` tells it from all others of its name."""
    path = PurePosixPath(name)
    suffix = path.suffix if len(path.suffix.encode()) <= 10 else ""
    room = FILE_NAME_BYTES_MAX - len(f"{token}-{suffix}".encode())
    stem = name.removesuffix(suffix).encode()[:room].decode(errors="ignore")
    return f"{token}-{stem}{suffix}"
