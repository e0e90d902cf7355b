"""A few seeds of the simulation, and that it can be trusted: it repeats itself exactly, and it notices."""

import os
import subprocess
import sys

import pytest

from leadline_protocol.ids import Instant
from tests.architecture.repository import ROOT
from tests.simulation import __main__ as command
from tests.simulation.faults import Fault, drawn
from tests.simulation.mutants import MUTANTS, hunt
from tests.simulation.simulation import Options, Parts, Result, Simulation
from tests.simulation.store import Store


def run(seed: int, *, hours: float = 0.25, faults: frozenset[Fault] | None = None) -> Result:
    return Simulation(Options(seed, hours, faults)).run()


def assert_sound(result: Result) -> None:
    assert result.violation is None, "\n".join([*result.last, result.violation])


@pytest.mark.parametrize("seed", range(1, 7))
def test_whatever_goes_wrong_every_job_ends_and_the_books_balance(seed: int) -> None:
    assert_sound(run(seed))


def test_without_any_fault_too() -> None:
    result = run(1, faults=frozenset())
    assert_sound(result)
    assert not result.struck


def test_with_every_fault_at_once_too() -> None:
    result = run(7, hours=0.5, faults=frozenset(Fault))
    assert_sound(result)
    assert len(result.struck) > 10


REGRESSIONS: dict[str, Options] = {
    # Places that a crash had left taken became free with nobody looking: a provider's calls waited for ever.
    "places that a crash has left taken become free": Options(4, 0.5, frozenset({Fault.CRASH})),
    # A call that was given back unsent was counted against the teamspace that made another in its place.
    "a call that is given back is not counted as made": Options(3000, 0.8),
    # A provider's canary hung, and its attempt was excused because its other leads waited, for that canary.
    "a canary that hangs is missed": Options(3051),
    # A reign that lost its database at once had been told who ran at the crash before, and nobody after it was.
    "a crash counts though the next reign cannot begin": Options(4054, 0.6),
    # A job had left its queue by a decision that was still on its way to the disk: the witness counted it as waiting.
    "what is decided ahead sees what is decided": Options(10114, 2.0),
    # A person had paused and resumed a job that was only suspected: the witness took that for a pardon.
    "to resume a suspect is no pardon": Options(
        30434,
        1.1,
        frozenset(
            {
                Fault.COMMIT_REFUSED,
                Fault.DEADLY_JOB,
                Fault.LIMITS,
                Fault.PAUSE,
                Fault.SERVER_ERROR,
                Fault.STUCK_LEAD,
            }
        ),
    ),
}
"""Seeds that have found something, with the faults that it took."""


@pytest.mark.parametrize("regression", REGRESSIONS)
def test_what_was_found_once_is_not_found_again(regression: str) -> None:
    assert_sound(Simulation(REGRESSIONS[regression]).run())


def test_a_simulated_hour_holds_enough_to_go_wrong() -> None:
    results = [run(seed, hours=0.5) for seed in (21, 22, 23, 24)]
    for result in results:
        assert_sound(result)
    hours = sum(result.hours for result in results)
    assert sum(result.submissions for result in results) >= 200 * hours
    assert sum(result.calls for result in results) >= 2_000 * hours
    assert all(result.struck.total() >= 5 * result.hours for result in results)


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


@pytest.mark.parametrize("guard", MUTANTS)
def test_a_daemon_without_this_guard_is_caught(guard: str) -> None:
    mutant = MUTANTS[guard]
    _, result = hunt(mutant, seeds=6)
    assert result.violation is not None


def test_a_failure_tells_how_to_have_it_again_with_the_fewest_faults(capsys: pytest.CaptureFixture[str]) -> None:
    class Forgetful(Store):
        """Loses every call that a crash cuts off."""

        def cut_off_calls(self, instant: Instant) -> None:
            for call in [call for call, stored in self.calls.items() if stored.state == "sent"]:
                del self.calls[call]

    options = Options(1, 0.3, frozenset({Fault.CRASH, Fault.CUT, Fault.LINGER}), Parts(store=Forgetful))
    result = Simulation(options).run()
    assert result.violation is not None
    command.report(options, result)
    *last, blank, violation, faults, again = capsys.readouterr().out.splitlines()
    assert 100 < len(last) <= 200
    assert blank == ""
    assert violation == f"seed 1, 0.3 h: {result.violation}"
    assert faults == "its faults: crash,cut,linger"
    assert again == "again: scripts/simulate --seed 1 --hours 0.3 --faults crash"


def test_the_command_spreads_its_hours_over_seeds_and_says_what_they_held(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "SEED_HOURS", 0.05)
    assert command.main(["--hours", "0.12", "--seed", "5"]) == 0
    found, density, _, faults = capsys.readouterr().out.splitlines()
    assert found.startswith("0.12 h in 3 seeds, ")
    assert found.endswith(": nothing found")
    assert density.startswith("a simulated hour: ")
    assert faults.startswith("faults: ")
