"""Moments at which the processor itself was slow.

A virtual machine stands still now and then, or crawls, by what its host does: for a tenth of a second every other
second, on some. A program that is measured meanwhile shows it as latency of its own. So a process of no weight does
the same little work over and over, and notes the processor time that it took: other programs on the machine do not
lengthen that, a slow processor does.
"""

import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from struct import Struct
from typing import Final

PAUSE_SECONDS: Final = 0.002
STEPS: Final = 3_000
"""Of the work: some fifty microseconds."""

SLOW: Final = 3
"""So many times the median is slow."""

PROBE: Final = Struct("<qq")
"""When one began (nanoseconds of CLOCK_MONOTONIC, which all processes share), and the processor time it took."""

Moment = tuple[int, int]
"""From when to when, in nanoseconds of CLOCK_MONOTONIC."""


@contextmanager
def watched() -> Iterator[list[Moment]]:
    """Watch the processor; the list is filled with its slow moments when the block has ended."""
    moments: list[Moment] = []
    command = [sys.executable, "-m", "tests.bench.processor"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)  # it has begun
        try:
            yield moments
        finally:
            probes, _ = process.communicate()
    moments += slow_moments(list(PROBE.iter_unpack(probes)))


def slow_moments(probes: list[tuple[int, int]]) -> list[Moment]:
    """What lies between the last probe that was quick and the next one, for each run of slow ones."""
    if not probes:
        return []
    usual = median(took for _, took in probes)
    moments: list[Moment] = []
    began: int | None = None
    before = probes[0][0]
    for at, took in probes:
        if took > SLOW * usual:
            began = before if began is None else began
        elif began is not None:
            moments.append((began, at))
            began = None
        before = at
    return moments if began is None else [*moments, (began, probes[-1][0] + probes[-1][1])]


def undisturbed(lives: list[Moment], slow: list[Moment]) -> list[Moment]:
    """Those that no slow moment overlaps; all of them where most would be left out."""
    apart = [
        (began, ended)
        for began, ended in lives
        if not any(began < slow_until and ended > slow_from for slow_from, slow_until in slow)
    ]
    return apart if 2 * len(apart) > len(lives) else lives


def _probe() -> None:
    sys.stdout.buffer.write(b"!")
    sys.stdout.flush()
    probes = bytearray()
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        at, began = time.monotonic_ns(), time.thread_time_ns()
        for _ in range(STEPS):
            pass
        probes += PROBE.pack(at, time.thread_time_ns() - began)
    sys.stdout.buffer.write(probes)


if __name__ == "__main__":
    _probe()
