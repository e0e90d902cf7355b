"""What the doctor finds of outreach, with a mail server and a listener that are there."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from leadline.adapters.unsubscribe_listener import unsubscribe_listener
from leadline_protocol.messages import AssociateView, FollowUps, MailView, OutreachReply
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import FakeDaemon
from tests.cli.test_doctor import healthy
from tests.cli.test_outreach import associate, mail
from tests.world.mail import Mailbox, MailServed, serving_mail

URL = "https://127.0.0.1:9/unsubscribe"
"""Where nobody listens."""


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def server(portal: BlockingPortal) -> Iterator[MailServed]:
    with portal.wrap_async_context_manager(serving_mail(Mailbox())) as served:
        yield served


def found(leadline: Leadline, folder: Path, *lines: str) -> list[tuple[str, str]]:
    file = folder / "leadline.toml"
    file.write_text("\n".join(lines))
    file.chmod(0o640)
    told = map(json.loads, leadline("doctor", "--json", "--config", file).out.splitlines())
    return [(each["finding"], each["message"]) for each in told if each["check"] == "outreach"]


def seeing(daemon: FakeDaemon, associates: Sequence[AssociateView], unknown: Sequence[MailView] = ()) -> None:
    healthy(daemon)

    def answer(asked: FollowUps) -> OutreachReply:
        if asked.action == "associates":
            return OutreachReply(line=0, associates=list(associates))
        assert (asked.action, asked.state) == ("mails", None)
        return OutreachReply(line=0, mails=list(unknown))

    daemon.on(FollowUps, answer)


def smtp(server: MailServed, *lines: str) -> list[str]:
    return ["[outreach.smtp]", f'host = "{server.host}"', f"port = {server.port}", *lines]


def test_where_nobody_writes_there_is_nothing_to_say(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    seeing(daemon, [])
    assert found(leadline, tmp_path) == []


def test_a_mail_server_is_talked_to_and_sent_nothing(leadline: Leadline, tmp_path: Path, server: MailServed) -> None:
    assert found(leadline, tmp_path, *smtp(server, 'tls = "none"')) == [
        ("fine", f"The mail server {server.host}:{server.port} takes mails.")
    ]
    assert server.handed == []


def test_a_server_that_cannot_encrypt_takes_no_mails(leadline: Leadline, tmp_path: Path, server: MailServed) -> None:
    ((finding, message),) = found(leadline, tmp_path, *smtp(server))
    assert finding == "fault"
    assert message.startswith(f"The mail server {server.host}:{server.port} takes no mails: STARTTLS")


def test_a_password_that_fails_is_not_told(leadline: Leadline, tmp_path: Path, server: MailServed) -> None:
    lines = smtp(server, 'tls = "none"', 'user = "leadline"', 'secret = "canary"')
    ((finding, message),) = found(leadline, tmp_path, *lines)
    assert finding == "fault"
    assert "canary" not in message


def test_a_mailbox_whose_mails_nobody_takes_is_a_fault(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    seeing(daemon, [associate(), associate(name="eve", active=False), associate(name="bob", server="127.0.0.1:9")])
    no_server, silent, no_way = found(leadline, tmp_path)
    assert no_server == (
        "fault",
        "No mail server takes the mails of ada (acme): set outreach.smtp.host, or give each one of its own.",
    )
    assert silent == ("fault", "The mail server 127.0.0.1:9 of a mailbox cannot be reached: Connection refused.")
    assert no_way[0] == "note"


def test_what_waits_for_a_person_is_noted(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: Path, server: MailServed
) -> None:
    why = "of its last 40 mails 5 bounced"
    paused = associate(paused=why, server=f"{server.host}:{server.port}")
    seeing(daemon, [paused], [mail()])
    assert found(leadline, tmp_path) == [
        ("fine", "1 mail server of mailboxes can be reached."),
        ("note", "Nobody can unsubscribe by one click, which large mail providers want: outreach.unsubscribe_url."),
        ("note", f"The mailbox of ada (acme) is paused: {why}: leadline outreach resume ada --teamspace acme"),
        ("note", "1 mail of unknown outcome waits for a person: `leadline outreach unknown` shows what is known."),
    ]


def test_the_daemon_is_heard_where_it_is_to_listen_for_unsubscribing(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: Path, portal: BlockingPortal, server: MailServed
) -> None:
    seeing(daemon, [])

    async def unsubscribed(_: object) -> None:
        raise AssertionError("nobody has clicked")

    listening = unsubscribe_listener(port=0, read=lambda _: None, unsubscribed=unsubscribed)
    with portal.wrap_async_context_manager(listening) as port:
        lines = ["[outreach]", f'unsubscribe_url = "{URL}"', f'unsubscribe_listen = "127.0.0.1:{port}"']
        (_, way) = found(leadline, tmp_path, *lines, *smtp(server, 'tls = "none"'))
    assert way == (
        "note",
        f"From here {URL} does not lead to 127.0.0.1:{port}: Connection refused. Look at the reverse proxy.",
    )
    (_, gone) = found(leadline, tmp_path, *lines, *smtp(server, 'tls = "none"'))
    assert gone == (
        "fault",
        f"The daemon does not listen for unsubscribing at 127.0.0.1:{port}: Connection refused; restart it.",
    )


def test_without_a_daemon_its_listener_is_not_missed(leadline: Leadline, tmp_path: Path, server: MailServed) -> None:
    lines = ["[outreach]", f'unsubscribe_url = "{URL}"', *smtp(server, 'tls = "none"')]
    assert [finding for finding, _ in found(leadline, tmp_path, *lines)] == ["fine"]
