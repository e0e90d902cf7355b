"""A whole daemon in this process, on a database of its own: what its operations are tested on."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from leadline.config import CONTROL_SOCKET, SUBMIT_SOCKET, parse
from leadline.daemon import Daemon
from leadline.main import daemon
from leadline_protocol.client import Client
from leadline_protocol.messages import Plans

WITHIN_SECONDS: Final = 60.0
"""So long a test waits for what comes by itself: a machine may be busy, and this only guards against hanging."""


class Place(Struct, frozen=True):
    """Where a daemon keeps its things: a second one here finds what the first has left."""

    url: str
    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def control(self) -> Path:
        return self.folder / "run" / CONTROL_SOCKET

    @property
    def submit(self) -> Path:
        return self.folder / "run" / SUBMIT_SOCKET

    @property
    def config(self) -> Path:
        return self.folder / "leadline.toml"

    def configure(self, *lines: str) -> None:
        """Write the configuration file."""
        self.config.write_text("\n".join([f'database.url = "{self.url}"', *lines]))

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[tuple[Daemon, Client]]:
        """A daemon that is ready, and a connection to its control socket."""
        if not self.config.exists():
            self.configure()
        config = parse(self.config.read_text(), self.config)
        async with (
            daemon(config, config_path=self.config, state_dir=self.state, runtime_dir=self.folder / "run") as running,
            Client.connect(self.control) as client,
        ):
            yield running, client


def short_folder() -> Path:
    """A folder whose path leaves room for a socket's."""
    return Path(tempfile.mkdtemp(prefix="leadline-"))


def remove(folder: Path) -> None:
    """Remove it with all that is in it."""
    shutil.rmtree(folder)


async def limits(
    client: Client, *, plan: str | None = None, teamspace: str | None = None
) -> dict[str, Sequence[object]]:
    """The limits in force with their sources, by key."""
    (view,) = (await client.call(Plans(plan=plan, teamspace=teamspace))).plans
    return {limit.key: (limit.value, limit.source) for limit in view.limits}
