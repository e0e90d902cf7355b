"""Which Pythons tenants' code can have here, by name: 3.11, 3.12.

Either those that are configured, or what is found where systems put them, and the daemon's own. A sandbox shows /usr
and the folders that an interpreter says are its own; root's runs are other users there, so those folders have to be
open to anybody from themselves on, however closed the way to them is.
"""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from msgspec import Struct, convert

OLDEST: Final = (3, 9)
"""What `sandbox_runner`'s program inside runs on."""

FOLDERS: Final = (Path("/usr/bin"), Path("/usr/local/bin"))

_VERSION: Final = re.compile(r"[0-9]+\.[0-9]+")

_PROBE: Final = """
import json, os, sys
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": sys.version_info[:2],
    "executable": sys.executable,
    "folders": [sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)],
}))
"""


class Interpreters(Struct, frozen=True):
    """What there is."""

    paths: Mapping[str, Path]
    """By name, the oldest first."""
    default: str | None
    """The newest of those that are configured, or that the system has; else the daemon's own."""
    faults: Mapping[str, str]
    """Why one cannot be used, by the name that is configured for it, or by its path."""


class _Found(Struct, frozen=True):
    implementation: str
    version: tuple[int, int]
    executable: str
    folders: tuple[str, ...]

    @property
    def name(self) -> str:
        return ".".join(map(str, self.version))


class _Unusable(Exception):
    """The message says why."""


async def find(configured: Mapping[str, Path] | None = None) -> Interpreters:
    """The interpreters of this machine; where some are configured by name, those and no others.

    A name that is a version has to be that of its interpreter.
    """
    return await _configured(configured) if configured else await _of_the_system()


async def _configured(configured: Mapping[str, Path]) -> Interpreters:
    found: dict[str, _Found] = {}
    faults: dict[str, str] = {}
    for name, path in configured.items():
        try:
            python = await _ask(path)
            if _VERSION.fullmatch(name) and python.name != name:
                raise _Unusable(f"{path} is Python {python.name}")
            found[name] = python
        except _Unusable as error:
            faults[name] = str(error)
    return _interpreters(found, faults)


async def _of_the_system() -> Interpreters:
    found: dict[str, _Found] = {}
    for path in await anyio.to_thread.run_sync(lambda: list(_installed())):
        try:
            python = await _ask(path)
            found.setdefault(python.name, python)
        except _Unusable:
            continue  # a system may have old ones, and others than CPython
    system = _interpreters(found, {})
    own = Path(getattr(sys, "_base_executable", sys.executable))
    try:
        python = await _ask(own)
    except _Unusable as error:
        fault = f"code cannot have the Python that the daemon runs on: {error}"
        return Interpreters(system.paths, system.default, {str(own): fault})
    found.setdefault(python.name, python)
    whole = _interpreters(found, {})
    return Interpreters(whole.paths, system.default or whole.default, {})


def _interpreters(found: Mapping[str, _Found], faults: Mapping[str, str]) -> Interpreters:
    names = sorted(found, key=lambda name: (found[name].version, name))
    paths = {name: Path(found[name].executable) for name in names}
    return Interpreters(paths, names[-1] if names else None, faults)


def _installed() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted(folder.glob("python3.[0-9]*")):
            if path.suffix[1:].isdecimal():
                yield path


async def _ask(path: Path) -> _Found:
    """What it says of itself, where it can be used. Raises _Unusable."""
    try:
        asked = await anyio.run_process([path, "-I", "-c", _PROBE], cwd="/", env={})
        python = convert(json.loads(asked.stdout), _Found)
        closed = await anyio.to_thread.run_sync(_closed, python) if os.geteuid() == 0 else None
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise _Unusable(f"{path} is no Python that can be run: {error}") from error
    if python.implementation != "cpython" or python.version < OLDEST:
        raise _Unusable(
            f"{path} is {python.implementation} {python.name}, and not CPython {'.'.join(map(str, OLDEST))} or newer"
        )
    if closed is not None:
        raise _Unusable(f"{closed} is not open to other users, as whom code runs: chmod o+rX")
    return python


def _closed(python: _Found) -> Path | None:
    """What of it not everybody may read and go into or run."""
    for path in map(Path, (*python.folders, os.path.realpath(python.executable))):
        if path.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH) != stat.S_IROTH | stat.S_IXOTH:
            return path
    return None
