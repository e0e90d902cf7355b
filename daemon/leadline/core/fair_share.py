"""Who goes next of those waiting for the same thing, so that each has its share: start-time fair queuing.

Intuition: every key (a teamspace) has a clock of its own that runs by what it is charged, divided by its weight. The
one whose clock is furthest behind goes next. Whoever comes back from idleness sets its clock to the present virtual
time, the start of the call that was taken last, so nobody saves up unused shares, and nobody pays for having had the
place alone. As only the key furthest behind ever goes, no clock is behind virtual time, and two keys that wait
throughout are never further apart than one call each: |units_a/w_a - units_b/w_b| <= maxcost_a/w_a + maxcost_b/w_b.

Complications, and what was chosen:

- *What was taken and did not happen* is given back (`give_back`): the key's clock goes back by as much, though not
  behind virtual time, or somebody who came since would wait for what he had no part in.
- *A share kept for a class of keys* (`reserve`): its keys' weights are raised, while both classes wait, until
  together they have at least that part. Nobody of the class waiting, or nobody else: it makes no difference.
- *Cost.* Ten thousand keys may wait: no scan. The keys are in a heap by clock; an entry that is no longer true is
  noticed when it comes to the top, because what an entry says is never later than the truth. Every operation is
  O(log n) amortised.

Calls that wait for different things stand in different lines, see `turns`.
"""

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Generic, TypeVar

from msgspec import Struct

from leadline_protocol.ids import CallId

Key = TypeVar("Key", bound=Hashable)

_GONE: Final = -1
_SLACK: Final = 64
"""Untrue entries that a heap may hold beside as many as it has true ones, before it is swept."""

Item = tuple[int, CallId]
"""(order, call): within a key, first in, first out."""


class _Flow(Struct, gc=False):
    """One key: its clock, and its calls as a heap; withdrawn ones stay in there until they come to the top."""

    weight: float
    start: float
    """The virtual time at which its next call begins."""
    reserved: bool
    calls: list[Item]
    waiting: int = 0
    entry: int = _GONE
    """The number of the one entry in the heap of keys that stands for this one."""
    remembered: bool = False
    """It is idle with its clock ahead of virtual time, and kept until that has caught up."""


_Entry = tuple[float, int, CallId, int, _Flow]
"""(start, order, call, entry number, flow): never later than the truth."""


class FairShare(Generic[Key]):
    """Calls waiting, by key, and whose turn it is."""

    def __init__(self, *, reserve: float = 0.0) -> None:
        """`reserve`, from 0 to below 1, is the part of the reserved keys."""
        self.keep_share(reserve)
        self._virtual = 0.0
        """Virtual time: the start of the latest call taken."""
        self._flows: dict[Key, _Flow] = {}
        self._heap: list[_Entry] = []
        self._waiting = 0
        """Keys that wait."""
        self._calls: dict[CallId, tuple[Key, _Flow, Item]] = {}
        self._remembered: list[tuple[float, int, Key]] = []
        """Idle flows whose clock is ahead, by clock."""
        self._weights = [0.0, 0.0]
        """Sum of the weights of the keys that wait: the others', the reserved ones'."""
        self._entries = 0

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, call: CallId) -> bool:
        return call in self._calls

    @property
    def weight(self) -> float:
        """Of all keys that wait, together."""
        return sum(self._weights)

    def waiting(self, key: Key) -> int:
        """How many calls of this key wait."""
        flow = self._flows.get(key)
        return flow.waiting if flow is not None else 0

    def waiting_by_key(self) -> Iterator[tuple[Key, int]]:
        """Each key that waits, with how many calls of it do; O(keys)."""
        return ((key, flow.waiting) for key, flow in self._flows.items() if flow.waiting)

    def first(self, key: Key) -> Item | None:
        """(order, call) of a key's next call."""
        flow = self._flows.get(key)
        return None if flow is None or not flow.waiting else self._first(flow)

    def place(self, key: Key) -> int:
        """Where the next call of a key stands among those of all keys, the head being 1; O(keys that wait).

        Something of the key must wait.
        """
        own = self._flows[key]
        turn = (own.start, *self._first(own))
        waiting = [flow for *_, number, flow in self._heap if number == flow.entry]
        return 1 + sum((flow.start, *self._first(flow)) < turn for flow in waiting)

    def part(self, key: Key) -> float:
        """What a key gets of what all get together while those wait that do now; something of it must wait."""
        return self._flows[key].weight / self.weight

    def head(self) -> Item:
        """(order, call) of the call whose turn it is; there must be one."""
        entry = self._top()
        return entry[1], entry[2]

    def keep_share(self, reserve: float) -> None:
        """Keep another part for the reserved keys from now on."""
        assert 0 <= reserve < 1, f"a reserve of {reserve}"
        self._reserve_ratio = reserve / (1 - reserve)

    def weigh(self, key: Key, weight: float) -> None:
        """A key has another weight from its next call on."""
        assert weight > 0, f"a weight of {weight}"
        flow = self._flows.get(key)
        if flow is not None:
            if flow.waiting:
                self._weights[flow.reserved] += weight - flow.weight
            flow.weight = weight

    def add(self, call: CallId, key: Key, *, order: int, weight: float = 1.0, reserved: bool = False) -> None:
        """A call begins to wait. A key's weight is the one given last; its class stays while anything of it waits."""
        assert call not in self._calls, f"call {call} waits already"
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = _Flow(weight, self._virtual, reserved, [])
        self.weigh(key, weight)
        if not flow.waiting:
            flow.start = max(flow.start, self._virtual)
            flow.reserved = reserved
            self._weights[reserved] += weight
            self._waiting += 1
        flow.waiting += 1
        item = (order, call)
        heappush(flow.calls, item)
        self._calls[call] = (key, flow, item)
        if flow.calls[0] is item:
            self._enter(flow, item)

    def remove(self, call: CallId) -> None:
        """A waiting call waits no longer."""
        key, flow, _ = self._calls.pop(call)
        self._leave(key, flow)

    def take(self, call: CallId, units: float) -> float:
        """The head goes: its key is charged `units`. Returns by how much its clock has gone on, for `give_back`."""
        key, flow, item = self._calls.pop(call)
        assert flow.calls[0] is item, f"call {call} is not the first of its key"
        heappop(flow.calls)
        self._virtual = max(self._virtual, flow.start)
        advance = units / (flow.weight * self._boost(flow))
        flow.start += advance
        self._leave(key, flow)
        while self._remembered and self._remembered[0][0] <= self._virtual:
            self._forget(heappop(self._remembered)[2])
        return advance

    def give_back(self, key: Key, advance: float) -> None:
        """What a key had taken did not happen."""
        flow = self._flows.get(key)
        if flow is not None:
            flow.start = max(self._virtual, flow.start - advance)
            if flow.waiting:
                self._enter(flow, self._first(flow))

    def _boost(self, flow: _Flow) -> float:
        """What raises the reserved keys to their part, if their own weights do not reach it."""
        if not flow.reserved or not self._reserve_ratio:
            return 1.0
        others, reserved = self._weights
        return max(1.0, self._reserve_ratio * others / reserved)

    def _leave(self, key: Key, flow: _Flow) -> None:
        """One call fewer of this key, which may have been its last, or the last of all."""
        flow.waiting -= 1
        if flow.waiting:
            if len(flow.calls) > 2 * flow.waiting + _SLACK:
                flow.calls = [item for item in flow.calls if self._waits(item)]
                heapify(flow.calls)
            return
        flow.entry = _GONE
        flow.calls.clear()
        self._waiting -= 1
        self._weights[flow.reserved] -= flow.weight
        if not self._calls:  # nobody waits, so nobody was kept from anything: all clocks begin anew
            self._virtual = 0.0
            self._weights = [0.0, 0.0]
            self._flows.clear()
            self._heap.clear()
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

    def _waits(self, item: Item) -> bool:
        known = self._calls.get(item[1])
        return known is not None and known[2] is item

    def _first(self, flow: _Flow) -> Item:
        calls = flow.calls
        while not self._waits(calls[0]):
            heappop(calls)
        return calls[0]

    def _entry(self, flow: _Flow, item: Item) -> _Entry:
        self._entries += 1
        flow.entry = self._entries
        return (flow.start, *item, flow.entry, flow)

    def _enter(self, flow: _Flow, item: Item) -> None:
        """A new entry for a key that may now come earlier than its present one says."""
        heappush(self._heap, self._entry(flow, item))
        if len(self._heap) > 2 * self._waiting + _SLACK:
            self._heap = [entry for entry in self._heap if entry[3] == entry[4].entry]
            heapify(self._heap)

    def _top(self) -> _Entry:
        """The first entry, after those that have become untrue are gone or have moved."""
        heap = self._heap
        while True:
            start, order, call, number, flow = entry = heap[0]
            if number != flow.entry:
                heappop(heap)
                continue
            first = self._first(flow)
            if start == flow.start and first == (order, call):
                return entry
            heapreplace(heap, self._entry(flow, first))

    def check(self) -> None:
        """Assert every invariant; O(everything that waits)."""
        if not self._calls:
            nothing = not (self._flows or self._heap or self._remembered)
            assert nothing, "nobody waits, and somebody is remembered"
            return
        assert sum(flow.waiting for flow in self._flows.values()) == len(self._calls), "flows do not add up"
        weights = [0.0, 0.0]
        firsts: dict[int, Item] = {}
        for key, flow in self._flows.items():
            assert flow.waiting or flow.remembered, f"{key} is idle and not forgotten"
            live = [item for item in flow.calls if self._waits(item)]
            assert flow.waiting == len(live), f"the calls of {key} do not add up"
            if live:
                weights[flow.reserved] += flow.weight
                firsts[flow.entry] = min(live)
        for is_, expected in zip(self._weights, weights, strict=True):
            assert abs(is_ - expected) <= 1e-6 * max(1.0, expected), f"weights {self._weights} are not {weights}"
        entries = [entry for entry in self._heap if entry[3] == entry[4].entry]
        assert len(entries) == self._waiting == len(firsts), f"{len(entries)} entries for {len(firsts)} keys"
        for start, order, call, number, flow in entries:
            assert (start, order, call) <= (flow.start, *firsts[number]), f"call {call} comes too late"
