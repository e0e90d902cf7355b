"""Many hours are as many as were asked for."""

from typing import Any

import pytest

from tests.simulation import __main__ as simulations
from tests.simulation.simulation import Options


def _as_it_is(options: Options) -> Any:
    return options


@pytest.mark.parametrize("processors", [1, 2])
def test_every_seed_that_was_planned_is_simulated(processors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(processors)))
    planned = [Options(seed, 2.0, None) for seed in range(23)]
    done = [result for _, result in simulations._each(_as_it_is, planned)]
    assert sorted(options.seed for options in done) == list(range(23))
