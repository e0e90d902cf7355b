"""The daemon with one guard off: `python -m tests.chaos.sabotage NAME serve …`.

A test that cannot fail proves nothing. Each of these leaves out one thing on which a promise rests, here and nowhere in
the product, and `controls` sees that the same load, the same fault and the same oracles find it out.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from leadline import main as composition
from leadline.actors.dispatcher import Dispatcher
from leadline.adapters.postgres.fence import Fence
from leadline.adapters.postgres.leads import PostgresLeads
from leadline.adapters.postgres.queries import QUERIES
from leadline.adapters.postgres.store import PostgresStore
from leadline.cli.app import run
from leadline.core.effects import Effects
from leadline.core.events import Event, Submitted
from leadline.core.provider_account import ProviderAccount
from leadline.core.recovery import Recovery
from leadline_protocol.ids import JobId, LeadId

HEAD_START_SECONDS: Final = 0.1
"""How long before its commit a hasty daemon answers."""


def answers_first() -> None:
    """Whoever asked is answered before the commit."""
    land = Dispatcher._land

    async def hasty(self: Dispatcher, effects: Effects, batch: Sequence[Any]) -> None:
        for posted, answer in zip(batch, effects.answers, strict=True):
            if posted.answer is not None and not posted.answer.done():
                posted.answer.set_result(answer)
        await anyio.sleep(HEAD_START_SECONDS)
        await land(self, effects, batch)

    Dispatcher._land = hasty  # type: ignore[method-assign]


def forgets_keys() -> None:
    """Idempotency keys are neither looked up nor kept."""

    async def without(self: Dispatcher, events: list[Event]) -> list[Event]:
        return [
            Submitted([msgspec.structs.replace(new, key=None) for new in event.jobs])
            if isinstance(event, Submitted)
            else event
            for event in events
        ]

    Dispatcher._with_known_keys = without  # type: ignore[method-assign]


def forgets_charges() -> None:
    """What was asked of providers before a start is not counted."""
    restore = ProviderAccount.restore

    def blank(self: ProviderAccount, calls: Any, snapshot: Any, instant: Any) -> None:
        restore(self, (), snapshot, instant)

    ProviderAccount.restore = blank  # type: ignore[method-assign]


def forgets_pauses() -> None:
    """What people have paused is not paused after a start."""

    def blank(self: Recovery, rows: Any) -> None:
        pass

    Recovery.pauses = blank  # type: ignore[method-assign]


def forgets_results() -> None:
    """Leads that have a result are asked about again after a start."""

    async def everybody(self: PostgresLeads, job: JobId, leads: Sequence[LeadId]) -> Sequence[LeadId]:
        return leads

    PostgresLeads.unsettled = everybody  # type: ignore[method-assign]


def believes_failed() -> None:
    """A COMMIT without an answer is taken for one that failed."""

    async def failed(self: Fence, transaction: str, witness: Any) -> bool | None:
        return False

    Fence._look_up = failed  # type: ignore[method-assign]


def knows_no_owner() -> None:
    """Neither the owner's locks nor the epoch keep anybody out."""

    @contextmanager
    def anybody(state_dir: Path, **_: object) -> Iterator[str]:
        yield ""

    async def unlocked(self: PostgresStore, *, force: bool) -> Any:
        if self._owner is None or self._owner.is_closed():
            self._owner = await self._connections.dedicated()
        return self._owner

    composition.sole_owner = anybody  # type: ignore[attr-defined]
    PostgresStore._own = unlocked  # type: ignore[method-assign]
    fence = QUERIES["fence"]
    QUERIES["fence"] = msgspec.structs.replace(fence, sql=fence.sql.replace("epoch = $1", "epoch >= $1"))  # type: ignore[index]


MUTANTS: Final[Mapping[str, Callable[[], None]]] = {
    mutant.__name__: mutant
    for mutant in (
        answers_first,
        forgets_keys,
        forgets_charges,
        forgets_pauses,
        forgets_results,
        believes_failed,
        knows_no_owner,
    )
}

if __name__ == "__main__":
    MUTANTS[sys.argv[1]]()
    sys.exit(run(sys.argv[2:]))
