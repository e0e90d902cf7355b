"""No mail leaves twice, too soon or too often, however often and whenever the daemon is killed.

The size in which this runs by itself takes about a minute. With `LEADLINE_FULL_SIZE=1` the first test sends 10,000
mails from 200 mailboxes through 50 kills, which takes a quarter of an hour:

    LEADLINE_FULL_SIZE=1 scripts/test tests/acceptance/test_outreach.py -s -k killed
"""

import email
import os
import pwd
import random
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance import campaign
from tests.acceptance.campaign import Arrived, Feeder, Size
from tests.acceptance.stage import Stage, World, stage
from tests.ports import held_port
from tests.system_tools import SEARCH_PATH
from tests.world.behaviours import Now
from tests.world.mail import Mailbox, MailPlan, MailServed, Moment
from tests.world.servers import LOOPBACK

FULL_SIZE: Final = "LEADLINE_FULL_SIZE" in os.environ
SIZE: Final = Size(200, 25, 50, 10) if FULL_SIZE else Size(50, 6, 8, 2)
SMALL: Final = Size(6, 3, 3, 1)
SECONDS: Final = 3_600 if FULL_SIZE else 120
UNGUARDED: Final = [sys.executable, "-m", "tests.acceptance.unguarded_outreach"]

REPLY_AFTER_US: Final = 200_000
"""So long a mail is the server's and the daemon does not know it: the moment that kills are to hit."""


class SlowMailbox(Mailbox):
    """Takes every mail, and thinks before it says so."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def respond(self, moment: Moment, recipients: object, now: Now) -> MailPlan:
        if moment != "dot":
            return MailPlan()
        self.taken += 1
        return MailPlan(delay_us=REPLY_AFTER_US)


def arrived(served: MailServed) -> list[Arrived]:
    """What the mail server has, in its order."""
    return [
        Arrived(each.arrived_us, each.sender or "", each.recipients[0], each.message_id or "")
        for each in served.messages
    ]


def run(daemon: Stage, size: Size, taken: Callable[[], int], feeder: Feeder) -> None:
    """Send a campaign through its kills, until nothing is left to be sent."""
    seed = int(os.environ.get("LEADLINE_SEED", random.SystemRandom().getrandbits(32)))
    print(f"LEADLINE_SEED={seed}")
    campaign.prepare(daemon, size)
    feeder.start()
    try:
        campaign.kill_over_and_over(daemon, taken, size, random.Random(seed))
        campaign.until_sent(daemon, seconds=SECONDS)
    finally:
        feeder.stop()


@pytest.mark.timeout(SECONDS + 300)
def test_no_mail_leaves_twice_too_soon_or_too_often_however_often_the_daemon_is_killed(world: World) -> None:
    mailbox = SlowMailbox()
    served = world.serve_mail(mailbox)
    with stage(campaign.settings(served.port, spacing_seconds=int(FULL_SIZE))) as daemon:
        feeder = Feeder(daemon, limit=3, every_seconds=8.0) if FULL_SIZE else Feeder(daemon)
        run(daemon, SIZE, lambda: mailbox.taken, feeder)
        unknown, sent = campaign.mails(daemon, "unknown"), campaign.mails(daemon, "sent")
        print(f"{len(served.messages)} arrived: {len(sent)} sent, {len(unknown)} unknown")
        print(f"{feeder.calls} calls to queue were answered, {feeder.cut_off} cut off")
        assert campaign.faults(daemon, arrived(served)) == []
        assert unknown, "no kill hit a mail on its way: this has shown nothing"
        assert campaign.mails(daemon, "withdrawn") == [], "nobody has told a job to stop"


def test_the_oracle_sees_a_mail_that_is_sent_again_though_it_may_have_left(world: World) -> None:
    """The control: a mail that was on its way when the daemon was killed goes back into the queue."""
    mailbox = SlowMailbox()
    served = world.serve_mail(mailbox)
    with stage(campaign.settings(served.port), command=UNGUARDED) as daemon:
        run(daemon, SMALL, lambda: mailbox.taken, Feeder(daemon))
        assert any(fault.startswith("double") for fault in campaign.faults(daemon, arrived(served)))


def test_the_oracle_sees_a_gap_and_a_cap_that_are_not_kept() -> None:
    """The control: what a mailbox must not send."""
    too_soon = [Arrived(at_us, "m@senders.example", f"{at_us}@x", f"<{at_us}>") for at_us in (0, 999_999)]
    too_many = [Arrived(n * 2_000_000, "capped@senders.example", f"{n}@x", f"<{n}>") for n in range(6)]
    assert campaign.pace(too_soon) == ["gap: 0.999999 s between two mails of m@senders.example"]
    assert campaign.pace(too_many) == ["cap: 6 mails of capped@senders.example in a day"]


@pytest.mark.needs("smtp-sink")
def test_postfix_is_handed_no_mail_twice_either() -> None:
    with smtp_sink() as (port, folder), stage(campaign.settings(port)) as daemon:
        run(daemon, SMALL, lambda: len(list(folder.iterdir())), Feeder(daemon))
        assert campaign.faults(daemon, dumped(folder)) == []
        assert campaign.mails(daemon, "unknown"), "no kill hit a mail on its way: this has shown nothing"


@contextmanager
def smtp_sink() -> Iterator[tuple[int, Path]]:
    """Postfix's mail server for tests, slow to answer: its port, and the folder into which it writes each mail."""
    with tempfile.TemporaryDirectory(prefix="leadline-sink-") as name, held_port() as port:
        folder, user = Path(name), list[str]()
        if os.geteuid() == 0:  # it does not run as root
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
            user = ["-u", "nobody"]
        command = ["smtp-sink", *user, "-W", ".:1", "-d", f"{folder}/%s.", f"{LOOPBACK}:{port}", "100"]
        sink = subprocess.Popen(command, env={**os.environ, "PATH": SEARCH_PATH})
        try:
            campaign.until(lambda: answers(port))
            yield port, folder
        finally:
            sink.terminate()
            sink.wait()


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((LOOPBACK, port)) == 0


def dumped(folder: Path) -> list[Arrived]:
    """What smtp-sink has written: what it heard of each mail before its headers, and the time as that of the file."""
    found = []
    for path in folder.iterdir():
        mail = email.message_from_bytes(path.read_bytes())
        sender, recipient = (re.sub("[<>]", "", mail[f"X-{part}-Args"].split()[0]) for part in ("Mail", "Rcpt"))
        found.append(Arrived(path.stat().st_mtime_ns // 1000, sender, recipient, mail["Message-ID"]))
    return found
