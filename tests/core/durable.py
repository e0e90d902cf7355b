"""A database in memory, as the scheduler sees one: records are applied whole or not at all; a reign begins from them.

It is strict where Postgres is: a row that is to be changed must be there, a slot can be held once. What it refuses
would have failed the decision's transaction.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from leadline.core.effects import AdmittedJob, CallRow, Effects, EndedJob, HistoryRow, Records, SlotRow
from leadline.core.events import AccountLearned, Event, Key, KnownKey, NewJob
from leadline.core.model import ENDED, SECOND, JobState, Kind, Now, Rules
from leadline.core.quarantine import Crashed
from leadline.core.rate_limit import NextReset
from leadline.core.recovery import JobRow, PastCallRow, Recovery
from leadline.core.scheduler import Scheduler
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, TeamspaceId

_CHARGED_MAX = 25 * 3600 * SECOND
"""For how long at most a charge may count."""


class StoredCall(Struct):
    """A call's row."""

    row: CallRow
    state: str = "sent"
    cause: str = ""
    sent: Instant | None = None
    began: Instant | None = None


class LiveRow(Struct):
    """A live job's row."""

    admitted: AdmittedJob
    state: JobState
    details: bytes = b""
    attempt: int = 0
    started: Instant | None = None


class Durable(Struct):
    """All rows."""

    teamspaces: dict[TeamspaceId, str] = field(default_factory=dict)
    live: dict[JobId, LiveRow] = field(default_factory=dict)
    ended: dict[JobId, EndedJob] = field(default_factory=dict)
    submitted: dict[JobId, NewJob] = field(default_factory=dict)
    """What every job, live or ended, was submitted as."""
    slots: dict[tuple[int, int, int], JobId] = field(default_factory=dict)
    calls: dict[CallId, StoredCall] = field(default_factory=dict)
    accounts: dict[AccountName, bytes] = field(default_factory=dict)
    pauses: set[tuple[str, str]] = field(default_factory=set)
    keys: dict[tuple[str, bytes], tuple[JobId, bytes]] = field(default_factory=dict)
    history: defaultdict[JobId, list[HistoryRow]] = field(default_factory=lambda: defaultdict(list))
    last_job: JobId = JobId(0)

    def commit(self, records: Records) -> None:
        """Store one decision. AssertionError: a database would have refused it."""
        for number, name in records.teamspaces:
            assert number not in self.teamspaces, f"teamspace {number} is there already"
            assert name not in self.teamspaces.values(), f"{name} is there already"
            self.teamspaces[number] = name
        self._admit(records)
        for change in records.changed.values():
            row = self.live[change.id]
            row.state, row.details, row.attempt = change.state, change.details, change.attempt
            row.started = change.started or row.started
        for attempt in records.attempts:
            assert self.live[attempt.job].attempt <= attempt.number, f"job {attempt.job}: attempt {attempt.number}"
            self.live[attempt.job].attempt = attempt.number
        for ended in records.ended:
            assert ended.state in ENDED, f"job {ended.id} ended as {ended.state}"
            assert ended.id not in self.ended, f"job {ended.id} ended twice"
            if ended.admitted is None:
                del self.live[ended.id]
            self.ended[ended.id] = ended
        self._move_slots(records)
        for call in records.calls_sent:
            assert call.id not in self.calls, f"call {call.id} was sent twice"
            self.calls[call.id] = StoredCall(call)
        for closed in records.calls_closed:
            stored = self.calls[closed.id]
            if stored.state == "sent":
                stored.state, stored.cause, stored.began = closed.state, closed.cause, closed.began or stored.began
                stored.row = replace(stored.row, cost=closed.cost or stored.row.cost)
        for account in records.accounts.values():
            self.accounts[account.account] = account.state
        for pause in records.pauses:
            (self.pauses.add if pause.paused else self.pauses.discard)((pause.scope, pause.name))
        for line in records.history:
            self.history[line.job].append(line)

    def _admit(self, records: Records) -> None:
        at_once = {ended.id for ended in records.ended if ended.admitted is not None}
        assert at_once <= {row.id for row in records.admitted}, "what ends at once came in at once"
        for row in records.admitted:
            assert row.id == self.last_job + 1, f"job {row.id} follows {self.last_job}"
            self.last_job = row.id
            self.submitted[row.id] = row.new
            if row.id not in at_once:
                self.live[row.id] = LiveRow(row, row.state)
            if (key := row.new.key) is not None:
                name = (row.new.teamspace, key.key_hash)
                assert name not in self.keys, f"the key of job {row.id} is taken"
                self.keys[name] = (row.id, key.body_hash)

    def _move_slots(self, records: Records) -> None:
        for slot in records.slots_freed:
            held = self.slots.pop((slot.teamspace, slot.family, slot.slot), None)
            assert held == slot.job, f"{slot} is held by {held}"
        for slot in records.slots_taken:
            key = (slot.teamspace, slot.family, slot.slot)
            assert key not in self.slots, f"{slot} is held by {self.slots[key]}"
            self.slots[key] = slot.job

    def known(self, new: NewJob) -> NewJob:
        """The submission with what is stored under its key."""
        found = self.keys.get((new.teamspace, new.key.key_hash)) if new.key is not None else None
        if found is None:
            return new
        assert isinstance(new.key, Key)
        state = self.ended[found[0]].state if found[0] in self.ended else self.live[found[0]].state
        return replace(new, key=replace(new.key, known=KnownKey(*found, state)))

    def note(self, call: CallId, *, sent: Instant | None = None, began: Instant | None = None) -> None:
        """What a slice stores with a call's result: when it was answered."""
        stored = self.calls[call]
        stored.sent = sent or stored.sent
        stored.began = began or stored.began

    def cut_off_calls(self, instant: Instant) -> None:
        """Whoever has sent them is gone: what became of them nobody will ever know."""
        for stored in self.calls.values():
            if stored.state == "sent":
                stored.state, stored.cause, stored.sent = "unknown", "crash", instant

    def charges_since(self, instant: int) -> list[PastCallRow]:
        """The calls of earlier reigns, as far as they may still count."""
        return [_past(call) for call in self.calls.values() if call.state != "unsent" and call.row.sent >= instant]

    def recover(
        self,
        kinds: Sequence[Kind],
        rules: Rules,
        now: Now,
        accounts: Sequence[AccountLearned] = (),
        limits: Sequence[Event] = (),
        next_reset: NextReset | None = None,
        scheduler_type: type[Scheduler] = Scheduler,
        crashed: Mapping[JobId, Crashed] = {},
    ) -> tuple[Scheduler, Effects]:
        """A new reign, and its first decision, which is not stored yet."""
        self.cut_off_calls(now.instant)
        scheduler = scheduler_type(kinds, rules, next_reset)
        recovery = Recovery(scheduler, now)
        recovery.teamspaces(self.teamspaces.items())
        scheduler.handle(limits, now)
        recovery.pauses(self.pauses)
        recovery.accounts(accounts, self.accounts, self.charges_since(now.instant - _CHARGED_MAX))
        recovery.crashed(crashed)
        recovery.jobs(_job_row(row, len(kinds)) for row in self.live.values())
        slots = [SlotRow(*key, job) for key, job in self.slots.items()]  # type: ignore[arg-type]  # key is flat
        return scheduler, recovery.finish(slots, self.last_job)


def _past(call: StoredCall) -> PastCallRow:
    sent = call.sent or call.row.sent
    return PastCallRow(call.row.id, call.row.account, call.row.cost, sent, call.began)


def _job_row(row: LiveRow, known_kinds: int) -> JobRow:
    job = row.admitted
    return JobRow(
        job.id,
        job.order,
        job.teamspace,
        job.new.kind if job.new.kind < known_kinds else None,
        row.state,
        job.new.run_at,
        job.chain,
        job.step,
        row.attempt,
        row.started,
        row.details,
        job.new.stop_on_failure,
    )
