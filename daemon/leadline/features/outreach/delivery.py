"""The kind `outreach`: one follow-up's next mail, or a queueing that makes such jobs.

A mail is decided and stored as `sending` in one transaction, during which nothing can be said about its contact; then
it is handed to the mail server, once; then what the server said is stored. Wherever a daemon dies, the next attempt at
the job finds which of these it is: a follow-up that is still queued was not sent, one that is `sending` may have been,
and is left to a person.

A mail that may not leave yet waits for its place in the mailbox's line. It gives its slot back for all but a moment of
that: there are as many slots as mailboxes.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple, assert_never

import anyio
import msgspec
from msgspec import Struct

from leadline.core.calendar.zones import instant_of, wall_at, zone
from leadline.core.model import Counts, Family, JobState, StopCause
from leadline.core.quota.days import day_of
from leadline.features.outreach.books import (
    Books,
    Ending,
    Found,
    MailState,
    NewMail,
    Next,
    OutreachStore,
    Server,
    StoredAssociate,
    StoredMail,
)
from leadline.features.outreach.characters import Unwritable
from leadline.features.outreach.line import Why, today_of
from leadline.features.outreach.message import BadAddress, Leaving, ascii_address, message_id_of, message_of
from leadline.features.outreach.model import SECOND, Associate, FollowUp, FollowUpId, Reason, Script, Status
from leadline.features.outreach.ports import (
    Accepted,
    Concerned,
    Envelope,
    MailServer,
    NotNow,
    NotSent,
    Outcome,
    RefusedForGood,
    Transport,
    Unknown,
)
from leadline.features.outreach.sending import Drop, Facts, Hold, NotBefore, Send, Stale, decide
from leadline.features.outreach.settings import Settings, SettingsNow
from leadline.features.outreach.tasks import Tasks, task
from leadline.features.outreach.texts import BadText, MissingFields, missing, written
from leadline.ports.work import Attempt, ChainNotes, Finished, Prepared, Rerun, Stopped
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import Instant

BACKOFF_SECONDS: Final = 60
"""After a mail that the server did not take for now; twice as long after each further one."""
BACKOFF_SECONDS_MAX: Final = 4 * 3_600
TRIES_MAX: Final = 32
"""After four days: RFC 5321, 4.5.4.1 has the give-up time be at least 4 to 5."""

_SUBMISSION: Final = msgspec.json.Decoder(wire.Outreach)

_WAITS: Final[Mapping[Why, JobReason]] = {
    Why.HOURS: JobReason.SENDING_HOURS,
    Why.DAILY_CAP: JobReason.DAILY_CAP,
    Why.GAP: JobReason.LIMIT,
    Why.IN_FLIGHT: JobReason.LIMIT,
    Why.FOLLOW_UPS_FIRST: JobReason.LIMIT,
    Why.DOMAIN_LIMIT: JobReason.DAILY_CAP,
}


class Written(Struct, frozen=True):
    """A mail that may leave, complete."""

    server: MailServer
    envelope: Envelope
    new: NewMail


class _OnItsWay(NamedTuple):
    """What has been stored as sending."""

    mail: int
    written: Written
    found: Found


class _Waits(NamedTuple):
    """A mail that does not leave yet."""

    until: Instant
    """By the wall."""
    reason: JobReason
    numbers: Mapping[str, int | float | str]


class _Held(NamedTuple):
    """A mail that waits for a person."""

    numbers: Mapping[str, int | float | str]


class Outreach:
    """Mails of scripts (`ports.work.JobKind`)."""

    name = "outreach"
    family = Family.OUTREACH

    def __init__(
        self,
        store: OutreachStore,
        tasks: Tasks,
        transport: Transport,
        settings: SettingsNow,
        server_of: Callable[[Server, Associate], MailServer | None],
        link_of: Callable[[str, FollowUp], str],
        wall: Callable[[], Instant],
    ) -> None:
        """`server_of` opens a password, or cannot; `link_of` makes the link by which a contact leaves."""
        self._store = store
        self._tasks = tasks
        self._transport = transport
        self._settings = settings
        self._server_of = server_of
        self._link_of = link_of
        self._wall = wall

    # -- submission ---------------------------------------------------------------------------------------------------

    async def prepare(
        self,
        teamspace: str,
        submission: wire.Submission,
        *,
        chain: ChainNotes | None,  # noqa: ARG002  it is no step of a chain
        rerun: Rerun | None,  # noqa: ARG002  a follow-up says itself whether it has a mail to be sent
    ) -> Prepared:
        """Check that there is what it names. Raises Refused."""
        assert isinstance(submission, wire.Outreach)
        match submission.do:
            case "queue":
                await self._tasks.of(teamspace, submission.associate)
                return Prepared()
            case "first_mails":
                return Prepared()
            case "send":
                return await self._prepare_mail(teamspace, submission)
            case _:
                assert_never(submission.do)

    async def _prepare_mail(self, teamspace: str, submission: wire.Outreach) -> Prepared:
        assert submission.follow_up is not None
        found = await self._store.follow_up(teamspace, FollowUpId(submission.follow_up))
        if found is None:
            message = f"{teamspace} has no follow-up {submission.follow_up}"
            raise Refused(ErrorCode.NOT_FOUND, message, at="follow_up")
        who = found.follow_up
        if who.status is not Status.PENDING:
            message = f"follow-up {who.id} is {who.status}: only what is pending can be sent"
            raise Refused(ErrorCode.BAD_STATE, message, at="follow_up")
        if who.associate is None:
            message = f"follow-up {who.id} has no associate yet: it waits for its first mail"
            raise Refused(ErrorCode.BAD_STATE, message, at="follow_up")
        wall, delay = self._wall(), submission.delay or 0
        if submission.run_at is not None:
            delay = max(0, submission.run_at.timestamp() - wall / SECOND)
        return Prepared(total=1, statements=[task(who, int(delay), wall, None).statement])

    # -- the run ------------------------------------------------------------------------------------------------------

    async def run(self, attempt: Attempt) -> Finished:
        """Send the mail, or queue what is due. Raises Stopped."""
        submission = _SUBMISSION.decode(attempt.job.payload)
        teamspace = submission.teamspace
        match submission.do:
            case "queue":
                finished = await self._queue(teamspace, submission)
            case "first_mails":
                queued, expired, refused = await self._tasks.first_mails(teamspace, submission.limit)
                message = f"{queued} first mails queued, {expired} contacts expired"
                finished = _queued(queued, expired, refused, message)
            case "send":
                return await self._send(attempt)
            case _:
                assert_never(submission.do)
        await self._store.count(attempt.job.id, attempt.number, finished.counts)
        return finished

    async def _queue(self, teamspace: str, submission: wire.Outreach) -> Finished:
        results = await self._tasks.queue(teamspace, submission.associate, submission.limit)
        refused = sum(isinstance(job, Refused) for each in results for job in each.jobs)
        queued = sum(len(each.jobs) for each in results) - refused
        skipped = sum(len(each.queueing.skipped) for each in results)
        left = sum(each.queueing.left for each in results)
        message = f"{queued} follow-ups queued, {skipped} skipped, {left} left for the next time"
        return _queued(queued, skipped, refused, message)

    async def _send(self, attempt: Attempt) -> Finished:
        while True:
            if _must_stop(attempt):
                raise Stopped("told to stop")
            attempt.doing("it is looked whether the mail may leave")
            async with self._store.books(attempt.job.id, attempt.number, self._today) as books:
                if books is None:
                    break
                step = await self._decide(attempt, books, self._settings())
                if isinstance(step, Finished):
                    await books.count(step.counts)
            if isinstance(step, _OnItsWay):
                step = await self._hand_in(attempt, step)
            match step:
                case Finished():
                    return step
                case _Held(numbers):
                    await attempt.hold(numbers)
                case _Waits(until, reason, numbers):
                    instant = Instant(attempt.now() + max(1, until - self._wall()))
                    await attempt.wait(reason, instant, numbers)
                case _:
                    assert_never(step)
        over = _over(skipped=1, message="the follow-up is nobody's task any more")
        await self._store.count(attempt.job.id, attempt.number, over.counts)
        return over

    async def _decide(
        self, attempt: Attempt, books: Books, settings: Settings
    ) -> "Finished | _Held | _Waits | _OnItsWay":
        found, wall = books.found, self._wall()
        who = found.follow_up
        if who.status in {Status.SENDING, Status.UNKNOWN}:  # by an attempt before; the start may have settled it
            for open_ in (each for each in found.before if each.state is MailState.SENDING):
                await books.lose(open_, "the daemon ended while it was on its way", wall)
            return _over(
                unknown=1, message="nobody knows whether the mail has left: somebody has to say whether it was sent"
            )
        facts = _facts(found, attempt, settings, wall)
        decision = decide(facts, wall)
        match decision:
            case Stale(status):
                return _over(skipped=1, message=f"the follow-up is {status}")
            case Drop(Reason.NO_ASSOCIATE):
                message = "its associate is not active: it is queued again when that is"
                await books.move(Status.PENDING, None, message, wall)
                return _over(skipped=1, message=message)
            case Drop(reason):
                detail = (
                    f"fields that are missing: {', '.join(facts.missing)}" if reason is Reason.MISSING_FIELDS else ""
                )
                return await _drop(books, reason, detail, wall)
            case Hold(why):
                return _Held({"guard": f"mailbox_{why}", "mailbox": _mailbox(found)})
            case NotBefore(at, why, numbers, place):
                await books.place(place)
                return _Waits(at, _WAITS[why], {**numbers, "mailbox": _mailbox(found), "why": why.value})
            case Send():
                return await self._begin(books, settings, wall)
            case _:
                assert_never(decision)

    async def _begin(self, books: Books, settings: Settings, wall: Instant) -> "Finished | _Held | _Waits | _OnItsWay":
        found = books.found
        assert found.associate is not None, "somebody sends it"
        tries = [each for each in found.before if _was_tried(each, found.follow_up)]
        if tries and tries[-1].ended is not None:
            again = Instant(tries[-1].ended + _backoff_seconds(len(tries)) * SECOND)
            if len(tries) >= TRIES_MAX:
                story = f"given up after {len(tries)} tries: {tries[-1].evidence}"
                return await _drop(books, Reason.REFUSED, story, wall)
            if wall < again:
                return _Waits(again, JobReason.BACKOFF, {"mailbox": _mailbox(found), "story": tries[-1].evidence})
        server = self._server(found.associate, settings)
        if server is None:
            return _Held({"guard": "no_mail_server", "mailbox": _mailbox(found)})
        try:
            made = self._write(found, server, settings, wall)
        except MissingFields as lacking:
            return await _drop(books, Reason.MISSING_FIELDS, str(lacking), wall)
        except BadAddress as bad:
            return await _drop(books, Reason.BAD_ADDRESS, str(bad), wall)
        except (BadText, Unwritable) as bad:
            return await _drop(books, Reason.NO_SCRIPT, str(bad), wall)
        return _OnItsWay(await books.begin(made.new), made, found)

    def _server(self, stored: StoredAssociate, settings: Settings) -> MailServer | None:
        return settings.server if stored.server is None else self._server_of(stored.server, stored.associate)

    def _write(self, found: Found, server: MailServer, settings: Settings, wall: Instant) -> Written:
        """The mail. Raises MissingFields, BadText, Unwritable."""
        assert found.associate is not None
        assert found.script is not None
        who, associate, script = found.follow_up, found.associate.associate, found.script
        sent = [each for each in found.before if each.state in {MailState.SENT, MailState.UNKNOWN}]
        thread = [each for each in sent if each.round == who.round]
        text = written(
            script.steps[who.step - 1], who.fields, associate, first_subject=thread[0].subject if thread else ""
        )
        message_id = message_id_of(who, associate.address.rpartition("@")[2])
        leaving = None
        if settings.unsubscribe_url is not None:
            leaving = Leaving(self._link_of(settings.unsubscribe_url, who))
        message = message_of(
            text,
            associate,
            address=who.address,
            name=who.fields.get("name", ""),
            message_id=message_id,
            references=[each.message_id for each in thread],
            date=wall,
            leaving=leaving,
        )
        day = self._today(associate)
        new = NewMail(
            follow_up=who, associate=associate, message_id=message_id, subject=text.subject, day=day, began=wall
        )
        return Written(server, Envelope(ascii_address(associate.address), ascii_address(who.address), message), new)

    async def _hand_in(self, attempt: Attempt, on_its_way: _OnItsWay) -> Finished | _Held | _Waits:
        made, found = on_its_way.written, on_its_way.found
        associate = made.new.associate
        attempt.doing(f"mail to {made.envelope.recipient}")
        outcome = await self._transport.send(associate.id, made.server, made.envelope, lambda: not _must_stop(attempt))
        with anyio.CancelScope(shield=True):
            scripts = {each.name: each for each in await self._store.scripts(found.follow_up.teamspace)}
            wall = self._wall()
            ending = ending_of(outcome, found.follow_up, associate, scripts, wall)
            step = _after(outcome, ending, associate, wall)
            counts = step.counts if isinstance(step, Finished) else None
            await self._store.end(attempt.job.id, attempt.number, on_its_way.mail, ending, counts, wall)
            if _is_mailboxes(outcome):
                why = f"the mail server refuses it: {ending.evidence}"
                await self._store.pause(associate.id, why, wall)
        if step is None:
            raise Stopped("told to stop before anything was said")
        return step

    def _today(self, associate: Associate) -> date:
        return today_of(associate, self._wall())


def _after(outcome: Outcome, ending: Ending, associate: Associate, wall: Instant) -> Finished | _Held | _Waits | None:
    """How the job goes on; None: it was told to stop."""
    match outcome:
        case Accepted():
            return _over(done=1, message="")
        case Unknown(evidence):
            return _over(unknown=1, message=f"{evidence}: somebody has to say whether it was sent")
        case RefusedForGood():
            if _is_mailboxes(outcome):
                return _Held({"guard": "mailbox_paused", "mailbox": associate.name})
            return _over(failed=1, message=ending.evidence)
        case NotSent():
            return None
        case NotNow():
            again = Instant(wall + BACKOFF_SECONDS * SECOND)
            return _Waits(again, JobReason.BACKOFF, {"mailbox": associate.name, "story": ending.evidence})
        case _:
            assert_never(outcome)


def ending_of(
    outcome: Outcome, who: FollowUp, associate: Associate, scripts: Mapping[str, Script], wall: Instant
) -> Ending:
    """What an outcome makes of a mail and its follow-up."""
    match outcome:
        case Accepted(answer):
            return sent(answer, who, associate, scripts, wall)
        case Unknown(evidence):
            return Ending(state=MailState.UNKNOWN, evidence=evidence, status=Status.UNKNOWN)
        case RefusedForGood(concerned, code, answer):
            evidence = f"{concerned}: {code} {answer}"
            if _is_mailboxes(outcome):
                return Ending(state=MailState.NOT_SENT, evidence=evidence, status=Status.QUEUED)
            return Ending(state=MailState.REFUSED, evidence=evidence, status=Status.FAILED, reason=Reason.REFUSED)
        case NotNow(story):
            return Ending(state=MailState.NOT_SENT, evidence=story, status=Status.QUEUED)
        case NotSent():
            return Ending(state=MailState.WITHDRAWN, evidence="the job was told to stop", status=Status.QUEUED)
        case _:
            assert_never(outcome)


def _must_stop(attempt: Attempt) -> bool:
    """Whether nothing may leave any more. One that only gives its slot back for a wait, which is over, may go on."""
    return attempt.stopping and attempt.stop_cause is not StopCause.YIELDED


def _is_mailboxes(outcome: Outcome) -> bool:
    """Whether any other mail of the mailbox would be refused as well."""
    return isinstance(outcome, RefusedForGood) and outcome.concerned is Concerned.MAILBOX


def sent(evidence: str, who: FollowUp, associate: Associate, scripts: Mapping[str, Script], wall: Instant) -> Ending:
    """A mail that was sent, and what the follow-up goes on with."""
    go_on = next_of(who, associate, scripts, wall)
    status = Status.FINISHED if go_on is None else Status.PENDING
    return Ending(state=MailState.SENT, evidence=evidence, status=status, go_on=go_on)


def next_of(who: FollowUp, associate: Associate, scripts: Mapping[str, Script], wall: Instant) -> Next | None:
    """The step after the present one, so many days later at the same time of the sender's day; None: there is none."""
    script = None if who.script is None else scripts.get(who.script)
    if script is None:
        return None
    if who.step < len(script.steps):
        name, round_, number, steps = script.name, who.round, who.step + 1, script.steps
    else:
        then = None if script.then is None else scripts.get(script.then)
        if then is None or not then.steps:
            return None
        name, round_, number, steps = then.name, who.round + 1, 1, then.steps
    here = zone(associate.zone)
    local = wall_at(wall, here).replace(tzinfo=None) + timedelta(days=steps[number - 1].after_days)
    return Next(name, round_, number, instant_of(local, here)[0])


def _facts(found: Found, attempt: Attempt, settings: Settings, wall: Instant) -> Facts:
    who, stored, script = found.follow_up, found.associate, found.script
    lacking: Sequence[str] = ()
    if script is not None and 1 <= who.step <= len(script.steps):
        try:
            lacking = missing(script.steps[who.step - 1], who.fields)
        except BadText:
            lacking = ()  # it cannot be written, which is told when it is
    next_day = wall
    if stored is not None:
        next_day = day_of(wall, zone(stored.associate.zone)).ends
    return Facts(
        follow_up=who,
        job=attempt.job.id,
        associate=None if stored is None else stored.associate,
        script=script,
        suppressed=found.suppressed,
        replied=found.replied,
        missing=lacking,
        domain_sent=found.domain_mails,
        domain_limit=settings.domain_per_day,
        next_day=next_day,
        line=found.line,
        first=found.first,
        held=found.held,
    )


async def _drop(books: Books, reason: Reason, detail: str, wall: Instant) -> Finished:
    status = Status.FAILED if reason in FAILURES else Status.STOPPED
    await books.move(status, reason, detail, wall)
    message = f"{status}: {reason}" + (f", {detail}" if detail else "")
    return _over(failed=1, message=message) if status is Status.FAILED else _over(skipped=1, message=message)


FAILURES: Final = frozenset({Reason.BAD_ADDRESS, Reason.REFUSED, Reason.MISSING_FIELDS, Reason.NO_SCRIPT})
"""Reasons for which a follow-up has failed; for the others it is stopped."""


def _was_tried(mail: StoredMail, who: FollowUp) -> bool:
    """Whether it is a try of the present step that the mail server did not take for now."""
    same = mail.round == who.round and mail.step == who.step
    return same and mail.state is MailState.NOT_SENT and mail.settled_by is None


def _backoff_seconds(tries: int) -> int:
    return min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS << min(tries - 1, 20))


def _mailbox(found: Found) -> str:
    return "" if found.associate is None else found.associate.associate.name


def _over(*, done: int = 0, failed: int = 0, skipped: int = 0, unknown: int = 0, message: str) -> Finished:
    counts = Counts(1, done, failed, skipped, unknown)
    return Finished(JobState.PARTIAL if failed or unknown else JobState.COMPLETED, counts, None, message)


def _queued(queued: int, skipped: int, refused: int, message: str) -> Finished:
    counts = Counts(queued + skipped + refused, queued, refused, skipped)
    return Finished(JobState.PARTIAL if refused else JobState.COMPLETED, counts, None, message)
