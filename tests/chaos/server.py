"""A Postgres that is not the daemon's: `python -m tests.chaos.server FOLDER` runs one until its standard input ends.

It is restarted when it dies, as a service manager would do; its URL is the first line of standard output. The settings
are those of the embedded one.
"""

import sys
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from leadline.adapters.embedded_postgres import embedded_postgres


async def serve(folder: Path) -> None:
    """Until standard input ends."""
    async with embedded_postgres(folder) as server:
        print(server.url, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.buffer.read)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    anyio.run(partial(serve, Path(sys.argv[1])))
