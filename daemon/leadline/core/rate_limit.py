"""A provider's rate limits, kept exactly: never more than N units in ANY window W as the provider sees them.

Intuition: a request is seen by the provider at some moment between its send and its answer, and nobody tells us
which. So a window holds **charges**, and a charge counts from its grant until W after the last moment at which the
request can have arrived: min(response headers, send + flight) + W. Flight is how long after its send a request may
still reach the provider. A call is granted iff in every window counted + cost <= N; then no two requests that the
provider can see within one W were ever counted apart, whatever the latencies. A log of send times frees a charge
while its request may still be on its way; a token bucket or a fixed window lets two full amounts meet. The price is
small: a call holds its charge for its latency longer than W.

Complications, and what was chosen:

- *Several limits at once*, in several units: a call is charged on every meter (`meters`) or on none.
- *Large amounts, days, the database's bucket*: see `meters`. A rolling day is a window; for a day that resets, the
next reset is asked of `next_reset`, as zones are resolved above the core. - *Estimates.* Tokens are charged by
estimate and settled when the call ends: down by taking from the charge, up by a new charge from that moment, as
nobody says whether the provider booked it at the start or at the end. - *Providers that count successes only*
(`failed_count=False`): a failed call is given back, but only after an answer; one that ended without may have
succeeded over there.
- *Restart.* Charges are rebuilt from the stored calls (`restore`), so a crash frees nothing.
- *Limits that change.* A meter whose limit differs in nothing but its amount keeps its charges, so 15 -> 60 and 60 ->
15 bind from the next call.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from functools import partial
from operator import attrgetter
from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

from leadline.core.meters import Bucket, Charge, Concurrency, Day, Meter, Pending, Window
from leadline_protocol.ids import CallId, Instant

_MICROSECONDS: Final = 1_000_000

FLIGHT_SECONDS: Final = 5.0
"""How long after its send a request may still reach the provider; held by TCP_USER_TIMEOUT and aborted connections."""


class Unit(StrEnum):
    """What a provider counts."""

    REQUEST = "request"
    RECORD = "record"
    TOKEN = "token"  # noqa: S105 - a unit of text, no secret
    LEAD = "lead"
    JOB = "job"


class Cost(Struct, frozen=True, gc=False, omit_defaults=True):
    """What one call costs, in each unit; none is negative.

    A lead is charged with its FIRST request, so later requests of the same lead, polls included, have `lead=0`.
    """

    request: int = 0
    record: int = 0
    token: int = 0
    lead: int = 0
    job: int = 0

    def __post_init__(self) -> None:
        if min(self.request, self.record, self.token, self.lead, self.job) < 0:
            msg = f"a cost is never negative: {self}"
            raise ValueError(msg)

    def lane(self) -> int:
        """The set of units that this cost touches, as bits; calls of one lane are held up by the same limits."""
        return (
            (self.request > 0)
            | (self.record > 0) << 1
            | (self.token > 0) << 2
            | (self.lead > 0) << 3
            | (self.job > 0) << 4
        )


_NOTHING: Final = Cost()

Amount: TypeAlias = Annotated[int, Meta(ge=1)]
Seconds: TypeAlias = Annotated[float, Meta(gt=0)]


class WindowLimit(Struct, frozen=True, gc=False, tag="window", tag_field="shape", forbid_unknown_fields=True):
    """At most `amount` units in any `per_seconds`: safe for fixed, clock-aligned and rolling limits alike."""

    amount: Amount
    per_seconds: Seconds
    unit: Unit = Unit.REQUEST


class ConcurrentLimit(Struct, frozen=True, gc=False, tag="concurrent", tag_field="shape", forbid_unknown_fields=True):
    """At most `amount` calls at the same time, each from its grant to its end."""

    amount: Amount


class DailyLimit(Struct, frozen=True, gc=False, tag="daily", tag_field="shape", forbid_unknown_fields=True):
    """At most `amount` units from one reset to the next. A rolling day is a `WindowLimit` of 86,400 s."""

    amount: Amount
    unit: Unit = Unit.REQUEST
    resets_at: Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "00:00"
    zone: str = "UTC"


class BucketLimit(Struct, frozen=True, gc=False, tag="bucket", tag_field="shape", forbid_unknown_fields=True):
    """`amount` units per `per_seconds` on average, up to `burst` at once: a token bucket, for our own database."""

    amount: Amount
    per_seconds: Seconds
    burst: Amount
    unit: Unit = Unit.RECORD


Limit: TypeAlias = WindowLimit | ConcurrentLimit | DailyLimit | BucketLimit

NextReset: TypeAlias = Callable[[DailyLimit, Instant], Instant]
"""The first reset of a daily limit strictly after an instant; a pure function of both, from where zones are known."""


class PastCall(Struct, frozen=True, gc=False):
    """A call of an earlier process, as its row tells it, for `restore`.

    `cost` is what it has come to, `sent` the latest instant at which it can have been sent, `response_began` any moment
    from its answer's headers to its end. Answered calls of one moment may be given as one, with the sum of their costs
    and their last answer.
    """

    call: CallId
    cost: Cost
    sent: Instant
    response_began: Instant | None


class LimitState(Struct, frozen=True, gc=False):
    """How much of one limit is charged, and how much is free; a lowered limit may be charged above its amount."""

    limit: Limit
    charged: int
    free: int
    frees_at: Instant | None = None
    """When more of it is free, at the latest; None: all of it is, or nobody knows before some call ends."""
    last_hour: int | None = None
    """Of a bucket: what was taken of it in the last hour, by this process."""


class Blocker(Struct, frozen=True, gc=False):
    """One limit that a cost does not fit into now: what it needs, what is charged, when there is room.

    `until` is the latest estimate: an answer may bring it forward. None: not known before some call is sent or ends.
    """

    limit: Limit
    cost: int
    charged: int
    until: Instant | None


class _Flight(Struct, gc=False):
    """One granted call: its charges, in the order of the bounds, and what is known about its arrival."""

    cost: Cost
    charges: list[Charge]
    deadline: Instant | None = None
    """Send + flight: the request cannot arrive later. None until it is sent."""
    arrived: bool = False
    """It cannot arrive any more."""
    answered: bool = False
    ended: bool = False


class _Bound(Struct, frozen=True, gc=False):
    """A limit in force: what a cost charges, and where."""

    limit: Limit
    of: Callable[[Cost], int]
    meter: Meter


def _identity(limit: Limit) -> tuple[object, ...]:
    """What makes it the same limit when its amount changes."""
    match limit:
        case WindowLimit():
            return (WindowLimit, limit.unit, limit.per_seconds)
        case ConcurrentLimit():
            return (ConcurrentLimit,)
        case DailyLimit():
            return (DailyLimit, limit.unit, limit.resets_at, limit.zone)
        case BucketLimit():
            return (BucketLimit, limit.unit, limit.per_seconds)


class RateLimiter:
    """All limits of one provider account, charged together or not at all.

    A call's way: `charge`; `sent`, or `withdraw` if it will not be; `response_began` at its headers; `ended`. Instants
    never go backwards: one older than the last one seen counts as that one, which frees nothing too early.
    """

    def __init__(
        self,
        limits: Sequence[Limit] = (),
        *,
        next_reset: NextReset | None = None,
        flight_seconds: float = FLIGHT_SECONDS,
        failed_count: bool = True,
    ) -> None:
        """`next_reset` is needed with a `DailyLimit`. ValueError: two limits differ in nothing but their amounts."""
        self._next_reset = next_reset
        self._flight_microseconds = round(flight_seconds * _MICROSECONDS)
        self._failed_count = failed_count
        self._instant = Instant(0)
        self._flights: dict[CallId, _Flight] = {}
        """Calls granted and not ended."""
        self._on_the_way: OrderedDict[CallId, _Flight] = OrderedDict()
        """Calls sent whose arrival is still open, by deadline; some have ended without an answer."""
        self._bounds: list[_Bound] = []
        self.replace(limits, Instant(0))

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits in force."""
        return tuple(bound.limit for bound in self._bounds)

    @property
    def in_flight(self) -> int:
        """How many calls are granted and not ended."""
        return len(self._flights)

    def __contains__(self, call: CallId) -> bool:
        return call in self._flights

    # --- questions

    def never_fits(self, cost: Cost) -> Limit | None:
        """The limit that this cost exceeds all alone, so that no waiting helps; None: it fits some day."""
        for bound in self._bounds:
            if bound.of(cost) > bound.meter.amount:
                return bound.limit
        return None

    def share(self, cost: Cost) -> float:
        """The largest part of any limit that this cost takes (its dominant share); without limits all calls are 1."""
        if not self._bounds:
            return 1.0
        return max(bound.of(cost) / bound.meter.amount for bound in self._bounds)

    def fits(self, cost: Cost, *, beside: Cost | None = None) -> bool:
        """Whether this cost may be charged, as of the last `advance`.

        With `beside`: whether there is room for both wherever this one charges, so that it takes nothing from the
        other.
        """
        for bound in self._bounds:
            amount = bound.of(cost)
            if amount and not bound.meter.room(amount if beside is None else amount + bound.of(beside)):
                return False
        return True

    def earliest(self, cost: Cost, instant: Instant, *, beside: Cost | None = None) -> Instant | None:
        """When `cost` fits if nothing else is granted; answers may bring it forward.

        None: not known before some call is sent, answered or ended, or never (`never_fits`).
        """
        self.advance(instant)
        latest = self._instant
        for index, bound in enumerate(self._bounds):
            amount = bound.of(cost)
            if not amount:
                continue
            if beside is not None:
                amount += bound.of(beside)
            at = bound.meter.earliest(amount, self._instant, self._pending(index))
            if at is None:
                return None
            latest = max(latest, at)
        return latest

    def blockers(self, cost: Cost, instant: Instant) -> list[Blocker]:
        """Every limit that this cost does not fit into now."""
        self.advance(instant)
        found = []
        for index, bound in enumerate(self._bounds):
            amount = bound.of(cost)
            if amount and not bound.meter.room(amount):
                until = bound.meter.earliest(amount, self._instant, self._pending(index))
                found.append(Blocker(bound.limit, amount, bound.meter.charged, until))
        return found

    def state(self, instant: Instant) -> tuple[LimitState, ...]:
        """What is charged of each limit; a bucket's level is what is `free` of its burst."""
        self.advance(instant)
        return tuple(
            LimitState(
                bound.limit,
                bound.meter.charged,
                bound.meter.free,
                self._frees_at(index),
                bound.meter.last_hour.total(self._instant) if isinstance(bound.meter, Bucket) else None,
            )
            for index, bound in enumerate(self._bounds)
        )

    def cost_of(self, call: CallId) -> Cost:
        """What a granted call was charged."""
        return self._flights[call].cost

    # --- events

    def advance(self, instant: Instant) -> None:
        """Let time pass: what can no longer arrive has its expiry, and what has expired is let go."""
        if instant <= self._instant:
            return
        self._instant = instant
        while self._on_the_way:
            call = next(iter(self._on_the_way))
            flight = self._on_the_way[call]
            assert flight.deadline is not None, f"call {call} is on its way and was not sent"
            if flight.deadline > instant:
                break
            del self._on_the_way[call]
            self._arrived(flight, flight.deadline)
            if call not in self._flights:
                self._end(flight)
        for bound in self._bounds:
            bound.meter.advance(instant)

    def charge(self, call: CallId, cost: Cost, instant: Instant) -> None:
        """Grant a call: its cost must fit, and counts in every limit from now on."""
        self.advance(instant)
        assert call not in self._flights, f"call {call} was granted before"
        charges = []
        for bound in self._bounds:
            amount = bound.of(cost)
            if amount:
                assert bound.meter.room(amount), f"call {call}: {amount} beside {bound.meter.charged} in {bound.limit}"
                bound.meter.take(amount)
            charges.append(Charge(amount))
        self._flights[call] = _Flight(cost, charges)

    def withdraw(self, call: CallId) -> None:
        """The call was granted, and it is certain that nothing of it was sent or will be: it costs nothing."""
        flight = self._flights.pop(call)
        assert not flight.answered, f"call {call} was answered"
        self._on_the_way.pop(call, None)
        for bound, charge in zip(self._bounds, flight.charges, strict=True):
            bound.meter.give_back(charge)

    def sent(self, call: CallId, instant: Instant) -> None:
        """The request was handed to the network now; within `flight_seconds` it arrives or never will.

        Until this is known its charge has no end but an answer: a send may be much later than its grant.
        """
        self.advance(instant)
        flight = self._flights[call]
        if flight.deadline is None:
            last = next(reversed(self._on_the_way.values()), None)
            deadline = self._instant + self._flight_microseconds
            flight.deadline = Instant(deadline if last is None else max(deadline, last.deadline or 0))
            if self._bounds and not flight.arrived:
                self._on_the_way[call] = flight

    def response_began(self, call: CallId, instant: Instant) -> None:
        """The first byte of an answer is here: the request has arrived."""
        self.advance(instant)
        flight = self._flights[call]
        flight.answered = True
        self._on_the_way.pop(call, None)
        self._arrived(flight, self._instant)

    def ended(self, call: CallId, instant: Instant, *, actual: Cost | None = None, failed: bool = False) -> Cost | None:
        """The call is over. An answered one is settled at its `actual` cost (None: as charged).

        A failed one costs nothing where failures do not count. One without an answer stays charged in full, until its
        request can no longer arrive and W after that. Returns what it has come to, where that is not what it was
        charged: a restart has to know.
        """
        self.sent(call, instant)
        flight = self._flights.pop(call)
        self._end(flight)
        if not flight.answered:
            return None
        if failed and not self._failed_count:
            actual = _NOTHING
        if actual is None or actual == flight.cost:
            return None
        for bound, charge in zip(self._bounds, flight.charges, strict=True):
            delta = bound.of(actual) - charge.amount
            if delta:
                bound.meter.settle(charge, delta, self._instant)
        return actual

    def judge(self, *, flight_seconds: float, failed_count: bool) -> None:
        """Reckon otherwise with what is sent, or ends, from now on."""
        self._flight_microseconds = round(flight_seconds * _MICROSECONDS)
        self._failed_count = failed_count

    def replace(self, limits: Sequence[Limit], instant: Instant) -> None:
        """Put other limits in force, from the next grant. ValueError: two of them differ in nothing but amounts.

        A window of a new period takes over what the longest window of its unit knows. Older calls are not known here:
        where limits get longer periods, a new account that is restored from the stored calls knows more.
        """
        if len({_identity(limit) for limit in limits}) < len(limits):
            msg = f"two limits differ in nothing but amounts: {limits}"
            raise ValueError(msg)
        self.advance(instant)
        places = {_identity(bound.limit): place for place, bound in enumerate(self._bounds)}
        kept = [places.get(_identity(limit)) for limit in limits]
        bounds = [
            self._new(limit) if place is None else self._kept(self._bounds[place], limit)
            for limit, place in zip(limits, kept, strict=True)
        ]
        flights = {id(flight): flight for flight in (*self._flights.values(), *self._on_the_way.values())}
        for flight in flights.values():
            flight.charges = [
                self._adopt(bound, flight) if place is None else flight.charges[place]
                for bound, place in zip(bounds, kept, strict=True)
            ]
        self._bounds = bounds
        for bound in bounds:
            bound.meter.advance(self._instant)

    # --- restart

    def levels(self, instant: Instant) -> dict[Unit, int]:
        """What each bucket holds, to be stored for `restore`."""
        self.advance(instant)
        return {bound.limit.unit: bound.meter.free for bound in self._bounds if isinstance(bound.limit, BucketLimit)}

    def restore(self, calls: Iterable[PastCall], levels: dict[Unit, int], at: Instant, instant: Instant) -> None:
        """Charge the calls of earlier processes, before the first grant; give the buckets the `levels` they had `at`.

        Answered calls count until their answer + W, the others until their send + flight + W, whatever became of them.
        Their connections died with their process; what may still arrive holds a concurrent place until it cannot.
        """
        assert not self._flights, "charges are restored before the first grant"
        self._instant = instant = max(instant, self._instant)
        arrivals = []
        for past in calls:
            arrival = past.sent + self._flight_microseconds
            if past.response_began is not None:
                arrival = min(past.response_began, instant)
            arrivals.append((Instant(arrival), past))
        arrivals.sort(key=lambda pair: pair[0])
        for arrival, past in arrivals:
            flight = _Flight(past.cost, [Charge(bound.of(past.cost)) for bound in self._bounds], arrival)
            flight.ended = arrival <= instant
            for bound, charge in zip(self._bounds, flight.charges, strict=True):
                if isinstance(bound.meter, Window) or (isinstance(bound.meter, Concurrency) and not flight.ended):
                    bound.meter.take(charge.amount)
            if flight.ended:
                self._arrived(flight, arrival)
            else:
                self._on_the_way[past.call] = flight
        for bound in self._bounds:
            if isinstance(bound.meter, Bucket) and isinstance(bound.limit, BucketLimit) and bound.limit.unit in levels:
                bound.meter.restore(levels[bound.limit.unit], at)
            bound.meter.advance(instant)
            if isinstance(bound.meter, Window):
                bound.meter.excuse()

    # --- inside

    def _pending(self, index: int) -> Pending:
        """What becomes free by time alone: of a window each call on its way, of places those whose process is gone."""
        places = isinstance(self._bounds[index].meter, Concurrency)
        return (
            (flight.deadline, flight.charges[index].amount)
            for call, flight in self._on_the_way.items()
            if flight.deadline is not None and not (places and (flight.ended or call in self._flights))
        )

    def _frees_at(self, index: int) -> Instant | None:
        meter = self._bounds[index].meter
        if not meter.charged:
            return None
        return meter.earliest(meter.free + 1, self._instant, self._pending(index))

    def _arrived(self, flight: _Flight, arrival: Instant) -> None:
        if not flight.arrived:
            flight.arrived = True
            for bound, charge in zip(self._bounds, flight.charges, strict=True):
                bound.meter.arrived(charge, arrival)

    def _end(self, flight: _Flight) -> None:
        if not flight.ended:
            flight.ended = True
            for bound in self._bounds:
                bound.meter.ended()

    def _new(self, limit: Limit) -> _Bound:
        match limit:
            case WindowLimit():
                window = Window(limit.amount, round(limit.per_seconds * _MICROSECONDS))
                known = [
                    (bound.limit.per_seconds, bound.meter)
                    for bound in self._bounds
                    if isinstance(bound.limit, WindowLimit)
                    and isinstance(bound.meter, Window)
                    and bound.limit.unit is limit.unit
                ]
                if known:
                    window.inherit(max(known, key=lambda pair: pair[0])[1])
                return _Bound(limit, attrgetter(limit.unit), window)
            case ConcurrentLimit():
                return _Bound(limit, _one, Concurrency(limit.amount))
            case DailyLimit():
                if self._next_reset is None:
                    msg = f"{limit} needs next_reset"
                    raise ValueError(msg)
                return _Bound(limit, attrgetter(limit.unit), Day(limit.amount, partial(self._next_reset, limit)))
            case BucketLimit():
                period = round(limit.per_seconds * _MICROSECONDS)
                return _Bound(limit, attrgetter(limit.unit), Bucket(limit.burst, limit.amount, period))

    def _kept(self, bound: _Bound, limit: Limit) -> _Bound:
        """The same limit with another amount: its meter goes on."""
        match bound.meter:
            case Bucket() as bucket:
                assert isinstance(limit, BucketLimit)
                bucket.set_amount(limit.burst, limit.amount)
            case Window() as window:
                window.set_amount(limit.amount)
            case meter:
                meter.amount = limit.amount
        return _Bound(limit, bound.of, bound.meter)

    def _adopt(self, bound: _Bound, flight: _Flight) -> Charge:
        """Charge a call on a meter that was not there when it was granted."""
        charge = Charge(bound.of(flight.cost))
        match bound.meter:
            case Window() as window if not flight.arrived:
                window.take(charge.amount)
                window.excuse()
            case Concurrency() as concurrency if not flight.ended:
                concurrency.take(charge.amount)
            case _:
                pass
        return charge

    def check(self) -> None:
        """Assert every invariant; O(slots + calls in flight)."""
        latest = 0
        flights = list(self._flights.values())
        for call, flight in self._on_the_way.items():
            assert not flight.arrived, f"call {call} has arrived and is still on its way"
            assert flight.deadline is not None, f"call {call} is on its way and was not sent"
            assert latest <= flight.deadline, "calls on their way are out of order"
            latest = flight.deadline
            if call not in self._flights:
                flights.append(flight)
        still_open = [flight for flight in flights if not flight.arrived]
        calls = sum([not flight.ended for flight in flights])
        for index, bound in enumerate(self._bounds):
            bound.meter.check(sum([flight.charges[index].amount for flight in still_open]), calls)


def _one(_: Cost) -> int:
    """A call takes one concurrent place, whatever it costs."""
    return 1
