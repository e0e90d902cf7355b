"""The window count is compared with the definition, tried out on every window there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world.windows import worst_window


def test_no_events_fill_no_window() -> None:
    assert worst_window([], 60) == 0


def test_two_events_exactly_one_window_apart_never_share_it() -> None:
    assert worst_window([0, 60_000_000], 60) == 1
    assert worst_window([0, 59_999_999], 60) == 2


def test_the_burst_over_a_minutes_edge_is_seen() -> None:
    times = [59_000_000 + n for n in range(15)] + [60_000_000 + n for n in range(14)]
    assert worst_window(times, 60) == 29


def test_a_window_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a length"):
        worst_window([1], 0)


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 15))
def test_the_count_is_the_maximum_over_all_half_open_windows(times: list[int], width: int) -> None:
    expected = max((sum(begin <= t < begin + width for t in times) for begin in range(-15, 56)), default=0)
    assert worst_window(times, width / 1_000_000) == expected
