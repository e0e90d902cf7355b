"""One installation: pip in a sandbox, and what it leaves, checked and unpacked here.

The sandbox is that of tenants' code, with the same walls, limits and network, and never root. Its scratch folder is
gone with it, so the packages come out as a zip of bounded size. That was made by our own program, but next to what
tenants have named: so it is unpacked as a tenant's is, by a process of its own, and only plain files are taken.
"""

import re
import shutil
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from leadline.adapters.package_cache import installer
from leadline.features.batch import archive_worker
from leadline.features.batch.archive import Bounds
from leadline.features.batch.packages import InstallFailed
from leadline.ports.runner import (
    CannotRun,
    Exited,
    How,
    Killed,
    KilledFor,
    Limits,
    Lost,
    NotBegun,
    Order,
    Product,
    Raised,
    Returned,
    Runner,
)
from leadline_protocol.errors import ErrorCode, Refused

FILES_MAX: Final = 50_000
"""Of an installation; a zip of so many is read in 100 MB."""

LOG_LINES: Final = 100
"""What is kept of what pip says."""

MESSAGE_CHARACTERS_MAX: Final = 2_000
NAME_CHARACTERS_MAX: Final = 200

_ZIP_BYTES_PER_FILE: Final = 1_500
"""What a zip has besides a file's bytes, with a name of 700 twice."""

_CREDENTIALS: Final = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/@]*@", re.IGNORECASE)
_ERROR: Final = "ERROR: "
_BUILD_FAILED: Final = "× "
"""Before what pip says of a build that failed; what the build has said is in the log."""


class Asked(Struct, frozen=True):
    """What is to be installed."""

    packages: Sequence[str]
    """Lines as `features.batch.requirements.read` writes them."""
    interpreter: Path
    pip: Path | None
    """The wheel to install with, where the interpreter has no pip."""
    reaches: tuple[str, ...]
    builds: bool


class _Told(Struct, frozen=True):
    """What the program inside says: nothing where all went well. What it has built may speak in its place."""

    status: int | str | None = None
    """Of pip, where it failed."""
    odd: str | None = None
    """What is no plain file."""
    files: int | None = None
    bytes: int | None = None
    """How much there is, where that is too much."""


_TOLD: Final = msgspec.json.Decoder(_Told)


class Installer:
    """Installs packages into folders."""

    def __init__(self, runner: Runner, limits: Limits, bytes_max: int, index_url: str | None) -> None:
        """`bytes_max` bounds all files of an installation together."""
        self._runner = runner
        self._limits = limits
        self._bytes_max = bytes_max
        self._index = _index(index_url)

    async def install(self, name: str, asked: Asked, workplace: Path, target: Path) -> None:
        """Install into an empty folder, by a run of that name; `workplace` is a folder for what that takes.

        Raises InstallFailed, CannotRun, Refused with unavailable.
        """
        code, made = workplace / "code", workplace / "made.zip"
        await anyio.to_thread.run_sync(_write_code, code, asked.pip)
        event = {
            "packages": list(asked.packages),
            "pip": None if asked.pip is None else asked.pip.name,
            "index": self._index,
            "builds": asked.builds,
            "files_max": FILES_MAX,
            "bytes_max": self._bytes_max,
        }
        order = Order(
            name,
            code,
            asked.interpreter,
            msgspec.Raw(msgspec.json.encode(event)),
            self._limits,
            reaches=asked.reaches,
            product=Product(made, self._bytes_max + FILES_MAX * _ZIP_BYTES_PER_FILE),
        )
        how, log = await self._run(order)
        failure = self._failure(how, log)
        if failure is not None:
            raise failure
        try:
            await archive_worker.unpack(made, target, Bounds(FILES_MAX, self._bytes_max, programs=True))
        except Refused as refused:
            if refused.code is ErrorCode.BAD_ARCHIVE:
                raise InstallFailed(f"what was installed cannot be kept: {refused.message}", log) from refused
            raise

    async def _run(self, order: Order) -> tuple[How, Sequence[str]]:
        run = await self._runner.start(order)
        last: deque[str] = deque(maxlen=LOG_LINES)
        try:
            end = await run.ended()
            async for line in run.log():
                last.append(_CREDENTIALS.sub(r"\1***@", line.text))
        finally:
            with anyio.CancelScope(shield=True):
                await run.kill()
                await run.forget()
        return end.how, tuple(last)

    def _failure(self, how: How, log: Sequence[str]) -> Exception | None:
        """Why there are no packages; None where there are."""
        match how:
            case Returned(value=value):
                return self._failure_told(value, log)
            case Killed(why=KilledFor.TIMEOUT):
                message = f"it takes longer than {self._limits.seconds:g} s"
            case Killed(why=KilledFor.MEMORY):
                message = f"it takes more than {self._limits.memory_bytes >> 20} MiB of memory"
            case Killed(why=KilledFor.OUTPUT):
                message = "it says more than is kept, or leaves more"
            case Killed(why=KilledFor.TOLD) | Lost():
                message = "it was ended from outside"
            case Exited(code=code):
                message = f"it ended before its time, with {code}"
            case Raised(traceback=traceback):
                return InstallFailed("the packages cannot be installed: pip broke", (*log, *traceback.splitlines()))
            case NotBegun(story=story):
                return CannotRun(f"no installation could be started: {story}")
        return InstallFailed(f"the packages cannot be installed: {message}", log)

    def _failure_told(self, value: bytes, log: Sequence[str]) -> InstallFailed | None:
        try:
            told = _TOLD.decode(value)
        except msgspec.DecodeError:
            return InstallFailed("the packages cannot be installed: what was built got in pip's way", log)
        match told:
            case _Told(status=int() | str()):
                return InstallFailed(_sentence(log), log)
            case _Told(odd=str(name)):
                message = f"{name[:NAME_CHARACTERS_MAX]!r} is no plain file"
            case _Told(files=int(files), bytes=int(size)):
                message = (
                    f"they are {files:,} files with {size:,} bytes, and may be {FILES_MAX:,} with {self._bytes_max:,}"
                )
            case _:
                return None
        return InstallFailed(f"the packages cannot be kept: {message}", log)


def _write_code(folder: Path, pip: Path | None) -> None:
    """The folder that is a run's code."""
    folder.mkdir()
    (folder / "main.py").write_bytes(Path(installer.__file__).read_bytes())
    if pip is not None:
        shutil.copyfile(pip, folder / pip.name)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)


def _index(url: str | None) -> Sequence[str]:
    """What pip is told about its index. One without TLS was configured so, and pip has to be told that it is meant."""
    if url is None:
        return []
    link = urlsplit(url)
    assert link.hostname is not None, "the configuration has looked at it"
    trusted = ["--trusted-host", link.hostname] if link.scheme == "http" else []
    return ["--index-url", url, *trusted]


def _sentence(log: Sequence[str]) -> str:
    """What pip says is wrong: its errors with the lines that explain them, less the advice to read its manual."""
    said: list[str] = []
    erring = False
    for line in log:
        if line.startswith((_ERROR, "WARNING: ", "DEPRECATION: ", "Collecting ", "To fix this")):
            erring = line.startswith(_ERROR) and "ResolutionImpossible" not in line
        if line.strip().startswith(_BUILD_FAILED):
            said.append(line.strip().removeprefix(_BUILD_FAILED))
        elif erring and line.strip():
            said.append(line.removeprefix(_ERROR).strip())
    if not said:
        return "the packages cannot be installed: pip does not say why"
    return "\n".join(said)[:MESSAGE_CHARACTERS_MAX]
