"""How much a token may ask for at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.adapters.http import limits
from leadline.adapters.http.limits import BURST_SECONDS, Memory, Rates, Room
from leadline_protocol.errors import ErrorCode, Refused


def waits(rates: Rates, rate: float) -> float | None:
    """Ask for one more; how long to wait where that is too often."""
    try:
        rates.take(b"a", rate)
    except Refused as no:
        return no.retry_after if no.code is ErrorCode.BUSY else 0.0
    return None


@given(
    rate=st.floats(0.5, 1000),
    pauses=st.lists(st.one_of(st.just(0.0), st.floats(0, 3)), min_size=1, max_size=200),
)
def test_in_no_stretch_of_time_are_more_taken_than_the_rate_and_one_burst(rate: float, pauses: list[float]) -> None:
    now = 0.0
    rates = Rates(lambda: now)
    taken: list[float] = []
    for pause in pauses:
        now += pause
        if waits(rates, rate) is None:
            taken.append(now)
    burst = max(1, BURST_SECONDS * rate)
    for first, began in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - began) * rate + 1e-6


@given(rate=st.floats(0.5, 1000))
def test_who_comes_again_when_told_is_taken(rate: float) -> None:
    now = 0.0
    rates = Rates(lambda: now)
    for _ in range(int(BURST_SECONDS * rate) + 1):
        if (seconds := waits(rates, rate)) is not None:
            now += seconds
            rates.take(b"a", rate)
    rates.take(b"b", rate)


def test_who_has_not_asked_for_long_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUCKETS_MAX", 10)
    now = 0.0
    rates = Rates(lambda: now)
    for number in range(1_000):
        now += 0.5
        rates.take(b"%d" % number, 1.0)
    assert len(rates._full_at) <= 10
    assert waits(rates, 1.0) is None
    assert waits(rates, 1.0) is None
    assert waits(rates, 1.0) is not None, "the control: whoever asks now is remembered"


def test_there_is_so_much_room_for_each_and_for_all_and_it_is_given_back() -> None:
    room = Room("streams", in_all=3, per_token=2)
    with room.one(b"a"), room.one(b"a"):
        with pytest.raises(Refused), room.one(b"a"):
            pass
        with room.one(b"b"):
            with pytest.raises(Refused), room.one(b"c"):
                pass
            assert len(room) == 3
    assert len(room) == 0
    assert room._taken == {}


def test_bodies_take_so_much_of_the_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODIES_BYTES_MAX", 100)
    memory = Memory()
    with memory.of(60):
        with pytest.raises(Refused), memory.of(50):
            pass
        with memory.of(40):
            pass
    with memory.of(100):
        pass
