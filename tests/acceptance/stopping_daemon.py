"""`leadline`, with a place at which it stops itself, as if by SIGSTOP from outside in exactly that moment; for tests.

`LEADLINE_STOPS` says where, and the file named by `LEADLINE_STOPPED` is there from then on:

- `permit`: a permit is in hand and the connection is made; the last look before the first byte comes next
- `sent`: a request has just left
- `work`: a result is written in a transaction that has not been committed
- `commit`: a decision is written in a transaction that has not been committed

With `LEADLINE_UNGUARDED` permits last for ever, so that the last look finds nothing wrong: the negative control.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp.connector import Connection as HttpConnection

from leadline.adapters import provider_http
from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.store import PostgresStore
from leadline.adapters.postgres.writer import Writer
from leadline.cli.app import run
from leadline.core import permits
from leadline.core.effects import Records
from leadline_protocol.ids import JobId

TIMES = 12
"""The stop is at the so manyth time that the place is come to."""


class Stop:
    """Stops this process once, at the chosen place."""

    def __init__(self) -> None:
        self.at = os.environ["LEADLINE_STOPS"]
        self.mark = Path(os.environ["LEADLINE_STOPPED"])
        self.times = 0

    def here(self, place: str) -> None:
        if place != self.at or self.mark.exists():
            return
        self.times += 1
        if self.times >= TIMES:
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGSTOP)


stop = Stop()


class StoppingFlight(provider_http._Flight):
    def send(self, connection: HttpConnection, data: bytes) -> None:
        stop.here("permit")
        super().send(connection, data)
        stop.here("sent")


class StoppingStore(PostgresStore):
    @asynccontextmanager
    async def work(self, job: JobId, number: int) -> AsyncIterator[Connection]:
        async with super().work(job, number) as connection:
            yield connection
            stop.here("work")


class StoppingWriter(Writer):
    async def write(self, records: Records, *, replace_keys: bool = False) -> None:
        await super().write(records, replace_keys=replace_keys)
        if records.calls_sent:
            stop.here("commit")


def main() -> int:
    from leadline import main as composition
    from leadline.adapters.postgres import store

    vars(provider_http)["_Flight"] = StoppingFlight
    vars(composition)["PostgresStore"] = StoppingStore
    vars(store)["Writer"] = StoppingWriter
    if os.environ.get("LEADLINE_UNGUARDED"):
        vars(permits)["PERMIT_SECONDS"] = 10**9
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
