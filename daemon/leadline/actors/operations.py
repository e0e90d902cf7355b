"""One handler per operation: what every face of the daemon, socket or HTTP, does with a request.

A face decodes and encodes; here a request becomes an event or a question, and its answer becomes a reply. Nothing is
decided: refusals come from preparing a submission, from the scheduler, or from who the peer is.
"""

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Final, Protocol

import msgspec
import structlog
from msgspec import Struct

from leadline.actors import chain_reruns, views
from leadline.actors.dispatcher import unavailable
from leadline.actors.submitters import Submitters
from leadline.actors.supervisor import CHAIN, NOOP, Supervisor
from leadline.actors.table_operations import TableOperations
from leadline.core.effects import Receipt
from leadline.core.events import CancelAsked, Key, NewJob, PauseSet, Statement
from leadline.core.forecast import why
from leadline.core.model import ENDED, SECOND, Family, JobState, Now
from leadline.core.rate_limit import BucketLimit
from leadline.core.scheduler import Scheduler
from leadline.ports.control import Act
from leadline.ports.notices import Notice
from leadline.ports.store import Fenced, JobFilter, OutcomeUnknown, Store, StoredJob, Unavailable
from leadline.ports.tables import Tables
from leadline.ports.work import ChainNotes, JobKind, Prepared, Previews, Rerun
from leadline_protocol import messages as wire
from leadline_protocol.codec import body_of
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import Instant, JobId

log = structlog.get_logger(__name__)

STORE_LOST: Final = (Unavailable, OutcomeUnknown, Fenced)
"""What a question to the store raises while there is none to be sure of: the peer is told `unavailable`."""

_digest: Final = partial(hashlib.blake2s, digest_size=16)
"""Of short texts: a quarter quicker than blake2b."""

LOST_LOG_SECONDS: Final = 10.0
"""Least time between two lines of the log that say so: every request meets with it."""

SHOWN_LEADS: Final = 10
"""A formula that is only tried is shown on so many leads where its submission says no number."""

Answer = wire.Receipt | wire.Preview | wire.Refusal
"""What a submission is answered."""

Line = tuple[int, wire.Submission, bytes]
"""A submission with its line's number and bytes."""


class Peer(Struct, frozen=True):
    """Who is at the other end."""

    uid: int
    pid: int
    operator: bool
    """Whether it came in by the control socket."""


class Surroundings(Protocol):
    """What the composition root knows and the queue does not."""

    @property
    def version(self) -> str:
        """The daemon's own version."""
        ...

    @property
    def started(self) -> datetime:
        """When it began."""
        ...

    async def database(self) -> wire.DatabaseStatus:
        """The database as it is now."""
        ...

    @property
    def tables(self) -> Tables:
        """The tables of all teamspaces."""
        ...

    async def refused(self, job: JobId, after: int) -> Sequence[wire.RefusedRow]:
        """A page of the rows of an upload that were not taken, from behind row number `after` on."""
        ...

    async def headers(self, job: JobId) -> Sequence[str]:
        """The headers of the file of an upload."""
        ...

    async def lists(self, jobs: Sequence[JobId]) -> Mapping[JobId, wire.ListView]:
        """How the lists of jobs came about; those that have none yet are absent."""
        ...

    async def spent(self, job: JobId) -> Sequence[wire.Spent]:
        """What a job, or the steps of a chain, have cost."""
        ...

    async def usage(self, wanted: wire.Usage, limit: int) -> Sequence[wire.UsageRow]:
        """What a month has cost, in order of teamspace and provider. Raises Refused."""
        ...

    def plans(self, plan: str | None, teamspace: str | None, provider: str | None) -> Sequence[wire.PlanView]:
        """Limits in force. Raises Refused."""
        ...

    def plan_of(self, teamspace: str) -> str:
        """The name of a teamspace's plan."""
        ...

    async def set_limit(self, wanted: wire.Plans, act: Act) -> None:
        """Set the limit that `wanted` names, or take it back, and record the act. Raises Refused."""
        ...

    async def try_provider(self, wanted: wire.Providers, uid: int) -> wire.Tried:
        """Make one real call to a provider, for a user. Raises Refused."""
        ...

    def wishes(self, submission: wire.Submission) -> Sequence[Statement]:
        """What is stored with a new job of whom to tell of it by mail or webhook. Raises Refused."""
        ...

    async def notices(self, wanted: wire.Notices) -> Sequence[wire.NoticeView]:
        """Mails and webhooks about jobs; one that is to be sent again is due first. Raises Refused."""
        ...

    async def undelivered(self) -> int:
        """How many of these were given up or are held."""
        ...

    async def record(self, act: Act) -> None:
        """Write down what is about to be done."""
        ...

    async def acts(self, target: str) -> Sequence[Act]:
        """What was done to something, oldest first."""
        ...

    async def submitters(self, jobs: Sequence[JobId]) -> Mapping[JobId, int | None]:
        """Who submitted these jobs, which have ended."""
        ...

    async def reload(self) -> None:
        """Read the configuration file again. Raises Refused with every fault."""
        ...

    def drain(self) -> None:
        """Begin to end the daemon."""
        ...

    def connections(self) -> int:
        """How many peers are connected."""
        ...

    def loop_lag_seconds(self) -> float:
        """The worst delay of the event loop in the last minute."""
        ...


class Operations:
    """Carries out requests."""

    def __init__(
        self,
        supervisor: Supervisor,
        store: Store,
        kinds: Sequence[JobKind],
        surroundings: Surroundings,
        previews: Previews,
        *,
        allows: Callable[[int, str], bool],
        decode: Callable[[bytes], wire.Submission],
    ) -> None:
        """`allows` says whether a user id may submit for a teamspace; `decode` reads a stored submission."""
        self._supervisor = supervisor
        self._store = store
        self._kinds = {kind.name: (number, kind) for number, kind in enumerate(kinds, start=2)}
        self._families = {kind.name: kind.family.word for kind in supervisor.kinds}
        self._around = surroundings
        self._previews = previews
        self._allows = allows
        self._decode = decode
        self._told_of_loss = -LOST_LOG_SECONDS
        self.submitters: Final = Submitters(self._ask_submitters)
        self._of_tables: Final = TableOperations(supervisor, store, surroundings.tables, self._views)
        self._handlers: Final[dict[type[wire.Operation[wire.Reply]], Callable[..., Awaitable[wire.Reply]]]] = {
            wire.Ping: self._ping,
            wire.Get: self._get,
            wire.Job: self._job,
            wire.Jobs: self._jobs,
            wire.Why: self._why,
            wire.History: self._history,
            wire.Cancel: self._cancel,
            wire.Rerun: self._rerun,
            wire.Pause: self._pause,
            wire.Resume: self._pause,
            wire.Status: self._status,
            wire.Teamspaces: self._teamspaces,
            wire.Providers: self._providers,
            wire.Tables: self._tables,
            wire.Plans: self._plans,
            wire.Notices: self._notices,
            wire.Usage: self._usage,
            wire.Reload: self._reload,
            wire.Drain: self._drain,
        }

    # -- submissions ------------------------------------------------------------------------------------------------

    async def submit(
        self, lines: Sequence[Line], peer: Peer, source: Hashable = None
    ) -> Callable[[], Awaitable[list[Answer]]]:
        """Hand submissions in, behind all that were handed in before; what is returned waits for the replies.

        The replies come in the order of the lines, when what they say is durable. Where more comes in than can be
        stored at once, the sources have their turns. Waiting raises OutcomeUnknown where nobody can say whether the
        jobs were stored.
        """
        replies: list[Answer | None] = [None] * len(lines)
        places: list[int] = []
        jobs: list[NewJob] = []
        warnings: dict[int, list[wire.JobWarning]] = {}
        for place, (number, submission, line) in enumerate(lines):
            try:
                if submission.dry_run:
                    replies[place] = await self._preview(submission, peer, number)
                    continue
                if type(submission) is wire.Noop:
                    self._check_allowed(peer, submission.teamspace)
                    new = _new_job(submission, line, NOOP.number, _NOTHING, peer)
                    if submission.notices is not None:
                        new = self._with_wishes(new, submission)
                else:
                    new, warnings[place] = await self._prepare(submission, line, peer)
                    new = self._with_wishes(new, submission)
                places.append(place)
                jobs.append(new)
            except Refused as refused:
                replies[place] = refusal(refused, number, submission.ref)
            except STORE_LOST as error:
                replies[place] = refusal(self._lost(error), number, submission.ref)
        deciding = self._hand_in(jobs, source) if jobs else None

        async def answered() -> list[Answer]:
            try:
                answers = await deciding if deciding is not None else ()
            except Refused as refused:
                answers = [refused] * len(jobs)
            for place, answer in zip(places, answers, strict=True):
                number, submission, _ = lines[place]
                if isinstance(answer, Refused):
                    replies[place] = refusal(answer, number, submission.ref)
                else:
                    replies[place] = _receipt(answer, number, submission.ref, warnings.get(place, _NO_WARNINGS))
            return [reply for reply in replies if reply is not None]

        return answered

    def _hand_in(self, jobs: Sequence[NewJob], source: Hashable) -> "asyncio.Future[Sequence[Receipt | Refused]]":
        try:
            return self._supervisor.dispatcher.submit(jobs, source)
        except Refused as refused:
            at_once: asyncio.Future[Sequence[Receipt | Refused]] = asyncio.get_running_loop().create_future()
            at_once.set_result([refused] * len(jobs))
            return at_once

    async def _prepare(
        self, submission: wire.Submission, line: bytes, peer: Peer
    ) -> tuple[NewJob, list[wire.JobWarning]]:
        self._check_allowed(peer, submission.teamspace)
        if not isinstance(submission, wire.Chain):
            number, prepared = await self._prepared(submission, None)
            return _new_job(submission, line, number, prepared, peer), list(prepared.warnings)
        return await self._prepare_chain(submission, line, peer, [chain_reruns.FRESH] * len(submission.steps))

    async def _prepare_chain(
        self, submission: wire.Chain, line: bytes, peer: Peer, again: Sequence[chain_reruns.Again]
    ) -> tuple[NewJob, list[wire.JobWarning]]:
        """`again` is what each step takes over from one that it runs again."""
        steps: list[NewJob] = []
        warned: list[wire.JobWarning] = []
        notes: ChainNotes = {}
        for index, (step, earlier) in enumerate(zip(submission.steps, again, strict=True)):
            part = wire.submission_of(step, submission.teamspace)
            with _in_step(index):
                number, prepared = await self._prepared(part, notes, earlier.rerun)
            new = _new_job(part, msgspec.json.encode(part), number, prepared, peer)
            steps.append(msgspec.structs.replace(new, rerun_of=earlier.rerun_of))
            warned += prepared.warnings
        new = _new_job(submission, line, CHAIN.number, _NOTHING, peer)
        return msgspec.structs.replace(new, steps=tuple(steps), stop_on_failure=submission.on_failure == "stop"), warned

    async def _preview(self, submission: wire.Submission, peer: Peer, line: int) -> wire.Preview:
        """What a submission would take now. Raises Refused as `_prepare` does."""
        self._check_allowed(peer, submission.teamspace)
        self._around.wishes(submission)
        shown = SHOWN_LEADS if submission.dry_run is True else int(submission.dry_run)
        if not isinstance(submission, wire.Chain):
            steps = [await self._previews.preview(submission, None, shown)]
        else:
            steps, notes = [], ChainNotes()
            for index, step in enumerate(submission.steps):
                with _in_step(index):
                    part = wire.submission_of(step, submission.teamspace)
                    steps.append(await self._previews.preview(part, notes, shown))
        seconds = sum(step.seconds_at_least for step in steps)
        return wire.Preview(line=line, steps=steps, seconds_at_least=seconds, ref=submission.ref)

    async def _prepared(
        self, submission: wire.Submission, chain: ChainNotes | None, rerun: Rerun | None = None
    ) -> tuple[int, Prepared]:
        word = str(submission.__struct_config__.tag)
        if word == NOOP.name:
            return NOOP.number, _NOTHING
        found = self._kinds.get(word)
        if found is None:
            raise Refused(ErrorCode.UNKNOWN_KIND, f"there is no kind {word}", at="kind")
        number, kind = found
        return number, await kind.prepare(submission.teamspace, submission, chain=chain, rerun=rerun)

    def _with_wishes(self, new: NewJob, submission: wire.Submission) -> NewJob:
        """A new job with whom to tell of it by mail or webhook. Raises Refused."""
        wishes = self._around.wishes(submission)
        return msgspec.structs.replace(new, statements=(*new.statements, *wishes)) if wishes else new

    async def told_of(self, notice: Notice) -> bytes | None:
        """What a notice of a job says, as JSON; None where nobody knows of the job any more."""
        stored = await self._store.job(notice.job)
        if stored is None:
            return None
        view = views.job_view(stored, self._families.get(stored.kind, "tables"), None)
        return msgspec.json.encode(wire.JobNotice(notice=notice.id, event=notice.event, at=notice.made, job=view))

    def _check_allowed(self, peer: Peer, teamspace: str) -> None:
        if not peer.operator and not self._allows(peer.uid, teamspace):
            message = f"user {peer.uid} may not submit for {teamspace}"
            raise Refused(ErrorCode.FORBIDDEN, message, at="teamspace")

    # -- operations -------------------------------------------------------------------------------------------------

    async def perform(self, operation: wire.Operation[wire.Reply], peer: Peer, line: int) -> wire.Reply | wire.Refusal:
        """Carry out one operation. Raises OutcomeUnknown where nobody can say whether it took place."""
        try:
            return await self._handlers[type(operation)](operation, peer, line)
        except Refused as refused:
            return refusal(refused, line, operation.ref)
        except (Unavailable, Fenced) as error:
            return refusal(self._lost(error), line, operation.ref)

    async def view(self, job_id: JobId) -> wire.JobView:
        """One job as it is now. Raises Refused with not_found."""
        return await self._view(await self._stored(job_id))

    async def stored(self, job_id: JobId) -> StoredJob | None:
        """One job as stored. Raises Refused with unavailable."""
        try:
            return await self._store.job(job_id)
        except STORE_LOST as error:
            raise self._lost(error) from None

    def _lost(self, error: Exception) -> Refused:
        """What the peer is told of a fault of the store; what it was stands in the log, where administrators look."""
        if time.monotonic() - self._told_of_loss >= LOST_LOG_SECONDS:
            self._told_of_loss = time.monotonic()
            log.warning("store_lost", error=str(error))
        return unavailable()

    async def _ask_submitters(self, jobs: Sequence[JobId]) -> Mapping[JobId, int | None]:
        try:
            return await self._around.submitters(jobs)
        except STORE_LOST:
            raise unavailable() from None

    async def ended_since(self, since: JobId, uid: int) -> AsyncIterator[JobId]:
        """The ids of a user's jobs above `since` that have ended, newest first."""
        before: JobId | None = None
        while True:
            page = await self._store.jobs(JobFilter(uid=uid, before=before, limit=500, after=since))
            for stored in page:
                if stored.state in ENDED:
                    yield stored.id
            if not page:
                return
            before = page[-1].id

    async def _view(self, stored: StoredJob) -> wire.JobView:
        now = await self._look_at(stored.id) if stored.state not in ENDED else None
        view = views.job_view(stored, self._families.get(stored.kind, "tables"), now)
        if stored.kind == CHAIN.name:
            steps = [step.id for step in await self._store.steps(stored.id)]
            view = msgspec.structs.replace(view, steps=steps)
        return view

    async def _look_at(self, job_id: JobId) -> views.Live | None:
        return await self._supervisor.dispatcher.look(lambda scheduler, now: self._live(scheduler, job_id, now))

    def _live(self, scheduler: Scheduler, job_id: JobId, now: Now) -> views.Live | None:
        live = views.live(scheduler, job_id, now)
        reign = self._supervisor.reign
        if live is None or reign is None:
            return live
        rate = reign.leads_per_second(scheduler.jobs[job_id].teamspace, job_id)
        return msgspec.structs.replace(live, leads_per_second=rate)

    async def _stored(self, job_id: JobId) -> StoredJob:
        stored = await self.stored(job_id)
        if stored is None:
            raise Refused(ErrorCode.NOT_FOUND, f"there is no job {job_id}", at="job")
        return stored

    async def _ping(self, operation: wire.Ping, _: Peer, line: int) -> wire.Reply:
        await self._supervisor.dispatcher.look(lambda *_: None)
        return wire.Pong(line=line, version=self._around.version, ref=operation.ref)

    async def _get(self, operation: wire.Get, peer: Peer, line: int) -> wire.Reply:
        stored = await self._stored(operation.job)
        if not peer.operator and stored.uid != peer.uid:
            raise Refused(ErrorCode.NOT_FOUND, f"there is no job {operation.job}", at="job")
        (view,) = await self._with_lists([await self._view(stored)])
        spent = await self._around.spent(stored.id)
        return wire.JobReply(line=line, view=view, spent=list(spent), ref=operation.ref)

    async def _job(self, operation: wire.Job, _: Peer, line: int) -> wire.Reply:
        stored = await self._stored(operation.job)
        submission = msgspec.json.decode(stored.payload) if stored.payload else None
        refused: Sequence[wire.RefusedRow] = ()
        headers: Sequence[str] = ()
        if operation.refused_after is not None:
            refused = await self._around.refused(stored.id, operation.refused_after)
            if operation.refused_after == 0:
                headers = await self._around.headers(stored.id)
        steps: list[wire.JobView] = []
        if stored.kind == CHAIN.name:
            steps = await self._views(await self._store.steps(stored.id))
        view, *steps = await self._with_lists([await self._view(stored), *steps])
        return wire.JobReply(
            line=line,
            view=view,
            submission=submission,
            refused=list(refused),
            headers=list(headers),
            steps=steps,
            spent=list(await self._around.spent(stored.id)),
            ref=operation.ref,
        )

    async def _with_lists(self, shown: Sequence[wire.JobView]) -> list[wire.JobView]:
        lists = await self._around.lists([view.job for view in shown])
        return [msgspec.structs.replace(view, frozen_list=lists.get(view.job)) for view in shown]

    async def _jobs(self, operation: wire.Jobs, _: Peer, line: int) -> wire.Reply:
        families = () if operation.family is None else (Family[operation.family.upper()],)
        table = None
        if operation.table is not None:
            if operation.teamspace is None:
                raise Refused(ErrorCode.BAD_REQUEST, "name the teamspace whose table it is", at="teamspace")
            table = await self._around.tables.find(operation.teamspace, operation.table)
        states = () if operation.state is None else (JobState(operation.state),)
        which = JobFilter(operation.teamspace, table, families, states, None, operation.before, operation.limit + 1)
        found = list(await self._store.jobs(which))
        page = found[: operation.limit]
        following = page[-1].id if len(found) > operation.limit else None
        return wire.JobList(line=line, jobs=await self._views(page), next=following, ref=operation.ref)

    async def _views(self, page: Sequence[StoredJob]) -> list[wire.JobView]:
        live = [stored.id for stored in page if stored.state not in ENDED]

        def look(scheduler: Scheduler, now: Now) -> dict[JobId, views.Live | None]:
            return {job_id: self._live(scheduler, job_id, now) for job_id in live}

        seen = await self._supervisor.dispatcher.look(look) if live else {}
        return [
            views.job_view(stored, self._families.get(stored.kind, "tables"), seen.get(stored.id)) for stored in page
        ]

    async def _why(self, operation: wire.Why, _: Peer, line: int) -> wire.Reply:
        stored = await self._stored(operation.job)
        if stored.state in ENDED:
            return wire.WhyReply(line=line, job=stored.id, blockers=[], jobs_ahead=0, ref=operation.ref)
        told = await self._supervisor.dispatcher.look(lambda scheduler, now: why(scheduler, stored.id, now))
        eta = None
        if told.earliest is not None and told.latest is not None:
            eta = wire.Eta(earliest=views.certain_moment(told.earliest), latest=views.certain_moment(told.latest))
        return wire.WhyReply(
            line=line,
            job=stored.id,
            blockers=[views.wait(each) for each in told.blockers],
            jobs_ahead=told.jobs_ahead,
            eta=eta,
            ref=operation.ref,
        )

    async def _history(self, operation: wire.History, _: Peer, line: int) -> wire.Reply:
        stored = await self._stored(operation.job)
        entries = [wire.HistoryEntry(at=views.certain_moment(stored.submitted), event="submitted")]
        for row in await self._store.history(stored.id):
            detail = {"message": row.detail} if row.detail else {}
            entries.append(wire.HistoryEntry(at=views.certain_moment(row.at), event=row.event, detail=detail))
        if stored.ended is not None and (not entries or entries[-1].event != stored.state):
            entries.append(wire.HistoryEntry(at=views.certain_moment(stored.ended), event=stored.state))
        entries += [views.act_entry(act) for act in await self._around.acts(f"job {stored.id}")]
        entries.sort(key=lambda entry: entry.at)
        return wire.HistoryReply(line=line, job=stored.id, history=entries, ref=operation.ref)

    async def _cancel(self, operation: wire.Cancel, peer: Peer, line: int) -> wire.Reply:
        stored = await self._stored(operation.job)
        if stored.state in ENDED:
            message = f"job {stored.id} has ended: {stored.state}"
            raise Refused(ErrorCode.BAD_STATE, message, at="job")
        detail = "force" if operation.force else ""
        await self._around.record(_act(operation, peer, f"job {stored.id}", detail))
        await self._supervisor.dispatcher.tell(CancelAsked(operation.job, operation.force))
        view = await self.view(operation.job)
        return wire.Changed(line=line, job=operation.job, state=view.state, ref=operation.ref)

    async def _rerun(self, operation: wire.Rerun, peer: Peer, line: int) -> wire.Reply:
        stored = await self._stored(operation.job)
        if stored.state not in ENDED:
            message = f"job {stored.id} is {stored.state}: only a job that has ended can be run again"
            raise Refused(ErrorCode.BAD_STATE, message, at="job")
        if stored.kind == CHAIN.name:
            return await self._rerun_chain(operation, stored, peer, line)
        if operation.from_step is not None:
            raise Refused(ErrorCode.BAD_REQUEST, f"job {stored.id} is no chain", at="from_step")
        if stored.kind not in self._kinds:
            raise Refused(ErrorCode.BAD_STATE, f"a {stored.kind} cannot be run again", at="job")
        await self._check_kept([stored])
        submission = self._submitted(stored)
        number, kind = self._kinds[stored.kind]
        rerun = Rerun(stored.id, operation.leads)
        prepared = await kind.prepare(stored.teamspace, submission, chain=None, rerun=rerun)
        new = _new_job(submission, msgspec.json.encode(submission), number, prepared, peer)
        return await self._hand_in_again(operation, stored, peer, line, new, prepared.warnings)

    async def _rerun_chain(self, operation: wire.Rerun, stored: StoredJob, peer: Peer, line: int) -> wire.Reply:
        steps = await self._store.steps(stored.id)
        begin = chain_reruns.first_unfinished(steps) if operation.from_step is None else operation.from_step - 1
        if begin is None:
            message = f"every step of chain {stored.id} is finished; name the one to begin with"
            raise Refused(ErrorCode.BAD_STATE, message, at="from_step")
        chain = self._submitted(stored)
        assert isinstance(chain, wire.Chain)
        if begin >= len(chain.steps):
            message = f"chain {stored.id} has {len(chain.steps)} steps"
            raise Refused(ErrorCode.BAD_REQUEST, message, at="from_step")
        first = msgspec.structs.replace(chain.steps[begin], when=None)
        chain = msgspec.structs.replace(chain, steps=[first, *chain.steps[begin + 1 :]])
        await self._check_kept(steps[begin:])
        again = chain_reruns.again(steps[begin:], operation.leads)
        new, warnings = await self._prepare_chain(chain, msgspec.json.encode(chain), peer, again)
        return await self._hand_in_again(operation, stored, peer, line, new, warnings)

    async def _check_kept(self, jobs: Sequence[StoredJob]) -> None:
        """A rerun goes by the lists of the jobs that it repeats. Raises Refused where one has been dropped by age."""
        lists = await self._around.lists([job.id for job in jobs])
        for job in jobs:
            if job.counts.total and job.kind != chain_reruns.UPLOAD and job.id not in lists:
                message = f"which leads job {job.id} has worked on is not kept any more"
                raise Refused(ErrorCode.BAD_STATE, message, at="job")

    def _submitted(self, stored: StoredJob) -> wire.Submission:
        """The work of a submission, without what concerned its own time and its own receipt."""
        return msgspec.structs.replace(
            self._decode(stored.payload), idempotency_key=None, run_at=None, delay=None, ref=None, notify=False
        )

    async def _hand_in_again(
        self,
        operation: wire.Rerun,
        stored: StoredJob,
        peer: Peer,
        line: int,
        new: NewJob,
        warnings: Sequence[wire.JobWarning],
    ) -> wire.Reply:
        new = self._with_wishes(msgspec.structs.replace(new, rerun_of=stored.id), self._submitted(stored))
        await self._around.record(_act(operation, peer, f"job {stored.id}", operation.leads))
        (answer,) = await self._supervisor.dispatcher.submit([new])
        if isinstance(answer, Refused):
            raise answer
        return _receipt(answer, line, operation.ref, list(warnings))

    async def _pause(self, operation: wire.Pause | wire.Resume, peer: Peer, line: int) -> wire.Reply:
        name = "" if operation.name is None else str(operation.name)
        if operation.scope == "family" and name not in {family.word for family in Family}:
            raise Refused(ErrorCode.BAD_REQUEST, f"there is no family {name}", at="name")
        paused = isinstance(operation, wire.Pause)
        what = f"{operation.scope} {name}".strip()
        await self._around.record(_act(operation, peer, what))
        await self._supervisor.dispatcher.tell(PauseSet(operation.scope, name, paused))
        return wire.Done(line=line, message=f"The {what} is {'paused' if paused else 'going on'}.", ref=operation.ref)

    async def _status(self, operation: wire.Status, _: Peer, line: int) -> wire.Reply:
        around = self._around
        reign = self._supervisor.reign
        status = wire.StatusReply(
            line=line,
            version=around.version,
            pid=os.getpid(),
            epoch=0 if reign is None else reign.epoch,
            started_at=around.started,
            uptime_seconds=time.time() - around.started.timestamp(),
            state="unavailable" if self._supervisor.has_reigned else "starting",
            families=[],
            teamspaces=0,
            database=await around.database(),
            loop_lag_seconds=around.loop_lag_seconds(),
            memory_bytes=_resident_bytes(),
            connections=around.connections(),
            warnings=_of_notices(await around.undelivered()),
            ref=operation.ref,
        )
        if reign is None:
            return status
        pace = reign.dispatcher.pace

        def look(scheduler: Scheduler, now: Now) -> wire.StatusReply:
            oldest = scheduler.backlog.oldest()
            return msgspec.structs.replace(
                status,
                state="draining" if scheduler.draining else "ready",
                paused=sorted(f"{scope} {name}".strip() for scope, name in scheduler.pauses),
                families=_families(scheduler),
                teamspaces=len({teamspace for teamspace, _ in scheduler.backlog.lanes}),
                oldest_queued_at=None if oldest is None else views.certain_moment(Instant(oldest)),
                jobs_per_second=pace.jobs_per_second(now.instant),
                providers=_providers(scheduler, now, in_use=True),
                database=msgspec.structs.replace(
                    status.database,
                    commit_seconds_p50=pace.commit_seconds(0.5),
                    commit_seconds_p99=pace.commit_seconds(0.99),
                    records_available=_records_available(scheduler, now),
                ),
            )

        return await reign.dispatcher.look(look)

    async def _teamspaces(self, operation: wire.Teamspaces, _: Peer, line: int) -> wire.Reply:
        def look(scheduler: Scheduler, _: Now) -> list[wire.TeamspaceView]:
            names = sorted(name for name in scheduler.names if operation.after is None or name > operation.after)
            return [self._teamspace(scheduler, name) for name in names[: operation.limit + 1]]

        found = await self._supervisor.dispatcher.look(look)
        page = found[: operation.limit]
        following = page[-1].teamspace if len(found) > operation.limit else None
        return wire.TeamspacesReply(line=line, teamspaces=page, next=following, ref=operation.ref)

    def _teamspace(self, scheduler: Scheduler, name: str) -> wire.TeamspaceView:
        number = scheduler.names[name]
        limits = scheduler.limits_of(number)
        lanes = [lane for family in Family if (lane := scheduler.backlog.lanes.get((number, family))) is not None]
        return wire.TeamspaceView(
            teamspace=name,
            plan=self._around.plan_of(name),
            queued=sum(lane.queued for lane in lanes),
            running=sum(len(lane.held) for lane in lanes),
            paused=("teamspace", name) in scheduler.pauses,
            slots={family.word: slots for family, slots in limits.slots.items() if slots is not None},
        )

    async def _providers(self, operation: wire.Providers, peer: Peer, line: int) -> wire.Reply:
        tried = None
        if operation.action == "try":
            await self._around.record(_act(operation, peer, f"provider {operation.name}", "try"))
            tried = await self._around.try_provider(operation, peer.uid)

        def look(scheduler: Scheduler, now: Now) -> list[wire.ProviderView]:
            return _providers(scheduler, now, in_use=False)

        found = await self._supervisor.dispatcher.look(look)
        if operation.name is not None:
            found = [view for view in found if view.provider == operation.name]
            if not found:
                raise Refused(ErrorCode.UNKNOWN_PROVIDER, f"there is no provider {operation.name}", at="name")
        return wire.ProvidersReply(line=line, providers=found, tried=tried, ref=operation.ref)

    async def _tables(self, operation: wire.Tables, peer: Peer, line: int) -> wire.Reply:
        async def record(target: str, detail: str) -> None:
            await self._around.record(_act(operation, peer, target, detail))

        return await self._of_tables.perform(operation, record, line)

    async def _plans(self, operation: wire.Plans, peer: Peer, line: int) -> wire.Reply:
        if operation.key is not None:
            (whose,) = (
                f"{scope} {name}"
                for scope in ("plan", "teamspace", "provider")
                if (name := getattr(operation, scope)) is not None
            )
            value = msgspec.json.encode(operation.value).decode()
            await self._around.set_limit(operation, _act(operation, peer, whose, f"{operation.key} = {value}"))
        found = self._around.plans(operation.plan, operation.teamspace, operation.provider)
        return wire.PlansReply(line=line, plans=list(found), ref=operation.ref)

    async def _notices(self, operation: wire.Notices, peer: Peer, line: int) -> wire.Reply:
        if operation.again is not None:
            await self._around.record(_act(operation, peer, f"notice {operation.again}", "again"))
        found = await self._around.notices(operation)
        return wire.NoticesReply(line=line, notices=list(found), ref=operation.ref)

    async def _usage(self, operation: wire.Usage, _: Peer, line: int) -> wire.Reply:
        found = await self._around.usage(operation, operation.limit + 1)
        page = list(found[: operation.limit])
        following = None
        if len(found) > operation.limit:
            following = msgspec.json.encode([page[-1].teamspace or "", page[-1].provider or ""]).decode()
        return wire.UsageReply(line=line, usage=page, next=following, ref=operation.ref)

    async def _reload(self, operation: wire.Reload, peer: Peer, line: int) -> wire.Reply:
        await self._around.record(_act(operation, peer, ""))
        await self._around.reload()
        return wire.Done(line=line, message="The configuration was read again and is in force.", ref=operation.ref)

    async def _drain(self, operation: wire.Drain, peer: Peer, line: int) -> wire.Reply:
        await self._around.record(_act(operation, peer, ""))
        self._around.drain()
        return wire.Done(line=line, message="Nothing more is started; the daemon ends.", ref=operation.ref)


@contextmanager
def _in_step(index: int) -> Iterator[None]:
    """What is refused within is at that step of its chain."""
    try:
        yield
    except Refused as refused:
        at = f"steps[{index}].{refused.at}" if refused.at else f"steps[{index}]"
        raise Refused(refused.code, refused.message, at=at, retry_after=refused.retry_after) from refused


def refusal(refused: Refused, line: int, ref: wire.Ref) -> wire.Refusal:
    """The reply that says no."""
    fault = wire.Fault(code=refused.code, message=refused.message, at=refused.at, retry_after=refused.retry_after)
    return wire.Refusal(line=line, error=fault, ref=ref)


_NOTHING: Final = Prepared()
_NO_WARNINGS: Final[list[wire.JobWarning]] = []
_NO_STEPS: Final[list[JobId]] = []  # receipts are written by the thousand: nearly all share these two


def _act(operation: wire.ControlOperation[wire.Reply], peer: Peer, target: str, detail: str = "") -> Act:
    """What is written down of an operation: the peer as the kernel knows it, the person as the peer says."""
    someone = operation.as_
    return Act(
        at=Instant(time.time_ns() // 1_000),
        uid=peer.uid,
        pid=peer.pid,
        person=None if someone is None else someone.person,
        role=None if someone is None else someone.role,
        op=str(operation.__struct_config__.tag),
        target=target,
        detail=detail,
    )


def _of_notices(undelivered: int) -> list[wire.JobWarning]:
    if not undelivered:
        return []
    message = f"{undelivered:,} mails or webhooks about jobs were not delivered: leadline notices tells which"
    return [wire.JobWarning(code="undelivered_notices", message=message)]


def _new_job(submission: wire.Submission, line: bytes, kind: int, prepared: Prepared, peer: Peer) -> NewJob:
    key = None
    if submission.idempotency_key is not None:
        key = Key(
            _digest(submission.idempotency_key.encode()).digest(),
            _digest(body_of(submission)).digest(),
        )
    return NewJob(
        submission.teamspace,
        kind,
        line,
        key=key,
        run_at=None if submission.run_at is None else Instant(int(submission.run_at.timestamp() * SECOND)),
        delay_microseconds=0 if submission.delay is None else int(submission.delay * SECOND),
        priority_microseconds=int(submission.priority_seconds * SECOND),
        table=prepared.table,
        total=prepared.total,
        warnings=msgspec.json.encode(list(prepared.warnings)) if prepared.warnings else b"",
        uid=peer.uid,
        notify=submission.notify,
        statements=tuple(prepared.statements),
    )


def _receipt(receipt: Receipt, line: int, ref: wire.Ref, warned: list[wire.JobWarning]) -> wire.Receipt:
    return wire.Receipt(
        line=line,
        job=receipt.job,
        state=receipt.state,
        jobs_ahead=receipt.jobs_ahead,
        duplicate=receipt.duplicate,
        warnings=_NO_WARNINGS if receipt.duplicate else warned,
        steps=list(receipt.steps) if receipt.steps else _NO_STEPS,
        ref=ref,
    )


def _families(scheduler: Scheduler) -> list[wire.FamilyStatus]:
    delayed = dict.fromkeys(Family, 0)
    for _, job_id in scheduler.delayed:
        job = scheduler.jobs.get(job_id)
        if job is not None and job.state is JobState.DELAYED:
            delayed[scheduler.kinds[job.kind].family] += 1
    running = dict.fromkeys(Family, 0)
    stopping = dict.fromkeys(Family, 0)
    for job in scheduler.running.values():
        (stopping if job.state is JobState.STOPPING else running)[scheduler.kinds[job.kind].family] += 1
    return [
        wire.FamilyStatus(
            family=family.word,
            delayed=delayed[family],
            queued=scheduler.backlog.queued[family],
            running=running[family],
            stopping=stopping[family],
            in_hand=scheduler.busy[family],
            capacity=scheduler.rules.capacity.get(family),
        )
        for family in Family
    ]


def _providers(scheduler: Scheduler, now: Now, *, in_use: bool) -> list[wire.ProviderView]:
    waiting: dict[str, Counter[str]] = {}
    for call in scheduler.calls.values():
        if not call.granted and call.job in scheduler.jobs:
            teamspace = scheduler.teamspaces.names[scheduler.jobs[call.job].teamspace]
            waiting.setdefault(call.account, Counter())[teamspace] += 1
    found = []
    for name, account in sorted(scheduler.accounts.items()):
        state = account.state(now.instant)
        used = state.waiting or state.in_flight or state.standing.throttled_until or state.standing.parked
        if in_use and not (used or any(limit.charged for limit in state.limits)):
            continue
        turn = None
        if state.next is not None:
            turn = scheduler.teamspaces.names[scheduler.jobs[scheduler.calls[state.next].job].teamspace]
        found.append(views.provider_view(name, state, waiting.get(name, {}), turn, now.instant))
    return found


def _records_available(scheduler: Scheduler, now: Now) -> float | None:
    """What our own database's bucket holds; None where nothing bounds what is written."""
    for account in scheduler.accounts.values():
        for state in account.state(now.instant).limits:
            if isinstance(state.limit, BucketLimit):
                return state.free
    return None


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  read on every status: no Path needed
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
