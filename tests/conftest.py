"""What every test directory shares: markers for what a test needs, and an honest account of what did not run.

A suite that is skipped in silence is taken for one that passed. So the run ends with what was left out and the command
that brings it, and `--require-all`, which CI passes, turns every skip into a failure. `--tally FILE` adds the counts of
this run to a file, so that scripts/test can close several runs with one line.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import system_tools
from tests.ports import held_port

# How long an example takes says something about the machine, and about whatever else runs on it.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# A landing must not hang on what is drawn that day: there the examples are the same each time, elsewhere new.
settings.register_profile("landing", settings.get_profile("any machine"), derandomize=True)
settings.load_profile("any machine")

MISSING_TOOL = "missing_tool"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-all", action="store_true", help="a test that is skipped counts as failed")
    parser.addoption("--tally", type=Path, metavar="FILE", help="append 'passed failed skipped' of this run to FILE")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--require-all"):
        settings.load_profile("landing")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    needed = [tool for mark in item.iter_markers("needs") for tool in mark.args]
    for tool in needed:
        assert tool in system_tools.DEBIAN_PACKAGE, f"tests/system_tools.py knows no Debian package for {tool}"
    absent = system_tools.missing(needed)
    if absent:
        # On the report, because that is all a worker of xdist sends to the process that prints the summary.
        item.user_properties.extend((MISSING_TOOL, tool) for tool in absent)
        pytest.skip(f"{', '.join(absent)} not installed")
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def unused_tcp_port() -> Iterator[int]:
    """In place of the one of pytest-asyncio, which somebody else may be given before the test listens there."""
    with held_port() as port:
        yield port


def is_worker(config: pytest.Config) -> bool:
    """Whether this is a process of xdist that runs a share of the tests for another, which keeps the account."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if is_worker(session.config) or not session.config.getoption("--require-all"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if is_worker(config):
        return
    passed, failed, errors, skipped = (
        len(terminalreporter.stats.get(outcome, [])) for outcome in ("passed", "failed", "error", "skipped")
    )
    absent = {
        str(value)
        for report in terminalreporter.stats.get("skipped", [])
        for name, value in getattr(report, "user_properties", [])
        if name == MISSING_TOOL
    }
    if absent:
        terminalreporter.write_line(
            f"Left out for want of tools. To run everything: {system_tools.apt_command(absent)}"
        )
    if skipped and config.getoption("--require-all"):
        terminalreporter.write_line(f"--require-all: {skipped} skipped, which counts as failed", red=True)
    tally = config.getoption("--tally")
    if tally is not None:
        with tally.open("a") as file:
            file.write(f"{passed} {failed + errors} {skipped}\n")
