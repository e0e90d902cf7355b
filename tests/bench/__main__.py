"""Measures the rows that are asked for, prints their table, and says so while it goes on."""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import anyio

from tests.bench import figures, limits, peers
from tests.bench.place import place
from tests.bench.rows import BY_NAME, ROWS
from tests.bench.scenarios import SCENARIOS, Measured, Sizes

DOCUMENT = Path(__file__).resolve().parents[2] / "daemon" / "docs" / "benchmarks.md"


def main() -> int:
    """The command; its exit status is 0 where no row is below its floor."""
    parser = _parser()
    arguments = parser.parse_args()
    names = arguments.rows or [row.name for row in ROWS if arguments.peers or not row.with_peers]
    if not arguments.peers and any(BY_NAME[name].with_peers for name in names):
        parser.error("rows that are compared with peers need --peers")
    sizes = Sizes(queued=1_000_000, leads=1_000_000) if arguments.full else Sizes()
    found, where = anyio.run(
        partial(measure, names, arguments.rounds, sizes, with_peers=arguments.peers),
        backend_options={"use_uvloop": True},
    )
    print(figures.text_table(found))
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in where.items()))
    if arguments.json is not None:
        arguments.json.write_text(figures.as_json(found, where), encoding="utf-8")
    if arguments.write:
        figures.write_into(DOCUMENT, found, where)
    return int(any(figure.verdict == "below floor" for figure in found))


async def measure(
    names: list[str], rounds: int, sizes: Sizes, *, with_peers: bool
) -> tuple[list[figures.Figure], dict[str, figures.Fact]]:
    """The figures of these rows, in the order of the table, and where and how they were measured."""
    measured: Measured = {}
    async with place(with_peers=with_peers) as here:
        synced = limits.fdatasync_seconds(here.folder)
        for scenario, brought in SCENARIOS.items():
            if set(brought).isdisjoint(names):
                continue
            started = time.monotonic()
            print(f"{', '.join(brought)} ...", end=" ", file=sys.stderr, flush=True)
            measured |= await scenario(here, rounds, sizes)
            print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
        synced += limits.fdatasync_seconds(here.folder)
        where = figures.machine(rounds, await here.version(), synced)
        if with_peers:
            where["pgqueuer"] = await peers.version()
    asked = [figures.floored(row, measured) for row in ROWS if row.name in names]
    return [figures.figure(row, measured[row.name]) for row in asked], where


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="How fast it is, as ratios to what Postgres and the disk can do at most; takes about four minutes.",
    )
    parser.add_argument("--peers", action="store_true", help="beside PgQueuer as well, in about three minutes more")
    parser.add_argument("--rows", type=_rows, help=f"only these, separated by commas: {', '.join(BY_NAME)}")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each row, of which the median counts")
    parser.add_argument("--full", action="store_true", help="1,000,000 queued jobs, and leads, instead of 200,000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, for programs")
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.name}")
    return parser


def _rows(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in BY_NAME:
            raise argparse.ArgumentTypeError(f"there is no row {name}; there are {', '.join(BY_NAME)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
