"""What the process asks of Python and of the kernel, so that it stays quick and small."""

import ctypes
import gc
import resource
import sys
from typing import Final

GARBAGE_THRESHOLDS: Final = (5_000, 10, 10)
"""As in gc.set_threshold; beyond that it takes longer again: what is looked at late has left the processor's cache."""
SWITCH_SECONDS: Final = 0.001
"""A fifth of what is usual in Python."""
LARGE_BYTES: Final = 64 * 1024
M_MMAP_THRESHOLD: Final = -3
LIBC: Final = ctypes.CDLL(None)


def collect_garbage_seldom() -> None:
    """Have Python look for cycles less often, and never among what a daemon is made of.

    A decision about thousands of jobs makes many times as many lists and tuples, none of them in a cycle. Left to
    itself the collector walks all there is again and again meanwhile: that was a fifth of a submission's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def let_threads_give_way() -> None:
    """Have a thread that works through a file give way to the event loop sooner.

    The loop waits for so long each time that it has waited for anything else: an upload's transaction has a dozen
    round trips, each of which took milliseconds while the next chunk was read.
    """
    sys.setswitchinterval(SWITCH_SECONDS)


def open_as_many_files_as_allowed() -> None:
    """Raise the soft limit of open files to the hard one: each connection is one, and each call to a provider."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def return_large_memory() -> None:
    """Have what is large, such as half a line of a peer, returned to the kernel as soon as it is free.

    Left to itself glibc raises its threshold with every such piece, and keeps what a crowd has once made it take.
    """
    if hasattr(LIBC, "mallopt"):  # there is none in musl, which does so anyway
        LIBC.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def return_free_memory() -> None:
    """Return to the kernel what is free between things that are not."""
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(0)
