"""Simulations by the thousand hours: `python -m tests.simulation` (scripts/simulate)."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from typing import Final, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from tests.simulation.faults import Fault
from tests.simulation.mutants import MUTANTS, hunt
from tests.simulation.simulation import Options, Result, Simulation

SEED_HOURS: Final = 2.0
"""As long does a seed last: long enough that its end, which counts for nothing, is the smaller part."""

PROGRESS_SECONDS: Final = 10.0

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate", description="The queue on virtual time, with misfortunes."
    )
    parser.add_argument("--hours", type=float, help=f"virtual hours in all, {SEED_HOURS:g} a seed (default: one seed)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: %(default)s)")
    parser.add_argument(
        "--faults",
        type=_faults,
        metavar="LIST",
        help=f"only these, separated by commas, or none (default: each seed draws its own): {', '.join(Fault)}",
    )
    parser.add_argument("--mutants", action="store_true", help="knock out the guards one by one instead")
    chosen = parser.parse_args(arguments)
    hours = SEED_HOURS if chosen.hours is None else chosen.hours
    if hours <= 0:
        parser.error("some time is needed")
    return _hunt_all() if chosen.mutants else _live(chosen.seed, hours, chosen.faults)


def _faults(text: str) -> frozenset[Fault]:
    return frozenset() if text == "none" else frozenset(Fault(word.strip()) for word in text.split(","))


# -- many hours -----------------------------------------------------------------------------------------------------


def _live(first: int, hours: float, faults: frozenset[Fault] | None) -> int:
    """Spend so many hours over as many seeds as that takes; stop at the first violation."""
    whole, rest = divmod(hours, SEED_HOURS)
    lengths = [SEED_HOURS] * int(whole) + [rest] * (rest > 0)
    planned = [Options(first + place, length, faults) for place, length in enumerate(lengths)]
    total = Total()
    progress = Progress(hours)
    for options, result in _each(simulate, planned):
        if result.violation is not None:
            progress.clear()
            report(options, result)
            return 1
        total.add(result)
        progress.show(total.hours, f"seed {result.seed}")
    progress.clear()
    print(total.sentence(time.monotonic() - progress.began))
    return 0


def simulate(options: Options) -> Result:
    """One seed, in any process."""
    return Simulation(options).run()


def _each(do: Callable[[Options], Result], planned: Sequence[Options]) -> Iterator[tuple[Options, Result]]:
    """What comes of each, as it comes, on as many processors as this process may use."""
    processors = min(len(os.sched_getaffinity(0)), len(planned))
    if processors == 1:
        yield from ((options, do(options)) for options in planned)
        return
    left = iter(planned)
    with ProcessPoolExecutor(processors) as pool:
        running = {pool.submit(do, options): options for options in islice(left, 2 * processors)}
        try:
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
                    for options in left:
                        running[pool.submit(do, options)] = options
                        break
        finally:
            pool.shutdown(cancel_futures=True)


class Total(Struct):
    """What all seeds so far hold together."""

    seeds: int = 0
    hours: float = 0.0
    submissions: int = 0
    calls: int = 0
    events: int = 0
    cpu_seconds: float = 0.0
    struck: Counter[str] = field(default_factory=Counter)
    longest_end: float = 0.0
    """Seconds until everything had ended, at most, and that as a part of its bound."""
    nearest_bound: float = 0.0

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.hours += result.hours
        self.submissions += result.submissions
        self.calls += result.calls
        self.events += result.events
        self.cpu_seconds += result.cpu_seconds
        self.struck.update(result.struck)
        self.longest_end = max(self.longest_end, result.drained_seconds)
        self.nearest_bound = max(self.nearest_bound, result.drained_seconds / result.bound_seconds)

    def sentence(self, seconds: float) -> str:
        """All of it for people; `seconds` is how long it took."""
        faults = ", ".join(f"{times} {fault}" for fault, times in self.struck.most_common()) or "none"
        return (
            f"{self.hours:g} h in {self.seeds} seeds, {seconds:.0f} s: nothing found\n"
            f"a simulated hour: {self.submissions / self.hours:.0f} submissions, {self.calls / self.hours:.0f} calls,"
            f" {self.struck.total() / self.hours:.0f} faults; {self.cpu_seconds / self.hours:.2f} CPU seconds,"
            f" {self.events / self.cpu_seconds:,.0f} events in each\n"
            f"after the last fault all had ended within {self.longest_end:.0f} s,"
            f" {self.nearest_bound:.0%} of the bound at most\n"
            f"faults: {faults}"
        )


class Progress:
    """One line on the terminal that is written again and again; elsewhere one now and then."""

    def __init__(self, hours: float) -> None:
        self.began: Final = time.monotonic()
        self._hours = hours
        self._is_terminal = sys.stderr.isatty()
        self._shown = self.began

    def show(self, hours: float, what: str) -> None:
        now = time.monotonic()
        if now - self._shown < (0.2 if self._is_terminal else PROGRESS_SECONDS):
            return
        self._shown = now
        left = (self._hours - hours) * (now - self.began) / hours
        line = f"{hours:.1f} of {self._hours:g} h ({what}), about {left:.0f} s left"
        print(f"\r\033[K{line}" if self._is_terminal else line, end="" if self._is_terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def clear(self) -> None:
        if self._is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


# -- a violation ----------------------------------------------------------------------------------------------------


def report(options: Options, result: Result) -> None:
    """Print what was violated, what happened before, and how to have it again."""
    print("\n".join(result.last))
    print(f"\nseed {result.seed}, {options.hours:g} h: {result.violation}")
    print(f"its faults: {_listed(result.faults)}")
    print(f"again: {command(options, shrunk(options, result))}", flush=True)


def shrunk(options: Options, result: Result) -> frozenset[Fault]:
    """The faults without which the violation does not come about, as far as leaving them out one by one can tell."""
    faults = result.faults
    for fault in sorted(result.faults):
        if Simulation(replace(options, faults=faults - {fault})).run().violation is not None:
            faults -= {fault}
    return faults


def command(options: Options, faults: frozenset[Fault]) -> str:
    """What replays it."""
    return f"scripts/simulate --seed {options.seed} --hours {options.hours:g} --faults {_listed(faults)}"


def _listed(faults: Iterable[Fault]) -> str:
    return ",".join(sorted(faults)) or "none"


# -- mutants --------------------------------------------------------------------------------------------------------


def _hunt_all() -> int:
    """Knock out one guard after the other; each must be caught, and by a seed that finds nothing with the guard."""
    survivors = 0
    print(f"{'':4} {'without it':45} {'caught by':>9} {'after':>8}  how")
    for guard, mutant in MUTANTS.items():
        hours, result = hunt(mutant)
        seed = f"seed {result.seed}"
        if result.violation is None:
            how = "NOT CAUGHT"
        elif (sound := simulate(Options(result.seed, result.hours, mutant.faults)).violation) is not None:
            how = f"NOT CAUGHT: with the guard too {sound}"
        else:
            how = result.violation
        survivors += how.startswith("NOT CAUGHT")
        print(f"{mutant.promise:4} {guard:45} {seed:>9} {hours:6.2f} h  {how[:200]}", flush=True)
    print(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} mutants were caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
