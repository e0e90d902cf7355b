"""Calls to providers, from the question for a permit to their end: which account, which attempt, how far.

An account decides which of its calls may go (`provider_account`), the capacity whether their jobs may work at all.
Between the two a call can be charged and not yet out: it is `held` until its attempt has a share of the capacity. A
charge without an end is safe (it counts, so nothing overtakes it) and rare, because who holds capacity and waits for a
charge gives his share back.

Whatever happens to a call may free others of its account, so accounts are `touched` and asked for grants once, at the
end of a decision, in the order in which they were touched: the same events lead to the same grants everywhere.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from leadline.core import events as ev
from leadline.core.deadlines import Alarm, Deadlines
from leadline.core.decision import Decision
from leadline.core.effects import AccountRow, CallClosed, CallRow, RefuseCall, SendCall
from leadline.core.model import SECOND, Attempt, Call, Job, Wait
from leadline.core.provider_account import NeverFits, ProviderAccount
from leadline.core.rate_limit import Cost, NextReset
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant, TeamspaceId

PERMIT_SECONDS: Final = 5
"""A permit is used within this time or not at all: a daemon that stood still between grant and send may have been
replaced meanwhile, and its successor, having waited so long, counts on it that nothing of it leaves any more."""


class Permits:
    """All provider accounts, and every call that waits or is out."""

    def __init__(self, deadlines: Deadlines, next_reset: NextReset | None) -> None:
        self._deadlines = deadlines
        self._next_reset = next_reset
        self.accounts: dict[AccountName, ProviderAccount] = {}
        self.calls: dict[CallId, Call] = {}
        self._unrecorded: set[AccountName] = set()
        self._touched: dict[AccountName, None] = {}

    # -- accounts ---------------------------------------------------------------------------------------------------

    def learn(self, event: ev.AccountLearned, decision: Decision, *, paused: bool) -> list[Call]:
        """Take in an account's limits; returns the calls that can never fit them, refused."""
        account = self.accounts.get(event.account)
        self.touch(event.account)
        (self._unrecorded.discard if event.recorded else self._unrecorded.add)(event.account)
        if account is None:
            account = self.accounts[event.account] = ProviderAccount(
                event.account,
                event.limits,
                next_reset=self._next_reset,
                flight_seconds=event.flight_seconds,
                failed_count=event.failed_count,
                interactive_share=event.interactive_share,
                pace_per_second=event.pace_per_second,
            )
            account.pause(paused=paused)
            return []
        account.judge(
            flight_seconds=event.flight_seconds,
            failed_count=event.failed_count,
            interactive_share=event.interactive_share,
            pace_per_second=event.pace_per_second,
        )
        misfits = [self.calls.pop(call) for call in account.replace_limits(event.limits, decision.now.instant)]
        for call in misfits:
            decision.effects.refused_calls.append(RefuseCall(call.id, call.account, JobReason.LIMIT))
        return misfits

    def pause(self, name: AccountName, decision: Decision, *, paused: bool) -> None:
        """A person stops an account, or lets it go on, out of its parking too."""
        account = self.accounts[name]
        account.pause(paused=paused)
        self._describe(account, decision)
        self.touch(name)

    def weigh(self, teamspace: TeamspaceId, weight: float) -> None:
        """A teamspace has another weight at all accounts, from its next call on."""
        for name, account in self.accounts.items():
            if account.asking:
                account.weigh(teamspace, weight)
                self.touch(name)

    def touch(self, name: AccountName) -> None:
        """Something has changed that may let calls of this account go."""
        self._touched[name] = None

    @property
    def touched(self) -> bool:
        """Whether there is anything to ask `granted` for."""
        return bool(self._touched)

    def _describe(self, account: ProviderAccount, decision: Decision) -> None:
        state = msgspec.json.encode(account.snapshot(decision.now.instant))
        decision.effects.records.accounts[account.name] = AccountRow(account.name, state)

    # -- a call's way -----------------------------------------------------------------------------------------------

    def ask(
        self, event: ev.CallAsked, job: Job | None, attempt: Attempt | None, weight: float, decision: Decision
    ) -> None:
        """A call asks for leave, or is refused at once: nobody runs who could make it, or it can never go."""
        refused = decision.effects.refused_calls
        account = self.accounts.get(event.account)
        if job is None or attempt is None or attempt.stopping is not None:
            refused.append(RefuseCall(event.call, event.account, None))
        elif account is None or account.standing.parked is JobReason.INVALID_KEY:
            refused.append(RefuseCall(event.call, event.account, JobReason.INVALID_KEY))
        elif not event.patient and (parked := account.parked(decision.now.instant)) is not None:
            refused.append(RefuseCall(event.call, event.account, parked))
        elif event.call not in self.calls:
            never = account.ask(
                event.call,
                teamspace=job.teamspace,
                order=job.order,
                cost=event.cost,
                weight=weight,
                interactive=event.interactive,
            )
            if isinstance(never, NeverFits):
                refused.append(RefuseCall(event.call, event.account, JobReason.LIMIT))
                return
            self.calls[event.call] = Call(
                event.call, event.account, event.job, event.number, event.lead, event.credits, event.patient
            )
            attempt.asking.add(event.call)
            self.touch(event.account)

    def granted(self, instant: Instant) -> Iterator[Call]:
        """The calls of touched accounts that may go now: charged, and neither asking nor flying any more."""
        while self._touched:
            name = next(iter(self._touched))
            del self._touched[name]
            account = self.accounts[name]
            for call_id in account.grants(instant):
                call = self.calls[call_id]
                call.granted = True
                yield call
            deadline = account.next_deadline(instant)
            if deadline is not None:
                self._deadlines.arm(deadline, Alarm.ACCOUNT, name)

    def hold(self, call: Call, attempt: Attempt) -> None:
        """A granted call waits until its attempt has a share of the capacity."""
        attempt.held.append(call.id)
        self.accounts[call.account].hold(call.id)

    def send(self, call: Call, attempt: Attempt, decision: Decision) -> None:
        """A granted call goes out once this decision is stored."""
        attempt.flying.add(call.id)
        call.out = True
        call.out_at = decision.now.instant
        account = self.accounts[call.account]
        if account.let_go(call.id, decision.now.instant):
            self.touch(call.account)
        if call.account in self._unrecorded:
            self._describe(account, decision)
        else:
            cost = msgspec.json.encode(account.cost_of(call.id))
            decision.effects.records.calls_sent.append(
                CallRow(
                    call.id, call.job, call.attempt, call.lead, call.account, cost, decision.now.instant, call.credits
                )
            )
        decision.effects.sends.append(SendCall(call.id, call.account, call.job))

    def may_send(self, call_id: CallId, instant: Instant) -> bool:
        """The last look before the first byte: whether a call with a permit may still go."""
        call = self.calls.get(call_id)
        return (
            call is not None
            and call.out
            and instant <= call.out_at + PERMIT_SECONDS * SECOND
            and self.accounts[call.account].may_send(call_id, instant)
        )

    def sent(self, event: ev.CallSent) -> None:
        """Its first byte was written."""
        call = self.calls.get(event.call)
        if call is not None and call.granted:
            self.accounts[call.account].sent(call.id, event.at)
            self.touch(call.account)

    def response_began(self, event: ev.ResponseBegan) -> None:
        """Its response's headers have arrived."""
        call = self.calls.get(event.call)
        if call is not None and call.granted:
            call.answered = True
            self.accounts[call.account].response_began(call.id, event.at)
            self.touch(call.account)

    def ended(self, event: ev.CallEnded, decision: Decision) -> Call | None:
        """It is over; None: it is not known, or was over before."""
        call = self.calls.get(event.call)
        if call is None or not call.granted:
            return None
        del self.calls[call.id]
        account = self.accounts[call.account]
        end = event.end
        before = account.standing
        state = ""
        settled: Cost | None = None
        if end.unsent and not call.answered:
            account.withdraw(call.id)
            state = "unsent"
        elif end.throttled:
            settled = account.throttled(call.id, end.retry_after, event.at)
            state = "throttled"
        else:
            settled = account.ended(call.id, event.at, actual=end.cost, failed=end.failed or end.lost)
            state = "unknown" if end.lost else "failed" if end.failed else "done" if end.done else ""
        if end.parked is not None:
            account.park(end.parked, end.retry_after)
        if account.standing is not before:
            self._describe(account, decision)
        if state and call.account not in self._unrecorded:
            cost = None if settled is None else msgspec.json.encode(settled)
            cause, answered = ("lost", None) if end.lost else ("broken" if end.broken else "", event.at)
            decision.effects.records.calls_closed.append(CallClosed(call.id, state, cause, answered, cost))
        self.touch(call.account)
        return call

    # -- the end of an attempt, or of its wish to go on -------------------------------------------------------------

    def withdraw(self, attempt: Attempt, decision: Decision) -> None:
        """The attempt makes no new call: what it asks for, or holds, is refused."""
        if attempt.asking or attempt.held:
            for call_id in (*sorted(attempt.asking), *attempt.held):
                self.refuse(self.calls[call_id], None, decision)
            attempt.asking.clear()
            attempt.held.clear()

    def refuse(self, call: Call, reason: JobReason | None, decision: Decision) -> None:
        """A call that is not out will never go."""
        del self.calls[call.id]
        self.accounts[call.account].withdraw(call.id)
        self.touch(call.account)
        decision.effects.refused_calls.append(RefuseCall(call.id, call.account, reason))

    def abandon(self, attempt: Attempt, cause: str, decision: Decision) -> None:
        """The attempt is gone: what it has out will bring no result any more."""
        for call_id in sorted(attempt.flying):
            call = self.calls.pop(call_id)
            self.accounts[call.account].ended(call_id, decision.now.instant, failed=True)
            self.touch(call.account)
            if call.account not in self._unrecorded:
                decision.effects.records.calls_closed.append(CallClosed(call_id, "unknown", cause))
        attempt.flying.clear()

    # -- questions --------------------------------------------------------------------------------------------------

    def of_account(self, name: AccountName) -> list[Call]:
        """An account's calls that are not out yet, by id."""
        return sorted(
            (call for call in self.calls.values() if call.account == name and not call.out), key=lambda call: call.id
        )

    def waits(self, job: Job, attempt: Attempt, instant: Instant) -> list[Wait]:
        """For each account of which it asks permits, what keeps its next call longest."""
        names = dict.fromkeys(self.calls[call].account for call in sorted(attempt.asking))
        return [
            Wait(wait.reason, wait.until, {"provider": name, **wait.numbers})
            for name in names
            if (wait := self.accounts[name].binding(job.teamspace, instant)) is not None
        ]
