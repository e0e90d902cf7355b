"""What was taken in the last hour is known to the minute, however much it was."""

from hypothesis import given
from hypothesis import strategies as st

from leadline.core.meters import LastHour
from leadline_protocol.ids import Instant

MINUTE = 60_000_000


@given(st.lists(st.tuples(st.integers(0, 20 * MINUTE), st.integers(0, 1_000)), max_size=100))
def test_all_of_the_last_59_minutes_counts_and_nothing_that_is_an_hour_old(steps: list[tuple[int, int]]) -> None:
    tally = LastHour()
    taken: list[tuple[int, int]] = []
    at = 0
    for pause, amount in steps:
        at += pause
        tally.add(amount, Instant(at))
        taken.append((at, amount))
        total = tally.total(Instant(at))
        assert sum(units for when, units in taken if when > at - 59 * MINUTE) <= total
        assert total <= sum(units for when, units in taken if when > at - 60 * MINUTE)
    assert tally.total(Instant(at + 61 * MINUTE)) == 0


def test_what_was_given_back_was_not_taken() -> None:
    tally = LastHour()
    tally.add(500, Instant(0))
    tally.add(-200, Instant(MINUTE))
    assert tally.total(Instant(MINUTE)) == 300
