"""A provider account: the calls that wait for leave, whose turn it is, and whether anybody may go at all.

Three questions stand before a call, and each has one owner. *May anyone go?* A person may have paused the account, a
used up quota parked it, a throttled call stopped everyone; and at an even pace the call before may be too recent
(`Pacing`). *Who is next?* `Turns`, one key per teamspace. *Is there room?* `RateLimiter`. This module asks them in that
order and charges what goes.

**The head keeps its turn.** The fair order has one head. While it does not fit, another call passes only if in every
limit that it charges there is room for both: then it takes nothing that the head waits for, however the answers come.
So polls flow while the next lead waits for its minute, and a costly call is never starved by cheap ones; at most (max
cost - 1) units of a window lie idle for that. Calls of the same units wait for the same limits, so it is enough to
look at the first of each lane.

**The charged unit.** A call may cost several units in several limits. What a teamspace is charged for fairness is the
largest part of any limit that the call takes (its dominant share): 1/15 for a lead of 15 a minute, though it is also
one request of 60. With one unit that is plain fairness in units; with several it is fairness in what is scarcest.

**Throttled.** The first refusal stops everyone until the provider's hint, else for 1 s; when that is over exactly one
call goes, the canary, and the others wait for its good answer. A canary thrown back stops everyone again, for twice
as long each time, up to 5 min, or for the hint if that is longer; hints of more than a day are cut to a day. Calls
that were out together when the first was thrown back are one refusal, not many. Only a canary's good answer ends it.
A parked account (its quota is gone) comes back the same way.

**The database** is an account of its own with a `BucketLimit` and `interactive_share`: calls asked with
`interactive=True` have at least that part of it while they wait, and all of it while nobody else does.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from leadline.core.model import SECOND, Wait
from leadline.core.pacing import Pacing
from leadline.core.rate_limit import (
    FLIGHT_SECONDS,
    Blocker,
    BucketLimit,
    ConcurrentLimit,
    Cost,
    DailyLimit,
    Limit,
    LimitState,
    NextReset,
    PastCall,
    RateLimiter,
    Unit,
    WindowLimit,
)
from leadline.core.turns import Turn, Turns
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant, TeamspaceId

BACKOFF_SECONDS: Final = 1
BACKOFF_SECONDS_MAX: Final = 300
HINT_SECONDS_MAX: Final = 86_400

_LAG_MAX: Final = 1.0
"""What a kind of calls whose head others passed may make up for: one whole limit."""


class NeverFits(Struct, frozen=True, gc=False):
    """The answer to a call that costs more than a limit allows at all: no waiting would help."""

    limit: Limit
    cost: Cost


class Standing(Struct, frozen=True, gc=False, omit_defaults=True):
    """Whether calls may go, as far as providers decide it. It must outlive a restart: store it when it has changed."""

    throttled_until: Instant | None = None
    """Nobody goes before; afterwards one canary. None: everyone goes."""
    refusals: int = 0
    """Stops in a row, since the last good answer of a canary."""
    hinted: bool = False
    """The provider named that instant; otherwise it is our own backoff."""
    parked: JobReason | None = None
    """Why the account is out of use, be it until `parked_until` or until a person resumes it."""
    parked_until: Instant | None = None


FLOWING: Final = Standing()


class Snapshot(Struct, frozen=True, gc=False):
    """What must outlive a restart beside the calls' rows: the standing, and the buckets' levels at an instant."""

    standing: Standing
    levels: dict[Unit, int]
    at: Instant


class AccountState(Struct, frozen=True, gc=False):
    """One account, for listings."""

    limits: tuple[LimitState, ...]
    waiting: int
    in_flight: int
    paused: bool
    standing: Standing
    canary: CallId | None
    next: CallId | None
    """The head: the call whose turn it is, whatever may pass it."""
    throttles: int = 0
    """Calls that were thrown back as too fast, since this daemon's queue was built."""
    pace_per_second: float | None = None


def _longest_first(wait: Wait) -> float:
    return -math.inf if wait.until is None else -wait.until


def _wait(blocker: Blocker) -> Wait:
    limit = blocker.limit
    numbers: dict[str, int | float | str] = {
        "amount": limit.amount,
        "charged": blocker.charged,
        "cost": blocker.cost,
    }
    if not isinstance(limit, ConcurrentLimit):
        numbers["unit"] = limit.unit.value
    if isinstance(limit, WindowLimit | BucketLimit):
        numbers["per_seconds"] = limit.per_seconds
    reason = JobReason.DAILY_CAP if isinstance(limit, DailyLimit) else JobReason.LIMIT
    return Wait(reason, blocker.until, numbers)


_Key = tuple[TeamspaceId, bool]
"""A teamspace, and which class of its calls: interactive or not."""


class _Ask(Struct, gc=False):
    """One waiting call."""

    key: _Key
    cost: Cost


class ProviderAccount:
    """Decides which calls to one provider account may go, and when.

    A call's way: `ask`; among the `grants` of some later moment; `sent` when its request is written; `response_began`;
    and one end of `ended` and `throttled`. `withdraw` takes it out before it is sent. Whenever any of these was called,
    call `grants`, and look again at `next_deadline`. Instants never go backwards; an older one counts as the last seen.
    """

    def __init__(
        self,
        name: AccountName,
        limits: Sequence[Limit] = (),
        *,
        next_reset: NextReset | None = None,
        flight_seconds: float = FLIGHT_SECONDS,
        failed_count: bool = True,
        interactive_share: float = 0.0,
        pace_per_second: float | None = None,
    ) -> None:
        """`next_reset` is needed with a `DailyLimit`; `failed_count=False`: the provider counts only what succeeded.

        With `pace_per_second` calls go evenly, so many a second at most.
        """
        self.name = name
        self._pacing = Pacing(pace_per_second)
        self._limiter = RateLimiter(
            limits, next_reset=next_reset, flight_seconds=flight_seconds, failed_count=failed_count
        )
        self._turns: Turns[_Key] = Turns(lag_max=_LAG_MAX, reserve=interactive_share)
        self._asks: dict[CallId, _Ask] = {}
        self._taken: dict[CallId, Turn[_Key]] = {}
        """Of the calls that were granted and are not over."""
        self._standing = FLOWING
        self._canary: CallId | None = None
        self._paused = False
        self._throttles = 0

    # --- calls

    def ask(
        self,
        call: CallId,
        *,
        teamspace: TeamspaceId,
        order: int,
        cost: Cost,
        weight: float = 1.0,
        interactive: bool = False,
    ) -> NeverFits | None:
        """A call asks for leave; None: it waits. `order` and the call's id decide within its teamspace.

        Call ids are used once. `interactive` calls stand apart from the teamspace's others (see `interactive_share`).
        """
        limit = self._limiter.never_fits(cost)
        if limit is not None:
            return NeverFits(limit, cost)
        key = (teamspace, interactive)
        self._turns.add(call, key, order=order, weight=weight, lane=cost.lane(), reserved=interactive)
        self._asks[call] = _Ask(key, cost)
        return None

    def grants(self, instant: Instant) -> list[CallId]:
        """The calls that may go now, in order, all charged: each is now to be sent, or withdrawn."""
        granted: list[CallId] = []
        if not self._asks or self._stop(instant) is not None:
            return granted
        self._limiter.advance(instant)
        probing = self._standing.throttled_until is not None
        while self._asks and self._pacing.may_go(instant) and (call := self._next()) is not None:
            self._pacing.take(call, instant)
            ask = self._asks.pop(call)
            self._taken[call] = self._turns.take(call, ask.key, self._limiter.share(ask.cost))
            self._limiter.charge(call, ask.cost, instant)
            granted.append(call)
            if probing:
                self._canary = call
                break
        return granted

    def hold(self, call: CallId) -> None:
        """A granted call cannot go yet, for what is no business of the account; `let_go` says when it does."""
        self._pacing.hold(call)

    def let_go(self, call: CallId, instant: Instant) -> bool:
        """A granted call goes out; returns whether it was held, which may have kept others from going."""
        return self._pacing.let_go(call, instant)

    def may_send(self, call: CallId, instant: Instant) -> bool:
        """The last look before the first byte: whether a granted call may still go.

        If not, withdraw it and ask again under a new id and the same order: it keeps its place.
        """
        stop = self._stop(instant)
        if self._canary == call:
            return stop is None or stop.reason is JobReason.CIRCUIT
        return stop is None and self._standing.throttled_until is None

    def sent(self, call: CallId, instant: Instant) -> None:
        """Its request was written now. Its charges have no end but an answer until this is known."""
        self._limiter.sent(call, instant)

    def response_began(self, call: CallId, instant: Instant) -> None:
        """Its answer's headers are here."""
        self._limiter.response_began(call, instant)

    def ended(self, call: CallId, instant: Instant, *, actual: Cost | None = None, failed: bool = False) -> Cost | None:
        """It is over and was not thrown back. `actual` settles an estimate; `failed`: no good answer, lost ones too.

        Returns what it has come to, where that is not what it was charged.
        """
        del self._taken[call]
        settled = self._limiter.ended(call, instant, actual=actual, failed=failed)
        if call == self._canary:
            self._canary = None
            if not failed:
                self._standing = FLOWING
        return settled

    def throttled(self, call: CallId, until: Instant | None, instant: Instant) -> Cost | None:
        """It was thrown back as too fast, and is over: everyone stops. `until` is the provider's hint, if any.

        Returns what it has come to, where that is not what it was charged.
        """
        self._throttles += 1
        del self._taken[call]
        self._limiter.response_began(call, instant)
        settled = self._limiter.ended(call, instant, failed=True)
        standing = self._standing
        again = call == self._canary
        if again:
            self._canary = None
        hint = min(until, instant + HINT_SECONDS_MAX * SECOND) if until is not None and until > instant else 0
        if standing.throttled_until is not None and not again:  # it was out when the stop began
            if hint > standing.throttled_until:
                self._standing = replace(standing, throttled_until=Instant(hint), hinted=True)
            return settled
        refusals = standing.refusals + 1
        backoff = instant + min(BACKOFF_SECONDS << min(refusals - 1, 16), BACKOFF_SECONDS_MAX) * SECOND
        if hint and refusals == 1:
            backoff = 0
        self._standing = replace(
            standing,
            throttled_until=Instant(max(hint, backoff)),
            refusals=refusals,
            hinted=hint >= backoff,
        )
        return settled

    def withdraw(self, call: CallId) -> None:
        """It will not be sent, and no byte of it has been: it waits no longer, or its charge is given back."""
        if self._asks.pop(call, None) is not None:
            self._turns.remove(call)
            return
        self._turns.give_back(self._taken.pop(call))
        self._limiter.withdraw(call)
        self._pacing.forget(call)
        if call == self._canary:
            self._canary = None

    # --- the account as a whole

    def park(self, reason: JobReason, until: Instant | None) -> None:
        """Out of use for `reason` (its quota or credits are gone), until then, or (None) until a person resumes it."""
        self._canary = None
        self._standing = Standing(
            throttled_until=self._standing.throttled_until or Instant(0),  # it comes back with a canary
            refusals=self._standing.refusals,
            hinted=self._standing.hinted,
            parked=reason,
            parked_until=until,
        )

    def pause(self, *, paused: bool) -> None:
        """A person stops the account, or lets it go again, out of its parking too; a provider's hint stays in force."""
        self._paused = paused
        if not paused and self._standing.parked is not None:
            self._standing = replace(self._standing, parked=None, parked_until=None)

    def judge(
        self, *, flight_seconds: float, failed_count: bool, interactive_share: float, pace_per_second: float | None
    ) -> None:
        """Reckon otherwise with what is granted, sent, or ends, from now on."""
        self._pacing.per_second = pace_per_second
        self._limiter.judge(flight_seconds=flight_seconds, failed_count=failed_count)
        self._turns.keep_share(interactive_share)

    def weigh(self, teamspace: TeamspaceId, weight: float) -> None:
        """A teamspace has another weight from its next call on."""
        for interactive in (False, True):
            self._turns.weigh((teamspace, interactive), weight)

    def replace_limits(self, limits: Sequence[Limit], instant: Instant) -> list[CallId]:
        """Other limits bind from the next grant. Returns, and forgets, the waiting calls that can never fit them."""
        self._limiter.replace(limits, instant)
        misfits = [call for call, ask in self._asks.items() if self._limiter.never_fits(ask.cost) is not None]
        for call in misfits:
            self.withdraw(call)
        return misfits

    def restore(self, calls: Iterable[PastCall], snapshot: Snapshot | None, instant: Instant) -> None:
        """Take over from earlier processes, before the first grant: see `RateLimiter.restore`."""
        if snapshot is not None:
            self._standing = snapshot.standing if snapshot.standing != FLOWING else FLOWING
        levels, at = (snapshot.levels, snapshot.at) if snapshot is not None else ({}, instant)
        calls = list(calls)
        for past in calls:
            went = past.sent if past.response_began is None else min(past.sent, past.response_began)
            self._pacing.went(went)
        self._limiter.restore(calls, levels, at, instant)

    # --- questions

    def next_deadline(self, instant: Instant) -> Instant | None:
        """When `grants` may have something next, if nothing happens before; None: not before something does."""
        if not self._asks:
            return None
        stop = self._stop(instant)
        if stop is not None:
            return stop.until
        soonest: Instant | None = None
        head: Cost | None = None
        for call in self._turns.heads():
            cost = self._asks[call].cost
            at = self._limiter.earliest(cost, instant, beside=head)
            if at is not None and (soonest is None or at < soonest):
                soonest = at
            if head is None:
                head = cost
        due = self._pacing.due
        return None if soonest is None or due is None else max(soonest, due)

    def binding(self, teamspace: TeamspaceId, instant: Instant) -> Wait | None:
        """What keeps a teamspace's next call longest; None: nothing of it waits."""
        return next(iter(self.waits(teamspace, instant)), None)

    def waits(self, teamspace: TeamspaceId, instant: Instant) -> list[Wait]:
        """All that keeps a teamspace's next call, longest first: stops, limits, the pace, or the turn of others.

        A limit's `until` is the latest estimate for this call alone; those before it in line come on top.
        """
        firsts = [first for class_ in (False, True) if (first := self._turns.first((teamspace, class_))) is not None]
        if not firsts:
            return []
        cost = self._asks[min(firsts)[1]].cost
        waits = self._stops(instant)
        waits += [_wait(blocker) for blocker in self._limiter.blockers(cost, instant)]
        if not waits:  # it would fit, but it is not its turn
            head = self._asks[self._turns.heads()[0]].cost
            waits = [_wait(blocker) for blocker in self._limiter.blockers(head, instant)]
        if (pace := self._pacing.per_second) is not None and not self._pacing.may_go(instant):
            waits.append(Wait(JobReason.LIMIT, self._pacing.due, {"pace_per_second": pace}))
        if not waits:
            waits = [Wait(JobReason.LIMIT, instant)]
        waits.sort(key=_longest_first)
        return waits

    def place(self, teamspace: TeamspaceId) -> int | None:
        """Where a teamspace's next call stands among those of all of them, 1 being next; None: nothing of it waits."""
        key = self._next_key(teamspace)
        return None if key is None else self._turns.place(key)

    def part(self, teamspace: TeamspaceId) -> float:
        """What a teamspace gets of the limits while those wait that do now; all, 1, where nothing of it waits."""
        key = self._next_key(teamspace)
        return 1.0 if key is None else self._turns.part(key)

    def waiting(self, teamspace: TeamspaceId) -> int:
        """How many calls of a teamspace wait."""
        return self._turns.waiting((teamspace, False)) + self._turns.waiting((teamspace, True))

    def waiting_by_teamspace(self) -> Counter[TeamspaceId]:
        """How many calls of each teamspace wait; O(teamspaces that wait), however many calls do."""
        waiting: Counter[TeamspaceId] = Counter()
        for (teamspace, _), calls in self._turns.waiting_by_key():
            waiting[teamspace] += calls
        return waiting

    def cost_of(self, call: CallId) -> Cost:
        """What a waiting or granted call was asked for."""
        ask = self._asks.get(call)
        return ask.cost if ask is not None else self._limiter.cost_of(call)

    @property
    def standing(self) -> Standing:
        """Replaced, never changed in place: `is not` tells whether it must be stored again."""
        return self._standing

    def parked(self, instant: Instant) -> JobReason | None:
        """Why it is out of use now, beyond any hint's wait; None: it is not."""
        standing = self._standing
        if standing.parked_until is not None and instant >= standing.parked_until:
            return None
        return standing.parked

    @property
    def asking(self) -> int:
        """How many calls wait."""
        return len(self._asks)

    @property
    def in_flight(self) -> int:
        """How many calls are granted and not ended."""
        return self._limiter.in_flight

    @property
    def is_paused(self) -> bool:
        """Whether a person has stopped the account."""
        return self._paused

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits in force."""
        return self._limiter.limits

    @property
    def pace_per_second(self) -> float | None:
        """How many calls go a second at most, where they go evenly."""
        return self._pacing.per_second

    def snapshot(self, instant: Instant) -> Snapshot:
        """What must outlive a restart beside the calls' rows."""
        return Snapshot(self._standing, self._limiter.levels(instant), instant)

    def state(self, instant: Instant) -> AccountState:
        """Everything about the account that a listing shows."""
        return AccountState(
            self._limiter.state(instant),
            len(self._asks),
            self._limiter.in_flight,
            self._paused,
            self._standing,
            self._canary,
            self._turns.heads()[0] if self._asks else None,
            self._throttles,
            self.pace_per_second,
        )

    # --- inside

    def _next_key(self, teamspace: TeamspaceId) -> _Key | None:
        """Under which key the next call of a teamspace waits."""
        firsts = [
            (first, key)
            for key in ((teamspace, False), (teamspace, True))
            if (first := self._turns.first(key)) is not None
        ]
        return min(firsts)[1] if firsts else None

    def _next(self) -> CallId | None:
        """The head if it fits, else the first that passes it without taking anything from it."""
        head: Cost | None = None
        for call in self._turns.heads():
            cost = self._asks[call].cost
            if self._limiter.fits(cost, beside=head):
                return call
            if head is None:
                head = cost
        return None

    def _stop(self, instant: Instant) -> Wait | None:
        """What keeps everyone from going, the longest of it; None: calls, or a canary, may go."""
        if self._standing is FLOWING and not self._paused:
            return None
        return min(self._stops(instant), key=_longest_first, default=None)

    def _stops(self, instant: Instant) -> list[Wait]:
        standing = self._standing
        stops = []
        if self._paused:
            stops.append(Wait(JobReason.PAUSED))
        if (parked := self.parked(instant)) is not None:
            stops.append(Wait(parked, standing.parked_until))
        if standing.throttled_until is not None:
            numbers = {"refusals": standing.refusals}
            if instant < standing.throttled_until:
                reason = JobReason.RETRY_AFTER if standing.hinted else JobReason.CIRCUIT
                stops.append(Wait(reason, standing.throttled_until, numbers))
            elif self._canary is not None:
                stops.append(Wait(JobReason.CIRCUIT, None, numbers))
        return stops

    def check(self) -> None:
        """Assert every invariant; O(everything that waits or is charged)."""
        self._limiter.check()
        self._turns.check()
        assert len(self._turns) == len(self._asks), f"{len(self._asks)} ask, {len(self._turns)} are in line"
        assert len(self._taken) == self._limiter.in_flight, "each call that is granted has had a turn"
        assert self._pacing.held <= self._taken.keys(), "what is held was granted, and is not over"
        for call in self._asks:
            assert call in self._turns, f"call {call} asks and is not in line"
            assert call not in self._limiter, f"call {call} asks and is granted"
        if self._canary is not None:
            assert self._standing.throttled_until is not None, f"call {self._canary} is a canary of nothing"
            assert self._canary in self._limiter, f"the canary {self._canary} is gone"
        assert (self._standing == FLOWING) == (self._standing is FLOWING), "flowing is one object"
