"""Whether code can be run here, found out by running some."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import anyio
from msgspec import Raw

from leadline.adapters.sandbox_runner.runner import sandbox_runner
from leadline.ports.runner import CannotRun, How, Limits, NotBegun, Order, Returned

LIMITS: Final = Limits(seconds=10, memory_bytes=256 << 20, processes=16, disk_bytes=1 << 20, output_bytes=1 << 16)

OBSTACLES: Final[Mapping[str, tuple[str, str]]] = {
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user.max_user_namespaces": ("0", "10000"),
}
"""Settings of the kernel by which systems keep ordinary users from namespaces: as it stands then, and as it has to."""


async def run_nothing(interpreter: Path, reaches: Sequence[str]) -> None:
    """Run an empty program in a sandbox that reaches these networks.

    Raises CannotRun, which says what has to be done about it.
    """
    with tempfile.TemporaryDirectory(prefix="leadline-trial-") as place:
        code = Path(place, "code")
        await anyio.Path(code).mkdir(mode=0o755)
        await anyio.Path(code, "main.py").write_text("def main(): pass\n", encoding="utf-8")
        order = Order("trial", code, interpreter, Raw(b"null"), LIMITS, reaches=tuple(reaches))
        how = await _end_of(order, Path(place, "runs"))
    if not isinstance(how, Returned):
        story = how.story if isinstance(how, NotBegun) else str(how)
        raise CannotRun(f"{story}: {obstacle()}" if obstacle() else story)


async def _end_of(order: Order, folder: Path) -> How:
    """How its run ends. Raises CannotRun."""
    async with sandbox_runner(folder, ground=None) as runner:
        try:
            run = await runner.start(order)
        except CannotRun as error:
            refused = error
        else:
            end = await run.ended()
            await run.forget()
            return end.how
    raise refused


def obstacle(settings: Path = Path("/proc/sys")) -> str:
    """The command that takes away what keeps this user from namespaces; empty where no setting does."""
    for name, (closed, open_) in OBSTACLES.items():
        file = settings.joinpath(*name.split("."))
        if file.exists() and file.read_text(encoding="ascii").strip() == closed:
            return f"sysctl -w {name}={open_}"
    return ""
