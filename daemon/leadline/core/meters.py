"""Four ways to count amounts in time, one for each shape of limit: windows, days, calls at once, a bucket.

A meter knows amounts and instants and nothing else; what a call costs it, and which of them a call must pass, is
`rate_limit`'s business. Its calls all have the same life: `take` at the grant, `arrived` when the request cannot
arrive any more, perhaps `settle`, at last `ended`; or `give_back` in place of all these.

A window must never forget a charge too early, nor keep one for longer than it must. So an amount is open from its
grant until its last possible arrival is known, and then stands in a slot until that + W. Arrivals become known in
their order, thus slots expire in theirs: the oldest is always the next to go. Where amounts are large (above 1,024)
the arrivals within W/1024 share a slot, freed by its last arrival: memory is bounded, every operation is O(1)
amortised, and the rate is at most 0.1 % lower. A day is the same, only that its slots expire at the reset. The bucket
counts in whole units x microseconds: no level drifts.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from msgspec import Struct

from leadline_protocol.ids import Instant

_EXACT_AMOUNT_MAX: Final = 1_024
"""Up to this amount each arrival of a window has a slot of its own."""
_GRAINS: Final = 1_024
_MINUTE: Final = 60_000_000
_SLOTS_MAX: Final = 4 * _GRAINS
"""More are never full: those that refunds have emptied are swept."""


class Slot(Struct, gc=False):
    """Amounts of a window that expire together; zero once they have."""

    number: int
    expires: Instant
    amount: int


class Charge(Struct, gc=False):
    """One call's amount on one meter; a window says in which slot it stands, once its arrival is known."""

    amount: int
    slot: Slot | None = None


Pending: TypeAlias = Iterator[tuple[Instant, int]]
"""(last possible arrival, amount) of open charges, the earliest first: what becomes free without any answer."""


class Meter(ABC):
    """What is charged of one limit."""

    __slots__ = ("amount", "charged")

    def __init__(self, amount: int) -> None:
        """`amount` is the largest that can ever fit."""
        self.amount = amount
        self.charged = 0

    @property
    def free(self) -> int:
        """What would fit now."""
        return max(0, self.amount - self.charged)

    def room(self, amount: int) -> bool:
        """Whether it would fit now."""
        return self.charged + amount <= self.amount

    def take(self, amount: int) -> None:
        """A call is granted."""
        self.charged += amount

    def give_back(self, charge: Charge) -> None:
        """Nothing of the call was sent."""
        self.charged -= charge.amount

    def arrived(self, charge: Charge, arrival: Instant) -> None:  # noqa: B027 - only windows care
        """The request has arrived by `arrival` or never will; `arrival` never goes backwards."""

    def settle(self, charge: Charge, delta: int, instant: Instant) -> None:  # noqa: B027 - nothing to settle in calls
        """The call turned out to cost `delta` more than its charge."""

    def ended(self) -> None:  # noqa: B027 - only concurrency cares
        """A call is over."""

    def advance(self, instant: Instant) -> None:  # noqa: B027 - concurrency has no clock
        """Let go of what has expired by now."""

    @abstractmethod
    def earliest(self, amount: int, instant: Instant, pending: Pending) -> Instant | None:
        """When `amount` fits, if nothing more is granted or answered; None: nobody knows, or never."""

    @abstractmethod
    def check(self, open_amount: int, calls: int) -> None:
        """Assert that the books balance with the calls' own: amounts still open, calls not ended."""


class Concurrency(Meter):
    """Calls at the same time."""

    __slots__ = ()

    def ended(self) -> None:
        """A call is over, and its place is free."""
        self.charged -= 1

    def earliest(self, amount: int, instant: Instant, pending: Pending) -> Instant | None:
        """Nobody knows when a call ends, but for those `pending`: they are of a process that is gone."""
        excess = self.charged + amount - self.amount
        if excess <= 0:
            return instant
        for end, places in pending:
            excess -= places
            if excess <= 0:
                return end
        return None

    def check(self, open_amount: int, calls: int) -> None:
        """As many places are taken as there are calls."""
        del open_amount
        assert self.charged == calls, f"{self.charged} places are taken by {calls} calls"


class Window(Meter):
    """At most `amount` in any `period` (microseconds). `charged` is what is open and what stands in slots."""

    __slots__ = ("_ceiling", "_grain", "_period", "_slots")

    def __init__(self, amount: int, period: int) -> None:
        super().__init__(amount)
        self._period = period
        self._slots: deque[Slot] = deque()
        self.set_amount(amount)

    def set_amount(self, amount: int) -> None:
        """Another amount binds from now on; what is charged stays."""
        self.amount = amount
        self._grain = 1 if amount <= _EXACT_AMOUNT_MAX else max(1, self._period // _GRAINS)
        self.excuse()

    def excuse(self) -> None:
        """What is charged beyond the amount now was allowed once, or settled up: it may stand, but only shrink."""
        self._ceiling = max(self.amount, self.charged)

    def inherit(self, other: "Window") -> None:
        """Start with what a window of another period has in its slots."""
        for slot in other._slots:  # noqa: SLF001 - its own class
            arrival = Instant(slot.expires - other._period)  # noqa: SLF001 - its own class
            self._slot(arrival).amount += slot.amount
            self.charged += slot.amount
        self.excuse()

    def _slot(self, arrival: Instant) -> Slot:
        """The slot of the latest arrival, which puts off its expiry."""
        number = arrival // self._grain
        slots = self._slots
        if slots and slots[-1].number == number:
            slots[-1].expires = Instant(arrival + self._period)
            return slots[-1]
        return self._append(Slot(number, Instant(arrival + self._period), 0))

    def _append(self, slot: Slot) -> Slot:
        if len(self._slots) >= _SLOTS_MAX:
            self._slots = deque(slot for slot in self._slots if slot.amount)
            if len(self._slots) >= _SLOTS_MAX:
                self._slots[-1].expires = slot.expires
                return self._slots[-1]
        self._slots.append(slot)
        return slot

    def _take_from(self, slot: Slot, amount: int) -> None:
        amount = min(amount, slot.amount)  # nothing, where it has expired
        slot.amount -= amount
        self.charged -= amount

    def give_back(self, charge: Charge) -> None:
        """Nothing of the call was sent."""
        if charge.slot is None:
            self.charged -= charge.amount
        else:
            self._take_from(charge.slot, charge.amount)

    def arrived(self, charge: Charge, arrival: Instant) -> None:
        """The request has arrived by `arrival`: its charge expires a period after it."""
        if charge.amount:
            charge.slot = self._slot(arrival)
            charge.slot.amount += charge.amount

    def settle(self, charge: Charge, delta: int, instant: Instant) -> None:
        """Take what was too much from the charge; charge anew what was missing, as of now."""
        if delta > 0:
            self.charged += delta
            self._slot(instant).amount += delta
            self.excuse()
        elif charge.slot is not None:
            self._take_from(charge.slot, -delta)

    def advance(self, instant: Instant) -> None:
        """Let go of the slots that have expired by now."""
        slots = self._slots
        while slots and slots[0].expires <= instant:
            slot = slots.popleft()
            self.charged -= slot.amount
            slot.amount = 0
        if self.charged <= self.amount:
            self._ceiling = self.amount

    def _expiry(self, arrival: Instant) -> Instant:
        return Instant(arrival + self._period)

    def earliest(self, amount: int, instant: Instant, pending: Pending) -> Instant | None:
        """When enough has expired: first the slots, then what is open."""
        excess = self.charged + amount - self.amount
        if excess <= 0:
            return instant
        if amount > self.amount:
            return None
        for slot in self._slots:
            excess -= slot.amount
            if excess <= 0:
                return slot.expires
        for arrival, open_amount in pending:
            excess -= open_amount
            if excess <= 0:
                return self._expiry(arrival)
        return None

    def check(self, open_amount: int, calls: int) -> None:
        """Charged is what is open and in slots, never above the amount, slots in order and few."""
        del calls
        closed = sum([slot.amount for slot in self._slots])
        assert self.charged == closed + open_amount, f"{self.charged} is not {closed} + {open_amount}"
        assert self.charged <= self._ceiling, f"{self.charged} are charged of {self._ceiling}"
        expiries = [slot.expires for slot in self._slots]
        assert expiries == sorted(expiries), "slots are out of order"
        assert len(expiries) <= _SLOTS_MAX, f"{len(expiries)} slots"


class Day(Window):
    """At most `amount` from one reset to the next; a call open at the reset counts on both sides of it."""

    __slots__ = ("_next_reset", "_reset", "_since")

    def __init__(self, amount: int, next_reset: Callable[[Instant], Instant]) -> None:
        """`next_reset` gives the first reset strictly after an instant."""
        super().__init__(amount, 0)
        self._next_reset = next_reset
        self._since = Instant(0)
        self._reset = Instant(0)
        """The next reset after everything from `_since` to it."""

    def _expiry(self, arrival: Instant) -> Instant:
        if not self._since <= arrival < self._reset:
            self._reset = self._next_reset(arrival)
            self._since = arrival
            assert self._reset > arrival, f"the next reset after {arrival} cannot be {self._reset}"
        return self._reset

    def _slot(self, arrival: Instant) -> Slot:
        expires = self._expiry(arrival)
        if self._slots and self._slots[-1].expires == expires:
            return self._slots[-1]
        return self._append(Slot(expires, expires, 0))


class LastHour:
    """What was taken in the last hour, to the minute."""

    __slots__ = ("_minutes",)

    def __init__(self) -> None:
        self._minutes: deque[tuple[int, int]] = deque()
        """(minute, units), oldest first."""

    def add(self, amount: int, instant: Instant) -> None:
        """So much was taken, or (negative) given back; instants never go backwards."""
        minute = instant // _MINUTE
        if self._minutes and self._minutes[-1][0] == minute:
            amount += self._minutes.pop()[1]
        self._minutes.append((minute, amount))
        self._forget(minute)

    def total(self, instant: Instant) -> int:
        """What was taken in the hour before an instant."""
        self._forget(instant // _MINUTE)
        return max(0, sum(amount for _, amount in self._minutes))

    def _forget(self, minute: int) -> None:
        while self._minutes and self._minutes[0][0] <= minute - 60:
            self._minutes.popleft()


class Bucket(Meter):
    """A token bucket of `amount` (its burst), refilled by `rate` per `period` (microseconds)."""

    __slots__ = ("_at", "_full", "_level", "_period", "_rate", "last_hour")

    def __init__(self, burst: int, rate: int, period: int) -> None:
        super().__init__(burst)
        self._period = period
        self._rate = rate
        self._full = burst * period
        self._level = self._full
        """Units x period: every microsecond adds `rate`. Negative after a call that cost more than its estimate."""
        self._at = Instant(0)
        self.last_hour = LastHour()

    def set_amount(self, burst: int, rate: int) -> None:
        """Another burst and rate bind from now on; the level stays, as far as it still fits in."""
        self.amount = burst
        self._rate = rate
        self._full = burst * self._period
        self._set(self._level)

    def restore(self, level: int, at: Instant) -> None:
        """The level was that (units), then."""
        self._at = at
        self._set(level * self._period)

    def _set(self, level: int) -> None:
        self._level = min(self._full, level)
        self.charged = self.amount - self._level // self._period

    def room(self, amount: int) -> bool:
        """Whether the level is enough."""
        return amount * self._period <= self._level

    def take(self, amount: int) -> None:
        """A call is granted."""
        self._set(self._level - amount * self._period)
        self.last_hour.add(amount, self._at)

    def give_back(self, charge: Charge) -> None:
        """Nothing of the call was sent."""
        self._set(self._level + charge.amount * self._period)
        self.last_hour.add(-charge.amount, self._at)

    def settle(self, charge: Charge, delta: int, instant: Instant) -> None:
        """The call turned out to cost `delta` more than its charge."""
        del charge, instant
        self._set(self._level - delta * self._period)
        self.last_hour.add(delta, self._at)

    def advance(self, instant: Instant) -> None:
        """Refill up to now."""
        if instant > self._at:
            self._set(self._level + (instant - self._at) * self._rate)
            self._at = instant

    def earliest(self, amount: int, instant: Instant, pending: Pending) -> Instant | None:
        """When the refill has reached it, on the microsecond."""
        del pending
        if amount > self.amount:
            return None
        missing = amount * self._period - self._level
        return Instant(instant + max(0, -(-missing // self._rate)))

    def check(self, open_amount: int, calls: int) -> None:
        """It never runs over."""
        del open_amount, calls
        assert self._level <= self._full, f"a level of {self._level} in {self._full}"
        assert self.charged == self.amount - self._level // self._period, "the level is not what is told of it"
