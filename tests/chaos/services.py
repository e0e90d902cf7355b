"""The providers of a run: company data by one call, the same by a start and polls, and a model; each keeps its limits
to itself and writes down what reached it.

A provider that answers 429 would hide an overrun by refusing it. So these serve everybody, and the oracle counts.
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from tests.world import behaviours
from tests.world.behaviours import SECOND, Behaviour
from tests.world.log import Call
from tests.world.servers import Served, serving

HERE: Final = Path(__file__).parent
KEY: Final = "chaos-key-3b1f"
FLIGHT_SECONDS: Final = 0.5
"""On one machine nothing travels longer, and every crash costs the calls in flight so much."""


class Limit(msgspec.Struct, frozen=True):
    """At most so many units in any window of so many seconds."""

    amount: int
    seconds: float
    unit: Literal["request", "lead"] = "request"


class Service(msgspec.Struct, frozen=True):
    """A provider account: how it behaves, what it allows, and how the daemon knows it."""

    name: str
    behaviour: Behaviour
    limits: Sequence[Limit]
    how: Sequence[str]

    def configuration(self, url: str) -> str:
        """Its part of the daemon's configuration."""
        limits = ", ".join(
            f'{{ shape = "window", amount = {limit.amount}, per_seconds = {limit.seconds}, unit = "{limit.unit}" }}'
            for limit in self.limits
        )
        return "\n".join(
            [
                f"[providers.{self.name}]",
                *self.how,
                f'base_url = "{url}"',
                f'secret = "{KEY}"',
                f"limits = [{limits}]",
                f"flight_seconds = {FLIGHT_SECONDS}",
                "",
            ]
        )


def services() -> Sequence[Service]:
    """A fresh set. Their windows are longer than a restart takes: a daemon that forgot what it had asked would show."""
    company = behaviours.Delayed(behaviours.Enrichment(), median_us=SECOND // 20, seed=1)
    register = behaviours.Delayed(behaviours.Polling(seconds=0.4), median_us=SECOND // 50, seed=2)
    model = behaviours.Delayed(behaviours.ChatCompletions(), median_us=SECOND // 12, seed=3)
    return [
        Service("company", company, [Limit(40, 4.0)], [f'module = "{HERE / "modules" / "company.toml"}"']),
        Service(
            "register",
            register,
            [Limit(20, 4.0, "lead"), Limit(70, 4.0)],
            [f'module = "{HERE / "modules" / "register.toml"}"'],
        ),
        Service("model", model, [Limit(60, 5.0)], ['preset = "openai"', 'settings = { model = "small" }']),
    ]


class Outside:
    """Those services over HTTP, in a thread with a loop of its own; `loop` may be lent to others."""

    def __init__(self) -> None:
        self.services: Final = services()
        self.loop: Final = asyncio.new_event_loop()
        self._served: dict[str, Served] = {}

    def calls(self) -> Mapping[str, Sequence[Call]]:
        """What reached each of them, in order."""
        return {name: list(served.calls) for name, served in self._served.items()}

    def configuration(self) -> str:
        """All of them, for the daemon."""
        return "\n".join(service.configuration(self._served[service.name].url) for service in self.services)

    async def serve(self, stack: AsyncExitStack) -> None:
        """Bring them up."""
        for service in self.services:
            self._served[service.name] = await stack.enter_async_context(serving(service.behaviour, name=service.name))


@contextmanager
def outside() -> Iterator[Outside]:
    """The services, for the time of the block."""
    world = Outside()
    thread = threading.Thread(target=world.loop.run_forever, name="outside", daemon=True)
    thread.start()
    stack = AsyncExitStack()
    try:
        asyncio.run_coroutine_threadsafe(world.serve(stack), world.loop).result(10)
        yield world
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), world.loop).result(10)
        world.loop.call_soon_threadsafe(world.loop.stop)
        thread.join()
        world.loop.close()
