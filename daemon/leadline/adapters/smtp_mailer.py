"""Notices by mail (`ports.notices.Courier`): one message to one address, at most once.

SMTP has one moment of which nobody can say afterwards what came of it: between the end of the message and the server's
reply to it. Whatever breaks from the beginning of the message on, without an answer, is `unknown`: such a mail is held
for a person. Before that nothing has been handed over, and a refusal is certain; 4xx may pass, 5xx does not.

The headers are written here, as some interpreters' own code writes a subject that hides a line break in an encoded
word as a header of its own. The message is made as bytes, and sent as it is.
"""

from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from typing import Final, Literal

import aiosmtplib
import msgspec

from leadline.features.outreach.characters import Unwritable, one_line
from leadline.features.outreach.message import header_text
from leadline.ports.notices import Notice, Outcome
from leadline_protocol.messages import JobNotice, JobView

SECONDS_MAX: Final = 30.0
"""For each step of the conversation."""

_POLICY: Final = SMTP_POLICY.clone(max_line_length=998)
_JOB_NOTICE: Final = msgspec.json.Decoder(JobNotice)


_SUBJECTS: Final = {"stalled": "stands still", "failing": "is the fifth run in a row that failed"}
"""Of events that are no state."""

_STATES: Final = {"stalled": "standing still", "failing": "failed, as the four runs before it"}


class Account(msgspec.Struct, frozen=True):
    """The mail server, and who sends."""

    host: str
    port: int
    tls: str
    """starttls, implicit or none."""
    sender: str
    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Account({self.host!r}, {self.port})"


class SmtpMailer:
    """Sends notices as mails."""

    def __init__(self, account: Callable[[], Account | None]) -> None:
        """`account` says how mail is sent now; None: not at all."""
        self._account = account

    async def bring(self, notice: Notice, body: bytes) -> Outcome:
        """Send a notice once."""
        account = self._account()
        if account is None:
            return Outcome("again", "no mail server is configured any more")
        try:
            message = message_of(notice, _JOB_NOTICE.decode(body), account.sender)
        except Unwritable as unwritable:
            return Outcome("failed", str(unwritable))
        smtp = aiosmtplib.SMTP(
            hostname=account.host,
            port=account.port,
            use_tls=account.tls == "implicit",
            start_tls=account.tls == "starttls",
            timeout=SECONDS_MAX,
        )
        handed = False
        try:
            await smtp.connect()
            if account.user is not None:
                await smtp.login(account.user, account.password or "")
            await smtp.mail(account.sender)
            await smtp.rcpt(notice.target)
            handed = True
            response = await smtp.data(message)
        except aiosmtplib.SMTPResponseException as error:
            state = "failed" if error.code >= 500 else "again" if error.code >= 400 else _lost(handed=handed)
            return Outcome(state, f"{error.code} {error.message}")
        except aiosmtplib.SMTPRecipientsRefused as error:
            return Outcome("failed", str(error))
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
            return Outcome(_lost(handed=handed), f"{type(error).__name__}: {error}")
        finally:
            smtp.close()
        return Outcome("sent", f"{response.code} {response.message}")


def _lost(*, handed: bool) -> Literal["again", "unknown"]:
    return "unknown" if handed else "again"


def message_of(notice: Notice, told: JobNotice, sender: str) -> bytes:
    """The mail, complete."""
    letter = notice.letter
    subject = f"Job {notice.job} {_SUBJECTS.get(notice.event, f'is {notice.event}')}"
    headers = [
        f"From: {sender}",
        f"To: {notice.target}",
        f"Subject: {header_text(one_line(subject if letter is None else letter.subject))}",
        f"Date: {format_datetime(notice.made)}",
        f"Message-ID: <{notice.id}@{sender.rpartition('@')[2]}>",
        "Auto-Submitted: auto-generated",
    ]
    body = EmailMessage(policy=_POLICY)
    if letter is None:
        body.set_content("\n".join(_lines(told.job, notice)) + "\n")
    else:
        body.set_content(letter.body, subtype="html" if letter.html else "plain")
    return "\r\n".join(headers).encode("ascii") + b"\r\n" + body.as_bytes()


def _lines(job: JobView, notice: Notice) -> list[str]:
    counts = job.counts
    words = ("done", "failed", "skipped", "unknown", "pending")
    ended = ", ".join(f"{getattr(counts, word):,} {word}" for word in words)
    lines = [
        f"Job:       {job.job}, {job.kind}" + (f" over the table {job.table}" if job.table else ""),
        f"Teamspace: {job.teamspace}",
        f"It is:     {_STATES.get(notice.event, job.state)}",
        f"Leads:     {counts.total:,}, of which {ended}",
    ]
    if job.reason is not None:
        lines.append(f"Reason:    {job.reason}")
    if job.message:
        lines.append(f"Message:   {job.message}")
    return ["".join(char if char.isprintable() else " " for char in line) for line in lines]
