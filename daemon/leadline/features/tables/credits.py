"""What leads cost, in credits: exact decimals, from what a provider's module says.

A price has two parts, and either may be nothing. So much *for a lead*, due once per lead and provider: with its result
(`charge_on = "result"`), or as soon as the provider has answered about it, found or not (`"request"`). And so much *for
tokens*, due with every answer of a model, usable or not. Being thrown back and server errors cost nothing.

Before a call goes out nobody knows what it will come to, so what it may come to at most is set aside (`price_of`); the
answer settles it (`charge_of`). That is how a spend cap holds with any number of calls in flight (`Budget`): leads wait
for what is set aside to come free, and only when nothing in flight can free it any more is there no room.

The modules' prices are written as TOML and JSON numbers, which Python reads as floats. The shortest decimal that stands
for such a float is what was written, so no digit is lost on the way.
"""

from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Final

import anyio
from msgspec import Meta, Struct

from leadline.core.events import NOTHING
from leadline.features.tables.provider_modules import ProviderModule

_THOUSAND: Final = 1_000


class Tokens(Struct, frozen=True):
    """What a model has read and written."""

    input: Annotated[int, Meta(ge=0)]
    output: Annotated[int, Meta(ge=0)]


@lru_cache(maxsize=1_024)
def exact(number: float) -> Decimal:
    """The decimal that was written where this float was read; the same few prices are asked for with every lead."""
    return plain(Decimal(str(number)))


def plain(amount: Decimal) -> Decimal:
    """The same amount without zeros at its end, and without an exponent."""
    return amount.normalize() + 0


def token_price(module: ProviderModule, tokens: Tokens) -> Decimal:
    """What so many tokens cost."""
    read = exact(module.credits_per_1000_input_tokens) * tokens.input
    written = exact(module.credits_per_1000_output_tokens) * tokens.output
    return (read + written) / _THOUSAND


def price_of(module: ProviderModule, tokens: Tokens | None = None, *, first: bool = True) -> Decimal:
    """What a call for a lead may come to at most.

    `tokens`: what it may take of them at most; `first`: the provider has not answered about the lead before.
    """
    due = first or module.charge_on == "result"
    price = exact(module.credits_per_lead) if due else NOTHING
    return price if tokens is None else price + token_price(module, tokens)


def charge_of(module: ProviderModule, tokens: Tokens | None = None, *, found: bool, first: bool = True) -> Decimal:
    """What an answer has come to; `found`: it gave the lead's result."""
    due = found if module.charge_on == "result" else first
    charge = exact(module.credits_per_lead) if due else NOTHING
    return charge if tokens is None else charge + token_price(module, tokens)


class Budget:
    """What a job may spend: its cap, what is gone of it, and what is set aside for leads on their way."""

    def __init__(self, cap: Decimal | None, gone: Decimal = NOTHING) -> None:
        """`gone`: what earlier attempts have spent, or may have."""
        self.cap: Final = cap
        self.gone = gone
        self.aside = NOTHING
        self.holders = 0
        """Leads for which something is set aside, and which do not wait for more."""
        self._changed = anyio.Event()

    def fits(self, amount: Decimal) -> bool:
        """Whether so much can be set aside now."""
        return self.cap is None or self.gone + self.aside + amount <= self.cap

    def room(self) -> Decimal:
        """What can be set aside now, where there is a cap."""
        assert self.cap is not None, "there is no end to it"
        return max(NOTHING, self.cap - self.gone - self.aside)

    def tell(self) -> None:
        """Something has come free, or will not."""
        self._changed.set()
        self._changed = anyio.Event()

    async def changed(self) -> None:
        """Wait until then."""
        await self._changed.wait()


class Purse:
    """What is set aside for one lead at one provider, as long as it is on its way there."""

    def __init__(self, budget: Budget, held: Decimal = NOTHING) -> None:
        """`held` is set aside whether there is room or not: for an order that the provider has taken already."""
        self._budget = budget
        self._held = NOTHING
        self._hold(held)

    async def fill(self, price: Decimal) -> bool:
        """Set aside what is missing to a price; waits while what others hold may come free. False: there is no room."""
        budget = self._budget
        missing = price - self._held
        if missing <= 0:
            return True
        holds = self._held > 0
        budget.holders -= holds  # who waits frees nothing
        if holds:
            budget.tell()
        try:
            while not budget.fits(missing):
                if budget.holders == 0:
                    return False
                await budget.changed()
        finally:
            budget.holders += holds
        self._hold(missing)
        return True

    def pay(self, amount: Decimal) -> None:
        """So much is gone, or may be: a charge, or a call of which nobody knows how it ended."""
        self._budget.gone += amount
        self._hold(-min(amount, self._held))

    def empty(self) -> None:
        """The lead's way at this provider is over: give back what is left."""
        self._hold(-self._held)

    def _hold(self, more: Decimal) -> None:
        if not more:
            return
        budget = self._budget
        before, self._held = self._held > 0, self._held + more
        budget.aside += more
        budget.holders += (self._held > 0) - before
        if more < 0:
            budget.tell()
