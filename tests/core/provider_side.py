"""The other side of a provider account, on virtual time: requests travel, arrive, are answered or never, are logged.

The log holds what the provider saw, and nothing that the account says of itself. A call's trip is drawn beforehand, so
that a history is one value that a property test can shrink.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count

from msgspec import Struct

from leadline.core.provider_account import NeverFits, ProviderAccount
from leadline.core.rate_limit import Cost, PastCall, Unit
from leadline_protocol.ids import CallId, Instant, TeamspaceId

SECOND = 1_000_000
START = 1_800_000_000 * SECOND


class Trip(Struct, frozen=True):
    """How one call fares, each step in microseconds after the one before."""

    to_send: int = 0
    to_arrival: int = 0
    to_answer: int | None = SECOND
    """After the arrival; None: there is no answer, and the caller gives up after its timeout."""
    to_end: int = 0
    timeout: int = 60 * SECOND


class Asked(Struct, frozen=True):
    """A call that will be asked for."""

    at: int
    teamspace: int
    cost: Cost
    trip: Trip = Trip()
    weight: float = 1.0
    interactive: bool = False


class Seen(Struct, frozen=True):
    """One line of the provider's log."""

    at: int
    call: int
    cost: Cost


class Row(Struct):
    """What the store knows of a call."""

    cost: Cost
    sent: int | None = None
    began: int | None = None


def worst_window(log: Iterable[Seen], seconds: float, unit: Unit = Unit.REQUEST) -> int:
    """The most units that lie in any half-open window of that length."""
    arrivals = sorted((seen.at, getattr(seen.cost, unit)) for seen in log)
    worst = total = first = 0
    for at, amount in arrivals:
        total += amount
        while arrivals[first][0] <= at - seconds * SECOND:
            total -= arrivals[first][1]
            first += 1
        worst = max(worst, total)
    return worst


class World:
    """Plays a list of calls against an account, and what else happens at given moments."""

    def __init__(self, account: ProviderAccount, asked: Sequence[Asked], *, audited: bool = True) -> None:
        """Not `audited`: for histories that are too long to look at everything after each event."""
        self.account = account
        self._audited = audited
        self.asked = asked
        self.now = START
        self.log: list[Seen] = []
        self.granted: list[tuple[int, CallId]] = []
        self.ended: dict[CallId, int] = {}
        self.refused: list[CallId] = []
        self.rows: dict[CallId, Row] = {}
        self.wakeups = 0
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        self._numbers = count()
        self._armed: int | None = None
        self._life = 0
        for number, ask in enumerate(asked):
            self.at(ask.at, partial(self._ask, CallId(number), ask))

    def at(self, offset: int, action: Callable[[], object]) -> None:
        """Do something so many microseconds after the start."""
        self._schedule(START + offset, action)

    def crash(self, build: Callable[[], ProviderAccount]) -> None:
        """The daemon dies and a new one takes over what it stored; requests that were written travel on."""
        self._life += 1
        waiting = [call for call in range(len(self.asked)) if call in self._waiting()]
        past = [
            PastCall(
                call,
                row.cost,
                Instant(self.now if row.sent is None else row.sent),
                None if row.began is None else Instant(row.began),
            )
            for call, row in self.rows.items()
        ]
        snapshot = self.account.snapshot(Instant(self.now))
        self.account = build()
        self.account.restore(past, snapshot, Instant(self.now))
        for call in waiting:
            self._ask(CallId(call), self.asked[call])

    def run(self, until: int | None = None) -> "World":
        """Let everything happen, or all up to so many microseconds after the start."""
        end = None if until is None else START + until
        while self._events and (end is None or self._events[0][0] <= end):
            self.now, _, action = heapq.heappop(self._events)
            action()
            while self._events and self._events[0][0] == self.now:
                heapq.heappop(self._events)[2]()
            self._look()
        if end is not None:
            self.now = end
        return self

    def seconds_of(self, teamspace: int) -> list[float]:
        """When a teamspace's calls ended, in seconds from the start."""
        return [(at - START) / SECOND for call, at in self.ended.items() if self.asked[call].teamspace == teamspace]

    def _waiting(self) -> set[int]:
        asked = {call for call, ask in enumerate(self.asked) if START + ask.at <= self.now}
        return asked - set(self.rows) - set(self.refused)

    def _schedule(self, at: int, action: Callable[[], object]) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), action))

    def _in_this_life(self, at: int, action: Callable[[], object]) -> None:
        life = self._life
        self._schedule(at, lambda: action() if life == self._life else None)

    def _ask(self, call: CallId, ask: Asked) -> None:
        answer = self.account.ask(
            call,
            teamspace=TeamspaceId(ask.teamspace),
            order=START + ask.at,
            cost=ask.cost,
            weight=ask.weight,
            interactive=ask.interactive,
        )
        if isinstance(answer, NeverFits):
            self.refused.append(call)

    def _look(self) -> None:
        for call in self.account.grants(Instant(self.now)):
            self.granted.append((self.now, call))
            self.rows[call] = Row(self.asked[call].cost)
            self._in_this_life(self.now + self.asked[call].trip.to_send, partial(self._send, call))
        if self._audited:
            self.account.check()
        deadline = self.account.next_deadline(Instant(self.now))
        if deadline is not None:
            assert deadline > self.now, "a deadline that has come is no deadline: it would spin"
            if deadline != self._armed:
                self._armed = deadline
                self._schedule(deadline, partial(self._wake, deadline))

    def _wake(self, deadline: int) -> None:
        if deadline == self._armed:
            self.wakeups += 1
            self._armed = None

    def _send(self, call: CallId) -> None:
        trip = self.asked[call].trip
        self.account.sent(call, Instant(self.now))
        self.rows[call].sent = self.now
        arrival = self.now + trip.to_arrival
        self._schedule(arrival, lambda: self.log.append(Seen(arrival, call, self.asked[call].cost)))
        if trip.to_answer is None:
            self._in_this_life(self.now + trip.timeout, partial(self._end, call, failed=True))
        else:
            self._in_this_life(arrival + trip.to_answer, partial(self._begin, call))

    def _begin(self, call: CallId) -> None:
        self.rows[call].began = self.now
        self.account.response_began(call, Instant(self.now))
        self._in_this_life(self.now + self.asked[call].trip.to_end, partial(self._end, call))

    def _end(self, call: CallId, *, failed: bool = False) -> None:
        self.ended[call] = self.now
        self.account.ended(call, Instant(self.now), failed=failed)
