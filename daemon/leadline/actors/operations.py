"""One handler per operation: what every face of the daemon, socket or HTTP, does with a request.

A face decodes and encodes; here a request becomes an event or a question, and its answer becomes a reply. Nothing is
decided: refusals come from preparing a submission, from the scheduler, or from who the peer is.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from leadline.actors.api_tokens import ApiTokens
from leadline.actors.job_operations import JobOperations
from leadline.actors.losses import Losses
from leadline.actors.peers import Peer, act, refusal, submission_act
from leadline.actors.queue_operations import QueueOperations
from leadline.actors.schedule_operations import ScheduleOperations
from leadline.actors.sessions import Sessions
from leadline.actors.submissions import Submissions
from leadline.actors.supervisor import Supervisor
from leadline.actors.surroundings import Surroundings
from leadline.actors.table_operations import TableOperations
from leadline.ports.store import Fenced, Store, Unavailable
from leadline.ports.work import JobKind, Previews
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused


class Operations:
    """Carries out requests."""

    def __init__(
        self,
        supervisor: Supervisor,
        store: Store,
        kinds: Sequence[JobKind],
        surroundings: Surroundings,
        previews: Previews,
        tokens: ApiTokens,
        sessions: Sessions,
        *,
        allows: Callable[[int, str], bool],
        decode: Callable[[bytes], wire.Submission],
    ) -> None:
        """`allows` says whether a user id may submit for a teamspace; `decode` reads a stored submission."""
        self._supervisor = supervisor
        self._around = surroundings
        self._allows = allows
        self._api_tokens = tokens
        self._sessions = sessions
        self._losses = Losses()
        numbered = {kind.name: (number, kind) for number, kind in enumerate(kinds, start=2)}
        submissions = Submissions(supervisor, numbered, surroundings, previews, self._losses, allows)
        self.submissions: Final = submissions
        self.submit: Final = submissions.submit
        self.submit_due: Final = submissions.submit_due
        self.jobs: Final = JobOperations(supervisor, store, numbered, surroundings, submissions, self._losses, decode)
        self._of_tables: Final = TableOperations(
            supervisor, store, surroundings.tables, self.jobs.shown, surroundings.modules
        )
        self._of_schedules: Final = ScheduleOperations(
            surroundings.schedules,
            surroundings.wall,
            decode,
            surroundings.schedule_rules,
            surroundings.schedule_changed,
            surroundings.soonest_schedules,
        )
        queue = QueueOperations(supervisor, surroundings)
        self._handlers: Final[dict[type[wire.Operation[wire.Reply]], Callable[..., Awaitable[wire.Reply]]]] = {
            wire.Ping: self._ping,
            wire.Get: self.jobs.get,
            wire.Job: self.jobs.job,
            wire.Jobs: self.jobs.jobs,
            wire.Why: self.jobs.why,
            wire.History: self.jobs.history,
            wire.Cancel: self.jobs.cancel,
            wire.Rerun: self.jobs.rerun,
            wire.Pause: queue.pause,
            wire.Resume: queue.pause,
            wire.Status: queue.status,
            wire.Teamspaces: queue.teamspaces,
            wire.Providers: queue.providers,
            wire.Tables: self._tables,
            wire.Schedules: self._schedules,
            wire.BatchJobs: self._batch,
            wire.FollowUps: self._outreach,
            wire.ContactEvent: self._event,
            wire.Plans: self._plans,
            wire.Notices: self._notices,
            wire.Usage: self._usage,
            wire.Tokens: self._tokens,
            wire.Links: self._links,
            wire.Reload: self._reload,
            wire.Drain: self._drain,
        }

    async def perform(self, operation: wire.Operation[wire.Reply], peer: Peer, line: int) -> wire.Reply | wire.Refusal:
        """Carry out one operation. Raises OutcomeUnknown where nobody can say whether it took place."""
        try:
            return await self._handlers[type(operation)](operation, peer, line)
        except Refused as refused:
            return refusal(refused, line, operation.ref)
        except (Unavailable, Fenced) as error:
            return refusal(self._losses.refused(error), line, operation.ref)

    async def record_submission(self, submission: wire.Submission, person: wire.Person, peer: Peer) -> None:
        """Write down who is about to submit a job by hand. Raises Refused with unavailable, and OutcomeUnknown."""
        try:
            await self._around.record(submission_act(submission, person, peer))
        except (Unavailable, Fenced) as error:
            raise self._losses.refused(error) from None

    async def _ping(self, operation: wire.Ping, _: Peer, line: int) -> wire.Reply:
        await self._supervisor.dispatcher.look(lambda *_: None)
        return wire.Pong(line=line, version=self._around.version, ref=operation.ref)

    async def _tables(self, operation: wire.Tables, peer: Peer, line: int) -> wire.Reply:
        async def record(target: str, detail: str) -> None:
            await self._around.record(act(operation, peer, target, detail))

        return await self._of_tables.perform(operation, record, line)

    async def _schedules(self, operation: wire.Schedules, peer: Peer, line: int) -> wire.Reply:
        async def record(target: str, detail: str) -> None:
            await self._around.record(act(operation, peer, target, detail))

        return await self._of_schedules.perform(operation, peer, record, line)

    async def _batch(self, operation: wire.BatchJobs, peer: Peer, line: int) -> wire.Reply:
        async def record(target: str, detail: str) -> None:
            await self._around.record(act(operation, peer, target, detail))

        return await self._around.batch(operation, peer.uid, record, line)

    async def _outreach(self, operation: wire.FollowUps, peer: Peer, line: int) -> wire.Reply:
        async def record(target: str, detail: str) -> None:
            await self._around.record(act(operation, peer, target, detail))

        return await self._around.outreach(operation, record, line)

    async def _tokens(self, operation: wire.Tokens, peer: Peer, line: int) -> wire.Reply:
        async def record(target: str, detail: str) -> None:
            await self._around.record(act(operation, peer, target, detail))

        return await self._api_tokens.perform(operation, record, line)

    async def _links(self, operation: wire.Links, peer: Peer, line: int) -> wire.Reply:
        async def record(target: str, detail: str) -> None:
            await self._around.record(act(operation, peer, target, detail))

        return await self._sessions.perform(operation, record, line)

    async def _event(self, operation: wire.ContactEvent, peer: Peer, line: int) -> wire.Reply:
        if not peer.operator and not self._allows(peer.uid, operation.teamspace):
            message = f"user {peer.uid} may not say anything about contacts of {operation.teamspace}"
            raise Refused(ErrorCode.FORBIDDEN, message, at="teamspace")
        return await self._around.contact_event(operation, line)

    async def _plans(self, operation: wire.Plans, peer: Peer, line: int) -> wire.Reply:
        if operation.key is not None:
            (whose,) = (
                f"{scope} {name}"
                for scope in ("plan", "teamspace", "provider")
                if (name := getattr(operation, scope)) is not None
            )
            value = msgspec.json.encode(operation.value).decode()
            await self._around.set_limit(operation, act(operation, peer, whose, f"{operation.key} = {value}"))
        found = self._around.plans(operation.plan, operation.teamspace, operation.provider)
        return wire.PlansReply(line=line, plans=list(found), ref=operation.ref)

    async def _notices(self, operation: wire.Notices, peer: Peer, line: int) -> wire.Reply:
        if operation.again is not None:
            await self._around.record(act(operation, peer, f"notice {operation.again}", "again"))
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
        await self._around.record(act(operation, peer, ""))
        await self._around.reload()
        return wire.Done(line=line, message="The configuration was read again and is in force.", ref=operation.ref)

    async def _drain(self, operation: wire.Drain, peer: Peer, line: int) -> wire.Reply:
        await self._around.record(act(operation, peer, ""))
        self._around.drain()
        return wire.Done(line=line, message="Nothing more is started; the daemon ends.", ref=operation.ref)
