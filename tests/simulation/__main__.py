"""Simulations by the dozen: `python -m tests.simulation --seeds N --seed S --hours H` (scripts/simulate)."""

import argparse
import sys
import time
from collections.abc import Sequence

from msgspec.structs import replace

from tests.simulation.faults import Fault
from tests.simulation.simulation import Options, Result, Simulation


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate", description="The queue on virtual time, with misfortunes."
    )
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds to run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the first of them (default: %(default)s)")
    parser.add_argument("--hours", type=float, default=1.0, help="virtual hours each (default: %(default)s)")
    parser.add_argument(
        "--faults",
        type=_faults,
        metavar="LIST",
        help=f"only these, separated by commas, or none (default: drawn): {', '.join(Fault)}",
    )
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 1 or chosen.hours <= 0:
        parser.error("at least one seed and some time are needed")
    began = time.monotonic()
    results = []
    for seed in range(chosen.seed, chosen.seed + chosen.seeds):
        options = Options(seed, chosen.hours, chosen.faults)
        result = Simulation(options).run()
        results.append(result)
        if result.violation is not None:
            print("\n".join(result.last))
            print(f"\nseed {seed}: {result.violation}")
            print(f"again: {command(options, shrunk(options, result))}")
            return 1
        print(sentence(result), flush=True)
    if len(results) > 1:
        print(f"{len(results)} seeds in {time.monotonic() - began:.0f} s: {summary(results)}")
    return 0


def _faults(text: str) -> frozenset[Fault]:
    return frozenset() if text == "none" else frozenset(Fault(word.strip()) for word in text.split(","))


def shrunk(options: Options, result: Result) -> frozenset[Fault]:
    """The faults without which the violation does not come about, as far as leaving them out one by one can tell."""
    faults = result.faults
    for fault in sorted(result.faults):
        if Simulation(replace(options, faults=faults - {fault})).run().violation is not None:
            faults -= {fault}
    return faults


def command(options: Options, faults: frozenset[Fault]) -> str:
    """What replays it."""
    listed = ",".join(sorted(faults)) or "none"
    return f"scripts/simulate --seeds 1 --seed {options.seed} --hours {options.hours:g} --faults {listed}"


def sentence(result: Result) -> str:
    """One seed in one line."""
    faults = ", ".join(f"{times} {fault}" for fault, times in sorted(result.struck.items()))
    return (
        f"seed {result.seed}: {result.hours:.1f} h, {result.submissions} submissions, {result.calls} calls,"
        f" {sum(result.struck.values())} faults ({faults}); {result.decisions} decisions,"
        f" {result.events / result.cpu_seconds:,.0f} events per CPU second;"
        f" all ended {result.drained_seconds:.0f} s after the last fault (bound {result.bound_seconds:.0f});"
        f" trace {result.trace}"
    )


def summary(results: Sequence[Result]) -> str:
    """All seeds in one line."""
    hours = sum(result.hours for result in results)
    events = sum(result.events for result in results) / sum(result.cpu_seconds for result in results)
    return (
        f"per hour {sum(result.submissions for result in results) / hours:.0f} submissions,"
        f" {sum(result.calls for result in results) / hours:.0f} calls,"
        f" {sum(sum(result.struck.values()) for result in results) / hours:.0f} faults;"
        f" {events:,.0f} events per CPU second"
    )


if __name__ == "__main__":
    sys.exit(main())
