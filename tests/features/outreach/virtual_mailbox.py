"""A mailbox over virtual time: its mails ask, wait at their places, and begin, as the rules of the line say.

It keeps a log of its own, so that the tests judge what really began and ended and not what the line was told.
"""

from heapq import heappop, heappush
from itertools import count

from msgspec import Struct
from msgspec.structs import replace

from leadline.core.calendar.zones import zone
from leadline.core.quota.days import day_of
from leadline.features.outreach.line import Never, date_of, earliest, place, with_place
from leadline.features.outreach.model import Associate, Line, Place
from leadline_protocol.ids import Instant
from tests.features.outreach.people import EMPTY


class Mail(Struct, frozen=True, kw_only=True):
    number: int
    asked: Instant
    lasts: int = 0
    """Microseconds from its begin to its end."""
    zone: str | None = None
    first: bool = False


class Begun(Struct, frozen=True):
    mail: Mail
    at: Instant
    line: Line
    """As it was just before."""


class Mailbox:
    def __init__(self, associate: Associate, line: Line = EMPTY) -> None:
        self.associate = associate
        self.line = line
        self.log: list[Begun] = []
        self.times_asked = 0
        self.never: list[Mail] = []
        self._held: dict[int, Place] = {}
        self._order = count()
        self._agenda: list[tuple[Instant, int, Mail | None]] = []
        """Who asks when; None: the mail that is on its way is over, which comes before all of that moment."""

    def send(self, *mails: Mail) -> list[Begun]:
        """Let all of them ask when they want to, until none waits any more."""
        for mail in mails:
            heappush(self._agenda, (mail.asked, next(self._order), mail))
        while self._agenda:
            now, _, mine = heappop(self._agenda)
            if mine is None:
                self.line = replace(self.line, in_flight=False, last_end=now)
            else:
                self._ask(mine, now)
        return self.log

    def _ask(self, mail: Mail, now: Instant) -> None:
        self.times_asked += 1
        held = self._held.pop(mail.number, None)
        found = earliest(self.associate, self.line, mail.zone, now, first=mail.first, held=held)
        if isinstance(found, Never):
            self.never.append(mail)
        elif found.why is None:
            assert found.at == now
            self._begin(mail, now, held)
        else:
            assert found.at > now
            taken = self._held[mail.number] = place(found.at, first=mail.first, held=held)
            self.line = with_place(self.line, taken, held)
            heappush(self._agenda, (found.at, next(self._order), mail))

    def _begin(self, mail: Mail, now: Instant, held: Place | None) -> None:
        self.log.append(Begun(mail, now, self.line))
        sender = zone(self.associate.zone)
        today = date_of(day_of(now, sender), sender)
        sent = self.line.sent.get(today, 0)
        self.line = replace(
            self.line,
            sent={**self.line.sent, today: sent + 1},
            days_sent=self.line.days_sent + (sent == 0),
            in_flight=True,
            places=tuple(one for one in self.line.places if one != held),
        )
        heappush(self._agenda, (Instant(now + mail.lasts), -1, None))
