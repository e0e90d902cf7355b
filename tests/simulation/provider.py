"""A provider on virtual time: the behaviours of tests/world, asked when a request arrives, and its own log."""

import math
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from leadline.core.rate_limit import ConcurrentLimit, Limit, Unit, WindowLimit
from leadline_protocol.ids import AccountName, CallId, JobId, LeadId
from tests.simulation.agenda import WORLD, Agenda
from tests.simulation.faults import Fault, dice
from tests.simulation.violation import Violation
from tests.world.behaviours import (
    Behaviour,
    Delayed,
    Enrichment,
    Limited,
    Now,
    Plan,
    Polling,
    Request,
    Throttle,
    Window,
    cut,
    hang,
    number_of,
    server_error,
)

SECOND: Final = 1_000_000


class Offer(Struct, frozen=True):
    """A provider: what it sells, what it allows, and what the daemon believes that it allows."""

    name: AccountName
    polls: bool
    limits: tuple[Limit, ...]
    windows: tuple[Window, ...] = ()


OFFERS: Final = (
    Offer(
        AccountName("snov"),
        polls=True,
        limits=(WindowLimit(15, 60, Unit.LEAD), WindowLimit(60, 60)),
        windows=(Window(15, 60, "lead"), Window(60, 60)),
    ),
    Offer(AccountName("ai"), polls=False, limits=(WindowLimit(60, 60), ConcurrentLimit(10)), windows=(Window(60, 60),)),
    Offer(AccountName("fast"), polls=False, limits=(ConcurrentLimit(4),)),
)


class Arrival(Struct, frozen=True):
    """One line of the provider's log."""

    at: int
    call: CallId
    job: JobId
    lead: LeadId
    is_lead: bool
    """Whether it is charged as a lead: the first request for it, no poll."""
    outcome: str


class Provider:
    """One provider account's other side."""

    def __init__(
        self, offer: Offer, seed: int, faults: frozenset[Fault], agenda: Agenda, behaviour: Behaviour | None = None
    ) -> None:
        """`behaviour`: what it sells and how fast, in place of what the offer says."""
        self.offer = offer
        self.log: list[Arrival] = []
        self.quiet = False
        """No faults any more."""
        self.struck = dict.fromkeys((Fault.SERVER_ERROR, Fault.HANG, Fault.CUT, Fault.THROTTLE), 0)
        self._agenda = agenda
        self._faults = faults
        self._dice = {fault: dice(seed, f"{offer.name}/{fault}") for fault in Fault}
        self._bad_until = 0
        self._seed = seed
        self._served: list[tuple[Callable[[], bool], int | None]] = []
        self._times: list[deque[int]] = [deque() for _ in offer.windows]
        """When what counts in each window arrived."""
        if behaviour is None:
            inner: Behaviour = Polling(seconds=8.0, seed=seed) if offer.polls else Enrichment()
            behaviour = Delayed(inner, median_us=400_000, seed=seed)
        # It would throw back what is beyond its windows; that it never needs to is what the simulation checks.
        self._behaviour = Limited(behaviour, *offer.windows, throttle=Throttle())

    def receive(
        self,
        call: CallId,
        job: JobId,
        lead: LeadId,
        request: Request,
        reply: Callable[[Plan], None],
        is_connected: Callable[[], bool],
    ) -> None:
        """A request arrives; `reply` gets the plan of its answer when its headers are due, or never."""
        now = self._agenda.now
        plan = self._fault(now, job, lead) or self._behaviour.respond(request, Now(now, now))
        self._count(now, is_lead=request.method == "POST")
        self._serve(now, is_connected, now + plan.delay_us if plan.stop != "hang_before_headers" else None)
        is_lead = request.method == "POST"
        self.log.append(Arrival(now, call, job, lead, is_lead, plan.outcome))
        if plan.stop != "hang_before_headers":
            self._agenda.after(plan.delay_us, WORLD, reply, plan)

    def _count(self, now: int, *, is_lead: bool) -> None:
        """No window that ends now holds more than it may; it is enough to ask this at every arrival."""
        for window, times in zip(self.offer.windows, self._times, strict=True):
            if window.unit == "lead" and not is_lead:
                continue
            times.append(now)
            while now - times[0] >= window.seconds * SECOND:
                times.popleft()
            if len(times) > window.amount:
                raise Violation(f"{self.offer.name} saw {len(times)} {window.unit}s within {window.seconds} s")

    def _serve(self, now: int, is_connected: Callable[[], bool], until: int | None) -> None:
        """No more are served at the same time than may be; a connection that its customer has dropped is none."""
        self._served = [(is_up, end) for is_up, end in self._served if (end is None or end > now) and is_up()]
        self._served.append((is_connected, until))
        for limit in self.offer.limits:
            if isinstance(limit, ConcurrentLimit) and len(self._served) > limit.amount:
                raise Violation(f"{self.offer.name} serves {len(self._served)} calls at the same time")

    def _fault(self, now: int, job: JobId, lead: LeadId) -> Plan | None:
        if self.quiet:
            return None
        if self._strikes(Fault.SERVER_ERROR, 0.002):
            self._bad_until = now + 20 * SECOND
        if now < self._bad_until:
            return server_error()
        number = number_of("bad lead", self._seed, job, lead)
        if self._strikes(Fault.HANG, 1.0 if number % 300 == 0 else 0.003):
            return hang()
        if self._strikes(Fault.CUT, 1.0 if number % 200 == 1 else 0.005):
            return replace(cut(), delay_us=200_000)
        if self._strikes(Fault.THROTTLE, 0.005):
            chance = self._dice[Fault.THROTTLE]
            seconds = chance.choice([1, 1, 7, 7, 60, 60, 60, 600])
            hint = Throttle(chance.choice(["seconds", "none"]))
            return replace(hint.plan(seconds * SECOND, Now(now, now)), delay_us=100_000)
        return None

    def _strikes(self, fault: Fault, chance: float) -> bool:
        if fault not in self._faults or self._dice[fault].random() >= chance:
            return False
        self.struck[fault] += 1
        return True


def request_for(job: JobId, lead: LeadId, task: str | None) -> Request:
    """The request that starts a lead, or asks for its task's result."""
    if task is not None:
        return Request("GET", "/", {"task_hash": task})
    return Request("POST", "/", body=msgspec.json.encode({"email": f"lead{lead}@job{job}.example"}))


def retry_after(plan: Plan, now: int) -> int | None:
    """The hint of a throttled answer, as an instant."""
    hint = plan.headers.get("retry-after")
    return None if hint is None else now + math.ceil(float(hint)) * SECOND
