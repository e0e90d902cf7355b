"""The clock, with the kernel's clocks set to what they do on bad days."""

import time

import pytest

from leadline.adapters.system_clock import SystemClock
from leadline_protocol.ids import Instant

HOUR = 3_600 * 1_000_000_000
"""Nanoseconds."""


class Kernel:
    """The kernel's clocks, in nanoseconds, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = 1_800_000_000 * 1_000_000_000
        self.running = 5 * HOUR
        self.suspended = 0
        monkeypatch.setattr(time, "time_ns", lambda: self.wall)
        monkeypatch.setattr(time, "clock_gettime_ns", self.read)

    def read(self, clock: int) -> int:
        return {
            time.CLOCK_MONOTONIC: self.running,
            time.CLOCK_BOOTTIME: self.running + self.suspended,
            time.CLOCK_REALTIME: self.wall,
        }[clock]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_it_goes_on_from_the_instant_that_it_is_given(kernel: Kernel) -> None:
    clock = SystemClock(Instant(1_900_000_000_000_000))
    assert clock.now().instant == 1_900_000_000_000_000
    kernel.running += 1_500
    assert clock.now().instant == 1_900_000_000_000_001
    assert clock.now().wall == 1_800_000_000_000_000


def test_a_wall_clock_set_back_by_three_hours_turns_no_instant_back(kernel: Kernel) -> None:
    clock = SystemClock(Instant(1_000))
    kernel.wall -= 3 * HOUR
    kernel.running += 7_000
    assert clock.now().instant == 1_007
    assert clock.now().wall == 1_800_000_000_000_000 - 3 * 3_600_000_000


def test_the_time_that_a_machine_sleeps_counts(kernel: Kernel) -> None:
    clock = SystemClock(Instant(0))
    kernel.suspended += HOUR
    assert clock.now().instant == 3_600_000_000


def test_a_deadline_is_a_number_of_seconds_away_and_never_less_than_none(kernel: Kernel) -> None:
    clock = SystemClock(Instant(10_000_000))
    assert clock.seconds_until(Instant(12_500_000)) == 2.5
    kernel.running += HOUR
    assert clock.seconds_until(Instant(12_500_000)) == 0.0


def test_the_real_clocks_advance() -> None:
    clock = SystemClock(Instant(1_000_000))
    first, second = clock.now(), clock.now()
    assert 1_000_000 <= first.instant <= second.instant < 2_000_000
    assert abs(first.wall / 1_000_000 - time.time()) < 5
