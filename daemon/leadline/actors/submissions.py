"""Submissions: checked, prepared by their kinds and handed to the dispatcher; or only tried.

Nothing is decided here: refusals come from preparing a submission, from the scheduler, or from who the peer is.
"""

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import msgspec

from leadline.actors import chain_reruns
from leadline.actors.losses import STORE_LOST, Losses
from leadline.actors.peers import Peer, refusal
from leadline.actors.supervisor import CHAIN, NOOP, Supervisor
from leadline.actors.surroundings import Surroundings
from leadline.core.effects import Receipt
from leadline.core.events import Key, NewJob, Statement
from leadline.core.model import SECOND
from leadline.ports.store import DUE
from leadline.ports.work import ChainNotes, JobKind, Prepared, Previews, Rerun
from leadline_protocol import messages as wire
from leadline_protocol.codec import body_of
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import Instant, JobId

_digest: Final = partial(hashlib.blake2s, digest_size=16)
"""Of short texts: a quarter quicker than blake2b."""

SHOWN_LEADS: Final = 10
"""A formula that is only tried is shown on so many leads where its submission says no number."""

Answer = wire.Receipt | wire.Preview | wire.Refusal
"""What a submission is answered."""

Line = tuple[int, wire.Submission, bytes]
"""A submission with its line's number and bytes."""

_SCHEDULES: Final = "schedules"
"""What schedules submit comes from one source, as what one peer does."""

_NOTHING: Final = Prepared()
_NO_WARNINGS: Final[list[wire.JobWarning]] = []
_NO_STEPS: Final[list[JobId]] = []  # receipts are written by the thousand: nearly all share these two


class Submissions:
    """Takes submissions in."""

    def __init__(
        self,
        supervisor: Supervisor,
        kinds: Mapping[str, tuple[int, JobKind]],
        surroundings: Surroundings,
        previews: Previews,
        losses: Losses,
        allows: Callable[[int, str], bool],
    ) -> None:
        """`kinds`: by their names, with their numbers; `allows` says whether a user id may submit for a teamspace."""
        self._supervisor = supervisor
        self._kinds = kinds
        self._around = surroundings
        self._previews = previews
        self._losses = losses
        self._allows = allows
        self.taken = 0
        """Submissions that were given a receipt, since the daemon began."""
        self.refused: Final[Counter[ErrorCode]] = Counter()
        """Those that were refused, by the code."""

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
        settled: dict[int, Callable[[bool], None]] = {}
        warnings: dict[int, list[wire.JobWarning]] = {}
        for place, (number, submission, line) in enumerate(lines):
            try:
                if submission.dry_run:
                    replies[place] = await self._preview(submission, peer, number)
                    continue
                if type(submission) is wire.Noop:
                    self._check_allowed(peer, submission.teamspace)
                    new = new_job(submission, line, NOOP.number, _NOTHING, peer)
                    if submission.notices is not None:
                        new = self.with_wishes(new, submission)
                else:
                    new, prepared = await self._prepare(submission, line, peer)
                    new = self.with_wishes(new, submission)
                    warnings[place] = list(prepared.warnings)
                    if prepared.settled is not None:
                        settled[len(jobs)] = prepared.settled
                places.append(place)
                jobs.append(new)
            except Refused as refused:
                replies[place] = self._refusal(refused, number, submission.ref)
            except STORE_LOST as error:
                replies[place] = self._refusal(self._losses.refused(error), number, submission.ref)
        deciding = self._hand_in(jobs, source) if jobs else None
        if settled and deciding is not None:
            deciding.add_done_callback(partial(_settle, settled))

        async def answered() -> list[Answer]:
            try:
                answers = await deciding if deciding is not None else ()
            except Refused as refused:
                answers = [refused] * len(jobs)
            self.taken += len(answers)
            for place, answer in zip(places, answers, strict=True):
                number, submission, _ = lines[place]
                if isinstance(answer, Refused):
                    replies[place] = self._refusal(answer, number, submission.ref)
                    self.taken -= 1
                else:
                    replies[place] = receipt_of(answer, number, submission.ref, warnings.get(place, _NO_WARNINGS))
            return [reply for reply in replies if reply is not None]

        return answered

    def _refusal(self, refused: Refused, line: int, ref: wire.Ref) -> wire.Refusal:
        self.refused[refused.code] += 1
        return refusal(refused, line, ref)

    async def submit_due(
        self, line: bytes, submission: wire.Submission, uid: int, due: Instant, statement: Statement
    ) -> JobId:
        """Submit what a schedule of that user wants submitted at a time, with a statement of its admission.

        Raises Refused.
        """
        new, prepared = await self._prepare(submission, line, Peer(uid, os.getpid(), operator=True), due)
        new = self.with_wishes(new, submission)
        new = msgspec.structs.replace(new, statements=(*new.statements, statement), refused=None)
        deciding = self._supervisor.dispatcher.submit([new], _SCHEDULES)
        if prepared.settled is not None:
            deciding.add_done_callback(partial(_settle, {0: prepared.settled}))
        (answer,) = await deciding
        if isinstance(answer, Refused):
            raise answer
        return answer.job

    def _hand_in(self, jobs: Sequence[NewJob], source: Hashable) -> "asyncio.Future[Sequence[Receipt | Refused]]":
        try:
            return self._supervisor.dispatcher.submit(jobs, source)
        except Refused as refused:
            at_once: asyncio.Future[Sequence[Receipt | Refused]] = asyncio.get_running_loop().create_future()
            at_once.set_result([refused] * len(jobs))
            return at_once

    async def _prepare(
        self, submission: wire.Submission, line: bytes, peer: Peer, due: Instant | None = None
    ) -> tuple[NewJob, Prepared]:
        self._check_allowed(peer, submission.teamspace)
        if not isinstance(submission, wire.Chain):
            number, prepared = await self.prepared(submission, None)
            return new_job(submission, line, number, prepared, peer, due), prepared
        fresh = [chain_reruns.FRESH] * len(submission.steps)
        new, warned = await self.prepare_chain(submission, line, peer, fresh)
        return new, Prepared(warnings=warned)

    async def prepare_chain(
        self, submission: wire.Chain, line: bytes, peer: Peer, again: Sequence[chain_reruns.Again]
    ) -> tuple[NewJob, list[wire.JobWarning]]:
        """A chain with its steps; `again`: what each takes over from one that it runs again. Raises Refused."""
        steps: list[NewJob] = []
        warned: list[wire.JobWarning] = []
        notes: ChainNotes = {}
        for index, (step, earlier) in enumerate(zip(submission.steps, again, strict=True)):
            part = wire.submission_of(step, submission.teamspace)
            with _in_step(index):
                number, prepared = await self.prepared(part, notes, earlier.rerun)
            new = new_job(part, msgspec.json.encode(part), number, prepared, peer)
            steps.append(msgspec.structs.replace(new, rerun_of=earlier.rerun_of))
            warned += prepared.warnings
        new = new_job(submission, line, CHAIN.number, _NOTHING, peer)
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

    async def prepared(
        self, submission: wire.Submission, chain: ChainNotes | None, rerun: Rerun | None = None
    ) -> tuple[int, Prepared]:
        """The number of its kind, and what the kind makes of a submission. Raises Refused."""
        word = str(submission.__struct_config__.tag)
        if word == NOOP.name:
            return NOOP.number, _NOTHING
        found = self._kinds.get(word)
        if found is None:
            raise Refused(ErrorCode.UNKNOWN_KIND, f"there is no kind {word}", at="kind")
        number, kind = found
        return number, await kind.prepare(submission.teamspace, submission, chain=chain, rerun=rerun)

    def with_wishes(self, new: NewJob, submission: wire.Submission) -> NewJob:
        """A new job with whom to tell of it by mail or webhook. Raises Refused."""
        wishes = self._around.wishes(submission)
        return msgspec.structs.replace(new, statements=(*new.statements, *wishes)) if wishes else new

    def _check_allowed(self, peer: Peer, teamspace: str) -> None:
        if not peer.operator and not self._allows(peer.uid, teamspace):
            message = f"user {peer.uid} may not submit for {teamspace}"
            raise Refused(ErrorCode.FORBIDDEN, message, at="teamspace")


@contextmanager
def _in_step(index: int) -> Iterator[None]:
    """What is refused within is at that step of its chain."""
    try:
        yield
    except Refused as refused:
        at = f"steps[{index}].{refused.at}" if refused.at else f"steps[{index}]"
        raise Refused(refused.code, refused.message, at=at, retry_after=refused.retry_after) from refused


def _settle(
    settled: Mapping[int, Callable[[bool], None]], deciding: "asyncio.Future[Sequence[Receipt | Refused]]"
) -> None:
    """Tell those who want to know which submissions have become jobs."""
    lost = deciding.cancelled() or deciding.exception() is not None
    for place, tell in settled.items():
        answer = None if lost else deciding.result()[place]
        tell(isinstance(answer, Receipt) and not answer.duplicate)


def _filled(statements: Sequence[Statement], due: Instant | None) -> tuple[Statement, ...]:
    """Statements that say for which time of a schedule they are."""
    return tuple(
        Statement(each.query, tuple(due if argument is DUE else argument for argument in each.arguments))
        for each in statements
    )


def new_job(
    submission: wire.Submission, line: bytes, kind: int, prepared: Prepared, peer: Peer, due: Instant | None = None
) -> NewJob:
    """A submission as the scheduler takes it; `due`: the time of a schedule that it is for."""
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
        statements=_filled(prepared.statements, due) if prepared.statements else (),
        refused=prepared.refused,
    )


def receipt_of(receipt: Receipt, line: int, ref: wire.Ref, warned: list[wire.JobWarning]) -> wire.Receipt:
    """What a submission that was taken is answered."""
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
