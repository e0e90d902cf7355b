"""Whose turn it is where not everybody is held up by the same thing.

Intuition: calls that cost the same units wait for the same limits and stand in one **lane**. In a lane nothing counts
but fair shares, so any two keys that wait there throughout are never further apart than a call each in what they are
charged in it, whatever goes on beside: that a lead waits for its minute while others' polls go, or that somebody has
had all requests for an hour because nobody else wanted them.

A clock for each key over all lanes, which is simpler, does not do that. Calls that pass make time run on in one lane
while it stands still in the other; whoever comes next into the slow lane begins at the late time and waits until all
before it have caught up. To bound the debt by pushing clocks forward takes from those in the slow lane what their
weights and costs had earned them.

Between the lanes the same rule holds once more, with a clock for each: the head of them all is in the lane furthest
behind. A lane has the weights of all keys that wait in it, so what lanes compete for is shared by keys and not by
kinds of calls. Others may pass the head, see `provider_account`; then its lane falls behind, and may make up for
`lag_max` at most, else it would lock everybody out for as long as it had waited. Which lane goes first changes no
order within any.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Generic

from msgspec import Struct

from leadline.core.fair_share import FairShare, Item, Key
from leadline_protocol.ids import CallId


class _Lane(Struct, Generic[Key]):
    """Calls of one kind."""

    fair: FairShare[Key]
    start: float = 0.0
    """The virtual time at which its next call begins."""


class Turn(Struct, Generic[Key], frozen=True):
    """What a call that was taken has cost its key and its lane, should it have to be given back."""

    lane: int
    key: Key
    of_key: float
    of_lane: float


class Turns(Generic[Key]):
    """Calls waiting, by lane and key, and whose turn it is."""

    def __init__(self, *, lag_max: float, reserve: float = 0.0) -> None:
        """`lag_max` is in charged units per weight; `reserve` is the part of the reserved keys."""
        self._lag_max = lag_max
        self._reserve = reserve
        self._virtual = 0.0
        self._lanes: dict[int, _Lane[Key]] = {}
        self._lane_of: dict[CallId, int] = {}

    def __len__(self) -> int:
        return len(self._lane_of)

    def __contains__(self, call: CallId) -> bool:
        return call in self._lane_of

    def waiting(self, key: Key) -> int:
        """How many calls of this key wait."""
        return sum(lane.fair.waiting(key) for lane in self._lanes.values())

    def waiting_by_key(self) -> Iterator[tuple[Key, int]]:
        """Each key that waits, once for each lane it waits in, with how many calls of it do; O(keys)."""
        return chain.from_iterable(lane.fair.waiting_by_key() for lane in self._lanes.values())

    def first(self, key: Key) -> Item | None:
        """(order, call) of a key's next call, over all lanes."""
        firsts = (lane.fair.first(key) for lane in self._lanes.values())
        return min((first for first in firsts if first is not None), default=None)

    def place(self, key: Key) -> int:
        """Where a key's next call stands in its lane, the head of that being 1; something of the key must wait."""
        return self._lane(key).fair.place(key)

    def part(self, key: Key) -> float:
        """What a key gets of its lane while those wait that do now; something of it must wait."""
        return self._lane(key).fair.part(key)

    def _lane(self, key: Key) -> _Lane[Key]:
        """The lane of a key's next call."""
        first = self.first(key)
        assert first is not None, f"nothing of {key} waits"
        return self._lanes[self._lane_of[first[1]]]

    def heads(self) -> list[CallId]:
        """The first call of each lane, in the order of their turns: the very first one is the head of them all."""
        heads = [(lane.start, *lane.fair.head()) for lane in self._lanes.values() if len(lane.fair)]
        if len(heads) > 1:
            heads.sort()
        return [call for _, _, call in heads]

    def keep_share(self, reserve: float) -> None:
        """Keep another part for the reserved keys from now on."""
        self._reserve = reserve
        for lane in self._lanes.values():
            lane.fair.keep_share(reserve)

    def weigh(self, key: Key, weight: float) -> None:
        """A key has another weight from its next call on."""
        for lane in self._lanes.values():
            lane.fair.weigh(key, weight)

    def add(
        self, call: CallId, key: Key, *, order: int, weight: float = 1.0, lane: int = 0, reserved: bool = False
    ) -> None:
        """A call begins to wait; see `FairShare.add`."""
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = _Lane(FairShare(reserve=self._reserve))
        if not len(queue.fair):
            queue.start = max(queue.start, self._virtual)
        queue.fair.add(call, key, order=order, weight=weight, reserved=reserved)
        self._lane_of[call] = lane

    def remove(self, call: CallId) -> None:
        """A waiting call waits no longer."""
        self._lanes[self._lane_of.pop(call)].fair.remove(call)
        self._rest()

    def take(self, call: CallId, key: Key, units: float) -> Turn[Key]:
        """A waiting call, one of `heads`, goes: its key is charged `units`."""
        number = self._lane_of.pop(call)
        lane = self._lanes[number]
        start = max(lane.start, self._virtual - self._lag_max)
        self._virtual = max(self._virtual, start)
        of_lane = units / lane.fair.weight
        lane.start = start + of_lane
        turn = Turn(number, key, lane.fair.take(call, units), of_lane)
        self._rest()
        return turn

    def give_back(self, turn: Turn[Key]) -> None:
        """A call that was taken did not go."""
        lane = self._lanes.get(turn.lane)
        if lane is not None:
            lane.fair.give_back(turn.key, turn.of_key)
            lane.start = max(self._virtual, lane.start - turn.of_lane)

    def _rest(self) -> None:
        """Where nobody waits, nobody is kept from anything: all clocks begin anew."""
        if not self._lane_of:
            self._virtual = 0.0
            self._lanes.clear()

    def check(self) -> None:
        """Assert every invariant; O(everything that waits)."""
        assert sum(len(lane.fair) for lane in self._lanes.values()) == len(self._lane_of), "lanes do not add up"
        for call, number in self._lane_of.items():
            assert call in self._lanes[number].fair, f"call {call} is not in its lane"
        for lane in self._lanes.values():
            lane.fair.check()
