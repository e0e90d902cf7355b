"""Runs in processes of their own: both grounds side by side, or the controls one after the other.

Each process mounts in a namespace of its own, so that nothing stays behind, however it ends.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.chaos import disk, report
from tests.chaos.controls import CONTROLS, Control
from tests.chaos.run import Plan, Result, run


def attack(plans: Sequence[Plan], seed: int) -> list[Result]:
    """Carry the plans out, side by side."""
    with ProcessPoolExecutor(len(plans), get_context("spawn")) as processes:
        begun = [processes.submit(_attack, plan, seed) for plan in plans]
        return [each.result() for each in begun]


def control(seed: int, controls: Sequence[Control] = CONTROLS) -> dict[str, str]:
    """Run the controls; what came of each, by name."""
    words = {}
    for each in controls:
        if (lack := each.missing()) is not None:
            words[each.name] = f"skipped: {lack}"
        else:
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                words[each.name] = process.submit(_control, each, seed).result()
        print(f"{each.name}: {words[each.name]}", flush=True)
    return words


def _attack(plan: Plan, seed: int) -> Result:
    _prepare()

    def say(line: str) -> None:
        print(f"{plan.ground:6} {line}", flush=True)

    return run(plan, seed, say=say)


def _control(each: Control, seed: int) -> str:
    _prepare()
    result = each.run(seed)
    if each.seen_in(result):
        return report.SEEN
    print("\n".join(result.violations[:20]) or "no violation at all", file=sys.stderr)
    return report.NOT_SEEN


def _prepare() -> None:
    if disk.missing() is None:
        disk.keep_mounts_to_ourselves()
