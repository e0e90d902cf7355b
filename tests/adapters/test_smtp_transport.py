"""Mails handed in to real servers: what became of each is told for what it is, at each moment of the conversation."""

import asyncio
import getpass
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from email import message_from_bytes
from pathlib import Path

import pytest
import uvloop

from leadline.adapters.smtp_transport import Patience, SmtpTransport, smtp_transport
from leadline.features.outreach.model import AssociateId
from leadline.features.outreach.ports import (
    Accepted,
    Concerned,
    Envelope,
    MailServer,
    NotNow,
    NotSent,
    Outcome,
    RefusedForGood,
    Tls,
    Unknown,
)
from tests.system_tools import SEARCH_PATH
from tests.world.certificates import Authority
from tests.world.mail import Mailbox, MailFault, MailPlan, MailServed, serving_mail

ADA, BOB = AssociateId(1), AssociateId(2)
MESSAGE = b"Message-ID: <1@a.example>\r\nSubject: hello\r\n\r\n.dot\r\n..\r\n.\r\nFrom me\r\n"
SHORT = Patience(connecting=0.5, command=0.5, verdict=0.5)
SHORT_AT_LAST = Patience(verdict=0.5)


def envelope(number: int = 1, recipient: str = "bob@b.example") -> Envelope:
    return Envelope("ada@a.example", recipient, MESSAGE.replace(b"<1@", b"<%d@" % number))


def at(
    served: "MailServed | Scripted", tls: Tls = Tls.NONE, user: str | None = None, password: str | None = None
) -> MailServer:
    return MailServer("127.0.0.1", served.port, tls, user, password)


async def send(
    transport: SmtpTransport, server: MailServer, mail: Envelope | None = None, who: AssociateId = ADA
) -> Outcome:
    return await transport.send(who, server, mail or envelope(), lambda: True)


class Scripted:
    """A server that says its lines, one for each that it is told, and then drops the connection.

    Of a message it reads the first line only; `told` has all that it was told.
    """

    def __init__(self, replies: Sequence[str]) -> None:
        self.replies = replies
        self.told: list[str] = []
        self.port = 0


@asynccontextmanager
async def scripted(*replies: str, greeting: bytes = b"220 hello\r\n") -> AsyncIterator[Scripted]:
    server = Scripted(replies)
    conversations: set[asyncio.Task[object] | None] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.add(asyncio.current_task())
        try:
            writer.write(greeting)
            for reply in server.replies:
                server.told.append((await reader.readline()).decode().strip())
                writer.write(reply.encode() + b"\r\n")
            server.told.append((await reader.readline()).decode().strip())
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        try:
            yield server
        finally:
            for conversation in conversations:
                assert conversation is not None
                conversation.cancel()
            await asyncio.sleep(0)


async def test_a_mail_arrives_byte_for_byte() -> None:
    async with serving_mail(Mailbox()) as served, smtp_transport() as transport:
        outcome = await send(transport, at(served))
        assert outcome == Accepted("250 2.0.0 OK")
        [mail] = served.messages
        assert (mail.sender, mail.recipients, mail.content) == ("ada@a.example", ("bob@b.example",), MESSAGE)


@pytest.mark.parametrize(
    ("fault", "outcome", "arrived"),
    [
        (("mail", "450 4.1.0 later"), NotNow("450 4.1.0 later"), 0),
        (("mail", "550 5.1.0 who"), RefusedForGood(Concerned.MAILBOX, 550, "5.1.0 who"), 0),
        (("rcpt", "450 4.2.1 later"), NotNow("450 4.2.1 later"), 0),
        (("rcpt", "421 4.2.1 later"), NotNow("421 4.2.1 later"), 0),
        (("rcpt", "550 5.1.1 no such user"), RefusedForGood(Concerned.RECIPIENT, 550, "5.1.1 no such user"), 0),
        (("data", "451 4.3.0 later"), NotNow("451 4.3.0 later"), 0),
        (("data", "554 5.7.1 not you"), RefusedForGood(Concerned.MESSAGE, 554, "5.7.1 not you"), 0),
        (("dot", "451 4.3.0 later"), NotNow("451 4.3.0 later"), 1),
        (("dot", "421 4.3.0 later"), NotNow("421 4.3.0 later"), 1),
        (("dot", "554 5.6.0 not like that"), RefusedForGood(Concerned.MESSAGE, 554, "5.6.0 not like that"), 1),
    ],
)  # fmt: skip
async def test_an_answer_settles_a_mail_and_the_next_one_is_sent_all_the_same(
    fault: tuple[str, str], outcome: Outcome, arrived: int
) -> None:
    moment, reply = fault
    plans = [MailFault(moment, MailPlan(reply))]  # type: ignore[arg-type]
    async with serving_mail(Mailbox(plans)) as served, smtp_transport() as transport:
        assert await send(transport, at(served)) == outcome
        assert len(served.messages) == arrived
        assert isinstance(await send(transport, at(served), envelope(2)), Accepted)
        assert len(served.messages) == arrived + 1


@pytest.mark.parametrize("stop", ["cut", "hang"])
@pytest.mark.parametrize("moment", ["mail", "rcpt", "data", "dot"])
async def test_without_an_answer_a_mail_is_unknown_after_its_first_byte_and_certainly_not_sent_before(
    moment: str, stop: str
) -> None:
    plans = [MailFault(moment, MailPlan(stop=stop))]  # type: ignore[arg-type]
    patience = SHORT_AT_LAST if moment == "dot" else SHORT
    async with serving_mail(Mailbox(plans)) as served, smtp_transport(patience=patience) as transport:
        while not served.handed:  # on a slow machine the patience may end at an earlier moment
            outcome = await send(transport, at(served))
            assert isinstance(outcome, Unknown if moment == "dot" else NotNow), outcome
        assert len(served.messages) == (moment == "dot")
        before = served.connections
        transport._patience = Patience()
        assert isinstance(await send(transport, at(served), envelope(2)), Accepted)
        assert served.connections == before + 1


async def test_a_connection_cut_in_the_middle_of_the_message_leaves_it_unknown() -> None:
    async with scripted("250 a", "250 b", "250 c", "354 go on") as server, smtp_transport() as transport:
        outcome = await send(transport, at(server))
        assert isinstance(outcome, Unknown), outcome
        assert server.told[-1].startswith("Message-ID")


@pytest.mark.parametrize("verdict", ["354 go on", "199 well", "600 what", "nonsense", "25", "250-never ending"])
async def test_a_verdict_that_is_none_leaves_the_mail_unknown(verdict: str) -> None:
    async with (
        scripted("250 a", "250 b", "250 c", "354 go on", verdict) as server,
        smtp_transport(patience=SHORT_AT_LAST) as transport,
    ):
        assert isinstance(await send(transport, at(server)), Unknown)


@pytest.mark.parametrize("said", ["nonsense", "250 what", "654 what", "199 well"])
async def test_nonsense_before_the_message_sends_nothing(said: str) -> None:
    async with scripted("250 a", "250 b", "250 c", said) as server, smtp_transport(patience=SHORT) as transport:
        assert isinstance(await send(transport, at(server)), NotNow)
        assert not any("Message-ID" in line for line in server.told)


async def test_the_last_look_is_taken_once_when_the_server_waits_for_the_message() -> None:
    async with serving_mail(Mailbox()) as served, smtp_transport() as transport:
        looks = 0

        def withdrawn() -> bool:
            nonlocal looks
            looks += 1
            return False

        assert await transport.send(ADA, at(served), envelope(), withdrawn) == NotSent()
        assert (looks, served.messages) == (1, [])
        assert isinstance(await send(transport, at(served), envelope(2)), Accepted)
        assert [mail.message_id for mail in served.messages] == ["<2@a.example>"]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_the_last_look_lets_go_has_left_before_anything_else_happens(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A process that is stopped after its look must not send when it wakes, so there is nothing between the two."""
    left: list[bytes] = []

    def talk(server: socket.socket, done: threading.Event) -> None:
        peer, _ = server.accept()
        with peer:
            for reply in ("220 hello", "250 a", "250 b", "250 c", "354 go on"):
                peer.sendall(reply.encode() + b"\r\n")
                peer.recv(10_000) if reply != "354 go on" else done.wait(10)
            left.append(peer.recv(10_000, socket.MSG_DONTWAIT))

    async def look() -> Outcome:
        loop = asyncio.get_running_loop()
        done = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as server:
            talking = loop.run_in_executor(None, talk, server, done)

            def may_send() -> bool:
                loop.call_soon(pause)
                return True

            def pause() -> None:
                done.set()
                time.sleep(0.2)

            async with smtp_transport() as transport:
                at_port = MailServer("127.0.0.1", server.getsockname()[1], Tls.NONE)
                outcome = await transport.send(ADA, at_port, envelope(), may_send)
            await talking
            return outcome

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert isinstance(runner.run(look()), Unknown)
    assert left[0].endswith(b"\r\n.\r\n")


async def test_mails_of_a_mailbox_share_a_connection_one_at_a_time_and_another_has_its_own() -> None:
    slow = [MailFault("dot", MailPlan(delay_us=20_000), times=9)]
    async with serving_mail(Mailbox(slow)) as served, smtp_transport() as transport:
        outcomes = await asyncio.gather(*(send(transport, at(served), envelope(number)) for number in range(3)))
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert served.connections == 1
        assert isinstance(await send(transport, at(served), envelope(9), BOB), Accepted)
        assert served.connections == 2
        assert len({mail.message_id for mail in served.messages}) == 4


async def test_a_refused_recipient_leaves_the_connection_good_for_the_next_mail() -> None:
    refusal = MailFault("rcpt", MailPlan("550 5.1.1 no such user"), "gone@b.example")
    async with serving_mail(Mailbox([refusal])) as served, smtp_transport() as transport:
        assert isinstance(await send(transport, at(served), envelope(1, "gone@b.example")), RefusedForGood)
        assert isinstance(await send(transport, at(served), envelope(2)), Accepted)
        assert (served.connections, served.messages[0].recipients) == (1, ("bob@b.example",))


async def test_a_connection_that_was_dropped_while_idle_is_made_anew() -> None:
    async with serving_mail(Mailbox()) as served, smtp_transport() as transport:
        for number in range(3):
            assert isinstance(await send(transport, at(served), envelope(number)), Accepted)
            served.drop()
        assert (served.connections, len(served.messages)) == (3, 3)


@pytest.mark.parametrize(
    ("moment", "plan"),
    [("rset", MailPlan(stop="cut")), ("rset", MailPlan("421 4.4.2 idle for too long")), ("mail", MailPlan(stop="cut"))],
)
async def test_a_kept_connection_that_fails_before_the_message_is_replaced_once(moment: str, plan: MailPlan) -> None:
    async with serving_mail(mailbox := Mailbox()) as served, smtp_transport() as transport:
        assert isinstance(await send(transport, at(served), envelope(1)), Accepted)
        mailbox.play(MailFault(moment, plan))  # type: ignore[arg-type]
        assert isinstance(await send(transport, at(served), envelope(2)), Accepted)
        assert (served.connections, len(served.messages)) == (2, 2)


async def test_a_new_connection_that_fails_is_not_replaced() -> None:
    always = MailFault("mail", MailPlan(stop="cut"), times=99)
    async with serving_mail(Mailbox([always])) as served, smtp_transport() as transport:
        assert isinstance(await send(transport, at(served)), NotNow)
        assert served.connections == 1


async def test_a_mail_that_may_have_been_sent_on_a_kept_connection_is_not_sent_again() -> None:
    async with serving_mail(mailbox := Mailbox()) as served, smtp_transport() as transport:
        assert isinstance(await send(transport, at(served), envelope(1)), Accepted)
        mailbox.play(MailFault("dot", MailPlan(stop="cut")))
        assert isinstance(await send(transport, at(served), envelope(2)), Unknown)
        assert (served.connections, len(served.messages)) == (1, 2)


async def test_an_idle_connection_is_closed_politely_and_forgotten() -> None:
    async with scripted("250 a", "250 b", "250 c", "354 go on", "250 done", *["250 read"] * 8) as server:
        async with smtp_transport(idle_seconds=0.01) as transport:
            assert isinstance(await send(transport, at(server)), Accepted)
            async with asyncio.timeout(30):
                while "QUIT" not in server.told:
                    await asyncio.sleep(0.01)
            assert not transport._lanes


async def test_another_server_for_the_mailbox_has_another_connection() -> None:
    async with serving_mail(Mailbox()) as old, serving_mail(Mailbox()) as new, smtp_transport() as transport:
        assert isinstance(await send(transport, at(old)), Accepted)
        assert isinstance(await send(transport, at(new)), Accepted)
        assert (len(old.messages), len(new.messages)) == (1, 1)


async def test_a_sending_that_is_cancelled_leaves_no_connection_behind() -> None:
    hang = MailFault("dot", MailPlan(stop="hang"))
    async with serving_mail(Mailbox([hang])) as served, smtp_transport() as transport:
        sending = asyncio.create_task(send(transport, at(served)))
        async with asyncio.timeout(30):
            while not served.messages:
                await asyncio.sleep(0.001)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert isinstance(await send(transport, at(served), envelope(2)), Accepted)
        assert served.connections == 2


async def test_where_nobody_answers_or_nobody_speaks_it_is_not_now() -> None:
    async with smtp_transport(patience=SHORT) as transport:
        assert isinstance(await send(transport, MailServer("127.0.0.1", 1, Tls.NONE)), NotNow)
        async with scripted(greeting=b"") as silent:
            assert isinstance(await send(transport, at(silent)), NotNow)
        assert not transport._lanes


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.IMPLICIT])
async def test_over_tls_a_mailbox_logs_in_and_sends(tls: Tls, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with (
        serving_mail(
            Mailbox(), tls=authority.server(), implicit=tls is Tls.IMPLICIT, passwords={"ada": "canary"}
        ) as served,
        smtp_transport(ca_file=authority.ca_file) as transport,
    ):
        for number in range(3):
            outcome = await send(transport, at(served, tls, "ada", "canary"), envelope(number))
            assert isinstance(outcome, Accepted), outcome
        assert (served.connections, len(served.messages)) == (1, 3)


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.IMPLICIT])
@pytest.mark.parametrize("fault", ["unknown authority", "another name"])
async def test_a_server_that_cannot_prove_who_it_is_gets_neither_password_nor_mail(
    tls: Tls, fault: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    context = authority.server(address="127.0.0.2" if fault == "another name" else "127.0.0.1")
    async with (
        serving_mail(Mailbox(), tls=context, implicit=tls is Tls.IMPLICIT, passwords={"ada": "canary"}) as served,
        smtp_transport(ca_file=authority.ca_file if fault == "another name" else None) as transport,
    ):
        outcome = await send(transport, at(served, tls, "ada", "canary"))
        assert isinstance(outcome, NotNow)
        assert "certificate verify failed" in outcome.story
        assert served.handed == []


async def test_where_starttls_was_taken_out_of_the_conversation_nothing_is_sent() -> None:
    async with scripted("250 hello", *["250 fine"] * 9) as server, smtp_transport() as transport:
        outcome = await send(transport, at(server, Tls.STARTTLS, "ada", "canary"))
        assert isinstance(outcome, NotNow)
        assert [line.split()[0] for line in server.told if line] in (["EHLO"], ["EHLO", "QUIT"])


async def test_a_refused_login_is_the_mailbox_s_and_tells_no_secret(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with (
        serving_mail(Mailbox(), tls=authority.server(), implicit=True, passwords={"ada": "right"}) as served,
        smtp_transport(ca_file=authority.ca_file) as transport,
    ):
        server = at(served, Tls.IMPLICIT, "ada", "canary")
        outcome = await send(transport, server)
        assert isinstance(outcome, RefusedForGood)
        assert (outcome.concerned, outcome.code) == (Concerned.MAILBOX, 535)
        assert "canary" not in repr((outcome, server))
        assert served.handed == []


async def test_a_server_without_logins_is_not_sent_to_where_one_is_wanted() -> None:
    async with serving_mail(Mailbox()) as served, smtp_transport() as transport:
        outcome = await send(transport, at(served, Tls.NONE, "ada", "canary"))
        assert isinstance(outcome, NotNow)
        assert served.handed == []


@pytest.mark.needs("smtp-sink")
async def test_postfix_takes_a_hundred_mails_of_two_mailboxes(tmp_path: Path) -> None:
    async with sinking(tmp_path) as port, smtp_transport() as transport:
        server = MailServer("127.0.0.1", port, Tls.NONE)
        senders = [(ADA, BOB)[number % 2] for number in range(100)]
        outcomes = await asyncio.gather(
            *(send(transport, server, envelope(number), who) for number, who in enumerate(senders))
        )
        assert {type(outcome) for outcome in outcomes} == {Accepted}
    arrived = [path.read_bytes() for path in tmp_path.glob("mail.*")]
    assert {message_from_bytes(mail)["Message-ID"] for mail in arrived} == {f"<{n}@a.example>" for n in range(100)}
    assert len(arrived) == 100
    body = MESSAGE.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")
    assert all(mail.partition(b"\n\n")[2].rstrip(b"\n") == body.rstrip(b"\n") for mail in arrived)


@asynccontextmanager
async def sinking(folder: Path) -> AsyncIterator[int]:
    """Postfix's sink, which writes each mail into a file of the folder; gives its port."""
    program = shutil.which("smtp-sink", path=SEARCH_PATH)
    assert program is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        program, "-u", getpass.getuser(), "-d", "mail.", f"127.0.0.1:{port}", "50", cwd=folder
    )
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    break
        yield port
    finally:
        process.terminate()
        await process.wait()
