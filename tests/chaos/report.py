"""What came of a run, as a sentence for a terminal and as the dated part of daemon/docs/reliability.md."""

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.chaos.faults import FAULTS
from tests.chaos.run import Result

BEGIN: Final = "<!-- written by scripts/chaos --report: begin -->"
END: Final = "<!-- written by scripts/chaos --report: end -->"
SEEN: Final = "found out"
NOT_SEEN: Final = "NOT FOUND OUT"

ROOT: Final = Path(__file__).resolve().parents[2]

GROUNDS: Final = {"home": "with its own Postgres, on a disk of ours", "beyond": "with a Postgres beyond a proxy"}


def sentence(result: Result) -> str:
    """A result in one line."""
    struck = ", ".join(f"{times} {name}" for name, times in sorted(result.struck.items()))
    return (
        f"{GROUNDS[result.ground]}: {len(result.violations)} violations; {result.seconds:.0f} s,"
        f" {sum(result.struck.values())} faults ({struck});"
        f" {result.receipts} receipts, {result.lost_receipts} more lost, {result.chains} chains, {result.cancels}"
        f" cancels, {result.pauses} pauses, {result.releases} let go from quarantine, {result.calls} calls;"
        f" all over {result.drained_seconds:.0f} s after the"
        f" last fault (bound {result.bound_seconds:.0f}); {result.sectors_lost} sectors lost at power cuts,"
        f" {result.sectors_kept} kept"
    )


def write_into(
    document: Path, results: Sequence[Result], skipped: Mapping[str, str], controls: Mapping[str, str], command: str
) -> None:
    """Replace the report between the two marks of a document. Raises ValueError where they are missing."""
    before, begun, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{document} has no place for the report")
    said = "\n".join(_lines(results, skipped, controls, command))
    document.write_text(f"{before}{BEGIN}\n\n{said}\n\n{END}{after}", encoding="utf-8")


def _lines(
    results: Sequence[Result], skipped: Mapping[str, str], controls: Mapping[str, str], command: str
) -> Iterator[str]:
    violations = [violation for result in results for violation in result.violations]
    yield (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {_commit()}, Python {platform.python_version()}, Linux"
        f" {platform.release()}, {len(os.sched_getaffinity(0))} cores, {max(each.seconds for each in results) / 60:.0f}"
        f" minutes. **{len(violations)} violations.** Again: `{command}`."
    )
    yield ""
    yield from ("| fault | " + " | ".join(each.ground for each in results) + " |", "|---" * (1 + len(results)) + "|")
    for name in FAULTS:
        if name in skipped:
            yield f"| {name} | " + " | ".join("skipped: " + skipped[name] for _ in results) + " |"
        elif any(result.struck[name] for result in results):
            yield f"| {name} | " + " | ".join(str(result.struck[name] or "") for result in results) + " |"
    facts: Mapping[str, Sequence[object]] = {
        "receipts": [result.receipts for result in results],
        "... sent and lost besides": [result.lost_receipts for result in results],
        "chains": [result.chains for result in results],
        "leads with every result": [result.leads for result in results],
        "calls to providers": [result.calls for result in results],
        "cancels": [result.cancels for result in results],
        "pauses": [result.pauses for result in results],
        "let go from quarantine": [result.releases for result in results],
        "sectors lost / kept at power cuts": [f"{each.sectors_lost} / {each.sectors_kept}" for each in results],
        "seconds until all had ended / bound": [
            f"{each.drained_seconds:.0f} / {each.bound_seconds:.0f}" for each in results
        ],
    }
    for fact, numbers in facts.items():
        yield f"| *{fact}* | " + " | ".join(map(str, numbers)) + " |"
    for violation in violations:
        yield f"- violation: {violation}"
    if controls:
        yield from ("", "| guard that was off | outcome |", "|---|---|")
        for name, word in controls.items():
            yield f"| {name.replace('_', ' ')} | {word} |"


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + (" with changes" if git("status", "--porcelain") else "")
