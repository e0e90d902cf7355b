"""What an interpreter is, as far as packages depend on it, and which pip installs for it.

Its own, where it has one; else the wheel that came with the daemon's Python, which is shown to the run as a file.
"""

import importlib.util
import subprocess
import sysconfig
from pathlib import Path
from typing import Final

import anyio
import msgspec
from msgspec import Struct

from leadline.ports.runner import CannotRun

_PROBE: Final = """
import importlib.util, json, sys, sysconfig
print(json.dumps({
    "version": sys.version,
    "platform": sysconfig.get_platform(),
    "abi": sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag,
    "pip": importlib.util.find_spec("pip") is not None,
}))
"""


class Python(Struct, frozen=True):
    """An interpreter."""

    version: str
    """With its build: what it says of itself as sys.version."""
    platform: str
    abi: str
    pip: bool
    """Whether it has one of its own."""


async def ask(interpreter: Path) -> Python:
    """What an interpreter is. Raises CannotRun."""
    try:
        asked = await anyio.run_process([interpreter, "-I", "-c", _PROBE], cwd="/", env={})
        return msgspec.json.decode(asked.stdout, type=Python)
    except (OSError, subprocess.CalledProcessError, msgspec.DecodeError) as error:
        raise CannotRun(f"{interpreter} is no Python that can be run: {error}") from error


def pip_wheel() -> Path:
    """The pip that came with the daemon's Python. Raises CannotRun, which says where it was looked for."""
    folders = _wheel_folders()
    found = sorted(path for folder in folders for path in folder.glob("pip-*-py3-none-any.whl"))
    if not found:
        looked = f"in {' or '.join(map(str, folders))}" if folders else "with the daemon's Python (ensurepip)"
        message = f"the interpreter has no pip, and there is none {looked}: apt-get install python3-pip"
        raise CannotRun(message)
    return found[-1]


def _wheel_folders() -> list[Path]:
    """Where a Python keeps the wheels that ensurepip installs: Debian has a folder of its own for them."""
    folders = []
    configured = sysconfig.get_config_var("WHEEL_PKG_DIR")
    if configured:
        folders.append(Path(configured))
    ensurepip = importlib.util.find_spec("ensurepip")
    if ensurepip is not None and ensurepip.origin is not None:
        folders.append(Path(ensurepip.origin).parent / "_bundled")
    return folders
