"""A notice as a mail: exactly the headers that are meant, and what became of it at each moment of the conversation."""

import email
import email.policy
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from leadline.adapters.smtp_mailer import Account, SmtpMailer, message_of
from leadline.ports.notices import Letter, Notice
from leadline_protocol import messages as wire
from leadline_protocol.ids import JobId
from tests.world.mail import Mailbox, MailFault, MailPlan, serving_mail

MADE = datetime(2026, 12, 1, 9, 14, tzinfo=UTC)
NOTICE = Notice(UUID(int=7), JobId(41), "acme", "partial", "mail", "ada@a.example", 0, MADE)


def told(**fields: str) -> wire.JobNotice:
    counts = wire.Counts(total=1_940, done=1_900, failed=40, skipped=0, unknown=0, pending=0)
    words = {"teamspace": "acme", "table": "prospects", "message": "", **fields}
    view = wire.JobView(
        job=JobId(41), kind="enrich", family="tables", state="partial", shown="partial", submitted_at=MADE,
        counts=counts, **words,  # type: ignore[arg-type]
    )  # fmt: skip
    return wire.JobNotice(notice=NOTICE.id, event="partial", at=MADE, job=view)


BODY = msgspec.json.encode(told())


def test_the_mail_says_what_became_of_the_job_and_nothing_else_stands_in_its_headers() -> None:
    message = email.message_from_bytes(message_of(NOTICE, told(), "leadline@d.example"), policy=email.policy.default)
    assert dict(message.items()) == {
        "From": "leadline@d.example",
        "To": "ada@a.example",
        "Subject": "Job 41 is partial",
        "Date": "Tue, 01 Dec 2026 09:14:00 +0000",
        "Message-ID": "<00000000-0000-0000-0000-000000000007@d.example>",
        "Auto-Submitted": "auto-generated",
        "Content-Type": 'text/plain; charset="utf-8"',
        "Content-Transfer-Encoding": "7bit",
        "MIME-Version": "1.0",
    }
    text = message.get_content()
    assert "enrich over the table prospects" in text
    assert "1,940, of which 1,900 done, 40 failed" in text


def test_the_subject_that_code_has_written_hides_no_header() -> None:
    subject = "=?utf-8?q?x=0D=0ABcc:_eve@e.example?= Grüße"
    letter = Letter(subject=subject, body="hello", html=False)
    raw = message_of(msgspec.structs.replace(NOTICE, letter=letter), told(), "leadline@d.example")
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert message["Bcc"] is None
    assert message["Subject"] == subject
    assert len(message.keys()) == 9


@pytest.mark.parametrize("where", ["teamspace", "table", "message"])
def test_what_a_tenant_wrote_adds_no_header_and_no_line(where: str) -> None:
    hostile = "x\r\nBcc: eve@e.example\r\n\r\n=?utf-8?q?=0ABcc:_eve@e.example?=\u2028\x00Grüße"
    raw = message_of(NOTICE, told(**{where: hostile}), "leadline@d.example")
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert message["Bcc"] is None
    assert len(message.keys()) == 9
    assert not any(line.startswith("Bcc") for line in message.get_content().splitlines())
    assert "Grüße" in message.get_content()


@pytest.mark.parametrize(
    ("fault", "state", "arrived"),
    [
        (None, "sent", 1),
        (MailFault("rcpt", MailPlan("450 4.2.1 try later")), "again", 0),
        (MailFault("rcpt", MailPlan("550 5.1.1 no such user")), "failed", 0),
        (MailFault("rcpt", MailPlan(stop="cut")), "again", 0),
        (MailFault("data", MailPlan("421 4.7.0 too many messages")), "again", 0),
        (MailFault("data", MailPlan("554 5.7.1 not from you")), "failed", 0),
        (MailFault("dot", MailPlan("451 4.3.0 try later")), "again", 1),
        (MailFault("dot", MailPlan("554 5.6.0 not like that")), "failed", 1),
        (MailFault("dot", MailPlan(stop="cut")), "unknown", 1),
    ],
)
async def test_every_end_of_the_conversation_is_told_for_what_it_is(
    fault: MailFault | None, state: str, arrived: int
) -> None:
    async with serving_mail(Mailbox([fault] if fault else [])) as server:
        account = Account(server.host, server.port, "none", "leadline@d.example")
        outcome = await SmtpMailer(lambda: account).bring(NOTICE, BODY)
        assert outcome.state == state, outcome
        assert len(server.messages) == arrived


async def test_without_the_encryption_that_is_asked_for_nothing_is_sent() -> None:
    async with serving_mail(Mailbox()) as server:
        account = Account(server.host, server.port, "starttls", "leadline@d.example", "user", "canary")
        outcome = await SmtpMailer(lambda: account).bring(NOTICE, BODY)
        assert (outcome.state, server.handed) == ("again", [])
        assert "canary" not in outcome.detail


async def test_where_no_server_answers_or_none_is_configured_it_is_tried_again() -> None:
    nowhere = Account("127.0.0.1", 1, "none", "leadline@d.example")
    assert (await SmtpMailer(lambda: nowhere).bring(NOTICE, BODY)).state == "again"
    assert (await SmtpMailer(lambda: None).bring(NOTICE, BODY)).state == "again"
