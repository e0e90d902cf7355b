"""A mail campaign that is killed over and over, and what a mail server must have seen of it.

Every mailbox writes to contacts of its own, to each of them twice, by one of two scripts: the second mail answers the
first. One mailbox more has a daily cap below what it has to send. All are in a zone in which it is about noon, so that
no midnight comes between, and any time is an hour of sending, so that nothing waits but for the gap and the cap.

The oracle (`faults`) is outside of the daemon: what arrived and when, by the mail server's own clock, against what the
daemon says of each mail in the end.
"""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, Literal

from msgspec import Struct

from leadline_protocol import messages as wire
from leadline_protocol.errors import LeadlineError
from tests.acceptance.stage import Stage
from tests.world.behaviours import SECOND

GAP_SECONDS: Final = 1
STEPS: Final = 2
CAP: Final = 100
SMALL_CAP: Final = 5
CAPPED: Final = "capped"
ROWS_MAX: Final = 1000
TEAMSPACES: Final = ("acme", "globex")

ANY_TIME: Final = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "begin": "00:00", "end": "00:00"}

SCRIPTS: Final = [
    {
        "type": "script",
        "name": name,
        "keyword": "Follow Up",
        "steps": [{"subject": f"{name}: {{{{ n }}}}", "text": "Hello"}, {"text": "Hello again"}],
    }
    for name in ("spring", "autumn")
]


State = Literal["sending", "sent", "unknown", "refused", "not_sent", "withdrawn"]


class Arrived(Struct, frozen=True):
    """A message that the mail server has."""

    at_us: int
    """By the server's own clock."""
    sender: str
    recipient: str
    message_id: str


class Size(Struct, frozen=True):
    """How much is sent, and how often the daemon is killed meanwhile."""

    mailboxes: int
    contacts: int
    """Of each mailbox."""
    kills: int
    kills_while_starting: int

    @property
    def mails(self) -> int:
        """All that are to arrive, but for those of the mailbox with the small cap."""
        return self.mailboxes * self.contacts * STEPS


def noon() -> str:
    """A zone in which it is about noon."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"


def settings(port: int, *, spacing_seconds: int = 0) -> str:
    """The configuration of a daemon that hands its mails in at this port; nothing is queued by itself."""
    lines = [
        "[outreach]",
        f"spacing_seconds = {spacing_seconds}",
        'queue_cron = "0 0 29 2 *"',
        'weekday_cron = "0 0 29 2 *"',
    ]
    lines += ['weekend_cron = "0 0 29 2 *"', "[outreach.smtp]", 'host = "127.0.0.1"', f"port = {port}", 'tls = "none"']
    return "\n".join([*lines, ""])


def associate(name: str, **more: Any) -> dict[str, Any]:
    """A row of an import: a mailbox that writes at any time."""
    row = {"type": "associate", "name": name, "address": f"{name}@senders.example", "zone": noon(), "hours": ANY_TIME}
    return {**row, "gap_seconds": GAP_SECONDS, "daily_cap": CAP, **more}


def contact(mailbox: str, number: int) -> dict[str, Any]:
    """A row of an import: somebody whom a mailbox writes to."""
    script = ("spring", "autumn")[number % 2]
    address = f"{mailbox}-{number}@contacts.example"
    return {"type": "follow_up", "associate": mailbox, "address": address, "script": script, "fields": {"n": number}}


def take_in(daemon: Stage, teamspace: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Import rows, all of which must be new."""
    for begin in range(0, len(rows), ROWS_MAX):
        some = [dict(row) for row in rows[begin : begin + ROWS_MAX]]
        imported = daemon.ask(wire.FollowUps(action="import", teamspace=teamspace, rows=some)).imported
        assert imported is not None
        assert imported.added == len(some), imported


def prepare(daemon: Stage, size: Size) -> None:
    """Import the whole campaign, half of it for each teamspace."""
    for part, teamspace in enumerate(TEAMSPACES):
        names = [f"m{number:03}" for number in range(part, size.mailboxes, len(TEAMSPACES))]
        rows = [*SCRIPTS, *map(associate, names)]
        rows += [contact(name, number) for name in names for number in range(size.contacts)]
        take_in(daemon, teamspace, rows)
    rows = [associate(CAPPED, daily_cap=SMALL_CAP), *(contact(CAPPED, number) for number in range(2 * SMALL_CAP))]
    take_in(daemon, TEAMSPACES[0], rows)


class Feeder(threading.Thread):
    """Queues what is due, again and again, whatever becomes of the daemon meanwhile."""

    def __init__(self, daemon: Stage, *, limit: int = 25, every_seconds: float = 0.5) -> None:
        """`limit`: so many of each mailbox at a time."""
        super().__init__(name="feeder", daemon=True)
        self._limit = limit
        self._every_seconds = every_seconds
        self._daemon = daemon
        self._over = threading.Event()
        self.calls = 0
        self.cut_off = 0

    def run(self) -> None:
        """Until told to stop."""
        while not self._over.wait(self._every_seconds):
            for teamspace in TEAMSPACES:
                try:
                    with self._daemon.blocking_client(timeout_seconds=60) as client:
                        client.call(wire.FollowUps(action="queue", teamspace=teamspace, limit=self._limit))
                    self.calls += 1
                except (LeadlineError, OSError):
                    self.cut_off += 1

    def stop(self) -> None:
        """Queue no more."""
        self._over.set()
        self.join()


def pages(daemon: Stage, **wanted: Any) -> Iterator[wire.OutreachReply]:
    """All pages of a list of outreach."""
    after: int | None = 0
    while after is not None:
        reply = daemon.ask(wire.FollowUps(limit=1000, after=after, **wanted))
        yield reply
        after = reply.next


def mails(daemon: Stage, state: State) -> list[wire.MailView]:
    """All mails that are in a state."""
    return [mail for reply in pages(daemon, action="mails", state=state) for mail in reply.mails]


def follow_ups(daemon: Stage, **wanted: Any) -> list[wire.FollowUpView]:
    """All follow-ups."""
    return [each for reply in pages(daemon, action="follow_ups", **wanted) for each in reply.follow_ups]


def until_sent(daemon: Stage, *, seconds: float) -> None:
    """Wait until there is nothing to be sent any more, but for what the small cap keeps back."""
    deadline = time.monotonic() + seconds
    while True:
        left = [
            each
            for status in ("pending", "queued", "sending")
            for each in follow_ups(daemon, status=status)
            if each.associate != CAPPED or status == "sending"
        ]
        if not left and len(capped(daemon)) == SMALL_CAP:
            return
        assert time.monotonic() < deadline, f"{len(left)} are left: {left[:1]}"
        time.sleep(0.5)  # a daemon says of no list that it is empty now


def capped(daemon: Stage) -> list[wire.MailView]:
    """What has left, or may have, of the mailbox with the small cap."""
    return [mail for state in ("sent", "unknown") for mail in mails(daemon, state) if mail.associate == CAPPED]


def kill_over_and_over(daemon: Stage, arrived: Callable[[], int], size: Size, chance: random.Random) -> None:
    """Kill the daemon at moments by what has arrived, and now and then while it starts."""
    moments = sorted(chance.sample(range(1, size.mails * 4 // 5), size.kills - size.kills_while_starting))
    starting = set(chance.sample(range(len(moments)), size.kills_while_starting))
    for number, moment in enumerate(moments):
        until(lambda moment=moment: arrived() >= moment)  # type: ignore[misc]  # mypy infers no lambda with a default
        time.sleep(chance.uniform(0.0, 0.2))  # at any moment, which is the point of it
        daemon.kill()
        if number in starting:
            daemon.kill_while_starting(chance.uniform(0.0, 2.0))
        daemon.start()


def until(true_of: Callable[[], bool], *, seconds: float = 300.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true_of():
        assert time.monotonic() < deadline, "still not so"
        time.sleep(0.02)  # what it waits for is another process's


def faults(daemon: Stage, arrived: Sequence[Arrived]) -> list[str]:
    """What is wrong with a campaign that is over."""
    return [*_doubles(arrived), *_books(daemon, arrived), *pace(arrived), *_order(daemon, arrived)]


def _doubles(arrived: Sequence[Arrived]) -> Iterator[str]:
    for message_id, times in Counter(each.message_id for each in arrived).items():
        if times > 1:
            yield f"double: {message_id} arrived {times} times"


def _books(daemon: Stage, arrived: Sequence[Arrived]) -> Iterator[str]:
    """The log of the server is within sent and unknown, all that was sent is in it, and nothing is on its way."""
    sent, unknown = mails(daemon, "sent"), mails(daemon, "unknown")
    recipients = {each.message_id: each.recipient for each in arrived}
    for mail in (*sent, *unknown):
        if recipients.get(mail.message_id, mail.address) != mail.address:
            yield f"astray: {mail.message_id} arrived at {recipients[mail.message_id]}, not {mail.address}"
    for message_id in recipients.keys() - {mail.message_id for mail in (*sent, *unknown)}:
        yield f"not in the books: {message_id}"
    for mail in sent:
        if mail.message_id not in recipients:
            yield f"never arrived: {mail.message_id}, mail {mail.mail}"
    for mail in mails(daemon, "sending"):
        yield f"still on its way: mail {mail.mail}"
    done = {(mail.follow_up, mail.step) for mail in sent}
    lost = {mail.follow_up for mail in unknown}
    for each in follow_ups(daemon):
        if each.status == "finished":
            if not all((each.follow_up, step) in done for step in range(1, STEPS + 1)):
                yield f"finished though not all was sent: follow-up {each.follow_up}"
        elif each.status == "unknown":
            if each.follow_up not in lost:
                yield f"unknown without such a mail: follow-up {each.follow_up}"
        elif each.associate != CAPPED:
            yield f"{each.status}: follow-up {each.follow_up}"


def pace(arrived: Sequence[Arrived]) -> list[str]:
    """Where a mailbox sent too soon or too much."""
    found: list[str] = []
    by_sender: dict[str, list[int]] = defaultdict(list)
    for each in arrived:
        by_sender[each.sender].append(each.at_us)
    for sender, times in by_sender.items():
        cap = SMALL_CAP if sender.startswith(f"{CAPPED}@") else CAP
        if len(times) > cap:
            found.append(f"cap: {len(times)} mails of {sender} in a day")
        for before, after in pairwise(sorted(times)):
            if after - before < GAP_SECONDS * SECOND:
                found.append(f"gap: {(after - before) / SECOND:.6f} s between two mails of {sender}")
    return found


def _order(daemon: Stage, arrived: Sequence[Arrived]) -> Iterator[str]:
    """No second step arrives before the first."""
    when = {each.message_id: each.at_us for each in arrived}
    steps = {(mail.follow_up, mail.step): when.get(mail.message_id) for mail in mails(daemon, "sent")}
    for (follow_up, step), at_us in steps.items():
        before = steps.get((follow_up, step - 1))
        if before is not None and at_us is not None and at_us < before:
            yield f"order: step {step} of follow-up {follow_up} arrived before step {step - 1}"
