"""One run: load on a ground, faults in an order drawn from the seed, a quiet end, and the verdict.

When the last fault is over everybody finishes what he had begun, and that may take only so long: as long as what is
left takes at the providers' limits, and a margin for what a daemon waits for at a start. Then nothing may be left over.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from tests.chaos import oracles
from tests.chaos.faults import Fault, GroundName
from tests.chaos.ground import Ground, at_home, beyond
from tests.chaos.load import Load
from tests.chaos.oracles import Trouble
from tests.chaos.services import FLIGHT_SECONDS, Outside, outside
from tests.world.log import read_clocks

BREATHER_SECONDS: Final = (0.05, 0.7)
"""Between two faults: enough for a commit and some calls, too little for all to be well again."""

START_SECONDS: Final = 30.0
"""What a start, a back-off after a broken answer and the permits of a predecessor may take together."""

LATENCY_SECONDS: Final = 1.0
POLLS_MAX: Final = 4
"""Requests that a lead of the polled provider takes at most."""

Say = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True):
    """Which faults, on which ground, and how many of them."""

    ground: GroundName
    faults: Sequence[type[Fault]]
    seconds: float | None = None
    """So long, each at least once and then by their weights; or:"""
    counts: Mapping[str, int] = {}
    """So often each, in a random order."""
    breather_seconds: tuple[float, float] = BREATHER_SECONDS


class Result(msgspec.Struct):
    """What came of it."""

    ground: GroundName
    seed: int
    struck: Counter[str] = msgspec.field(default_factory=Counter)
    violations: list[str] = []
    log: str = ""
    """Where the daemons' log is kept, where there were violations."""
    seconds: float = 0.0
    drained_seconds: float = 0.0
    bound_seconds: float = 0.0
    receipts: int = 0
    lost_receipts: int = 0
    chains: int = 0
    cancels: int = 0
    pauses: int = 0
    releases: int = 0
    calls: int = 0
    leads: int = 0
    sectors_kept: int = 0
    sectors_lost: int = 0


def run(plan: Plan, seed: int, *, mutant: str | None = None, say: Say = lambda _: None) -> Result:
    """Carry a plan out. A daemon with a name in `sabotage` may be attacked in place of the real one."""
    result = Result(plan.ground, seed)
    began = time.monotonic()
    places = {"home": at_home, "beyond": beyond}
    with outside() as world, places[plan.ground](world, mutant=mutant) as ground:
        load = Load(ground, seed)
        troubles: list[Trouble] = []
        try:
            load.start()
            _attack(plan, ground, load, random.Random(f"{seed} {plan.ground}"), troubles, result, say)
            _settle(ground, load, result)
            result.violations += _verdict(ground, load, troubles)
        except AssertionError as error:  # a daemon that does not come up, a disk that cannot be mounted any more
            result.violations.append(str(error))
        finally:
            load.stop()
        _tell(ground, load, result)
        if result.violations and mutant is None:
            result.log = str(ground.keep_log())
    result.seconds = time.monotonic() - began
    return result


def _attack(
    plan: Plan,
    ground: Ground,
    load: Load,
    chance: random.Random,
    troubles: list[Trouble],
    result: Result,
    say: Say,
) -> None:
    for fault in _drawn(plan, chance):
        time.sleep(chance.uniform(*plan.breather_seconds))
        load.check()
        began = read_clocks().instant
        try:
            found = [f"{fault.name}: {what}" for what in fault().strike(ground, chance)]
        finally:
            troubles.append(Trouble(fault.name, began, read_clocks().instant))
        result.struck[fault.name] += 1
        result.violations += found
        say(f"{sum(result.struck.values()):5}  {fault.name:15} {(troubles[-1].ended_us - began) / 1e6:5.1f} s")


def _drawn(plan: Plan, chance: random.Random) -> Iterator[type[Fault]]:
    if plan.seconds is None:
        every = [fault for fault in plan.faults for _ in range(plan.counts[fault.name])]
        yield from chance.sample(every, len(every))
        return
    deadline = time.monotonic() + plan.seconds
    yield from chance.sample(list(plan.faults), len(plan.faults))
    while time.monotonic() < deadline:
        yield from chance.choices(plan.faults, [fault.weight for fault in plan.faults])


def _settle(ground: Ground, load: Load, result: Result) -> None:
    """Let everybody finish; that is bounded."""
    load.stop()
    bound = result.bound_seconds = bound_seconds(ground.outside, load)
    began = time.monotonic()
    while not load.is_over():
        if time.monotonic() > began + bound:
            left = [f"{chain.key} of {chain.teamspace} (job {chain.job}, {chain.state})" for chain in load.left()]
            alive = [client.name for client in load.clients if client.is_alive()]
            result.violations.append(f"not over {bound:.0f} s after the last fault: {', '.join(left)}; {alive}")
            return
        time.sleep(0.05)
    result.drained_seconds = time.monotonic() - began


def bound_seconds(world: Outside, load: Load) -> float:
    """How long it may take until all that was begun has ended: what is left, one provider after the other, each at the
    rate that its windows allow, where every charge counts from the answer on and each answer is slow.
    """
    seconds = START_SECONDS
    for service in world.services:
        leads = sum(len(chain.emails) for chain in load.left() if service.name in (chain.service, "model"))
        for limit in service.limits:
            calls = leads * (POLLS_MAX if service.name == "register" and limit.unit == "request" else 1)
            seconds += calls / limit.amount * (limit.seconds + FLIGHT_SECONDS + LATENCY_SECONDS)
    return seconds


def _verdict(ground: Ground, load: Load, troubles: Sequence[Trouble]) -> Iterator[str]:
    calls = ground.outside.calls()
    diary = load.diary
    books = oracles.read_books(ground.query)
    yield from sorted(diary.strange)
    yield from oracles.receipts(diary, books.jobs)
    yield from oracles.ends(diary, books)
    yield from oracles.windows(calls, {service.name: service.limits for service in ground.outside.services})
    yield from oracles.repeats(calls, troubles)
    yield from oracles.quiet(calls, diary.quiets)
    yield from oracles.books_balance(calls, books)
    yield from oracles.tables(diary.chains, ground.state / "exports")


def _tell(ground: Ground, load: Load, result: Result) -> None:
    diary = load.diary
    result.receipts = len(diary.unkeyed) + sum(map(len, diary.keyed.values()))
    result.lost_receipts = diary.unkeyed_lost + diary.lost_on_purpose
    result.chains = len(diary.chains)
    result.cancels = sum(quiet.until_us is None for quiet in diary.quiets)
    result.pauses = sum(quiet.until_us is not None for quiet in diary.quiets)
    result.releases = diary.releases
    result.calls = sum(map(len, ground.outside.calls().values()))
    result.leads = sum(len(chain.emails) for chain in diary.chains if chain.state == "completed")
    result.sectors_kept, result.sectors_lost = ground.sectors_kept, ground.sectors_lost
