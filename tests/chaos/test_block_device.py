"""The disk forgets what a real one would forget, and nothing else."""

import random
from pathlib import Path

import pytest

from tests.chaos.block_device import SECTOR, Platter

OLD, NEW = b"o" * SECTOR, b"n" * SECTOR
SECTORS = 64


@pytest.fixture
def platter(tmp_path: Path) -> Platter:
    for name in ("now", "durable"):
        (tmp_path / name).write_bytes(OLD * SECTORS)
    return Platter(tmp_path)


def sectors(platter: Platter) -> list[bytes]:
    return [platter.read(number * SECTOR, SECTOR) for number in range(SECTORS)]


def test_what_was_flushed_survives_a_cut(platter: Platter) -> None:
    platter.write(0, NEW * SECTORS)
    platter.flush()
    platter.cut(random.Random(1), 0.0)
    assert sectors(platter) == [NEW] * SECTORS


def test_what_was_not_flushed_is_read_back_until_a_cut_and_lost_by_it(platter: Platter) -> None:
    platter.write(0, NEW * SECTORS)
    assert sectors(platter) == [NEW] * SECTORS
    assert platter.cut(random.Random(1), 0.0) == (0, SECTORS)
    assert sectors(platter) == [OLD] * SECTORS


def test_a_write_may_be_torn_between_any_two_sectors(platter: Platter) -> None:
    platter.write(0, NEW * SECTORS)
    kept, lost = platter.cut(random.Random(1), 0.5)
    assert 0 < kept < SECTORS
    assert (sectors(platter).count(NEW), sectors(platter).count(OLD)) == (kept, lost)


def test_a_later_write_may_arrive_and_the_one_before_it_not(platter: Platter) -> None:
    platter.write(0, NEW * (SECTORS // 2))
    platter.write(SECTORS // 2 * SECTOR, NEW * (SECTORS // 2))
    platter.cut(random.Random(2), 0.5)
    assert OLD in sectors(platter)[: SECTORS // 2]
    assert NEW in sectors(platter)[SECTORS // 2 :]


def test_a_disk_that_lies_loses_what_it_said_was_safe(platter: Platter) -> None:
    platter.lies = True
    platter.write(0, NEW * SECTORS)
    platter.flush()
    platter.cut(random.Random(1), 0.0)
    assert sectors(platter) == [OLD] * SECTORS
