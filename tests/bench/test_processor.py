"""Slow moments are found where the processor is slow, and not where others use it."""

from tests.bench.processor import slow_moments, undisturbed, watched


def test_a_slow_moment_lasts_from_the_last_quick_probe_to_the_next() -> None:
    took = [50, 50, 160, 500, 50, 50, 151, 50, 50, 149]
    probes = [(1_000 * number, each) for number, each in enumerate(took)]
    assert slow_moments(probes) == [(1_000, 4_000), (5_000, 7_000)]


def test_a_slow_moment_at_the_end_lasts_to_the_end_of_its_probe() -> None:
    assert slow_moments([(0, 50), (1_000, 50), (2_000, 300)]) == [(1_000, 2_300)]


def test_what_a_slow_moment_overlaps_does_not_count() -> None:
    lives = [(0, 10), (10, 25), (22, 24), (24, 35), (30, 40), (40, 50), (50, 60)]
    assert undisturbed(lives, [(20, 30)]) == [(0, 10), (30, 40), (40, 50), (50, 60)]


def test_where_most_were_disturbed_all_count() -> None:
    lives = [(0, 10), (10, 25)]
    assert undisturbed(lives, [(20, 30)]) == lives


def test_the_processor_is_watched_for_as_long_as_the_block_lasts() -> None:
    with watched() as moments:
        assert moments == []
    assert all(began < ended for began, ended in moments)
