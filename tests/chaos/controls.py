"""Each oracle is shown something that it must not let pass: a daemon with a guard off, or a disk that lies."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from tests.chaos.faults import FAULTS, GroundName
from tests.chaos.run import BREATHER_SECONDS, Plan, Result, Say, run


class Control(msgspec.Struct, frozen=True):
    """What is off, what happens then, and what an oracle must say."""

    name: str
    """As in `sabotage`, or `lying_disk`."""
    ground: GroundName
    faults: Sequence[str]
    found: str
    """A regular expression: one of the violations matches it."""
    seconds: float = 8.0
    breather_seconds: tuple[float, float] = BREATHER_SECONDS

    def missing(self) -> str | None:
        """What this machine lacks for it."""
        return next((lack for name in self.faults if (lack := FAULTS[name].missing())), None)

    def plan(self) -> Plan:
        """What is run."""
        return Plan(
            self.ground,
            [FAULTS[name] for name in self.faults],
            seconds=self.seconds,
            breather_seconds=self.breather_seconds,
        )

    def run(self, seed: int, say: Say = lambda _: None) -> Result:
        """Run it; a result without the violation that is looked for is a failure of chaos itself."""
        return run(self.plan(), seed, mutant=self.name, say=say)

    def seen_in(self, result: Result) -> bool:
        """Whether it was found out."""
        return any(re.search(self.found, violation) for violation in result.violations)


CONTROLS: Final[Sequence[Control]] = (
    Control("answers_first", "beyond", ["kill"], "is gone|two receipts|acknowledged as a noop"),
    Control("forgets_keys", "beyond", ["kill"], "made the jobs|does not say duplicate"),
    Control("forgets_charges", "beyond", ["kill"], r"saw \d+ \w+ within", seconds=15.0),
    Control("forgets_pauses", "beyond", ["restart"], "after the pause", seconds=30.0, breather_seconds=(1.0, 3.0)),
    Control("forgets_results", "beyond", ["kill"], "without need|have a result already|lead_result_pkey"),
    Control("believes_failed", "beyond", ["commit-reply"], "unkeyed noops are stored"),
    Control("knows_no_owner", "beyond", ["second"], "a second daemon should have ended"),
    Control("lying_disk", "home", ["power-cut"], "is gone|no daemon is ready|cannot mount"),
)
