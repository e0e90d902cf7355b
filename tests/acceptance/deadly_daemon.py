"""`leadline`, with one more kind of job: `deadly`, whose work ends the process that it runs in; for tests."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from leadline import main as composition
from leadline.cli.app import run
from leadline.core.model import Family
from leadline.ports.work import Attempt, Finished, Prepared
from leadline_protocol import messages as wire

How = Literal["exit", "abort", "kill"]


class DeadlySubmission(wire.Submission, tag="deadly", frozen=True, kw_only=True):
    """End the daemon."""

    how: How


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


WAYS: Mapping[How, Callable[[], None]] = {"exit": partial(os._exit, 3), "abort": os.abort, "kill": _kill}
"""What a library may do, what a fault in one looks like, and what the kernel does when memory runs out."""


class Deadly:
    """The kind of job."""

    name = "deadly"
    family = Family.TABLES

    async def prepare(self, *_: Any, **__: Any) -> Prepared:
        """Nothing can be wrong with it."""
        return Prepared()

    async def run(self, attempt: Attempt) -> Finished:
        """End the process."""
        WAYS[_how(attempt.job.payload)]()
        raise AssertionError("this process has ended")


def _how(payload: bytes) -> How:
    return next(how for how in WAYS if f'"how":"{how}"'.encode() in payload)


def main() -> int:
    vars(composition)["daemon"] = partial(
        composition.daemon, extra_kinds=lambda _: [Deadly()], extra_submissions=[DeadlySubmission]
    )
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
