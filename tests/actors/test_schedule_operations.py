"""What people ask of schedules, over a store in memory."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from leadline.actors import schedule_operations
from leadline.actors.peers import Peer
from leadline.actors.schedule_operations import ScheduleOperations
from leadline.core.calendar.schedules import Timetable
from leadline.ports.schedules import NewSchedule, ScheduleId, StoredOccurrence, StoredSchedule
from leadline.ports.store import OutcomeUnknown
from leadline_protocol import messages as wire
from leadline_protocol.ids import Instant
from leadline_protocol.schedules import Cron, Schedule

EVERY_MINUTE = Cron("* * * * *", "UTC")
GONE = Cron("* * * * *", "Mars/Olympus")
NOW = Instant(int(datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000)
SOMEBODY = Peer(7, 1, operator=True)


class Stored:
    def __init__(self, **timetables: Schedule) -> None:
        made = datetime(2026, 12, 1, tzinfo=UTC)
        self.schedules = {
            name: StoredSchedule(ScheduleId(1), "acme", name, each, b"{}", "skip", False, False, NOW, 7, made, None)
            for name, each in timetables.items()
        }

    async def page(
        self, _teamspace: str | None, name: str | None, _after: tuple[str, str] | None, _limit: int
    ) -> Sequence[StoredSchedule]:
        return [each for key, each in self.schedules.items() if name in {None, key}]

    async def occurrences(self, _schedule: ScheduleId, _limit: int) -> Sequence[StoredOccurrence]:
        return []

    async def delete(self, _teamspace: str, name: str) -> bool:
        return self.schedules.pop(name, None) is not None

    async def add(self, _new: NewSchedule, _since: Instant) -> bool:
        raise OutcomeUnknown("the connection was lost during a COMMIT")


class NoRules:
    async def check(self, *_: object) -> Sequence[wire.JobWarning]:
        return []

    async def marks(
        self, submission: wire.Submission, coming: Sequence[Instant], after: Instant, tried: Timetable | None = None
    ) -> Sequence[None]:
        del submission, after, tried
        return [None] * len(coming)


async def _record(_target: str, _detail: str) -> None:
    return


def operations(stored: Stored, woken: list[bool]) -> ScheduleOperations:
    async def soonest(_: str | None, limit: int) -> Sequence[StoredSchedule]:
        return list(stored.schedules.values())[:limit]

    return ScheduleOperations(
        stored,  # type: ignore[arg-type]
        lambda: NOW,
        lambda _: wire.Noop(teamspace="acme"),
        NoRules(),
        lambda _, __: woken.append(True),
        soonest,
    )


async def test_a_schedule_whose_zone_is_known_no_more_is_listed_with_the_others_and_can_be_deleted() -> None:
    woken: list[bool] = []
    stored = Stored(good=EVERY_MINUTE, gone=GONE)
    it = operations(stored, woken)
    listed = await it.perform(wire.Schedules(count=1), SOMEBODY, _record, 1)
    assert [(each.schedule, len(each.coming)) for each in listed.schedules] == [("good", 1), ("gone", 0)]
    deleted = await it.perform(wire.Schedules(action="delete", teamspace="acme", name="gone"), SOMEBODY, _record, 1)
    assert [each.schedule for each in deleted.schedules] == ["gone"]
    assert list(stored.schedules) == ["good"]
    assert woken


async def test_a_schedule_of_which_nobody_can_say_whether_it_is_stored_is_looked_for() -> None:
    woken: list[bool] = []
    asked = wire.Schedules(
        action="add", teamspace="acme", name="new", timetable=EVERY_MINUTE, submission={"kind": "noop"}
    )
    with pytest.raises(OutcomeUnknown):
        await operations(Stored(), woken).perform(asked, SOMEBODY, _record, 1)
    assert woken, "if it is stored, it is to fire"


@pytest.mark.parametrize(("bytes_max", "shown"), [(1, ["a"]), (4, ["a", "b"]), (5, ["a", "b"]), (6, ["a", "b", "c"])])
async def test_a_page_ends_early_where_what_is_submitted_is_long(
    monkeypatch: pytest.MonkeyPatch, bytes_max: int, shown: list[str]
) -> None:
    monkeypatch.setattr(schedule_operations, "PAGE_BYTES_MAX", bytes_max)
    it = operations(Stored(a=EVERY_MINUTE, b=EVERY_MINUTE, c=EVERY_MINUTE), [])
    listed = await it.perform(wire.Schedules(count=0), SOMEBODY, _record, 1)
    assert [each.schedule for each in listed.schedules] == shown
    assert listed.next == (None if len(shown) == 3 else ("acme", shown[-1]))


async def test_what_fires_within_a_day_is_told_soonest_first_and_no_more_than_was_asked_for() -> None:
    it = operations(Stored(hourly=Cron("0 * * * *", "UTC"), noon=Cron("30 12 * * *", "Europe/Berlin")), [])
    due = (await it.perform(wire.Schedules(action="due"), SOMEBODY, _record, 1)).due
    assert [each.at for each in due] == sorted(each.at for each in due)
    assert [each.schedule for each in due].count("hourly") == 24
    (noon,) = (each for each in due if each.schedule == "noon")
    assert noon.local == "2026-12-02T12:30+01:00", "today it is past in that zone"
    few = (await it.perform(wire.Schedules(action="due", limit=3), SOMEBODY, _record, 1)).due
    assert few == due[:3]
    week = (await it.perform(wire.Schedules(action="due", days=7), SOMEBODY, _record, 1)).due
    assert week[: len(due)] == due
    assert len(week) == 7 * len(due)
