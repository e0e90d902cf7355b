"""The mail server is talked to by the standard library's client, in a thread, as any sender would."""

import asyncio
import json
import smtplib
import time
from pathlib import Path

import pytest

from tests.world.behaviours import SECOND, Now, Window
from tests.world.mail import Mailbox, MailFault, MailPlan, MailServed, serving_mail

MESSAGE = b"Message-ID: <1@x.example>\r\nSubject: hello\r\n\r\n.dot\r\nbye\r\n"


def send(served: MailServed, recipients: list[str]) -> dict[str, tuple[int, bytes]]:
    with smtplib.SMTP(served.host, served.port, timeout=30) as client:
        return client.sendmail("me@x.example", recipients, MESSAGE)


def send_with_little_patience(served: MailServed) -> None:
    """Send a message, and wait for a fifth of a second for an answer once it has arrived."""
    with smtplib.SMTP(served.host, served.port, timeout=30) as client:
        client.ehlo()
        client.mail("me@x.example")
        client.rcpt("a@x.example")
        client.docmd("DATA")
        client.send(b"Subject: hello\r\n\r\nbye\r\n.\r\n")
        arriving = time.monotonic() + 30
        while not served.messages and time.monotonic() < arriving:
            time.sleep(0.001)
        assert client.sock is not None
        client.sock.settimeout(0.2)
        client.getreply()


async def test_a_message_is_kept_as_it_was_sent_and_logged(tmp_path: Path) -> None:
    async with serving_mail(Mailbox(), log_path=tmp_path / "mail.jsonl") as served:
        assert await asyncio.to_thread(send, served, ["a@x.example", "b@x.example"]) == {}
    [mail] = served.messages
    assert (mail.sender, mail.recipients) == ("me@x.example", ("a@x.example", "b@x.example"))
    assert (mail.content, mail.message_id, mail.reply) == (MESSAGE, "<1@x.example>", "250 2.0.0 OK")
    logged = json.loads((tmp_path / "mail.jsonl").read_text())
    assert (logged["message_id"], logged["moment"]) == ("<1@x.example>", "dot")


async def test_one_recipient_is_refused_and_the_others_get_their_mail() -> None:
    refusal = MailFault("rcpt", MailPlan("550 5.1.1 no such user"), "gone@x.example")
    async with serving_mail(Mailbox([refusal])) as served:
        refused = await asyncio.to_thread(send, served, ["a@x.example", "gone@x.example"])
    assert {who: code for who, (code, _) in refused.items()} == {"gone@x.example": 550}
    assert [(handed.moment, handed.recipients) for handed in served.handed] == [
        ("rcpt", ("gone@x.example",)),
        ("dot", ("a@x.example",)),
    ]


@pytest.mark.parametrize(("moment", "delivered"), [("data", 0), ("dot", 1)])
async def test_a_connection_cut_at_the_dot_has_delivered_and_one_cut_before_it_has_not(
    moment: str, delivered: int
) -> None:
    cut = MailFault("dot" if moment == "dot" else "data", MailPlan(stop="cut"))
    async with serving_mail(Mailbox([cut])) as served:
        with pytest.raises((smtplib.SMTPException, OSError)):
            await asyncio.to_thread(send, served, ["a@x.example"])
        assert len(served.messages) == delivered
        await asyncio.to_thread(send, served, ["a@x.example"])
        assert len(served.messages) == delivered + 1


async def test_a_stall_at_the_dot_lasts_longer_than_the_senders_patience() -> None:
    async with serving_mail(Mailbox([MailFault("dot", MailPlan(stop="hang"))])) as served:
        with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
            await asyncio.to_thread(send_with_little_patience, served)
    assert [mail.reply for mail in served.messages] == [None]


async def test_a_limit_closes_the_door_on_the_message_above_it() -> None:
    async with serving_mail(Mailbox(window=Window(1, 60))) as served:
        await asyncio.to_thread(send, served, ["a@x.example"])
        with pytest.raises(smtplib.SMTPDataError, match="too many"):
            await asyncio.to_thread(send, served, ["a@x.example"])
    assert [handed.moment for handed in served.handed] == ["dot", "data"]


def test_the_limit_opens_again_when_the_window_has_passed() -> None:
    mailbox = Mailbox(window=Window(1, 60))
    replies = [
        mailbox.respond("data", ["a@x.example"], Now(seconds * SECOND, seconds * SECOND)).reply[:3]
        for seconds in (0, 59, 60)
    ]
    assert replies == ["250", "421", "250"]


def test_a_fault_strikes_its_times_and_only_its_recipient() -> None:
    mailbox = Mailbox([MailFault("rcpt", MailPlan("451 4.3.0 later"), "a@x.example", times=2)])
    asked = ["b@x.example", "a@x.example", "a@x.example", "a@x.example"]
    assert [mailbox.respond("rcpt", [who], Now(0, 0)).reply[:3] for who in asked] == ["250", "451", "451", "250"]
