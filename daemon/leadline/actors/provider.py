"""A provider account's calls on their way: who waits for a permit, and what is out.

An attempt asks here, and the question goes to the scheduler. The permit comes back through the dispatcher when the call
is charged and stored as sent; between that and the first byte there is one look, without an await, at whether a stop, a
cancel or a pause has come in the meantime, or a no of the provider, and whether the permit has grown too old: a daemon
that stood still may have been replaced.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from leadline.actors.dispatcher import Dispatcher
from leadline.core.events import CallAsked, CallEnd, CallEnded, CallSent, ResponseBegan
from leadline.core.heartbeats import BEAT_SECONDS, LATE_SECONDS
from leadline.core.model import SECOND
from leadline.ports.clock import Clock
from leadline.ports.provider_client import ProviderClient, Request, Response
from leadline.ports.work import AccountClosed, NoPermit, Parked, Paused, Stopped
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant


class ProviderActor:
    """The calls of one account; it exists while there are any."""

    def __init__(
        self,
        account: AccountName,
        dispatcher: Dispatcher,
        client: ProviderClient,
        clock: Clock,
        released: Callable[[AccountName], None],
    ) -> None:
        """`released` is called whenever the actor may have become idle."""
        self.account: Final = account
        self._dispatcher = dispatcher
        self._client = client
        self._clock = clock
        self._released = released
        self._asked: dict[CallId, asyncio.Future[None]] = {}
        self._out: set[CallId] = set()
        self._refused: set[CallId] = set()
        """Calls to which the provider said no, of which no decision has taken note yet."""

    @property
    def idle(self) -> bool:
        """Whether nobody asks, and nothing is out."""
        return not self._asked and not self._out

    async def permit(self, ask: CallAsked, stopping: Callable[[], bool]) -> "Permit":
        """Wait for leave to make one request. Raises Stopped, NoPermit, AccountClosed, Parked, Paused."""
        call = ask.call
        try:
            future = self._asked[call] = asyncio.get_running_loop().create_future()
            self._dispatcher.post(ask)
            await future
        except BaseException:
            self._asked.pop(call, None)
            self._released(self.account)
            raise
        del self._asked[call]
        self._out.add(call)
        return Permit(call, self, stopping)

    def grant(self, call: CallId) -> None:
        """The call is charged and stored: whoever asked may go."""
        future = self._asked.get(call)
        if future is not None and not future.done():
            future.set_result(None)
        else:
            # Whoever asked was cancelled between the decision and its commit: no byte left, none will.
            self._dispatcher.post(CallEnded(call, self._clock.now().instant, CallEnd(unsent=True)))

    def refuse(self, call: CallId, reason: JobReason | None) -> None:
        """There will be no permit."""
        future = self._asked.get(call)
        if future is None or future.done():
            return
        match reason:
            case None:
                future.set_exception(Stopped("told to stop"))
            case JobReason.LIMIT:
                future.set_exception(NoPermit(f"the call costs more than {self.account} ever allows"))
            case JobReason.INVALID_KEY:
                future.set_exception(AccountClosed(f"the provider account {self.account} cannot be used"))
            case JobReason.PAUSED:
                future.set_exception(Paused(f"calls of {self.account} are paused for this job"))
            case _:
                future.set_exception(Parked(reason))

    async def send(self, permit: "Permit", request: Request) -> Response:
        """Make the one request that a permit stands for."""
        call = permit.id

        def may_send() -> bool:
            instant = self._clock.now().instant
            if permit.stopping() or self._is_refused() or not self._dispatcher.scheduler.may_send(call, instant):
                return False
            self._dispatcher.post(CallSent(call, instant))
            return True

        def began() -> None:
            self._dispatcher.post(ResponseBegan(call, self._clock.now().instant))

        def beat() -> None:
            permit.heard = self._clock.now().instant

        try:
            return await self._client.send(request, may_send=may_send, began=began, beat=beat)
        finally:
            permit.heard = None

    def abandon(self, call: CallId) -> None:
        """The attempt was cancelled with this call in flight; the scheduler learns of it when the attempt is gone."""
        self._out.discard(call)
        self._released(self.account)

    def end(self, call: CallId, end: CallEnd) -> None:
        """A call is over."""
        self._out.discard(call)
        if end.throttled or end.parked is not None:
            self._refused.add(call)
        self._dispatcher.post(CallEnded(call, self._clock.now().instant, end))
        self._released(self.account)

    def _is_refused(self) -> bool:
        """Whether the provider has said no since the last decision: the next may have to wait for a slow commit."""
        known = self._dispatcher.scheduler.calls
        self._refused = {call for call in self._refused if call in known}
        return bool(self._refused)


class Permit:
    """Leave for one request."""

    def __init__(self, call: CallId, actor: ProviderActor, stopping: Callable[[], bool]) -> None:
        self.id: Final = call
        self.stopping: Final = stopping
        self._actor = actor
        self._used = False
        self._answered = False
        self._ended = False
        self.heard: Instant | None = None
        """When a worker process that has it in hand gave its last sign of life; None: none has."""

    @property
    def answered(self) -> bool:
        """Whether the answer is here: whoever asked may be at something else by now."""
        return self._answered

    @property
    def ended(self) -> bool:
        """Whether it has been said how it ended."""
        return self._ended

    def alive(self, instant: Instant) -> bool:
        """Whether no process has it in hand that should have given a sign of life by now."""
        return self.heard is None or instant - self.heard < (BEAT_SECONDS + LATE_SECONDS) * SECOND

    async def send(self, request: Request) -> Response:
        """Make the request: once. Raises Unsent, Ambiguous, BrokenResponse."""
        assert not self._used, f"call {self.id} was sent before"
        self._used = True
        try:
            response = await self._actor.send(self, request)
        except asyncio.CancelledError:
            self._actor.abandon(self.id)
            raise
        self._answered = True
        return response

    def end(self, end: CallEnd) -> None:
        """Say how it ended, after what it brought has been committed; later calls change nothing."""
        if not self._ended:
            self._ended = True
            self._actor.end(self.id, end)
