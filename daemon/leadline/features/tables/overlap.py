"""Chunks carried out two at a time, and stored one after the other.

What Postgres does for a chunk keeps one processor busy and leaves the others idle. So the next chunk is begun while the
one before it is being carried out, in a transaction of its own. It is stored in its turn, which has come when the one
before it is known to be stored: so counts and checkpoints are those of chunks done one by one, and where a chunk fails
nothing behind it is kept.

The complication: a transaction that waits for its turn holds its leads. Others who write into the same table may wait
for these and hold what the chunk before needs; of such a circle Postgres sees only a part, and nobody would end it. So
who has waited for his turn too long takes back what he has done, and does it again when his turn has come. So does who
was taken back by Postgres, where it did see the whole circle.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from leadline.ports.store import Contended

PATIENCE_SECONDS: Final = 2.0
"""How long a chunk that is done waits for its turn: several times what one takes."""

T = TypeVar("T")

Turn = Callable[[], Awaitable[None]]
"""Waits until everything before is stored; raises what it failed by."""


class _TurnTooLate(Exception):
    """Somebody may be waiting for what this chunk holds."""


async def overlapped(
    following: Callable[[], Awaitable[T | None]], carry_out: Callable[[T, Turn], Awaitable[None]]
) -> None:
    """Carry out what `following` gives until that is None, each while the one before it is carried out as well.

    `carry_out` awaits its turn before it stores anything, and may be asked a second time. Raises what either of them
    raises; where it is `following`, what was begun before is stored.
    """
    before: asyncio.Task[None] | None = None
    begun: list[asyncio.Task[None]] = []
    try:
        while True:
            try:
                item = await following()
            except Exception:  # whatever it is goes on, once what was begun before it is stored
                if before is not None:
                    await before
                raise
            if item is None:
                break
            begun = [*begun[-1:], asyncio.ensure_future(_in_turn(item, before, carry_out))]
            if before is not None:
                await before
            before = begun[-1]
        if before is not None:
            await before
    finally:
        for task in begun:
            task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*begun, return_exceptions=True)


async def _in_turn(item: T, before: asyncio.Task[None] | None, carry_out: Callable[[T, Turn], Awaitable[None]]) -> None:
    patience: float | None = PATIENCE_SECONDS

    async def turn() -> None:
        if before is not None:
            await asyncio.wait({before}, timeout=patience)
            if not before.done():
                raise _TurnTooLate
            before.result()

    try:
        await carry_out(item, turn)
    except (_TurnTooLate, Contended):
        patience = None
        await turn()
        await carry_out(item, turn)
