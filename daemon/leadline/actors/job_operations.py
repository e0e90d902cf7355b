"""Operations on jobs: what is known of them, and what is done about them."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import islice
from typing import Final

import msgspec

from leadline.actors import chain_reruns, listings, views
from leadline.actors.dispatcher import unavailable
from leadline.actors.losses import STORE_LOST, Losses
from leadline.actors.peers import Peer, act
from leadline.actors.submissions import Submissions, new_job, receipt_of
from leadline.actors.submitters import Submitters
from leadline.actors.supervisor import CHAIN, Supervisor
from leadline.actors.surroundings import Surroundings
from leadline.core.estimate import ends
from leadline.core.events import CancelAsked, NewJob
from leadline.core.forecast import Why, why
from leadline.core.model import ENDED, Family, JobState, Now
from leadline.core.scheduler import Scheduler
from leadline.ports.notices import Notice
from leadline.ports.store import JobFilter, Store, StoredJob
from leadline.ports.work import JobKind, Rerun
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId


class JobOperations:
    """Carries out `get`, `job`, `jobs`, `why`, `history`, `cancel` and `rerun`."""

    def __init__(
        self,
        supervisor: Supervisor,
        store: Store,
        kinds: Mapping[str, tuple[int, JobKind]],
        surroundings: Surroundings,
        submissions: Submissions,
        losses: Losses,
        decode: Callable[[bytes], wire.Submission],
    ) -> None:
        """`kinds`: by their names, with their numbers; `decode` reads a stored submission."""
        self._supervisor = supervisor
        self._store = store
        self._kinds = kinds
        self._families = {kind.name: kind.family.word for kind in supervisor.kinds}
        self._around = surroundings
        self._submissions = submissions
        self._losses = losses
        self._decode = decode
        self.submitters: Final = Submitters(self._ask_submitters)

    # -- what others ask --------------------------------------------------------------------------------------------

    async def view(self, job_id: JobId) -> wire.JobView:
        """One job as it is now. Raises Refused with not_found."""
        return await self._view(await self._stored(job_id))

    async def stored(self, job_id: JobId) -> StoredJob | None:
        """One job as stored. Raises Refused with unavailable."""
        try:
            return await self._store.job(job_id)
        except STORE_LOST as error:
            raise self._losses.refused(error) from None

    async def shown(self, page: Sequence[StoredJob], explained: int = 0) -> list[wire.JobView]:
        """How jobs look, each with what the queue knows of it now; so many that wait with all that holds them."""
        live = [stored.id for stored in page if stored.state not in ENDED]
        told: dict[JobId, Why] = {}

        def look(scheduler: Scheduler, now: Now) -> dict[JobId, views.Live | None]:
            seen = {job_id: self._live(scheduler, job_id, now) for job_id in live}
            waiting = (job_id for job_id, each in seen.items() if each is not None and each.waits_for_its_turn)
            told.update((job_id, why(scheduler, job_id, now, counted=False)) for job_id in islice(waiting, explained))
            return seen

        seen = await self._supervisor.dispatcher.look(look) if live else {}
        shown = [
            views.job_view(stored, self._families.get(stored.kind, "tables"), seen.get(stored.id)) for stored in page
        ]
        return [views.explained(view, told[view.job]) if view.job in told else view for view in shown]

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

    async def is_live(self, job_id: JobId) -> bool:
        """Whether a job has not ended. Raises Refused with unavailable."""
        return await self._supervisor.dispatcher.look(lambda scheduler, _: job_id in scheduler.jobs)

    async def told_of(self, notice: Notice) -> bytes | None:
        """What a notice of a job says, as JSON; None where nobody knows of the job any more."""
        stored = await self._store.job(notice.job)
        if stored is None:
            return None
        view = views.job_view(stored, self._families.get(stored.kind, "tables"), None)
        return msgspec.json.encode(wire.JobNotice(notice=notice.id, event=notice.event, at=notice.made, job=view))

    # -- what is known ----------------------------------------------------------------------------------------------

    async def get(self, operation: wire.Get, peer: Peer, line: int) -> wire.Reply:
        """One job, for whoever submitted it, or an operator. Raises Refused."""
        stored = await self._stored(operation.job)
        if not peer.operator and stored.uid != peer.uid:
            raise Refused(ErrorCode.NOT_FOUND, f"there is no job {operation.job}", at="job")
        (view,) = await self._with_lists([await self._view(stored)])
        spent = await self._around.spent(stored.id)
        return wire.JobReply(line=line, view=view, spent=list(spent), ref=operation.ref)

    async def job(self, operation: wire.Job, _: Peer, line: int) -> wire.Reply:
        """One job with all that is kept of it. Raises Refused."""
        stored = await self._stored(operation.job)
        submission = msgspec.json.decode(stored.payload) if stored.payload else None
        refused: Sequence[wire.RefusedRow] = ()
        headers: Sequence[str] = ()
        if operation.refused_after is not None:
            refused = await self._around.refused(stored.id, operation.refused_after)
            if operation.refused_after == 0:
                headers = await self._around.headers(stored.id)
        leads: Sequence[wire.LeadNotDone] = ()
        columns: Sequence[str] = ()
        if operation.leads_after is not None and stored.table is not None:
            leads = await self._around.not_done(stored.id, stored.table, operation.leads_after)
            columns = await self._around.columns(stored.table)
        steps: list[wire.JobView] = []
        if stored.kind == CHAIN.name:
            steps = await self.shown(await self._store.steps(stored.id))
        view, *steps = await self._with_lists([await self._view(stored), *steps])
        return wire.JobReply(
            line=line,
            view=view,
            submission=submission,
            refused=list(refused),
            headers=list(headers),
            leads=list(leads),
            columns=list(columns),
            steps=steps,
            spent=list(await self._around.spent(stored.id)),
            errors=list(await self._around.errors(stored.id)),
            throughput=views.throughput(stored, await self._around.throughput(stored.id)),
            ref=operation.ref,
        )

    async def jobs(self, operation: wire.Jobs, _: Peer, line: int) -> wire.Reply:
        """A page of jobs, newest first. Raises Refused."""
        families = () if operation.family is None else (Family[operation.family.upper()],)
        table = None
        if operation.table is not None:
            if operation.teamspace is None:
                raise Refused(ErrorCode.BAD_REQUEST, "name the teamspace whose table it is", at="teamspace")
            table = await self._around.tables.find(operation.teamspace, operation.table)
        named = [*operation.states, *([] if operation.state is None else [operation.state])]
        states = tuple(JobState(word) for word in dict.fromkeys(named))
        which = JobFilter(operation.teamspace, table, families, states, None, operation.before, operation.limit)
        listing = await (listings.nested_page if operation.nested else listings.page)(self._store, which)
        shown = await self.shown([*listing.jobs, *listing.steps], operation.explained)
        jobs, steps = shown[: len(listing.jobs)], shown[len(listing.jobs) :]
        return wire.JobList(line=line, jobs=jobs, next=listing.following, steps=steps, ref=operation.ref)

    async def why(self, operation: wire.Why, _: Peer, line: int) -> wire.Reply:
        """What a job waits for. Raises Refused."""
        stored = await self._stored(operation.job)
        if stored.state in ENDED:
            return wire.WhyReply(line=line, job=stored.id, blockers=[], jobs_ahead=0, ref=operation.ref)
        told = await self._supervisor.dispatcher.look(lambda scheduler, now: why(scheduler, stored.id, now))
        return wire.WhyReply(
            line=line,
            job=stored.id,
            blockers=[views.wait(each) for each in told.blockers],
            jobs_ahead=told.jobs_ahead,
            eta=views.goes_on(told),
            ref=operation.ref,
        )

    async def history(self, operation: wire.History, _: Peer, line: int) -> wire.Reply:
        """What has become of a job, and what was done about it, oldest first. Raises Refused."""
        stored = await self._stored(operation.job)
        entries = [wire.HistoryEntry(at=views.certain_moment(stored.submitted), event="submitted")]
        for row in await self._store.history(stored.id):
            detail = {"message": row.detail} if row.detail else {}
            entries.append(wire.HistoryEntry(at=views.certain_moment(row.at), event=row.event, detail=detail))
        if stored.ended is not None and (not entries or entries[-1].event != stored.state):
            entries.append(wire.HistoryEntry(at=views.certain_moment(stored.ended), event=stored.state))
        entries += [views.act_entry(each) for each in await self._around.acts(f"job {stored.id}")]
        entries.sort(key=lambda entry: entry.at)
        return wire.HistoryReply(line=line, job=stored.id, history=entries, ref=operation.ref)

    # -- what is done -----------------------------------------------------------------------------------------------

    async def cancel(self, operation: wire.Cancel, peer: Peer, line: int) -> wire.Reply:
        """Have a job end. Raises Refused where it has."""
        await self._not_ended(operation.job)
        detail = "force" if operation.force else ""
        await self._around.record(act(operation, peer, f"job {operation.job}", detail))
        try:
            await self._supervisor.dispatcher.tell(CancelAsked(operation.job, operation.force))
        except Refused as refused:
            if refused.code is ErrorCode.NOT_FOUND:  # it was there a moment ago
                await self._not_ended(operation.job)
            raise
        view = await self.view(operation.job)
        return wire.Changed(line=line, job=operation.job, state=view.state, ref=operation.ref)

    async def rerun(self, operation: wire.Rerun, peer: Peer, line: int) -> wire.Reply:
        """Run a job that has ended again. Raises Refused."""
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
        new = new_job(submission, msgspec.json.encode(submission), number, prepared, peer)
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
        new, warnings = await self._submissions.prepare_chain(chain, msgspec.json.encode(chain), peer, again)
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
        new = self._submissions.with_wishes(msgspec.structs.replace(new, rerun_of=stored.id), self._submitted(stored))
        await self._around.record(act(operation, peer, f"job {stored.id}", operation.leads))
        (answer,) = await self._supervisor.dispatcher.submit([new])
        if isinstance(answer, Refused):
            raise answer
        return receipt_of(answer, line, operation.ref, list(warnings))

    # -- how a job looks --------------------------------------------------------------------------------------------

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
        job = scheduler.jobs[job_id]
        tempo = reign.tempo(job.teamspace, job_id)
        if tempo is None:
            return live
        return msgspec.structs.replace(live, tempo=tempo, ends=ends(scheduler, job, tempo, now))

    async def _stored(self, job_id: JobId) -> StoredJob:
        stored = await self.stored(job_id)
        if stored is None:
            raise Refused(ErrorCode.NOT_FOUND, f"there is no job {job_id}", at="job")
        return stored

    async def _not_ended(self, job_id: JobId) -> None:
        """Raises Refused where a job has ended, or there is none."""
        stored = await self._stored(job_id)
        if stored.state in ENDED:
            raise Refused(ErrorCode.BAD_STATE, f"job {job_id} has ended: {stored.state}", at="job")

    async def _with_lists(self, shown: Sequence[wire.JobView]) -> list[wire.JobView]:
        lists = await self._around.lists([view.job for view in shown])
        return [msgspec.structs.replace(view, frozen_list=lists.get(view.job)) for view in shown]

    async def _ask_submitters(self, jobs: Sequence[JobId]) -> Mapping[JobId, int | None]:
        try:
            return await self._around.submitters(jobs)
        except STORE_LOST:
            raise unavailable() from None
