"""What acceptance tests share: an outside world, and the daemons' own words when something went wrong."""

from collections.abc import Generator, Iterator

import pytest

from tests.acceptance.machine import Machine, installed
from tests.acceptance.stage import Stage, World
from tests.acceptance.stage import world as new_world

LOG_CHARACTERS = 8_000


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The outside world of one file's tests."""
    with new_world() as running:
        yield running


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """The machine on which Leadline is a service; as it takes minutes to make, all tests that want one share it."""
    with installed() as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for stage in Stage.up:
            said = stage.log.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
            report.sections.append((f"log of the daemon in {stage.state_dir.parent}", said))
    return report
