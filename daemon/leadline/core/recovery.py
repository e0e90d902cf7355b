"""Building a scheduler from what the database holds: at the start of a daemon, and after a commit that failed.

Whatever ran is not running any more: attempts live in the daemon's process, and the epoch has changed, so nothing
that may still be about can write. So a running job goes back to its old place in the queue, without its being
anybody's fault; a job that was being cancelled has now been cancelled. Waits keep their end. Provider accounts get
back every charge that may still count, from the rows of their calls; a call whose sending was stored and whose answer
was not is taken to have been sent at the latest moment possible, which is now.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from leadline.core.effects import Effects, SlotRow
from leadline.core.events import AccountLearned
from leadline.core.model import Job, JobState, Now, Wait
from leadline.core.provider_account import Snapshot
from leadline.core.rate_limit import Cost, PastCall
from leadline.core.scheduler import Scheduler, StoredDetails
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, TeamspaceId


class JobRow(Struct, frozen=True, gc=False):
    """A live job as stored."""

    id: JobId
    order: int
    teamspace: TeamspaceId
    kind: int | None
    """Index into the scheduler's kinds; None: a kind that this daemon does not know, left alone."""
    state: JobState
    run_at: Instant | None
    chain: JobId | None
    step: int | None
    attempts: int
    started: Instant | None
    details: bytes
    stop_on_failure: bool


class PastCallRow(Struct, frozen=True, gc=False):
    """A call of an earlier reign."""

    id: CallId
    account: AccountName
    cost: bytes
    sent: Instant
    began: Instant | None


_DETAILS = msgspec.json.Decoder(StoredDetails)
_COST = msgspec.json.Decoder(Cost)
_SNAPSHOT = msgspec.json.Decoder(Snapshot)


class Recovery:
    """Fills a scheduler, page by page; `finish` gives the first decision."""

    def __init__(self, scheduler: Scheduler, now: Now) -> None:
        self.scheduler = scheduler
        self._now = now
        self._steps: dict[JobId, list[tuple[int, JobId]]] = {}
        self._chains: list[tuple[JobId, bool]] = []
        self._cancelling: list[JobId] = []

    def teamspaces(self, rows: Iterable[tuple[TeamspaceId, str]]) -> None:
        """Learn the teamspaces there are."""
        for number, name in rows:
            self.scheduler.know_teamspace(number, name)

    def accounts(
        self, learned: Sequence[AccountLearned], states: Mapping[AccountName, bytes], calls: Iterable[PastCallRow]
    ) -> None:
        """Learn the provider accounts, with every charge that may still count."""
        past: dict[AccountName, list[PastCall]] = {}
        for row in calls:
            sent = self._now.instant if row.began is None else row.sent
            past.setdefault(row.account, []).append(PastCall(row.id, _COST.decode(row.cost), sent, row.began))
        self.scheduler.handle(learned, self._now)
        for name, account in self.scheduler.accounts.items():
            state = states.get(name)
            snapshot = _SNAPSHOT.decode(state) if state else None
            account.restore(past.get(name, ()), snapshot, self._now.instant)

    def pauses(self, rows: Iterable[tuple[str, str]]) -> None:
        """Learn what people have paused; before `accounts`."""
        self.scheduler.pauses.update(rows)

    def jobs(self, rows: Iterable[JobRow]) -> None:
        """Learn a page of live jobs, by id."""
        scheduler = self.scheduler
        for row in rows:
            if row.kind is None:
                continue
            kind = scheduler.kinds[row.kind]
            state = row.state
            if state is JobState.STOPPING:
                self._cancelling.append(row.id)
            if state in {JobState.RUNNING, JobState.STOPPING} and not kind.chain:
                state = JobState.QUEUED
            job = Job(row.order, row.id, row.teamspace, row.kind, state)
            if row.chain is not None:
                self._steps.setdefault(row.chain, []).append((row.step or 0, row.id))
            if kind.chain:
                self._chains.append((row.id, row.stop_on_failure))
            stored = _DETAILS.decode(row.details) if row.details else None
            waits: dict[JobReason, Wait] = {wait.reason: wait for wait in stored.waits} if stored else {}
            scheduler.adopt(
                job,
                run_at=row.run_at,
                chain=row.chain,
                step=row.step,
                attempts=row.attempts,
                started=row.started,
                waits=waits,
                stored=stored,
                changed=state is not row.state,
            )

    def finish(self, slots: Iterable[SlotRow], last_job: JobId) -> Effects:
        """Make the first decision: slots are given back, cancellations done, and what may start is started."""
        scheduler = self.scheduler
        scheduler.next_job = last_job + 1
        for chain, stop_on_failure in self._chains:
            steps = [step for _, step in sorted(self._steps.get(chain, []))]
            scheduler.adopt_chain(chain, tuple(steps), stop_on_failure=stop_on_failure)
        return scheduler.begin(self._now, tuple(slots), tuple(self._cancelling))
