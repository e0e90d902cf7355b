"""Lines of an import become associates, scripts, follow-ups and suppressions.

Each row is looked at by itself: a bad one is told, at its place, and keeps none of the others back. What is there by
the same name is replaced; a follow-up whose key is known stays as it is, so that a file may be imported twice.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import time
from typing import Any, Final, assert_never

import msgspec
from msgspec import Struct

from leadline.core.calendar.zones import zone_names
from leadline.features.outreach.books import OutreachStore, Server, StoredAssociate
from leadline.features.outreach.model import (
    SECOND,
    Associate,
    AssociateId,
    FollowUp,
    FollowUpId,
    Hours,
    Ramp,
    Reason,
    Script,
    Status,
    Step,
    Whose,
)
from leadline.features.outreach.texts import BadText, check
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import Instant

ASSOCIATES_MAX: Final = 100_000
SEED_MAX: Final = 2**63 - 1
KEY_CHARACTERS_MAX: Final = 100

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_NONE_SUCH: Final[Mapping[str, str]] = {
    "address": "it is no address such as ann@acme.example",
    "domain": "it is no domain such as acme.example",
    "begin": "it is no time of day such as 09:00",
    "end": "it is no time of day such as 17:00",
}
"""What is said of a field whose text has not the form that it must have."""

_ROWS: Final[Any] = wire.AssociateRow | wire.ScriptRow | wire.FollowUpRow | wire.SuppressionRow


class Tally(Struct):
    """What has come of the rows so far."""

    added: int = 0
    changed: int = 0
    known: int = 0
    faults: list[wire.ImportFault] = []


class Imports:
    """Takes imports in."""

    def __init__(
        self, store: OutreachStore, seal: Callable[[str, str, str], bytes], wall: Callable[[], Instant]
    ) -> None:
        """`seal` seals the password of an associate of a teamspace, given by their names."""
        self._store = store
        self._seal = seal
        self._wall = wall

    async def take(self, teamspace: str, rows: Sequence[Mapping[str, Any]]) -> wire.Imported:
        """Store what the rows say, in their order."""
        tally = Tally()
        known = {each.associate.name: each for each in await self._store.associates(teamspace, None, 0, ASSOCIATES_MAX)}
        follow_ups: list[tuple[str, FollowUp]] = []
        for number, raw in enumerate(rows):
            try:
                row = msgspec.convert(raw, _ROWS)
                match row:
                    case wire.AssociateRow():
                        await self._flush(follow_ups, tally)
                        added = await self._associate(teamspace, row, known.get(row.name))
                        if added:
                            known = {
                                each.associate.name: each
                                for each in await self._store.associates(teamspace, None, 0, ASSOCIATES_MAX)
                            }
                        _count(tally, added=added)
                    case wire.ScriptRow():
                        _count(tally, added=await self._store.put_script(_script(teamspace, row)))
                    case wire.FollowUpRow():
                        follow_ups.append(self._follow_up(teamspace, row, known))
                    case wire.SuppressionRow():
                        value = row.address or row.domain
                        assert value is not None, "one of them is there"
                        before = await self._store.suppressions(teamspace, value, 0, 1)
                        reason = Reason.DO_NOT_CONTACT.value
                        await self._store.suppress(teamspace, value, reason, row.detail, self._wall())
                        if before:
                            tally.known += 1
                        else:
                            tally.added += 1
                    case _:
                        assert_never(row)
            except msgspec.ValidationError as error:
                tally.faults.append(_fault(number, error))
            except Refused as refused:
                tally.faults.append(
                    wire.ImportFault(row=number, code=refused.code, message=refused.message, at=refused.at)
                )
        await self._flush(follow_ups, tally)
        return wire.Imported(added=tally.added, changed=tally.changed, known=tally.known, faults=tally.faults)

    async def _flush(self, follow_ups: list[tuple[str, FollowUp]], tally: Tally) -> None:
        if not follow_ups:
            return
        added = sum(await self._store.add_follow_ups(follow_ups))
        tally.added += added
        tally.known += len(follow_ups) - added
        follow_ups.clear()

    async def _associate(self, teamspace: str, row: wire.AssociateRow, known: StoredAssociate | None) -> bool:
        _check_zone(row.zone, "zone")
        begin, end = time.fromisoformat(row.hours.begin), time.fromisoformat(row.hours.end)
        if end != time() and end <= begin:
            raise Refused(ErrorCode.BAD_REQUEST, "the hours end before they begin", at="hours.end")
        associate = Associate(
            id=AssociateId(0),
            teamspace=teamspace,
            name=row.name,
            address=row.address,
            full_name=row.full_name,
            signature=row.signature,
            zone=row.zone,
            variability_seconds=row.variability_seconds,
            daily_cap=row.daily_cap,
            ramp=None if row.ramp is None else Ramp(row.ramp.first, row.ramp.more),
            gap_seconds=row.gap_seconds,
            hours=Hours(frozenset(WEEKDAYS.index(day) for day in row.hours.days), begin, end, Whose(row.hours.whose)),
            active=row.active,
        )
        return await self._store.put_associate(associate, self._server(teamspace, row, known))

    def _server(self, teamspace: str, row: wire.AssociateRow, known: StoredAssociate | None) -> Server | None:
        smtp = row.smtp
        if smtp is None:
            return None
        if smtp.password is not None and smtp.user is None:
            raise Refused(ErrorCode.BAD_REQUEST, "a password needs a user", at="smtp.user")
        if smtp.user is not None and smtp.password is None and (known is None or known.server is None):
            raise Refused(ErrorCode.BAD_REQUEST, "a user needs a password", at="smtp.password")
        sealed = None if smtp.password is None else self._seal(teamspace, row.name, smtp.password)
        return Server(smtp.host, smtp.port, smtp.tls, smtp.user, sealed)

    def _follow_up(
        self, teamspace: str, row: wire.FollowUpRow, known: Mapping[str, StoredAssociate]
    ) -> tuple[str, FollowUp]:
        if row.associate is not None and row.associate not in known:
            raise Refused(ErrorCode.NOT_FOUND, f"{teamspace} has no associate {row.associate}", at="associate")
        if row.zone is not None:
            _check_zone(row.zone, "zone")
        wall = self._wall()
        due = wall if row.follow_up_date is None else Instant(int(row.follow_up_date.timestamp() * SECOND))
        key = row.key or f"{row.address.lower()} {row.script or ''}".strip()[:KEY_CHARACTERS_MAX]
        follow_up = FollowUp(
            id=FollowUpId(0),
            teamspace=teamspace,
            associate=None if row.associate is None else known[row.associate].associate.id,
            address=row.address,
            fields={name: _shown(value) for name, value in row.fields.items() if value is not None},
            zone=row.zone,
            script=row.script,
            step=row.step,
            due=due,
            created=wall,
            status=Status.PENDING,
            seed=secrets.randbelow(SEED_MAX),
        )
        return key, follow_up


def _fault(number: int, error: msgspec.ValidationError) -> wire.ImportFault:
    message, _, place = str(error).partition(" - at ")
    at = place.strip("`").lstrip("$.")
    if "matching regex" in message:
        message = _NONE_SUCH.get(at.rpartition(".")[2], message)
    return wire.ImportFault(
        row=number, code=ErrorCode.BAD_REQUEST, message=message[:1].lower() + message[1:], at=at or None
    )


def _script(teamspace: str, row: wire.ScriptRow) -> Script:
    steps = [Step(each.after_days, each.subject, each.text, each.html) for each in row.steps]
    try:
        check(steps)
    except BadText as bad:
        raise Refused(ErrorCode.BAD_REQUEST, str(bad), at=f"steps[{max(0, bad.step - 1)}].{bad.field}") from bad
    return Script(teamspace, row.name, row.keyword, steps, row.then)


def _check_zone(name: str, at: str) -> None:
    if name not in zone_names():
        raise Refused(ErrorCode.BAD_REQUEST, f"{name} is no time zone such as Europe/Berlin", at=at)


def _shown(value: object) -> str:
    """A field as templates show it: numbers as they are written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _count(tally: Tally, *, added: bool) -> None:
    if added:
        tally.added += 1
    else:
        tally.changed += 1
