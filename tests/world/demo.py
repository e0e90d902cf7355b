"""The main job before one's eyes: from a dirty CSV to an enriched one, and all that usually goes wrong on the way.

Everything is done as a user would do it, by the `leadline` command against a daemon of its own with its own Postgres;
the providers are the ones of tests/world, in a process of their own, over real HTTP. Nothing of Leadline is imported,
and nothing is judged here: the run leaves its files and the providers' logs in one folder, and `verify` says whether
they are as they must be.

Two teamspaces work at once. `acme` uploads 5,000 dirty rows, lets an AI score them and, where the score is high,
write a line. `beta` has forty leads at a provider that takes fifteen a minute, and one of them hangs: its job stalls,
is killed by the watchdog and resumed.
"""

import argparse
import contextlib
import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.world import demo_plan, dirty_csv
from tests.world.demo_plan import DEMO

ROOT = Path(__file__).parents[2]
READY_WITHIN_SECONDS = 60
DONE_WITHIN_SECONDS = 230
"""The demo ends in under four minutes; what has not ended by then is a failure."""

LINE_EVERY_SECONDS = 10

ENDED = frozenset({"completed", "partial", "failed", "cancelled", "skipped"})
Json = Mapping[str, Any]


class DemoFailedError(Exception):
    """The demo cannot go on; the message says what happened and where to look."""


def main() -> int:
    """The command line; 0 when every job ended as it should, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description="The main job of Leadline, live.")
    parser.add_argument("--dir", type=Path, help="where everything goes; must not exist yet")
    parser.add_argument("--keep", action="store_true", help="leave the daemon up")
    options = parser.parse_args()
    directory = _new_directory(options.dir)
    say = Console(highlight=False, soft_wrap=True).print
    try:
        with _processes(directory, keep=options.keep) as (world, leadline):
            return _run(directory, world, leadline, keep=options.keep)
    except DemoFailedError as failed:
        say(f"[red]The demo failed:[/red] {failed}")
    except KeyboardInterrupt:
        say("Stopped.")
    say(f"What there is so far: {directory}")
    return 1


# --- the story --------------------------------------------------------------------------------------------------------


def _run(directory: Path, world: Json, leadline: "Leadline", *, keep: bool) -> int:
    say = Console(highlight=False, soft_wrap=True).print
    say(
        "Settings of the demo, smaller than the defaults:\n"
        f"  a job that makes no progress counts as stalled after {DEMO.stall_after_seconds} s (default 300 s)\n"
        f"  the AI takes {DEMO.ai_calls_per_minute:,} calls in any minute\n"
        f"  the slow job has {DEMO.slow_leads} leads, its provider takes {DEMO.slow_leads_per_minute} in any minute\n"
        f"Everything is in {directory}\n"
    )
    began = time.monotonic()
    (directory / "prospects.csv").write_bytes(dirty_csv.generate().data)
    (directory / "slow_list.csv").write_bytes(demo_plan.slow_csv())
    upload = leadline.job("upload", str(directory / "prospects.csv"), "--teamspace", "acme", "--table", "prospects")
    slow_upload = leadline.job("upload", str(directory / "slow_list.csv"), "--teamspace", "beta", "--table", "contacts")
    chain = leadline.submit(CHAIN)
    slow = leadline.submit(SLOW)
    titles = {
        upload: "acme  upload 5,000 rows",
        chain: "acme  chain: score, personalise",
        slow_upload: "beta  upload",
        slow: f"beta  slow provider, {DEMO.slow_leads_per_minute} per minute",
    }
    views = _watch(leadline, titles)
    for file, teamspace, table in (("enriched.csv", "acme", "prospects"), ("slow.csv", "beta", "contacts")):
        leadline.run("export", "--teamspace", teamspace, "--table", table, "--output", str(directory / file))
    leadline.write(directory / "refused.csv", "job", str(upload), "--refused")
    leadline.write(directory / "history.jsonl", "job", str(slow), "--history", "--json")
    _show(directory, titles, views, time.monotonic() - began)
    if keep:
        _show_what_to_paste(world, leadline, slow)
    return 0 if [views[job]["state"] for job in titles] == ["partial", "completed", "completed", "completed"] else 1


CHAIN: Json = {
    "kind": "chain",
    "teamspace": "acme",
    "idempotency_key": "demo-chain",
    "steps": [
        {
            "kind": "enrich",
            "table": "prospects",
            "module": "ai_prompt",
            "into": {"score": "number"},
            "params": {"prompt": "Score this lead from 1 to 10, only the number: {{email}}, {{company}}, {{country}}"},
        },
        {
            "kind": "enrich",
            "table": "prospects",
            "module": "ai_prompt",
            "into": {"line": "text"},
            "params": {"prompt": "Personalise an opening line for {{first_name}} ({{email}}), score {{score}}"},
            "where": f"score >= {DEMO.score_min}",
        },
    ],
}
SLOW: Json = {
    "kind": "enrich",
    "teamspace": "beta",
    "table": "contacts",
    "module": "slow",
    "into": {"company": "text", "industry": "text", "employees": "number"},
    "idempotency_key": "demo-slow",
}


def _watch(leadline: "Leadline", titles: Mapping[int, str]) -> dict[int, Json]:
    """Show the jobs' progress until all have ended; their last views."""
    deadline = time.monotonic() + DONE_WITHIN_SECONDS
    with _screen(titles) as screen:
        while True:
            views = {job: leadline.view(job) for job in titles}
            for job, view in views.items():
                screen.show(job, view)
            if all(view["state"] in ENDED for view in views.values()):
                return views
            if time.monotonic() > deadline:
                late = [titles[job] for job, view in views.items() if view["state"] not in ENDED]
                raise DemoFailedError(f"not done after {DONE_WITHIN_SECONDS} s: {', '.join(late)}")
            time.sleep(1)


# --- the daemon and the world -----------------------------------------------------------------------------------------


class Leadline:
    """The `leadline` command, told which daemon it is to talk to."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "leadline.toml"
        self._places = ["--state-dir", str(directory / "state"), "--runtime-dir", str(directory / "run")]

    def command(self, *arguments: str) -> list[str]:
        """The words of a command, as one would type them."""
        return [str(ROOT / "scripts" / "leadline"), *arguments, *self._places]

    def run(self, *arguments: str, text: str = "") -> str:
        """Run a command and return what it printed; DemoFailedError with its complaint where it fails."""
        command = self.command(*arguments)
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DemoFailedError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def write(self, path: Path, *arguments: str) -> None:
        """Run a command and keep what it printed."""
        path.write_text(self.run(*arguments), encoding="utf-8")

    def job(self, *arguments: str) -> int:
        """Run a command that submits a job; the job's id."""
        receipt: Json = json.loads(self.run(*arguments, "--json"))
        return int(receipt["job"])

    def submit(self, submission: Json) -> int:
        """Submit a job as a line of JSON; its id."""
        receipt: Json = json.loads(self.run("submit", "-", text=json.dumps(submission) + "\n"))
        return int(receipt["job"])

    def view(self, job: int) -> Json:
        """The job as it is now."""
        view: Json = json.loads(self.run("job", str(job), "--json"))
        return view

    def is_ready(self) -> bool:
        """Whether the daemon takes work."""
        asked = subprocess.run(self.command("status", "--json"), capture_output=True, text=True, check=False)
        return asked.returncode == 0 and json.loads(asked.stdout)["state"] == "ready"


@contextlib.contextmanager
def _processes(directory: Path, *, keep: bool) -> Iterator[tuple[Json, Leadline]]:
    """The outside world and a daemon that is ready; ended with the block, unless `keep` and the block went well."""
    leadline = Leadline(directory)
    world_command = [sys.executable, "-m", "tests.world", "--dir", str(directory)]
    with contextlib.ExitStack() as running:
        world = subprocess.Popen(
            [*world_command, *(["--outlive-parent"] if keep else [])], cwd=ROOT, stdout=subprocess.PIPE, process_group=0
        )
        running.callback(_end, world)
        assert world.stdout is not None
        listening: Json = json.loads(world.stdout.readline() or "{}")
        if not listening:
            raise DemoFailedError("the providers did not start")
        leadline.config.write_text(_configuration(listening), encoding="utf-8")
        log = running.enter_context((directory / "daemon.log").open("wb"))
        serve = ["serve", "--config", str(leadline.config)]
        daemon = subprocess.Popen(leadline.command(*serve), stdout=log, stderr=log, process_group=0)
        running.callback(_end, daemon)
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while not leadline.is_ready():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise DemoFailedError(f"the daemon did not become ready; see {directory / 'daemon.log'}")
            time.sleep(0.2)
        yield {**listening, "daemon_pid": daemon.pid}, leadline
        if keep:
            running.pop_all()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and SIGKILL to what does not heed it within 20 s."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _new_directory(wanted: Path | None) -> Path:
    """A new folder that the user of the embedded Postgres may pass through."""
    directory = Path(tempfile.mkdtemp(prefix="leadline-demo-")) if wanted is None else wanted.absolute()
    directory.mkdir(parents=True, exist_ok=wanted is None)
    directory.chmod(0o755)
    return directory


def _configuration(world: Json) -> str:
    """The daemon's configuration: the demo's settings, and where the AI and the slow provider are."""
    return f"""\
[queue]
warn_after_seconds = {DEMO.stall_after_seconds // 2}
stall_after_seconds = {DEMO.stall_after_seconds}

[providers.openai]
preset = "openai"
base_url = "{world["ai"]}"
secret = "{world["api_key"]}"
limits = [{{ shape = "window", amount = {DEMO.ai_calls_per_minute}, per_seconds = 60, unit = "request" }}]
settings = {{ model = "demo" }}

[providers.slow]
module = "{Path(__file__).with_name("slow_provider.toml")}"
base_url = "{world["slow"]}"
limits = [
    {{ shape = "window", amount = {DEMO.slow_leads_per_minute}, per_seconds = 60, unit = "lead" }},
    {{ shape = "window", amount = {DEMO.slow_requests_per_minute}, per_seconds = 60, unit = "request" }},
]
"""


# --- what is shown ----------------------------------------------------------------------------------------------------


class Screen(Protocol):
    """Where the jobs' progress is shown."""

    def show(self, job: int, view: Json) -> None:
        """Show the state a job is in now."""
        ...


class Bars:
    """A bar for each job, on a terminal."""

    def __init__(self, titles: Mapping[int, str], progress: Progress) -> None:
        self._progress = progress
        self._bars = {job: progress.add_task(title, total=None, note="") for job, title in titles.items()}

    def show(self, job: int, view: Json) -> None:
        """Move the job's bar."""
        counts = view["counts"]
        done = counts["total"] - counts["pending"]
        self._progress.update(self._bars[job], completed=done, total=counts["total"] or None, note=_note(view))
        if view["state"] in ENDED:
            self._progress.stop_task(self._bars[job])


class Lines:
    """A line for each job whenever its state changed, and otherwise every ten seconds while it moves: for a pipe."""

    def __init__(self, titles: Mapping[int, str], out: TextIO) -> None:
        self._titles, self._out = titles, out
        self._last: dict[int, tuple[str, int, float]] = {}

    def show(self, job: int, view: Json) -> None:
        """Print the job's line, where it says something new."""
        counts, now = view["counts"], time.monotonic()
        done = counts["total"] - counts["pending"]
        note, last_done, last_at = self._last.get(job, ("", -1, 0.0))
        if _note(view) == note and (done == last_done or now - last_at < LINE_EVERY_SECONDS):
            return
        self._last[job] = (_note(view), done, now)
        self._out.write(f"{self._titles[job]}: {done:,} of {counts['total']:,}, {_note(view)}\n")
        self._out.flush()


@contextlib.contextmanager
def _screen(titles: Mapping[int, str]) -> Iterator[Screen]:
    if not sys.stdout.isatty():
        yield Lines(titles, sys.stdout)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as progress:
        yield Bars(titles, progress)


def _note(view: Json) -> str:
    """A job's state in few words: the word for it, what it waits for, whether it stands still, and its attempt."""
    words = [str(view["shown"])]
    if waits := {wait["reason"] for wait in view.get("waits", [])}:
        words.append("for " + ", ".join(sorted(waits)))
    if view.get("stalled"):
        words.append("(stalled)")
    if view.get("attempt", 0) > 1:
        words.append(f"attempt {view['attempt']}")
    return " ".join(words)


def _show(directory: Path, titles: Mapping[int, str], views: Mapping[int, Json], seconds: float) -> None:
    """The end: how each job came out, the first leads of the result, and what the providers wrote down."""
    console = Console(highlight=False)
    jobs = Table("job", "what", "state", "done", "failed", "skipped", "attempts", title=f"After {seconds:.0f} s")
    for job, title in titles.items():
        view, counts = views[job], views[job]["counts"]
        numbers = [f"{counts[name]:,}" for name in ("done", "failed", "skipped")]
        jobs.add_row(str(job), title, view["state"], *numbers, str(view.get("attempt", 0)))
    console.print(jobs)
    with (directory / "enriched.csv").open(encoding="utf-8-sig", newline="") as file:
        best = [row for row in csv.DictReader(file) if row["line"]]
    leads = Table("first name", "company", "score", "line", title=f"{len(best):,} leads got a line, the first of them")
    for row in best[:5]:
        leads.add_row(*(escape(row[column]) for column in ("first_name", "company", "score", "line")))
    console.print(leads)
    for log in sorted((directory / "logs").glob("*.jsonl")):
        outcomes = Counter(json.loads(line)["outcome"] for line in log.read_text(encoding="utf-8").splitlines())
        told = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
        console.print(f"{log.stem:>6}'s log: {told or 'no calls'}")
    console.print(f"\nThe result:    {directory / 'enriched.csv'}\nThe logs:      {directory / 'logs'}")
    console.print(f"Check it all:  scripts/demo --verify {directory}", soft_wrap=True)


def _show_what_to_paste(world: Json, leadline: Leadline, job: int) -> None:
    """Commands that are worth a try while the daemon is up, and the one that ends it."""
    commands = [["top"], ["jobs"], ["job", str(job), "--history"], ["providers"]]
    lines = [shlex.join(leadline.command(*command)) for command in commands]
    lines.append(f"kill {world['daemon_pid']} {world['pid']}")
    Console(highlight=False, soft_wrap=True).print("\nThe daemon is up. To paste:\n  " + "\n  ".join(lines))


if __name__ == "__main__":
    sys.exit(main())
