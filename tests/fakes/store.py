"""A store in memory that fails when it is told to.

`Disk` is what survives: a new `FakeStore` on an old disk is a daemon that starts after a crash, and finds exactly the
commits that took place, in order, each whole or not at all. Several stores on one disk are a daemon and its
successors; all but the one that took over last are fenced. A commit can be made to fail, or to end without anybody
knowing whether it took place.
"""

import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import Never

import anyio
import anyio.lowlevel
from msgspec import Struct, field
from msgspec.structs import replace

from leadline.core.effects import (
    AccountRow,
    AdmittedJob,
    CallRow,
    EndedJob,
    HistoryRow,
    JobChange,
    PauseRow,
    Records,
    SlotRow,
)
from leadline.core.events import KnownKey
from leadline.core.model import ENDED, SECOND, Counts, Family, JobState
from leadline.core.quarantine import Crashed
from leadline.core.recovery import JobRow
from leadline.ports.store import (
    LOOK_BACK_JOBS,
    THIS_JOB,
    AttemptRetired,
    Contradiction,
    Fenced,
    JobFilter,
    OutcomeUnknown,
    OwnedByAnother,
    Recovered,
    StoredCall,
    StoredJob,
    Unavailable,
)
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, TeamspaceId

KEY_SECONDS = 30 * 86_400


def wall() -> Instant:
    """The clock of the machine."""
    return Instant(time.time_ns() // 1000)


class Attempt(Struct):
    """The last attempt of a live job."""

    number: int
    counts: Counts
    activity: str = ""


class Job(Struct):
    """A job's row, live or ended."""

    new: AdmittedJob
    kind: str
    state: JobState
    details: bytes = b""
    attempt: int = 0
    started: Instant | None = None
    ended: EndedJob | None = None
    counts: Counts = Counts()


class Key(Struct, frozen=True):
    """An idempotency key's row."""

    job: JobId
    body_hash: bytes
    expires: int


class Call(Struct):
    """A call's row."""

    row: CallRow
    state: str = "sent"
    cause: str = ""
    began: Instant | None = None


class Disk(Struct):
    """What survives a crash."""

    wall: Callable[[], Instant] = wall
    epoch: int = 0
    owner: "FakeStore | None" = None
    """The living daemon that owns it."""
    owner_name: str = ""
    place: str = ""
    orderly: bool = True
    kinds: dict[str, int] = field(default_factory=dict)
    teamspaces: dict[TeamspaceId, str] = field(default_factory=dict)
    jobs: dict[JobId, Job] = field(default_factory=dict)
    attempts: dict[JobId, Attempt] = field(default_factory=dict)
    slots: dict[tuple[TeamspaceId, Family, int], JobId] = field(default_factory=dict)
    keys: dict[tuple[TeamspaceId, bytes], Key] = field(default_factory=dict)
    calls: dict[CallId, Call] = field(default_factory=dict)
    accounts: dict[AccountName, AccountRow] = field(default_factory=dict)
    pauses: set[tuple[str, str]] = field(default_factory=set)
    history: list[HistoryRow] = field(default_factory=list)
    statements: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)
    """What admissions had carried out beside their rows."""
    commits: int = 0


class Fault(Enum):
    """What becomes of a commit."""

    REFUSED = "not stored, and known not to be"
    UNKNOWN_LOST = "not stored, and nobody can say"
    UNKNOWN_STORED = "stored, and nobody can say"


class FakeStore:
    """The port `leadline.ports.store.Store` on a `Disk`."""

    def __init__(self, disk: Disk | None = None, *, queries: Collection[str] = ()) -> None:
        self.disk = disk or Disk()
        self.faults: list[Fault | None] = []
        """What becomes of the next commits, in order; None: nothing special."""
        self.away = False
        """True: the database cannot be reached."""
        self._queries = frozenset(queries)
        self._kinds: tuple[str, ...] = ()
        self._epoch = 0
        self._replaced = anyio.Event()

    # -- ownership --------------------------------------------------------------------------------------------------

    async def take_over(
        self,
        *,
        owner: str,
        place: str = "",
        kinds: Mapping[str, int],
        charge_seconds: int = 90_000,
        force: bool = False,
    ) -> Recovered:
        """Become the owner; see the port."""
        await self._reach()
        disk = self.disk
        if disk.owner not in {None, self} and not force:
            raise OwnedByAnother(disk.owner_name)
        died = not disk.orderly and not force and self._epoch == 0
        survivor = disk.epoch > 0 and not (place and disk.place == place)
        if disk.owner not in {None, self}:
            disk.owner._replaced.set()
        disk.owner, disk.owner_name, disk.place = self, owner, place
        disk.epoch += 1
        self._epoch = disk.epoch
        disk.orderly = False
        disk.kinds |= kinds
        self._kinds = tuple(kinds)
        cut_off = [call for call in disk.calls.values() if call.state == "sent"]
        out = {call.row.job for call in cut_off}
        for call in cut_off:
            call.state, call.cause = "unknown", "crash"
            call.row = replace(call.row, sent=Instant(max(call.row.sent, disk.wall())))
        instants = [max(call.row.sent, call.began or 0) for call in disk.calls.values()]
        instant = max([disk.wall(), *instants])
        since = instant - charge_seconds * SECOND
        return Recovered(
            epoch=disk.epoch,
            survivor=survivor,
            crashed={
                job: Crashed(disk.attempts[job].counts.settled, job in out) for job in disk.slots.values() if died
            },
            instant=Instant(instant),
            last_job=max(disk.jobs, default=JobId(0)),
            last_call=max(disk.calls, default=CallId(0)),
            teamspaces=sorted(disk.teamspaces.items()),
            slots=[SlotRow(*place, job) for place, job in sorted(disk.slots.items())],
            calls=[
                _stored_call(call)
                for _, call in sorted(disk.calls.items())
                if call in cut_off or (call.row.sent >= since and call.state != "unsent")
            ],
            accounts=[row for _, row in sorted(disk.accounts.items())],
            pauses=[PauseRow(scope, name, paused=True) for scope, name in sorted(disk.pauses)],
        )

    async def end_in_order(self) -> None:
        """Note an orderly end; see the port."""
        await self._reach()
        self._fence()
        self.disk.orderly = True

    async def keep(self) -> Never:
        """Stay the owner; see the port."""
        await self._replaced.wait()
        raise Fenced(f"this daemon has been replaced by {self.disk.owner_name}")

    async def close(self) -> None:
        """Let go of the disk."""
        self.crash()

    def crash(self) -> None:
        """The daemon is gone from one moment to the next."""
        if self.disk.owner is self:
            self.disk.owner = None

    async def _reach(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.away:
            raise Unavailable("the database is away")

    def _fence(self) -> None:
        if self._epoch == 0:
            raise Unavailable("this daemon does not own the database at present")
        if self._epoch != self.disk.epoch:
            raise Fenced(f"epoch {self._epoch} is over")

    # -- writing ----------------------------------------------------------------------------------------------------

    async def commit(self, records: Records) -> None:
        """Store one decision; see the port."""
        await self._reach()
        self._fence()
        fault = self.faults.pop(0) if self.faults else None
        if fault is Fault.REFUSED:
            raise Unavailable("told to refuse")
        if fault is not Fault.UNKNOWN_LOST:
            self._store(records)
        if fault is not None:
            raise OutcomeUnknown("told not to tell")

    def _store(self, records: Records) -> None:
        """All of the records, or, where they contradict what is there, none."""
        at_once = {ended.id for ended in records.ended if ended.admitted is not None}
        admitted = {job.id: job for job in records.admitted}
        admitted |= {ended.id: ended.admitted for ended in records.ended if ended.admitted is not None}
        slots = self._slots_after(records)
        self._check(records, admitted)
        self._apply(records, admitted, at_once)
        self.disk.slots = slots
        self.disk.commits += 1

    def _check(self, records: Records, admitted: Mapping[JobId, AdmittedJob]) -> None:
        disk = self.disk
        _demand(not any(job in disk.jobs for job in admitted), "a job's id is taken")
        ended = [job.id for job in records.ended]
        for job in (*records.changed, *ended, *(attempt.job for attempt in records.attempts)):
            _demand(self._is_live(job) or job in admitted, f"job {job} is not live")
        for attempt in records.attempts:
            last = disk.attempts.get(attempt.job)
            _demand(last is None or last.number < attempt.number, "an attempt's number is not new")
        for new in admitted.values():
            if new.new.key is not None:
                known = disk.keys.get((new.teamspace, new.new.key.key_hash))
                _demand(known is None or known.expires <= disk.wall(), "an idempotency key is taken")
            for statement in new.new.statements:
                _demand(statement.query in self._queries, f"there is no statement {statement.query}")

    def _slots_after(self, records: Records) -> dict[tuple[TeamspaceId, Family, int], JobId]:
        slots = dict(self.disk.slots)
        for slot in records.slots_freed:
            _demand(slots.pop(_place(slot), None) == slot.job, "a slot that is freed is not held by its job")
        for slot in records.slots_taken:
            _demand(_place(slot) not in slots, "a slot that is taken is held")
            slots[_place(slot)] = slot.job
        return slots

    def _is_live(self, job: JobId) -> bool:
        stored = self.disk.jobs.get(job)
        return stored is not None and stored.ended is None

    def _apply(self, records: Records, admitted: Mapping[JobId, AdmittedJob], at_once: Collection[JobId]) -> None:
        disk = self.disk
        disk.teamspaces.update(records.teamspaces)
        for job in admitted.values():
            kind = self._kinds[job.new.kind]
            disk.jobs[job.id] = Job(job, kind, job.state, counts=Counts(job.new.total or 0))
            if job.new.key is not None:
                key = Key(job.id, job.new.key.body_hash, disk.wall() + KEY_SECONDS * SECOND)
                disk.keys[job.teamspace, job.new.key.key_hash] = key
            for statement in job.new.statements:
                arguments = tuple(job.id if argument is THIS_JOB else argument for argument in statement.arguments)
                disk.statements.append((statement.query, arguments))
        for change in records.changed.values():
            self._change(change)
        for attempt in records.attempts:
            stored = disk.attempts.setdefault(attempt.job, Attempt(0, disk.jobs[attempt.job].counts))
            stored.number, stored.activity = attempt.number, ""
        for ended in records.ended:
            self._end(ended, at_once=ended.id in at_once)
        for row in records.calls_sent:
            disk.calls[row.id] = Call(row)
        for closed in records.calls_closed:
            if call := disk.calls.get(closed.id):
                call.state, call.cause, call.began = closed.state, closed.cause, closed.began or call.began
                call.row = replace(call.row, cost=closed.cost or call.row.cost)
        disk.accounts |= records.accounts
        for pause in records.pauses:
            (disk.pauses.add if pause.paused else disk.pauses.discard)((pause.scope, pause.name))
        disk.history += records.history

    def _change(self, change: JobChange) -> None:
        job = self.disk.jobs[change.id]
        job.state, job.details, job.attempt, job.started = change.state, change.details, change.attempt, change.started

    def _end(self, ended: EndedJob, *, at_once: bool) -> None:
        job = self.disk.jobs[ended.id]
        attempt = self.disk.attempts.pop(ended.id, None)
        job.counts = ended.counts or (attempt.counts if attempt else job.counts)
        job.state, job.ended, job.started = ended.state, ended, ended.started or job.started
        if at_once and ended.started is not None:
            job.attempt = 1

    def progress(self, job: JobId, number: int, counts: Counts, activity: str = "") -> None:
        """What the work of a slice does in a transaction of its own. Raises AttemptRetired, Fenced."""
        self._fence()
        attempt = self.disk.attempts.get(job)
        if attempt is None or attempt.number != number:
            raise AttemptRetired(f"attempt {number} of job {job} is not the present one")
        attempt.counts, attempt.activity = counts, activity

    def call_done(self, call: CallId, answered: Instant, cost: bytes | None = None) -> None:
        """What the work of a slice stores of a call beside what that has brought; `cost` is what it has come to."""
        stored = self.disk.calls[call]
        stored.state, stored.began = "done", answered
        stored.row = replace(stored.row, cost=cost or stored.row.cost)

    # -- reading ----------------------------------------------------------------------------------------------------

    async def live_jobs(self, page: int = 2_000) -> AsyncIterator[Sequence[JobRow]]:
        """All live jobs; see the port."""
        await self._reach()
        live = [self._live_job(job) for _, job in sorted(self.disk.jobs.items()) if job.ended is None]
        for first in range(0, len(live), page):
            yield live[first : first + page]

    def _live_job(self, job: Job) -> JobRow:
        row = job.new
        return JobRow(
            row.id,
            row.order,
            row.teamspace,
            self._kinds.index(job.kind) if job.kind in self._kinds else None,
            job.state,
            _run_at(row),
            row.chain,
            row.step,
            job.attempt,
            job.started,
            job.details,
            row.new.stop_on_failure,
        )

    async def known_keys(self, keys: Sequence[tuple[str, bytes]]) -> Mapping[tuple[str, bytes], KnownKey]:
        """What is stored under these keys; see the port."""
        await self._reach()
        numbers = {name: number for number, name in self.disk.teamspaces.items()}
        found = {}
        for name, key_hash in keys:
            key = self.disk.keys.get((numbers[name], key_hash)) if name in numbers else None
            if key is not None and key.expires > self.disk.wall():
                found[name, key_hash] = KnownKey(key.job, key.body_hash, self.disk.jobs[key.job].state)
        return found

    async def jobs_by_id(self, jobs: Sequence[JobId]) -> Mapping[JobId, StoredJob]:
        """These jobs, live or ended."""
        await self._reach()
        return {job: self._stored_job(self.disk.jobs[job]) for job in jobs if job in self.disk.jobs}

    async def job(self, job: JobId) -> StoredJob | None:
        """One job, live or ended."""
        await self._reach()
        stored = self.disk.jobs.get(job)
        return None if stored is None else self._stored_job(stored)

    async def jobs(self, which: JobFilter) -> Sequence[StoredJob]:
        """Jobs, newest first; see the port."""
        await self._reach()
        newest = max(self.disk.jobs, default=0) if which.before is None else which.before
        looked_back = newest - LOOK_BACK_JOBS if which.after is None else which.after
        found = [
            job
            for number, job in sorted(self.disk.jobs.items(), reverse=True)
            if (which.before is None or number < which.before) and self._matches(job, which, looked_back)
        ]
        return [self._stored_job(job) for job in found[: which.limit]]

    def _matches(self, job: Job, which: JobFilter, floor: int) -> bool:
        row = job.new
        is_noop = job.kind == "noop" and job.state is JobState.COMPLETED
        if row.id <= floor and job.state in ENDED and (is_noop or which.uid is not None):
            return False
        return (
            row.id > (which.after or 0)
            and which.teamspace in {None, self.disk.teamspaces[row.teamspace]}
            and which.table in {None, row.new.table}
            and (not which.families or self.disk.kinds[job.kind] in which.families)
            and (not which.states or job.state in which.states)
            and which.uid in {None, row.new.uid}
        )

    async def steps(self, *chains: JobId) -> Sequence[StoredJob]:
        """The steps of chains; see the port."""
        await self._reach()
        return [self._stored_job(step) for chain in sorted(chains) for step in self._steps(chain)]

    def _steps(self, chain: JobId) -> Sequence[Job]:
        return sorted(
            (job for job in self.disk.jobs.values() if job.new.chain == chain), key=lambda job: job.new.step or 0
        )

    async def history(self, job: JobId) -> Sequence[HistoryRow]:
        """The job's story, oldest first."""
        await self._reach()
        return [line for line in self.disk.history if line.job == job]

    def _counts(self, job: Job) -> Counts:
        if job.new.new.steps:
            steps = [self._counts(step) for step in self._steps(job.new.id)]
            return Counts(*(sum(getattr(step, name) for step in steps) for name in Counts.__struct_fields__))
        attempt = self.disk.attempts.get(job.new.id)
        return attempt.counts if attempt else job.counts

    def _stored_job(self, job: Job) -> StoredJob:
        row, new, ended = job.new, job.new.new, job.ended
        attempt = self.disk.attempts.get(row.id)
        return StoredJob(
            id=row.id,
            order=row.order,
            teamspace=self.disk.teamspaces[row.teamspace],
            kind=job.kind,
            state=job.state,
            submitted=row.submitted,
            run_at=_run_at(row),
            started=job.started,
            ended=None if ended is None else ended.ended,
            attempt=job.attempt,
            counts=self._counts(job),
            activity=attempt.activity if attempt else "",
            reason=None if ended is None else ended.reason,
            message="" if ended is None else ended.message,
            table=new.table,
            chain=row.chain,
            step=row.step,
            rerun_of=new.rerun_of,
            uid=new.uid,
            notify=new.notify,
            warnings=new.warnings,
            payload=new.payload,
        )


def _demand(holds: bool, complaint: str) -> None:
    if not holds:
        raise Contradiction(complaint)


def _stored_call(call: Call) -> StoredCall:
    row = call.row
    return StoredCall(row.id, row.job, row.attempt, row.account, row.cost, row.sent, call.began, call.state)


def _place(slot: SlotRow) -> tuple[TeamspaceId, Family, int]:
    return slot.teamspace, slot.family, slot.slot


def _run_at(row: AdmittedJob) -> Instant | None:
    new = row.new
    if new.run_at is None and new.delay_microseconds:
        return Instant(row.order + new.priority_microseconds)
    return new.run_at
