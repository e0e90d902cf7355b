"""A registry of actors that exist only while they have work.

A daemon may know a hundred thousand teamspaces and provider accounts; those without work must cost nothing. So an
actor is made when somebody first needs it and dropped as soon as it says that it is idle.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar


class Actor(Protocol):
    """What the registry needs to know of an actor."""

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do, so that it can be dropped and made anew."""
        ...


K = TypeVar("K", bound=Hashable)
A = TypeVar("A", bound=Actor)


class Registry(Generic[K, A]):
    """Actors of one kind by what they stand for."""

    def __init__(self, make: Callable[[K], A]) -> None:
        self._make = make
        self._actors: dict[K, A] = {}

    def of(self, key: K) -> A:
        """The actor for this key, made where there is none."""
        actor = self._actors.get(key)
        if actor is None:
            actor = self._actors[key] = self._make(key)
        return actor

    def find(self, key: K) -> A | None:
        """The actor for this key, where there is one."""
        return self._actors.get(key)

    def release(self, key: K) -> None:
        """Drop the actor if it has nothing left to do."""
        actor = self._actors.get(key)
        if actor is not None and actor.idle:
            del self._actors[key]

    def __iter__(self) -> Iterator[A]:
        """The actors that have work."""
        return iter(tuple(self._actors.values()))

    def __len__(self) -> int:
        """How many have work."""
        return len(self._actors)
