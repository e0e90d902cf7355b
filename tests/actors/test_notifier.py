"""What becomes of a notice by a try: tried again ever later for a day, then given up."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from leadline.actors.notifier import GIVE_UP_SECONDS, after
from leadline.ports.notices import Notice, Outcome
from leadline_protocol.ids import JobId

MADE = datetime(2026, 1, 1, tzinfo=UTC)


def notice(tries: int = 0) -> Notice:
    return Notice(UUID(int=7), JobId(1), "acme", "failed", "webhook", "https://a.example/", tries, MADE)


def test_what_was_taken_or_never_will_be_is_not_tried_again() -> None:
    for outcome in (Outcome("sent"), Outcome("failed"), Outcome("unknown")):
        assert after(outcome, notice(), MADE) == (outcome.state, 0.0)


def test_what_may_be_taken_later_is_tried_ever_later_for_a_day() -> None:
    now, pauses = MADE, []
    for tries in range(1_000):
        state, pause = after(Outcome("again"), notice(tries), now)
        if state == "failed":
            break
        assert state == "due"
        pauses.append(pause)
        now += timedelta(seconds=pause)
    assert pauses[:4] == [10, 20, 40, 80]
    assert max(pauses) == 3_600
    assert GIVE_UP_SECONDS - 3_600 <= sum(pauses) <= GIVE_UP_SECONDS
