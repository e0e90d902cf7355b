"""Who of those waiting goes next, so that each has its share: start-time fair queuing.

Intuition: every key (a teamspace) has a clock of its own that runs by what it is charged, divided by its weight. The
one whose clock is furthest behind goes next. Whoever comes back from idleness sets its clock to the present virtual
time, so nobody saves up unused shares, and nobody pays for having had the place alone. Two keys that wait throughout
are never further apart than one call each: |units_a/w_a - units_b/w_b| <= maxcost_a/w_a + maxcost_b/w_b.

Complications, and what was chosen:

- *Not everybody can be held up by the same thing.* Calls of different kinds wait in different **lanes** (the units
  that they cost). `heads` gives the first call of every lane; whoever grants decides whether one may pass the very
  first. The key's clock is one over all lanes, and so is FIFO: by (order, call id) within each lane of a key.
- *Debts.* While one key's call waits for something costly, others may pass in other lanes, and its clock falls
  behind. It may make up for `lag_max` at most, else it would lock everybody out for as long as it had waited.
- *A share kept for a class of keys* (`reserve`): its keys' weights are raised, while both classes wait, until
  together they have at least that part. Nobody of the class waiting, or nobody else: it makes no difference.
- *Cost.* Ten thousand keys may wait: no scan. A lane is a heap of keys by clock; an entry that is no longer true is
  noticed when it comes to the top, as clocks only run forward. Every operation is O(log n) amortised per lane.
"""

from collections import Counter
from collections.abc import Hashable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Generic, TypeVar

from msgspec import Struct

from leadline_protocol.ids import CallId

Key = TypeVar("Key", bound=Hashable)

_GONE: Final = -1
_SLACK: Final = 64
"""Untrue entries that a heap may hold beside as many as it has true ones, before it is swept."""


class _Flow(Struct, gc=False):
    """One key's clock: `start` is the virtual time at which its next call begins."""

    weight: float
    start: float
    reserved: bool
    waiting: int = 0
    remembered: bool = False
    """It is idle with its clock ahead of virtual time, and kept until that has caught up."""


class _Queue(Struct, gc=False):
    """One key's calls in one lane: a heap of (order, call); withdrawn ones stay until they come to the top."""

    lane: int
    flow: _Flow
    calls: list[tuple[int, CallId]]
    waiting: int = 0
    entry: int = _GONE
    """The number of the one entry in the lane's heap that stands for this queue."""


_Entry = tuple[float, int, CallId, int, _Queue]
"""(start, order, call, entry number, queue): never later than the truth, because clocks only run forward."""


class _Lane(Struct):
    """The queues of one lane, by what their first call may start at."""

    heap: list[_Entry]
    queues: int = 0


class FairShare(Generic[Key]):
    """Calls waiting, by key and lane, and whose turn it is."""

    def __init__(self, *, lag_max: float, reserve: float = 0.0) -> None:
        """`lag_max` is in charged units per weight; `reserve`, from 0 to below 1, is the part of the reserved keys."""
        assert 0 <= reserve < 1, f"a reserve of {reserve}"
        self._lag_max = lag_max
        self._reserve_ratio = reserve / (1 - reserve)
        self._virtual = 0.0
        """Virtual time: the start of the latest call taken."""
        self._flows: dict[Key, _Flow] = {}
        self._queues: dict[tuple[Key, int], _Queue] = {}
        self._lanes: dict[int, _Lane] = {}
        self._calls: dict[CallId, tuple[Key, _Queue, tuple[int, CallId]]] = {}
        self._remembered: list[tuple[float, int, Key]] = []
        """Idle flows whose clock is ahead, by clock."""
        self._weights = [0.0, 0.0]
        """Sum of the weights of the keys that wait: the others', the reserved ones'."""
        self._entries = 0

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, call: CallId) -> bool:
        return call in self._calls

    def waiting(self, key: Key) -> int:
        """How many calls of this key wait."""
        flow = self._flows.get(key)
        return flow.waiting if flow is not None else 0

    def keys(self) -> list[Key]:
        """The keys that have calls waiting, in no order."""
        return [key for key, flow in self._flows.items() if flow.waiting]

    def first(self, key: Key) -> tuple[int, CallId] | None:
        """(order, call) of a key's next call, over all lanes."""
        return min(
            (self._first(queue) for lane in self._lanes if (queue := self._queues.get((key, lane))) is not None),
            default=None,
        )

    def heads(self) -> list[CallId]:
        """The first call of each lane, in the order of their turns: the very first one is the head of them all."""
        if len(self._lanes) == 1:
            (lane,) = self._lanes.values()
            return [self._top(lane)[2]]
        return [entry[2] for entry in sorted(self._top(lane) for lane in self._lanes.values())]

    def add(
        self, call: CallId, key: Key, *, order: int, weight: float = 1.0, lane: int = 0, reserved: bool = False
    ) -> None:
        """A call begins to wait. A key's weight is the one given last; its class stays while anything of it waits."""
        assert call not in self._calls, f"call {call} waits already"
        assert weight > 0, f"a weight of {weight}"
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = _Flow(weight, self._virtual, reserved)
        if not flow.waiting:
            flow.start = max(flow.start, self._virtual)
            flow.weight = weight
            flow.reserved = reserved
            self._weights[reserved] += weight
        elif flow.weight != weight:
            self._weights[flow.reserved] += weight - flow.weight
            flow.weight = weight
        flow.waiting += 1
        queue = self._queues.get((key, lane))
        if queue is None:
            queue = self._queues[key, lane] = _Queue(lane, flow, [])
            self._lanes.setdefault(lane, _Lane([])).queues += 1
        queue.waiting += 1
        item = (order, call)
        heappush(queue.calls, item)
        self._calls[call] = (key, queue, item)
        if queue.calls[0] is item:
            heap = self._lanes[lane].heap
            heappush(heap, self._entry(queue, item))
            if len(heap) > 2 * self._lanes[lane].queues + _SLACK:
                heap[:] = [entry for entry in heap if entry[3] == entry[4].entry]
                heapify(heap)

    def remove(self, call: CallId) -> None:
        """A waiting call waits no longer."""
        key, queue, _ = self._calls.pop(call)
        self._leave(key, queue)

    def take(self, call: CallId, units: float) -> None:
        """A waiting call, one of `heads`, goes: its key is charged `units`."""
        key, queue, item = self._calls.pop(call)
        assert queue.calls[0] is item, f"call {call} is not the first of its queue"
        heappop(queue.calls)
        flow = queue.flow
        start = max(flow.start, self._virtual - self._lag_max)
        self._virtual = max(self._virtual, start)
        flow.start = start + units / (flow.weight * self._boost(flow))
        self._leave(key, queue)
        while self._remembered and self._remembered[0][0] <= self._virtual:
            self._forget(heappop(self._remembered)[2])

    def _boost(self, flow: _Flow) -> float:
        """What raises the reserved keys to their part, if their own weights do not reach it."""
        if not flow.reserved or not self._reserve_ratio:
            return 1.0
        others, reserved = self._weights
        return max(1.0, self._reserve_ratio * others / reserved)

    def _leave(self, key: Key, queue: _Queue) -> None:
        """One call fewer of this queue, which may have been its last, or its key's, or the last of all."""
        flow = queue.flow
        flow.waiting -= 1
        queue.waiting -= 1
        if not queue.waiting:
            queue.entry = _GONE
            del self._queues[key, queue.lane]
            lane = self._lanes[queue.lane]
            lane.queues -= 1
            if not lane.queues:
                del self._lanes[queue.lane]
        elif len(queue.calls) > 2 * queue.waiting + _SLACK:
            queue.calls = [item for item in queue.calls if self._waits(item)]
            heapify(queue.calls)
        if flow.waiting:
            return
        self._weights[flow.reserved] -= flow.weight
        if not self._calls:  # nobody waits, so nobody was kept from anything: all clocks begin anew
            self._virtual = 0.0
            self._weights = [0.0, 0.0]
            self._flows.clear()
            self._remembered.clear()
        elif not flow.remembered:
            self._forget(key)

    def _forget(self, key: Key) -> None:
        """An idle key needs no memory once virtual time has reached its clock."""
        flow = self._flows[key]
        flow.remembered = False
        if flow.waiting:
            return
        if flow.start <= self._virtual:
            del self._flows[key]
        else:
            flow.remembered = True
            self._entries += 1
            heappush(self._remembered, (flow.start, self._entries, key))

    def _waits(self, item: tuple[int, CallId]) -> bool:
        known = self._calls.get(item[1])
        return known is not None and known[2] is item

    def _first(self, queue: _Queue) -> tuple[int, CallId]:
        calls = queue.calls
        while not self._waits(calls[0]):
            heappop(calls)
        return calls[0]

    def _entry(self, queue: _Queue, item: tuple[int, CallId]) -> _Entry:
        self._entries += 1
        queue.entry = self._entries
        return (queue.flow.start, *item, queue.entry, queue)

    def _top(self, lane: _Lane) -> _Entry:
        """The first entry of a lane, after those that have become untrue are gone or have moved."""
        heap = lane.heap
        while True:
            start, order, call, number, queue = entry = heap[0]
            if number != queue.entry:
                heappop(heap)
                continue
            first = self._first(queue)
            if start == queue.flow.start and first == (order, call):
                return entry
            heapreplace(heap, self._entry(queue, first))

    def check(self) -> None:
        """Assert every invariant; O(everything that waits)."""
        if not self._calls:
            nothing = not (self._flows or self._queues or self._lanes or self._remembered)
            assert nothing, "nobody waits, and somebody is remembered"
            return
        assert sum(flow.waiting for flow in self._flows.values()) == len(self._calls), "flows do not add up"
        assert sum(queue.waiting for queue in self._queues.values()) == len(self._calls), "queues do not add up"
        weights = [0.0, 0.0]
        for key, flow in self._flows.items():
            assert flow.waiting or flow.remembered, f"{key} is idle and not forgotten"
            weights[flow.reserved] += flow.weight if flow.waiting else 0.0
        for is_, expected in zip(self._weights, weights, strict=True):
            assert abs(is_ - expected) <= 1e-6 * max(1.0, expected), f"weights {self._weights} are not {weights}"
        queues = Counter([number for _, number in self._queues])
        firsts: dict[int, tuple[int, CallId]] = {}
        for (key, number), queue in self._queues.items():
            assert queue.flow is self._flows[key], f"{key} has a stranger's queue"
            live = [item for item in queue.calls if self._waits(item)]
            assert queue.waiting == len(live) > 0, f"{key}, lane {number}: calls do not add up"
            firsts[queue.entry] = min(live)
        for number, lane in self._lanes.items():
            live_entries = [entry for entry in lane.heap if entry[3] == entry[4].entry]
            assert len(live_entries) == lane.queues == queues[number], f"lane {number} is torn"
            for start, order, call, entry, queue in live_entries:
                assert (start, order, call) <= (queue.flow.start, *firsts[entry]), f"call {call} comes too late"
