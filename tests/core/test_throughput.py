"""A job's throughput is told by few points, evenly over its time, however long that was."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from leadline.core.model import SECOND
from leadline.core.throughput import POINTS_MAX, Point, Throughput, between, with_point
from leadline_protocol.ids import Instant


def after(steps: list[int]) -> tuple[list[Point], Throughput]:
    """All that was said, each so many microseconds after the one before, and what is kept of it."""
    said: list[Point] = []
    kept = Throughput()
    at = 0
    for number, step in enumerate(steps):
        at += step
        said.append(Point(Instant(at), number))
        kept = with_point(kept, said[-1])
    return said, kept


@given(st.lists(st.integers(0, 10 * SECOND), max_size=2_000))
def test_points_are_few_true_in_order_and_at_least_an_interval_apart(steps: list[int]) -> None:
    said, kept = after(steps)
    assert len(kept.points) <= POINTS_MAX
    assert set(kept.points) <= set(said)
    assert all(later.at - earlier.at >= SECOND for earlier, later in pairwise(kept.points))
    assert kept.points == tuple(sorted(kept.points, key=lambda point: point.at))
    if said:
        assert said[-1].at < kept.due, "the newest that is left out is no older than an interval"


def test_two_hours_at_a_point_a_second_leave_points_evenly_over_all_of_them() -> None:
    _, kept = after([SECOND] * 7_200)
    assert kept.seconds == 64
    assert POINTS_MAX / 2 <= len(kept.points) <= POINTS_MAX
    gaps = {later.at - earlier.at for earlier, later in pairwise(kept.points)}
    assert gaps == {64 * SECOND}


def test_what_was_read_back_goes_on_as_if_nothing_had_been() -> None:
    _, kept = after([SECOND] * 500)
    again = with_point(Throughput(kept.seconds, kept.points), Point(Instant(10_000 * SECOND), 900))
    assert again.points == (*kept.points, Point(Instant(10_000 * SECOND), 900))


def test_the_whole_goes_from_the_start_to_the_end_also_by_clocks_that_differ() -> None:
    points = [Point(Instant(at), at) for at in (5, 10, 20, 30)]
    began, ended = Point(Instant(10), 0), Point(Instant(25), 99)
    assert between(points, began, ended) == [began, Point(Instant(20), 20), ended]
    assert between(points, began, None) == [began, Point(Instant(20), 20), Point(Instant(30), 30)]
