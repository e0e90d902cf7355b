"""Leads that wait for each other: who is ordered with whom, however they come."""

import math
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from leadline.features.tables.gathering import Gathering, Together, Way
from leadline_protocol.ids import LeadId

Step = Together | None


@given(st.data())
def test_everybody_is_ordered_once_and_in_as_few_orders_as_there_can_be(data: st.DataObject) -> None:
    """Any number of walkers lead any leads past any places, in any order of events, and nobody waits for ever."""
    places = data.draw(st.integers(1, 4), label="places")
    taking_many = data.draw(st.sets(st.integers(0, places - 1), min_size=1), label="those that take many")
    ends = data.draw(st.lists(st.integers(0, places - 1), max_size=30), label="where leads have their end")
    size = data.draw(st.integers(1, 5), label="size of an order")
    walkers = data.draw(st.one_of(st.just(len(ends) + 3), st.integers(1, 10)), label="walkers")
    ordered: list[tuple[int, Sequence[Together]]] = []
    gathering = Gathering(places, lambda place, gathered: ordered.append((place, gathered)))
    line = enumerate(ends)
    arrived: Counter[int] = Counter()

    def walk(way: Way, line: Iterator[tuple[int, int]]) -> Generator[Step, None, None]:
        for lead, end in line:
            for place in range(end + 1):
                together = None
                if place in taking_many:
                    together = Together(LeadId(lead), {})
                    arrived[place] += 1
                    gathering.join(place, together, size)
                way.leads_to(place + 1)
                yield together
            way.leads_to(0)
        gathering.no_more()
        way.ends()

    on_the_way = [walk(way, line) for way in [gathering.way() for _ in range(walkers)]]
    ready: list[Generator[Step, None, None]] = list(on_the_way)
    waiting: dict[int, Generator[Step, None, None]] = {}
    delivered = 0
    sizes: dict[int, list[int]] = defaultdict(list)
    while ready or delivered < len(ordered):
        if ready and (delivered == len(ordered) or data.draw(st.booleans())):
            walker = ready.pop(data.draw(st.integers(0, len(ready) - 1)))
            step = next(walker, False)
            if step is None:
                ready.append(walker)
            elif isinstance(step, Together):
                waiting[id(step)] = walker
        else:
            place, leads = ordered[delivered]
            delivered += 1
            sizes[place].append(len(leads))
            ready += (waiting.pop(id(each)) for each in leads)
    assert not waiting, "somebody waits for ever"
    assert {place: sum(each) for place, each in sizes.items()} == arrived
    assert all(each <= size for of in sizes.values() for each in of)
    if walkers >= len(ends):
        assert {place: len(each) for place, each in sizes.items()} == {
            place: math.ceil(count / size) for place, count in arrived.items()
        }
