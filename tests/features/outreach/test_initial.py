"""First mails go to the oldest contacts, from the mailboxes in turn, and not at all to those that waited too long."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leadline.features.outreach.initial import START_WITHIN_SECONDS, Taking, take, weekend_volume
from leadline.features.outreach.model import SECOND, AssociateId, FollowUp, Status
from leadline_protocol.ids import Instant
from tests.features.outreach.people import NOW, follow_up

DAY = 86_400 * SECOND
THREE = [AssociateId(number) for number in (2, 5, 9)]


def contact(number: int, age: int = 0, **different: object) -> FollowUp:
    created = Instant(NOW - age)
    return follow_up(number, **{"associate": None, "created": created, "due": created, "seed": number, **different})


def run(
    waiting: list[FollowUp], volume: int = 100, *, mailboxes: list[AssociateId] = THREE, cursor: int | None = None
) -> Taking:
    after = None if cursor is None else AssociateId(cursor)
    return take(waiting, mailboxes, after, volume, NOW, spacing_seconds=60)


def dealt(taking: Taking) -> list[tuple[int, int]]:
    return [(one.follow_up.id, one.associate) for one in taking.taken]


def test_the_oldest_are_dealt_to_the_mailboxes_in_turn_and_the_next_run_goes_on() -> None:
    waiting = [contact(number, age=100 - number) for number in range(5)]
    taking = run(list(reversed(waiting)), volume=4)
    assert dealt(taking) == [(0, 2), (1, 5), (2, 9), (3, 2)]
    assert taking.cursor == 2
    assert dealt(run(waiting[4:], cursor=taking.cursor)) == [(4, 5)]


@pytest.mark.parametrize(("cursor", "next_one"), [(None, 2), (1, 2), (2, 5), (4, 5), (6, 9), (9, 2), (11, 2)])
def test_a_cursor_names_a_mailbox_that_may_be_gone(cursor: int | None, next_one: int) -> None:
    assert dealt(run([contact(1)], cursor=cursor)) == [(1, next_one)]


@pytest.mark.parametrize("volume", [0, -3])
def test_without_volume_nobody_is_written_to_and_the_turn_stays(volume: int) -> None:
    assert run([contact(number) for number in range(5)], volume, cursor=5) == Taking((), (), AssociateId(5))


def test_without_mailboxes_only_the_expired_are_told() -> None:
    old = contact(1, age=31 * DAY)
    assert run([old, contact(2)], mailboxes=[], cursor=5) == Taking((), (old,), AssociateId(5))


def test_after_exactly_thirty_days_a_contact_is_alive_and_a_microsecond_later_expired() -> None:
    taking = run([contact(1, age=30 * DAY), contact(2, age=30 * DAY + 1)])
    assert [one.follow_up.id for one in taking.taken] == [1]
    assert [one.id for one in taking.expired] == [2]


def test_all_that_have_expired_are_told_and_take_nothing_of_the_volume() -> None:
    taking = run([contact(number, age=40 * DAY) for number in range(5)] + [contact(9)], volume=1)
    assert len(taking.expired) == 5
    assert dealt(taking) == [(9, 2)]


def test_a_contact_expires_by_the_time_since_it_was_due() -> None:
    assert dealt(run([contact(1, age=40 * DAY, due=Instant(NOW - DAY))])) == [(1, 2)]


def test_who_has_an_associate_is_not_due_or_not_pending_is_left_alone() -> None:
    others = [
        contact(1, associate=AssociateId(5)),
        contact(2, due=Instant(NOW + 1)),
        contact(3, age=40 * DAY, status=Status.STOPPED),
    ]
    assert run(others) == Taking((), (), None)


def test_each_mailbox_begins_within_the_hour_and_keeps_its_spacing() -> None:
    taking = run([contact(number, age=100 - number) for number in range(9)])
    starts = set()
    for mailbox in THREE:
        delays = [one.delay_seconds for one in taking.taken if one.associate == mailbox]
        assert 0 <= delays[0] < START_WITHIN_SECONDS
        assert delays == [delays[0], delays[0] + 60, delays[0] + 120]
        starts.add(delays[0])
    assert len(starts) == 3
    assert taking == run([contact(number, age=100 - number) for number in range(9)])


@given(st.integers(0, 20), st.lists(st.integers(1, 99), unique=True, min_size=1, max_size=6), st.integers(0, 100))
def test_over_runs_no_mailbox_takes_two_more_than_another(volume: int, names: list[int], cursor: int) -> None:
    mailboxes = [AssociateId(name) for name in sorted(names)]
    counts = dict.fromkeys(mailboxes, 0)
    after: int | None = cursor
    for begin in range(0, 60, 20):
        taking = run([contact(begin + number) for number in range(20)], volume, mailboxes=mailboxes, cursor=after)
        assert len(taking.taken) == volume
        after = taking.cursor
        for one in taking.taken:
            counts[one.associate] += 1
    assert max(counts.values()) - min(counts.values()) <= 1


@given(st.integers(0, 10_000), st.integers(0, 100))
@example(100, 29)
def test_a_weekend_has_the_share_of_a_weekday_rounded_down(volume: int, percent: int) -> None:
    assert weekend_volume(volume, percent / 100) == volume * percent // 100
