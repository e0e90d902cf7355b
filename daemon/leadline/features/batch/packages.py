"""The packages that a job's code asks for: what has to be there before it is run, and how that fails."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

from leadline_protocol.errors import LeadlineError


class InstallFailed(LeadlineError):
    """The packages cannot be installed, for a reason that lies in what was asked for, or where it comes from."""

    def __init__(self, message: str, log: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message: Final = message
        """In pip's own words, where it was pip that failed."""
        self.log: Final = tuple(log)
        """What pip said last. No credentials are in it."""


class Packages(Protocol):
    """Where packages are installed."""

    def packages(
        self, requirements: bytes, interpreter: Path, reaches: Sequence[str], *, builds: bool = False
    ) -> AbstractAsyncContextManager[Path]:
        """A folder with what a requirements.txt asks for, for that interpreter: `ports.runner.Order.packages`.

        It stays as long as the context is open, and as long as a run goes on that was started in it. Whatever has to be
        fetched comes from `reaches`, as a run's would. Nothing is built from sources unless `builds` says so; then the
        sources run in a sandbox as tenants' code does.

        Raises InstallFailed, CannotRun, and Refused with bad_archive for what cannot be asked for, or with unavailable
        where this machine has no room.
        """
        ...
