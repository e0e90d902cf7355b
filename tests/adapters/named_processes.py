"""Whether a process that was named has ended."""

import os
import select

from leadline.adapters.sandbox_runner.processes import Named, descriptor


def gone(process: Named | None) -> bool:
    """Whether it has ended, though nobody may have collected it yet. None is none: AssertionError."""
    assert process is not None
    pidfd = descriptor(process)
    if pidfd is None:
        return True
    dead, _, _ = select.select([pidfd], [], [], 0)
    os.close(pidfd)
    return bool(dead)
