"""A few seeds of the simulation, and that it can be trusted: it repeats itself exactly, and it notices."""

import os
import subprocess
import sys

import pytest

from leadline.core import events as ev
from leadline.core.model import Now
from leadline.core.scheduler import Scheduler
from leadline_protocol.ids import CallId, Instant, JobId
from tests.architecture.repository import ROOT
from tests.simulation.__main__ import main
from tests.simulation.daemon import Reign
from tests.simulation.faults import Fault, drawn
from tests.simulation.simulation import Options, Parts, Result, Simulation
from tests.simulation.store import Store


def run(seed: int, *, hours: float = 0.2, faults: frozenset[Fault] | None = None, parts: Parts | None = None) -> Result:
    return Simulation(Options(seed, hours, faults, parts or Parts())).run()


@pytest.mark.parametrize("seed", range(1, 7))
def test_whatever_goes_wrong_every_job_ends_and_the_books_balance(seed: int) -> None:
    result = run(seed)
    assert result.violation is None, "\n".join([*result.last, result.violation])


def test_without_any_fault_too() -> None:
    result = run(1, faults=frozenset())
    assert result.violation is None
    assert not result.struck


def test_with_every_fault_at_once_too() -> None:
    result = run(7, hours=0.5, faults=frozenset(Fault))
    assert result.violation is None, "\n".join([*result.last, result.violation])
    assert len(result.struck) > 10


def test_a_simulated_hour_holds_enough_to_go_wrong() -> None:
    results = [run(seed, hours=0.25) for seed in (21, 22)]
    assert sum(result.submissions for result in results) >= 0.5 * 200
    assert sum(result.calls for result in results) >= 0.5 * 2000
    assert all(sum(result.struck.values()) >= 0.25 * 5 for result in results)


def test_each_seed_draws_faults_of_its_own_and_every_fault_is_drawn() -> None:
    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(20)}) == 20
    assert set(Fault) == set().union(*(drawn(seed) for seed in range(20)))


def test_equal_seeds_give_equal_histories_under_any_hash_seed() -> None:
    program = (
        "from tests.simulation.simulation import Options, Simulation\nprint(Simulation(Options(3, 0.1)).run().trace)\n"
    )
    traces = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert traces[0] == traces[1] != ""
    assert Simulation(Options(4, 0.1)).run().trace != traces[0].strip()


class DeafScheduler(Scheduler):
    """Forgets every tenth end of a call."""

    def _call_ended(self, event: ev.CallEnded) -> None:
        if event.call % 10:
            super()._call_ended(event)


class HastyScheduler(Scheduler):
    """Believes that time runs a little faster than it does."""

    def handle(self, events: list[ev.Event], now: Now) -> object:  # type: ignore[override]  # only what it needs
        fast = Instant(now.instant + (now.instant - 1_800_000_000_000_000) // 10)
        return super().handle(events, Now(fast, now.wall))


class UnfencedReign(Reign):
    """Writes though another has taken over."""

    def is_owner(self) -> bool:
        return True


class TrustfulStore(Store):
    """Takes what attempts write without asking whether they are still the present ones."""

    def is_present(self, epoch: int, job: JobId, number: int) -> bool:
        return True


class PatientScheduler(Scheduler):
    """Lets a permit be used at any time."""

    def may_send(self, call: CallId, instant: Instant) -> bool:
        return self.accounts[self.calls[call].account].may_send(call, instant)


MUTANTS = {
    "ends of calls that are not heard": Parts(scheduler=DeafScheduler),
    "windows that are over too early": Parts(scheduler=HastyScheduler),
    "a fence that is dropped": Parts(reign=UnfencedReign),
    "late writes of attempts that are over": Parts(store=TrustfulStore),
    "permits that never grow old": Parts(scheduler=PatientScheduler),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(mutant: str) -> None:
    faults = frozenset({Fault.TAKEOVER, Fault.SLOW_NETWORK})
    seeds = (2, 4, 6, 1)
    assert any(run(seed, hours=0.3, faults=faults, parts=MUTANTS[mutant]).violation is not None for seed in seeds)


def test_the_command_prints_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "2", "--seed", "5", "--hours", "0.05"]) == 0
    first, second, summary = capsys.readouterr().out.splitlines()
    assert first.startswith("seed 5: 0.1 h, ")
    assert "events per CPU second" in second
    assert summary.startswith("2 seeds in ")
