"""Building a scheduler from what the database holds: at the start of a daemon, and after a commit that failed.

Whatever ran is not running any more: attempts live in the daemon's process, and the epoch has changed, so nothing
that may still be about can write. So a running job goes back to its old place in the queue, without its being
anybody's fault, unless the daemon died over and over while it ran (`quarantine`); a job that was being cancelled has
now been cancelled. Waits keep their end. Provider accounts get back every charge that may still count, from the rows of
their calls. A call whose sending was stored and whose answer was not is taken to have been sent at the latest moment
possible. Of those that the take-over has found in flight that is now, and their rows say so from then on; of the
others, when their permits were too old to be used (`permits.PERMIT_SECONDS`). Whoever takes over from a daemon that may
still be about waits that long.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from leadline.core.effects import Effects, SlotRow
from leadline.core.events import AccountLearned
from leadline.core.model import SECOND, Chain, Details, Job, JobState, Now, Wait
from leadline.core.permits import PERMIT_SECONDS
from leadline.core.places import StoredDetails, kept_away
from leadline.core.provider_account import Snapshot
from leadline.core.quarantine import Crashed, after_crash, convicted
from leadline.core.rate_limit import Cost, PastCall
from leadline.core.scheduler import Scheduler
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, TeamspaceId

CLOCK_DOUBT: Final = SECOND // 10
"""By so much at most do the clocks of two lives disagree: each is set by one question to the database."""


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


_RAN = frozenset({JobState.RUNNING, JobState.STOPPING})
_DETAILS = msgspec.json.Decoder(StoredDetails)
_COST = msgspec.json.Decoder(Cost)
_SNAPSHOT = msgspec.json.Decoder(Snapshot)
_NOTHING_STORED = StoredDetails()


class Recovery:
    """Fills a scheduler, page by page; `finish` gives the first decision."""

    def __init__(self, scheduler: Scheduler, now: Now) -> None:
        self.scheduler = scheduler
        self._now = now
        self._chains: dict[JobId, JobRow] = {}
        self._steps: dict[JobId, list[JobRow]] = {}
        self._cancelling: list[JobId] = []
        self._crashed: Mapping[JobId, Crashed] = {}
        self._order = 0
        """That of the last job: those of one decision share the object, which is 32 bytes fewer for each."""

    def teamspaces(self, rows: Iterable[tuple[TeamspaceId, str]]) -> None:
        """Learn the teamspaces there are."""
        for number, name in rows:
            self.scheduler.teamspaces.know(number, name)

    def pauses(self, rows: Iterable[tuple[str, str]]) -> None:
        """Learn what people have paused; before `accounts` and `jobs`."""
        self.scheduler.pauses.update(rows)

    def crashed(self, jobs: Mapping[JobId, Crashed]) -> None:
        """Learn that the daemon before died, and which jobs ran then; before `jobs`."""
        self._crashed = jobs

    def accounts(
        self, learned: Sequence[AccountLearned], states: Mapping[AccountName, bytes], calls: Iterable[PastCallRow]
    ) -> None:
        """Learn the provider accounts, with every charge that may still count."""
        past: dict[AccountName, list[PastCall]] = {}
        for row in calls:
            began = None if row.began is None else Instant(row.began + CLOCK_DOUBT)
            sent = Instant(min(self._now.instant, row.sent + PERMIT_SECONDS * SECOND))
            past.setdefault(row.account, []).append(PastCall(row.id, _COST.decode(row.cost), sent, began))
        self.scheduler.handle(learned, self._now)
        for name, account in self.scheduler.accounts.items():
            state = states.get(name)
            snapshot = _SNAPSHOT.decode(state) if state else None
            account.restore(past.get(name, ()), snapshot, self._now.instant)

    def jobs(self, rows: Iterable[JobRow]) -> None:
        """Learn a page of live jobs, by id."""
        kinds = self.scheduler.kinds
        for row in rows:
            if row.chain is not None:
                self._steps.setdefault(row.chain, []).append(row)
            elif row.kind is None:
                continue
            elif kinds[row.kind].chain:
                self._chains[row.id] = row
            else:
                self._adopt(row)

    def finish(self, slots: Iterable[SlotRow], last_job: JobId) -> Effects:
        """Make the first decision: slots are given back, cancellations done, and what may start is started."""
        self.scheduler.next_job = last_job + 1
        for row in self._chains.values():
            steps = sorted(self._steps.get(row.id, ()), key=lambda step: step.id)
            if all(step.kind is not None for step in steps):
                self._adopt_chain(row, steps)
        return self.scheduler.begin(self._now, tuple(slots), tuple(self._cancelling))

    def _adopt(self, row: JobRow) -> None:
        assert row.kind is not None
        details, stored = _details(row)
        state = row.state
        if state in _RAN:
            state = JobState.QUEUED
            if stored.cancelling:
                self._cancelling.append(row.id)
        if (crashed := self._crashed.get(row.id)) is not None and details is not None:
            asks = self.scheduler.kinds[row.kind].family.mostly_asks
            details.suspicion = after_crash(details.suspicion, crashed, mostly_asks=asks)
            if convicted(details.suspicion) and not stored.cancelling:
                numbers = {"crashes": details.suspicion.crashes}
                details.waits[JobReason.QUARANTINED] = Wait(JobReason.QUARANTINED, None, numbers)
        if row.order != self._order:
            self._order = row.order
        job = Job(self._order, row.id, row.teamspace, row.kind, state, details)
        self.scheduler.adopt(job, changed=state is not row.state)

    def _adopt_chain(self, row: JobRow, steps: Sequence[JobRow]) -> None:
        """A chain and its steps; of its steps those that have ended are gone, so the first live one has its turn."""
        assert row.kind is not None
        details, stored = _details(row)
        if stored.cancelling:
            self._cancelling.append(row.id)
        job = Job(row.order, row.id, row.teamspace, row.kind, row.state, details or Details())
        everyone = tuple(JobId(row.id + place) for place in range(1, stored.steps + 1))
        left = tuple(step.id for step in steps)
        self.scheduler.adopt(job, Chain(row.id, everyone, left, row.stop_on_failure, stored.worst))
        for step in steps:
            self._adopt(step)


def _details(row: JobRow) -> tuple[Details | None, StoredDetails]:
    if not row.details and row.run_at is None and row.chain is None and not row.attempts:
        return None, _NOTHING_STORED
    stored = _DETAILS.decode(row.details) if row.details else _NOTHING_STORED
    details = Details(
        run_at=row.run_at,
        chain=row.chain,
        step=row.step,
        waits={wait.reason: wait for wait in stored.waits if not kept_away(wait)},
        started=row.started,
        attempts=row.attempts,
        stall_kills=stored.stall_kills,
        settled_at_kill=stored.settled_at_kill,
        hung=frozenset(stored.hung),
        approved=stored.approved,
        suspicion=stored.suspicion,
    )
    return details, stored
