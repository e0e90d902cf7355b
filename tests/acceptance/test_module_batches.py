"""Python modules that take a batch of leads: each lead has its own result, and nobody fails for another."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import LeadReason
from tests.acceptance import python_package
from tests.acceptance.stage import Stage, people, stage

LEADS: Final = 100
BATCH: Final = 40
BLAMED: Final = str(people(LEADS)[4]["email"])

SOURCE: Final = f"""
import os
from pathlib import Path
from leadline_protocol.modules import Module, Rejected

COMMON = {{"version": "1.0", "inputs": ("email",), "outputs": {{"company": "text"}}, "batch": {BATCH}}}
COMMON["settings"] = {{"book": ""}}


def noted(leads, context):
    with Path(context.settings["book"]).open("a") as book:
        book.write(",".join(lead["email"] for lead in leads) + "\\n")


def look_up(leads, context):
    noted(leads, context)
    said = {{{BLAMED!r}: Rejected("not this one"), "person00007@example.com": None}}
    return [said.get(lead["email"], {{"company": lead["email"]}}) for lead in leads]


def crash(leads, context):
    noted(leads, context)
    if any(lead["email"] == {BLAMED!r} for lead in leads):
        os._exit(4)
    return [{{"company": lead["email"]}} for lead in leads]


async def forget(leads, context):
    return []


each_its_own = Module(run=look_up, **COMMON)
crashes = Module(run=crash, **COMMON)
forgets = Module(run=forget, **COMMON)
"""
MODULES: Final = re.findall(r"^(\w+) = Module\(", SOURCE, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modules")
    python_package.install(folder, "batches", SOURCE, *MODULES)
    return folder


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Stage]:
    books = [f"[modules.{name}]\nsettings.book = {str(folder / name)!r}" for name in MODULES]
    with stage("\n".join([f"[files]\nmodule_folders = [{str(folder)!r}]", *books])) as running:
        yield running


def run(daemon: Stage, module: str, *, leads: int = LEADS) -> wire.JobView:
    daemon.table(module, "people", people(leads))
    submission = wire.Enrich(teamspace=module, table="people", module=module, into={"company": "text"})
    return daemon.ended(daemon.submit(submission).job)


def batches(folder: Path, module: str) -> list[list[str]]:
    """What the module was called with, as it wrote down itself."""
    return [line.split(",") for line in (folder / module).read_text().splitlines()]


def test_a_batch_is_given_together_and_each_lead_has_a_result_of_its_own(daemon: Stage, folder: Path) -> None:
    view = run(daemon, "each_its_own")
    assert (view.state, view.counts.done, view.counts.skipped, view.counts.failed) == ("partial", LEADS - 2, 1, 1)
    assert daemon.lead_reasons(view.job) == {
        BLAMED: LeadReason.REFUSED_BY_PROVIDER,
        "person00007@example.com": LeadReason.NOT_FOUND,
    }
    ((detail,),) = daemon.query("SELECT detail FROM lead_result WHERE job = $1 AND state = 'failed'", view.job)
    assert "not this one" in detail
    given = batches(folder, "each_its_own")
    assert sorted(map(len, given)) == [20, BATCH, BATCH]
    assert Counter(lead for batch in given for lead in batch) == dict.fromkeys(
        (str(each["email"]) for each in people(LEADS)), 1
    )
    rows = daemon.rows("each_its_own", "people")
    assert all(row["company"] in (row["email"], "") for row in rows)


def test_of_a_batch_that_ends_its_process_only_the_lead_to_blame_fails(daemon: Stage, folder: Path) -> None:
    view = run(daemon, "crashes")
    assert (view.state, view.counts.done, view.counts.failed) == ("partial", LEADS - 1, 1), view
    assert daemon.lead_reasons(view.job) == {BLAMED: LeadReason.SERVER_ERROR}
    tried = [len(batch) for batch in batches(folder, "crashes") if BLAMED in batch]
    assert tried[:2] == [BATCH, BATCH // 2]
    assert tried[-3:] == [1, 1, 1], "in halves, and at last three times alone"


def test_a_batch_without_a_result_for_each_lead_has_failed(daemon: Stage) -> None:
    view = run(daemon, "forgets", leads=2)
    assert (view.counts.done, view.counts.failed) == (0, 2)
    details = [detail for (detail,) in daemon.query("SELECT detail FROM lead_result WHERE job = $1", view.job)]
    assert all("0 results for 1 leads" in detail for detail in details)
