"""Rounds to figures, figures to words, tables and JSON.

A round holds what we reached and what the limit was, both in the row's unit. Its ratio is the one over the other; for
rows without a limit (bytes, microseconds) it is the plain number. A figure is the median of a row's rounds, by ratio.
Rounds in which the disk stalled say something about the disk: they are left out where there are others.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

Verdict = Literal["below floor", "floor", "target", "stretch", "measured"]
"""How far a figure got; `measured` where nobody has said how much is enough."""

Fact = str | int | float
"""What is said of the machine."""

BEGIN: Final = "<!-- written by scripts/bench --write: begin -->"
END: Final = "<!-- written by scripts/bench --write: end -->"


class Row(Struct, frozen=True):
    """One thing that is measured."""

    name: str
    title: str
    limit: str
    """What it is set against, in words; empty: against nothing, the number itself counts."""
    unit: str
    floor: float | None = None
    target: float | None = None
    stretch: float | None = None
    less_is_better: bool = False
    with_peers: bool = False
    """Measured only where peers are asked for."""
    floor_row: str = ""
    """The row whose limit is the floor where it is measured in the same run."""


class Round(Struct, frozen=True):
    """One measurement of a row."""

    ours: float
    limit: float | None = None
    """The mean of before and after."""
    stalled: bool = False
    """The disk was too slow meanwhile to say anything."""

    @property
    def ratio(self) -> float:
        """What counts."""
        return self.ours if self.limit is None else self.ours / self.limit


class Figure(Struct, frozen=True):
    """What came out for a row."""

    row: Row
    ours: float
    limit: float | None
    ratio: float
    verdict: Verdict
    rounds: int
    """How many were good."""
    stalled: int


def figure(row: Row, rounds: Sequence[Round]) -> Figure:
    """The median round; raises ValueError where there is none."""
    good = _good(rounds)
    used = good or list(rounds)
    if not used:
        raise ValueError(f"{row.name} was not measured")
    limits = [each.limit for each in used if each.limit is not None]
    ratio = median(each.ratio for each in used)
    return Figure(
        row=row,
        ours=median(each.ours for each in used),
        limit=median(limits) if limits else None,
        ratio=ratio,
        verdict=verdict(row, ratio),
        rounds=len(good),
        stalled=len(rounds) - len(good),
    )


def floored(row: Row, measured: Mapping[str, Sequence[Round]]) -> Row:
    """The row with the floor that a peer has set in the same run, if one has."""
    rounds = measured.get(row.floor_row, ())
    limits = [each.limit for each in _good(rounds) or rounds if each.limit is not None]
    return replace(row, floor=median(limits)) if limits else row


def _good(rounds: Sequence[Round]) -> list[Round]:
    return [each for each in rounds if not each.stalled]


def verdict(row: Row, ratio: float) -> Verdict:
    """The best of floor, target and stretch that a ratio reaches, up to the first that it misses."""
    reached: Verdict = "measured"
    if row.floor is not None or row.target is not None:
        reached = "below floor"
    steps: tuple[tuple[Verdict, float | None], ...] = (
        ("floor", row.floor),
        ("target", row.target),
        ("stretch", row.stretch),
    )
    for word, bound in steps:
        if bound is None:
            continue
        if ratio > bound if row.less_is_better else ratio < bound:
            break
        reached = word
    return reached


# Output --------------------------------------------------------------------------------------------------------------

_HEAD: Final = ("row", "ours", "limit", "ratio", "floor", "target", "stretch", "verdict")


def _cells(each: Figure) -> tuple[str, ...]:
    row = each.row
    word: str = each.verdict
    if each.stalled:
        word += f" ({each.stalled} of {each.rounds + each.stalled} rounds on a stalled disk)"
    return (
        row.title,
        f"{_number(each.ours)} {row.unit}".strip(),
        "" if each.limit is None else f"{_number(each.limit)} {row.unit}: {row.limit}",
        _number(each.ratio),
        *("" if bound is None else _number(bound) for bound in (row.floor, row.target, row.stretch)),
        word,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def text_table(figures: Sequence[Figure]) -> str:
    """For a terminal."""
    cells = [_HEAD, *map(_cells, figures)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def markdown_table(figures: Sequence[Figure]) -> str:
    """For the documentation."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|" + "---|" * len(_HEAD)]
    lines += ["| " + " | ".join(_cells(each)) + " |" for each in figures]
    return "\n".join(lines)


def machine(rounds: int, postgres: str, fdatasync_seconds: Sequence[float]) -> dict[str, Fact]:
    """Where and how it was measured."""
    ordered = sorted(fdatasync_seconds)
    return {
        "rounds": rounds,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "postgres": postgres,
        "fdatasync_p50_ms": round(1e3 * ordered[len(ordered) // 2], 3),
        "fdatasync_p99_ms": round(1e3 * ordered[len(ordered) * 99 // 100], 3),
    }


def as_json(figures: Sequence[Figure], where: Mapping[str, Fact]) -> str:
    """For programs."""
    return json.dumps({"machine": where, "figures": msgspec.to_builtins(figures)}, indent=2) + "\n"


def write_into(document: Path, figures: Sequence[Figure], where: Mapping[str, Fact]) -> None:
    """Replace the table between the two marks of a document. Raises ValueError where they are missing."""
    before, begun, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{document} has no place for the table")
    said = (
        f"{where['cores']} cores, Python {where['python']}, Postgres {where['postgres']}, fdatasync p50"
        f" {where['fdatasync_p50_ms']} ms and p99 {where['fdatasync_p99_ms']} ms, medians of {where['rounds']} rounds"
    )
    if "pgqueuer" in where:
        said += f", PgQueuer {where['pgqueuer']}"
    document.write_text(f"{before}{BEGIN}\n\n{said}.\n\n{markdown_table(figures)}\n\n{END}{after}", encoding="utf-8")
