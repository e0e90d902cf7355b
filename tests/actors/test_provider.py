"""The last look before a call leaves."""

from collections.abc import Callable
from typing import cast

import pytest

from leadline.actors.dispatcher import Dispatcher
from leadline.actors.provider import ProviderActor
from leadline.core.events import CallAsked, CallEnd, CallEnded, Event
from leadline.core.model import SECOND, Now
from leadline.core.rate_limit import Cost
from leadline.ports.provider_client import Request, Response, Withdrawn
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId


class StillClock:
    """A clock that stands."""

    def now(self) -> Now:
        return Now(Instant(SECOND), Instant(SECOND))


class HeldUp:
    """A dispatcher that grants at once, and decides about what it is told when the test says so."""

    def __init__(self) -> None:
        self.scheduler = self
        self.calls: set[CallId] = set()
        self.actor: ProviderActor
        self._ended: set[CallId] = set()

    def post(self, event: Event) -> None:
        if isinstance(event, CallAsked):
            self.calls.add(event.call)
            self.actor.grant(event.call)
        elif isinstance(event, CallEnded):
            self._ended.add(event.call)

    def decide(self) -> None:
        self.calls -= self._ended

    def may_send(self, call: CallId, instant: Instant) -> bool:
        return True


class Answers:
    """A client that answers at once."""

    async def send(
        self, request: Request, *, may_send: Callable[[], bool], began: Callable[[], None], beat: Callable[[], None]
    ) -> Response:
        if not may_send():
            raise Withdrawn("stopped at the last moment")
        began()
        return Response(200, {}, b"{}")


NO = [CallEnd(throttled=True), CallEnd(failed=True, parked=JobReason.CREDITS)]


@pytest.mark.parametrize("end", [*NO, CallEnd(failed=True)], ids=["throttled", "parked", "failed"])
async def test_nothing_leaves_after_a_no_of_which_the_queue_cannot_take_note_yet(end: CallEnd) -> None:
    held_up = HeldUp()
    account = AccountName("company")
    actor = ProviderActor(account, cast("Dispatcher", held_up), Answers(), StillClock(), lambda _: None)
    held_up.actor = actor
    request = Request("POST", "http://127.0.0.1/company", {})
    permits = [
        await actor.permit(CallAsked(CallId(n), JobId(1), 1, account, LeadId(n), Cost(request=1)), lambda: False)
        for n in range(3)
    ]
    await permits[0].send(request)
    permits[0].end(end)
    if end in NO:
        with pytest.raises(Withdrawn):
            await permits[1].send(request)
    else:
        await permits[1].send(request)
    held_up.decide()
    await permits[2].send(request)
