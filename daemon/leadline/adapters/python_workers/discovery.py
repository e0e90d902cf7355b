"""Which Python modules are installed, and what they say of themselves.

Packages are looked for where the daemon runs and in folders that are configured, by their metadata alone: nothing of
them is imported here. What a module declares its own process tells, each in a process that is then ended, all of them
at the same time. A module that cannot be used is a fault with a reason, and stops no other.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

import anyio
from msgspec import Struct

from leadline.adapters.python_workers.process import Installed, ModuleUnusable, NotStarted, WorkerProcess
from leadline_protocol.modules import GROUP

LOAD_SECONDS: Final = 60.0
"""How long a module may take to be loaded when it is asked what it is."""


class Discovered(Struct, frozen=True):
    """What there is."""

    modules: Mapping[str, tuple[Installed, bytes]]
    """By name; with what each declares, as JSON."""
    faults: Mapping[str, str]
    """Why a module cannot be used, by name."""


async def discover(folders: Sequence[Path]) -> Discovered:
    """All modules that are installed."""
    installed, faults = _installed(tuple(str(folder) for folder in folders))
    declared: dict[str, tuple[Installed, bytes]] = {}

    async def ask(module: Installed) -> None:
        async with anyio.create_task_group() as life:
            process = WorkerProcess(module, logged=False)
            life.start_soon(process.run)
            try:
                with anyio.fail_after(LOAD_SECONDS):
                    declared[module.name] = (module, await process.declared())
            except TimeoutError:
                faults[module.name] = f"it takes longer than {LOAD_SECONDS:g} s to load"
            except (ModuleUnusable, NotStarted) as error:
                faults[module.name] = str(error)
            life.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for module in installed:
            tasks.start_soon(ask, module)
    return Discovered(dict(sorted(declared.items())), dict(sorted(faults.items())))


def _installed(folders: tuple[str, ...]) -> tuple[Sequence[Installed], dict[str, str]]:
    """The modules by their packages' metadata; a name that two packages claim is a fault."""
    found: dict[str, tuple[Installed, str]] = {}
    faults: dict[str, str] = {}
    seen: set[str] = set()
    places = [distributions(path=[*folders]), distributions()] if folders else [distributions()]
    for distribution in (each for place in places for each in place):
        package = distribution.name
        if package in seen:
            continue  # a folder that is configured goes before what the daemon runs in
        seen.add(package)
        for entry in distribution.entry_points.select(group=GROUP):
            if entry.name in found:
                faults[entry.name] = f"two packages provide it: {found[entry.name][1]} and {package}"
            found[entry.name] = (Installed(entry.name, entry.value, folders), package)
    return [module for name, (module, _) in found.items() if name not in faults], faults
