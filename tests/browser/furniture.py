"""Something of everything in a teamspace, so that every page has something to show.

All of it that is free text carries the teamspace's mark, which must be read nowhere else, and a piece of HTML, which
must be read as it stands.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    Batch,
    BatchJobs,
    Cancel,
    Chain,
    Enrich,
    Export,
    ExportStep,
    FollowUps,
    Formula,
    FormulaStep,
    Noop,
    Schedules,
    Submission,
    Upload,
)
from leadline_protocol.schedules import Cron, Daily
from tests.acceptance.batch_jobs import ENABLED, zipped
from tests.acceptance.stage import provider
from tests.browser.house import House, house
from tests.daemon.outreach import outreach
from tests.daemon.running import Place
from tests.world.behaviours import Enrichment, Fault, Faulty, hang
from tests.world.servers import serving

LEADS: Final = 30
HTML: Final = '<b onclick="1">&amp;</b>'
UNBROKEN: Final = "donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtengesellschaft"
"""A word that is wider than a phone."""

PATIENT: Final = """
[queue]
warn_after_seconds = 86_400
stall_after_seconds = 172_800
"""
"""What hangs is left alone."""

MAIN: Final = "def main(event):\n    print(event['body'])\n    return {'rows': 3}\n"


def mark_of(teamspace: str) -> str:
    """Stands in all that a teamspace may write freely."""
    return f"canary-of-{teamspace}"


def prospects(teamspace: str) -> str:
    """A file of leads: three rows of it are none."""
    mark = mark_of(teamspace)
    notes = {1: HTML.replace('"', '""'), 2: UNBROKEN}
    good = [f'ann{n}@{mark}.example,{n % 10},"{mark} {notes.get(n, "")}"' for n in range(LEADS)]
    bad = [f"nobody,1,{mark}", f"ann0@{mark}.example,1,{mark} again", f"no,1,{UNBROKEN}"]
    return "\n".join(["email,score,note", *good, *bad])


@asynccontextmanager
async def world() -> AsyncIterator[str]:
    """A configuration by which nothing happens by itself, with a provider that answers, and one that is silent."""
    silent = Faulty(Enrichment(), [Fault(hang(), times=1_000)])
    async with serving(Enrichment()) as answers, serving(silent) as hangs:
        patient = ["call_timeout_seconds = 600"]
        providers = provider("company", answers) + provider("silent", hangs, settings=patient)
        yield providers + ENABLED + PATIENT + "\n".join(outreach())


class Furnisher:
    """Puts things into one teamspace."""

    def __init__(self, home: House, teamspace: str) -> None:
        self._incoming = home.place.state / "incoming"
        self._client = home.client
        self._teamspace = teamspace
        self._text = f"{mark_of(teamspace)} {HTML} {UNBROKEN}"
        self.found: dict[str, str] = {"teamspace": teamspace, "table": "prospects"}
        """What stands for the names in addresses."""

    async def _submit(self, name: str, submission: Submission) -> JobId:
        job = (await self._client.submit(submission)).job
        self.found[name] = str(job)
        return job

    async def _ended(self, name: str, submission: Submission) -> None:
        await self._client.wait(await self._submit(name, submission))

    async def tables(self) -> None:
        """Jobs that have ended in each way, one that runs for ever, and one behind it."""
        teamspace = self._teamspace
        of_all: dict[str, Any] = {"teamspace": teamspace, "table": "prospects"}
        (self._incoming / f"{teamspace}.csv").write_text(prospects(teamspace))
        await self._ended("upload", Upload(**of_all, path=f"{teamspace}.csv", ref=self._text))
        await self._ended("enrich", Enrich(**of_all, module="company", into={"company": "text"}))
        await self._ended("formula", Formula(**of_all, into={"share": "number"}, expression="10 / score"))
        await self._ended("export", Export(**of_all, where="score > 5"))
        doubled = FormulaStep(table="prospects", into={"twice": "number"}, expression="2 * score")
        await self._ended("chain", Chain(teamspace=teamspace, steps=[doubled, ExportStep(table="prospects")]))
        await self._submit("running", Enrich(**of_all, module="silent", into={"industry": "text"}))
        await self._submit("queued", Formula(**of_all, into={"half": "number"}, expression="score / 2"))
        await self._submit("delayed", Noop(teamspace=teamspace, delay=86_400))
        cancelled = await self._submit("cancelled", Noop(teamspace=teamspace, delay=86_400))
        await self._client.call(Cancel(job=cancelled))

    async def batch(self) -> None:
        """A batch job with a schedule and a run, and one that has nothing yet."""
        of_it: dict[str, Any] = {"teamspace": self._teamspace, "name": "nightly"}
        settings: dict[str, str | None] = {"note": self._text}
        await self._client.call(BatchJobs(action="create", **of_it, api=True, settings=settings))
        (self._incoming / f"{self._teamspace}.zip").write_bytes(zipped({"main.py": MAIN}))
        await self._client.call(BatchJobs(action="upload", **of_it, path=f"{self._teamspace}.zip"))
        await self._client.call(BatchJobs(action="publish", **of_it))
        submission = {"kind": "batch", "batch_job": "nightly"}
        timetable = Daily("02:30", "Europe/Berlin")
        await self._client.call(Schedules(action="add", **of_it, timetable=timetable, submission=submission))
        await self._ended("run", Batch(teamspace=self._teamspace, batch_job="nightly", body=self._text))
        await self._client.call(BatchJobs(action="create", teamspace=self._teamspace, name="draft"))

    async def calendar(self) -> None:
        """Something that fires often on one day, not today."""
        often = Cron(f"0 * * * {(datetime.now(UTC).isoweekday() + 3) % 7}", "UTC")
        of_it: dict[str, Any] = {"teamspace": self._teamspace, "name": "hourly", "timetable": often}
        await self._client.call(Schedules(action="add", **of_it, submission={"kind": "noop"}))

    async def outreach(self) -> None:
        """An associate with a script, somebody who is written to, and a domain that is not."""
        domain = f"{mark_of(self._teamspace)}.example"
        contact = {"type": "follow_up", "associate": "jo", "address": f"ann@{domain}", "script": "hello"}
        steps = [{"subject": mark_of(self._teamspace), "text": self._text}]
        rows: list[dict[str, Any]] = [
            {"type": "associate", "name": "jo", "address": f"jo@{domain}", "signature": self._text},
            {"type": "script", "name": "hello", "keyword": "Follow Up", "steps": steps},
            {**contact, "fields": {"n": self._text}},
            {"type": "suppression", "domain": f"gone.{domain}", "detail": self._text},
        ]
        reply = await self._client.call(FollowUps(action="import", teamspace=self._teamspace, rows=rows))
        assert reply.imported is not None
        assert reply.imported.faults == []
        listed = await self._client.call(FollowUps(action="follow_ups", teamspace=self._teamspace))
        self.found["follow_up"] = str(listed.follow_ups[0].follow_up)


@asynccontextmanager
async def furnished(place: Place, port: int, *teamspaces: str) -> AsyncIterator[tuple[House, Mapping[str, str]]]:
    """A daemon with something of everything in each teamspace, and what stands for the names in addresses in the first.

    Nothing happens there any more: what runs hangs.
    """
    async with world() as lines, house(place, port, lines) as home:
        furnishers = [Furnisher(home, teamspace) for teamspace in teamspaces]
        for furnisher in furnishers:
            await furnisher.tables()
            await furnisher.batch()
            await furnisher.calendar()
            await furnisher.outreach()
        yield home, furnishers[0].found
        for furnisher in furnishers:
            await home.client.call(Cancel(job=JobId(int(furnisher.found["running"])), force=True))
