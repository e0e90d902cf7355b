"""A short run of everything, and some of the guards switched off: CI's share of scripts/chaos."""

import os
import random

import pytest

from tests.chaos.__main__ import SECONDS, main, plans_of
from tests.chaos.campaign import attack, control
from tests.chaos.controls import CONTROLS
from tests.chaos.faults import FAULTS
from tests.chaos.report import SEEN
from tests.chaos.sabotage import MUTANTS

SEED = int(os.environ.get("LEADLINE_SEED", random.SystemRandom().getrandbits(32)))

QUICK = ("answers_first", "forgets_keys", "believes_failed")
"""The controls that CI runs; scripts/chaos --controls runs all."""


@pytest.mark.timeout(900)
def test_no_promise_is_broken_whatever_breaks() -> None:
    print(f"LEADLINE_SEED={SEED}")
    faults = [fault for fault in FAULTS.values() if fault.missing() is None]
    for result in attack(plans_of(faults, SECONDS), SEED):
        assert result.violations == [], result.log
        assert set(result.struck) == {fault.name for fault in faults if result.ground in fault.grounds}
        assert result.receipts > 500
        assert result.leads > 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", QUICK)
def test_a_guard_that_is_off_is_found_out(name: str) -> None:
    assert control(SEED, [each for each in CONTROLS if each.name == name]) == {name: SEEN}


def test_every_guard_that_can_be_off_has_a_control() -> None:
    assert {each.name for each in CONTROLS} == {*MUTANTS, "lying_disk"}


def test_the_command_knows_its_faults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--faults", "earthquake"])
    assert "there is no fault earthquake" in capsys.readouterr().err
