"""The command."""

import argparse
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.chaos import report
from tests.chaos.campaign import attack, control
from tests.chaos.faults import FAULTS, Fault, GroundName, TakeOver
from tests.chaos.run import Plan

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "daemon" / "docs" / "reliability.md"
SECONDS: Final = 120.0
FULL: Final[Mapping[str, int]] = {"kill": 500, "takeover": 100, "power-cut": 50}
FULL_OF_OTHERS: Final = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Its exit status is 0 where nothing was violated, or every control was found out."""
    chosen = _parser().parse_args(arguments)
    seed = random.SystemRandom().getrandbits(32) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)
    faults = [FAULTS[name] for name in chosen.faults]
    skipped = {fault.name: lack for fault in faults if (lack := fault.missing()) is not None}
    for name, lack in skipped.items():
        print(f"skipped: {name}: {lack}")
    controls = control(seed) if chosen.controls else {}
    if chosen.controls and not chosen.report:
        return int(report.NOT_SEEN in controls.values())
    plans = plans_of([fault for fault in faults if fault.name not in skipped], None if chosen.full else chosen.seconds)
    results = attack(plans, seed)
    for result in results:
        print(report.sentence(result))
        for violation in result.violations:
            print(f"violation: {violation}")
        if result.log:
            print(f"the logs of daemons and server: {result.log}")
    if chosen.report:
        report.write_into(DOCUMENT, results, skipped, controls, _command(chosen, seed))
    return int(any(result.violations for result in results) or report.NOT_SEEN in controls.values())


def plans_of(faults: Sequence[type[Fault]], seconds: float | None) -> list[Plan]:
    """Which ground gets which of the faults; where both have one, each gets half of its number.

    Counted, take-overs get a run of their own: each waits for seconds, in which the others need not wait.
    """
    apart = [TakeOver] if seconds is None and TakeOver in faults else []
    together = [fault for fault in faults if fault not in apart]
    runs: list[tuple[GroundName, Sequence[type[Fault]]]] = [("home", together), ("beyond", together), ("beyond", apart)]
    plans = []
    for ground, these in runs:
        here = [fault for fault in these if ground in fault.grounds]
        if here:
            counts = {fault.name: FULL.get(fault.name, FULL_OF_OTHERS) // len(fault.grounds) for fault in here}
            plans.append(Plan(ground, here, seconds, counts))
    return plans


def _command(chosen: argparse.Namespace, seed: int) -> str:
    words = ["scripts/chaos", "--full" if chosen.full else f"--seconds {chosen.seconds:g}", f"--seed {seed}"]
    if set(chosen.faults) != set(FAULTS):
        words.append(f"--faults {','.join(chosen.faults)}")
    return " ".join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos", description="The real daemon under load while everything round it breaks."
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=SECONDS, help="so long (default: %(default)g)")
    length.add_argument("--full", action="store_true", help="500 kills, 100 take-overs, 50 power cuts, and the rest")
    parser.add_argument("--seed", type=int, help="the order of the faults (default: drawn, and printed)")
    parser.add_argument("--faults", type=_faults, default=list(FAULTS), help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--controls", action="store_true", help="take one guard off at a time")
    parser.add_argument("--report", action="store_true", help=f"put the result into {DOCUMENT.name}")
    return parser


def _faults(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in FAULTS:
            raise argparse.ArgumentTypeError(f"there is no fault {name}; there are {', '.join(FAULTS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
