"""The partitions of what only grows: ended jobs, jobs' stories, calls.

Each holds a range of ids and is dropped whole when it is old enough: that costs nothing, where deleting millions of
rows would. They are made half a partition ahead of the ids in use, in write transactions of their own.
"""

from collections.abc import Collection, Sequence
from typing import Final

from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import QUERIES
from leadline_protocol.ids import Instant

IDS_PER_PARTITION: Final = 10_000_000


class Partitions:
    """Which partitions there are, and which there should be."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: set[str] = set()

    async def learn(self, connection: Connection) -> None:
        """Read from the database which there are."""
        self._known = {row["name"] for row in await connection.fetch(QUERIES["partitions"].sql)}

    def note(self, names: Collection[str]) -> None:
        """These were made, and that has committed."""
        self._known.update(names)

    def forget(self, names: Collection[str]) -> None:
        """These were dropped, and that has committed."""
        self._known.difference_update(names)

    def missing(self, jobs: Collection[int], calls: Collection[int]) -> dict[str, tuple[str, int]]:
        """Names, parents and numbers of those that rows with these ids would need, and ids half a partition on."""
        named: dict[str, tuple[str, int]] = {}
        for parents, ids in ((("job_ended", "job_event"), jobs), (("call",), calls)):
            if ids:
                numbers = range(min(ids) // self._size, (max(ids) + self._size // 2) // self._size + 1)
                named |= {f"{parent}_{number}": (parent, number) for number in numbers for parent in parents}
        return {name: which for name, which in named.items() if name not in self._known}

    async def make(self, connection: Connection, jobs: Collection[int], calls: Collection[int]) -> Collection[str]:
        """Make what is missing, and return the names; they are to be noted when that has committed.

        A table is made and then attached, as that locks out nobody who reads or writes the parent.
        """
        missing = self.missing(jobs, calls)
        for name, (parent, number) in missing.items():
            low, high = number * self._size, (number + 1) * self._size
            await connection.execute(
                f"CREATE TABLE {name} (LIKE {parent} INCLUDING DEFAULTS INCLUDING STORAGE);"
                f"ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({high})"
            )
        return missing.keys()

    async def older_than(self, connection: Connection, instant: Instant) -> Sequence[str]:
        """Partitions in which nothing is as young as that, and to which nothing live refers."""
        latest = await connection.fetchrow(QUERIES["latest"].sql)
        assert latest is not None
        needed = await connection.fetchval(QUERIES["oldest_needed_job"].sql)
        first = min(latest["job"] if needed is None else needed, latest["job"]) // self._size
        old: list[str] = []
        for name in sorted(self._known):
            parent, _, number = name.rpartition("_")
            if parent == "job_ended" and int(number) < first:
                young = f"SELECT EXISTS (SELECT FROM {name} WHERE ended >= $1)"  # noqa: S608 a name of our own making
                if not await connection.fetchval(young, instant):
                    old += [name, f"job_event_{number}"]
            if parent == "call" and int(number) < latest["call"] // self._size:
                young = (
                    f"SELECT EXISTS (SELECT FROM {name} WHERE sent >= $1 OR state = 'sent')"  # noqa: S608
                    f" OR EXISTS (SELECT FROM {name} AS call JOIN job ON job.id = call.job)"
                )
                if not await connection.fetchval(young, instant):
                    old.append(name)
        return old
