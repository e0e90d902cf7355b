"""The zip that holds a batch job's code: packed from a folder, judged, and unpacked.

It comes from a tenant, so nothing in it is believed. What would land outside the folder, or be anything but a plain
file in it, is refused, and so is what unpacks to more than there is room for: by what is read, not by what the zip says
of itself. It is judged as a whole before the first byte is written, so that what was taken can be unpacked.

Where the work begins is found by reading `main.py`, not by running it: a function `main` at its top level that takes
nothing, or the event. Python's own parser reads it, which takes memory a thousand times the size of what it reads:
therefore `main.py` is bounded, and a daemon has it read by a process of its own (`archive_worker`).
"""

import ast
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

from msgspec import Struct

from leadline.features.batch import requirements
from leadline.features.batch.requirements import REQUIREMENTS
from leadline_protocol.errors import ErrorCode, Refused

MAIN: Final = "main.py"

FILES_MAX: Final = 10_000
UNPACKED_BYTES_MAX: Final = 64 << 20
"""All files of a zip: sixteen times what it may have packed."""
MAIN_BYTES_MAX: Final = 256 << 10
"""Of nothing but `x;` so many take 250 MB to be read."""
NAME_BYTES_MAX: Final = 255
"""Of one part of a path, as Linux has it."""
PATH_BYTES_MAX: Final = 1_024
DEPTH_MAX: Final = 32

METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""What every zip program writes; the others are rare, and their libraries are more to trust."""

SKIPPED: Final = frozenset({"__pycache__", "node_modules", "venv"})
"""Folders that no code is in; those whose names begin with a dot are left out as well."""

_READ_BYTES: Final = 1 << 16
_ENCRYPTED: Final = 0x1
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The first moment that a zip can tell of: a folder that has not changed packs to the same bytes."""


class Code(Struct, frozen=True):
    """What is in a zip that was judged."""

    files: int
    unpacked_bytes: int
    takes_event: bool
    """Whether `main` is called with the event."""
    requirements: bytes | None
    """Its requirements.txt, where that names packages that it needs."""


class Bounds(Struct, frozen=True):
    """What may be in a zip."""

    files: int
    unpacked_bytes: int
    programs: bool = False
    """Whether files that are marked as programs stay such."""


def judge(file: IO[bytes]) -> Code:
    """Read a whole zip and say what is in it. Raises Refused with bad_archive, which says what is wrong with it."""
    with _opened(file) as archive:
        bounds = Bounds(FILES_MAX, UNPACKED_BYTES_MAX)
        members = _members(archive, bounds)
        if MAIN not in members:
            raise _bad(_no_main(members))
        unpacked = 0
        for info in members.values():
            for piece in _content(archive, info, bounds, unpacked):
                unpacked += len(piece)
        source = _beginning(archive, members[MAIN], MAIN_BYTES_MAX + 1)
        asked = b""
        if REQUIREMENTS in members:
            asked = _beginning(archive, members[REQUIREMENTS], requirements.BYTES_MAX + 1)
    return Code(len(members), unpacked, takes_event(source), asked if requirements.read(asked) else None)


def unpack(file: IO[bytes], folder: Path, bounds: Bounds | None = None) -> None:
    """Write the files of a zip below an empty folder, for anybody to read; without `bounds` it was judged.

    Raises Refused with bad_archive, and leaves what it has written then.
    """
    bounds = bounds or Bounds(FILES_MAX, UNPACKED_BYTES_MAX)
    written = 0
    made = {folder}
    with _opened(file) as archive:
        for path, info in _members(archive, bounds).items():
            target = folder / path
            for parent in reversed(target.parents):
                if parent.is_relative_to(folder) and parent not in made:
                    parent.mkdir()
                    parent.chmod(0o755)
                    made.add(parent)
            with target.open("xb") as out:
                os.fchmod(out.fileno(), 0o755 if bounds.programs and info.external_attr >> 16 & 0o111 else 0o644)
                for piece in _content(archive, info, bounds, written):
                    written += len(piece)
                    out.write(piece)


def pack(folder: Path, out: IO[bytes]) -> Code:
    """Pack a folder with code; the same files always make the same bytes.

    Hidden files, and what Python, npm and virtual environments leave behind, are left out. Raises Refused with
    bad_archive as `judge` does, and for a link, a device or a socket, which no zip may hold.
    """
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(_files(folder)):
            if not str(path).isprintable():  # a name that is no UTF-8 cannot even be written
                raise _bad(f"{str(path)!r} is no path within a folder")
            info = zipfile.ZipInfo(str(PurePosixPath(path)), _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, (folder / path).read_bytes())
    out.seek(0)
    return judge(out)


def takes_event(source: bytes) -> bool:
    """Whether a `main.py` wants to be called with the event. Raises Refused where it cannot be called at all."""
    if len(source) > MAIN_BYTES_MAX:
        raise _bad(f"{MAIN} may have {MAIN_BYTES_MAX:,} bytes and has more; code may lie in modules beside it")
    try:
        tree = ast.parse(source, MAIN)
    except SyntaxError as error:
        raise _bad(f"{MAIN} cannot be read: line {error.lineno}: {error.msg}") from None
    except ValueError as error:
        raise _bad(f"{MAIN} cannot be read: {error}") from None
    except (RecursionError, MemoryError):
        raise _bad(f"{MAIN} cannot be read: it is nested too deeply, or takes too much memory") from None
    main = None
    for node in tree.body:  # the last one counts, as when it is run
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "main":
            main = node
    if main is None:
        raise _bad(f"{MAIN} has no function main: it needs `def main():` or `def main(event):` at its top level")
    if isinstance(main, ast.AsyncFunctionDef):
        raise _bad(f"{MAIN}, line {main.lineno}: main is called like any function, so it must not be async")
    arguments = main.args
    positional = [*arguments.posonlyargs, *arguments.args]
    needed = len(positional) - len(arguments.defaults)
    keywords = [
        each for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None
    ]
    if needed > 1 or keywords:
        raise _bad(f"{MAIN}, line {main.lineno}: main takes nothing, or the event; it asks for more")
    return bool(positional) or arguments.vararg is not None


# -- what is in a zip -------------------------------------------------------------------------------------------------


def _opened(file: IO[bytes]) -> zipfile.ZipFile:
    """Raises Refused."""
    try:
        return zipfile.ZipFile(file)
    except _BROKEN as error:
        raise _bad(f"it is no zip that can be read: {error}") from None


def _members(archive: zipfile.ZipFile, bounds: Bounds) -> dict[str, zipfile.ZipInfo]:
    """The files by their paths. Raises Refused with bad_archive for what may not be in there."""
    entries = archive.infolist()
    if len(entries) > bounds.files:
        raise _bad(f"it has {len(entries):,} entries, and may have {bounds.files:,}")
    files: dict[str, zipfile.ZipInfo] = {}
    folders: set[str] = set()
    for entry in entries:
        path = _checked_path(entry)
        folders.update(str(each) for each in path.parents if each.parts)
        if entry.is_dir():
            folders.add(str(path))
            continue
        if str(path) in files:
            raise _bad(f"{_shown(entry)} is in it twice")
        if entry.flag_bits & _ENCRYPTED:
            raise _bad(f"{_shown(entry)} is encrypted")
        if entry.compress_type not in METHODS:
            raise _bad(f"{_shown(entry)} is packed by a method other than deflate")
        files[str(path)] = entry
    if both := folders.intersection(files):
        raise _bad(f"{min(both)!r} is a file and a folder in it")
    return files


def _checked_path(entry: zipfile.ZipInfo) -> PurePosixPath:
    name = entry.orig_filename.removesuffix("/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise _bad(f"{_shown(entry)} is no plain file: links, devices and sockets are not taken")
    parts = name.split("/")
    if not all(parts) or {".", ".."}.intersection(parts) or "\\" in name or not name.isprintable():
        raise _bad(f"{_shown(entry)} is no path within a folder")
    try:
        encoded = [part.encode() for part in parts]
    except UnicodeEncodeError:
        raise _bad(f"{_shown(entry)} is no path within a folder") from None
    if len(parts) > DEPTH_MAX or max(map(len, encoded)) > NAME_BYTES_MAX or len(name.encode()) > PATH_BYTES_MAX:
        raise _bad(f"{_shown(entry)} is too long or too deep a path")
    return PurePosixPath(name)


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, bounds: Bounds, before: int) -> Iterator[bytes]:
    """What a file unpacks to, piece by piece, behind `before` bytes; its checksum is looked at after the last.

    Raises Refused.
    """
    try:
        with archive.open(info) as member:
            while piece := member.read(_READ_BYTES):
                before += len(piece)
                if before > bounds.unpacked_bytes:
                    raise _bad(f"it unpacks to more than {bounds.unpacked_bytes >> 20} MiB")
                yield piece
    except _BROKEN as error:
        raise _bad(f"{_shown(info)} cannot be unpacked: {error}") from None


_BROKEN: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
)
"""What Python's zipfile raises for what is broken, or made to break it."""


def _beginning(archive: zipfile.ZipFile, info: zipfile.ZipInfo, bytes_max: int) -> bytes:
    with archive.open(info) as member:
        return member.read(bytes_max)


def _no_main(members: dict[str, zipfile.ZipInfo]) -> str:
    deeper = [path for path in members if PurePosixPath(path).name == MAIN]
    hint = f"; there is {min(deeper)}: pack what is in that folder, not the folder" if deeper else ""
    return f"there is no {MAIN} at its root{hint}"


def _shown(entry: zipfile.ZipInfo) -> str:
    name = entry.orig_filename
    return repr(name if len(name) <= 100 else f"{name[:100]}…")


def _bad(message: str) -> Refused:
    return Refused(ErrorCode.BAD_ARCHIVE, message)


# -- what is in a folder ----------------------------------------------------------------------------------------------


def _raise(error: OSError) -> None:
    """A folder that cannot be read is not left out in silence."""
    raise error


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder that belong to its code. Raises Refused for what no zip may hold."""
    for place, folders, names in os.walk(folder, onerror=_raise):
        here = Path(place).relative_to(folder)
        folders[:] = [name for name in folders if not name.startswith(".") and name not in SKIPPED]
        for name in (*folders, *names):
            if name.startswith(".") or name.endswith(".pyc"):
                continue
            mode = (folder / here / name).lstat().st_mode
            if stat.S_ISREG(mode):
                yield here / name
            elif not stat.S_ISDIR(mode):
                raise _bad(f"{here / name} is no plain file: links, devices and sockets cannot be packed")
