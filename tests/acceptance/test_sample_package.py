"""The example package does what its README says: built, put where the daemon looks, and used over a real service."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from leadline_protocol import messages as wire
from tests.acceptance.stage import Stage, World, stage
from tests.world import behaviours
from tests.world.behaviours import Now, Plan, Request
from tests.world.servers import Served

SAMPLE: Final = Path(__file__).parents[2] / "daemon" / "samples" / "phone_modules"
KEY: Final = "line-canary-key"

ROWS: Final = [
    {"email": "a@x.example", "phone": "030 / 90 18 20", "country": "DE"},
    {"email": "b@x.example", "phone": "0044 20 7946 0018", "country": ""},
    {"email": "c@x.example", "phone": "+1 (212) 555-0123", "country": "US"},
    {"email": "d@x.example", "phone": "06 1234567", "country": "IT"},
    {"email": "e@x.example", "phone": "call me", "country": "DE"},
    {"email": "f@x.example", "phone": "12345678", "country": "XX"},
    {"email": "g@x.example", "phone": "", "country": "DE"},
]
NUMBERS: Final = {"a": "+4930901820", "b": "+442079460018", "c": "+12125550123", "d": "+39061234567"}


class Lines:
    """A service that knows of lines: German ones are mobile, Italian ones wrong, others it has never heard of."""

    def respond(self, request: Request, now: Now) -> Plan:
        """What kind of line a number is, or many are."""
        if request.method == "POST":
            numbers: Any = request.document["numbers"]
            said = {"+49": {"type": "mobile", "carrier": "Example Mobil"}, "+39": {"error": "no such number"}}
            return behaviours.json_plan({each: said[each[:3]] for each in numbers if each[:3] in said})
        if request.query["number"].startswith("+49"):
            return behaviours.json_plan({"type": "mobile", "carrier": "Example Mobil"})
        return behaviours.json_plan({"error": "unknown number"}, status=404)


@pytest.fixture(scope="module")
def lines(world: World) -> Served:
    return world.serve(behaviours.Authorized(Lines(), KEY))


@pytest.fixture(scope="module")
def daemon(lines: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("modules")
    built = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    subprocess.run(build, cwd=SAMPLE, check=True, capture_output=True)
    (wheel,) = built.iterdir()
    with zipfile.ZipFile(wheel) as package:
        package.extractall(folder)  # which is what `pip install --target` does with it
    configuration = [
        f"[files]\nmodule_folders = [{str(folder)!r}]",
        *(
            f"[modules.{name}]\nsecret = {KEY!r}\nsettings = {{ url = {lines.url!r} }}"
            for name in ("phone_line", "phone_lines")
        ),
    ]
    with stage("\n".join(configuration)) as running:
        yield running


def test_numbers_are_normalised_and_then_looked_up_at_the_service(daemon: Stage, lines: Served) -> None:
    daemon.table("acme", "people", ROWS)
    first = wire.Enrich(
        teamspace="acme", table="people", module="phone", into={"phone_e164": "text", "phone_country": "text"}
    )
    view = daemon.ended(daemon.submit(first).job)
    assert (view.state, view.counts.done, view.counts.failed, view.counts.skipped) == ("partial", 4, 1, 2)
    reasons = daemon.lead_reasons(view.job)
    assert {email[0]: reason for email, reason in reasons.items()} == {
        "e": "not_found",
        "f": "refused_by_provider",
        "g": "missing_input",
    }
    rows = {row["email"][0]: row for row in daemon.rows("acme", "people")}
    numbers = {each: row["phone_e164"].removeprefix("'") for each, row in rows.items()}  # a spreadsheet would add
    assert {each: number for each, number in numbers.items() if number} == NUMBERS
    assert rows["b"]["phone_country"] == "GB", "by the number, where the column is empty"

    second = wire.Enrich(
        teamspace="acme", table="people", module="phone_line", into={"line_type": ["mobile", "voip"], "carrier": "text"}
    )
    view = daemon.ended(daemon.submit(second).job)
    assert (view.state, view.counts.done, view.counts.skipped) == ("completed", 1, 6)
    assert sorted(call.status or 0 for call in lines.calls) == [200, 404, 404, 404], "once for each number"
    rows = {row["email"][0]: row for row in daemon.rows("acme", "people")}
    assert (rows["a"]["line_type"], rows["a"]["carrier"]) == ("mobile", "Example Mobil")
    assert KEY not in daemon.log.read_text(encoding="utf-8")


def test_a_batch_is_looked_up_by_one_request_and_each_number_has_its_own_answer(daemon: Stage, lines: Served) -> None:
    daemon.table("batch", "people", [{"email": f"{each}@x.example", "phone_e164": n} for each, n in NUMBERS.items()])
    before = len(lines.calls)
    submission = wire.Enrich(teamspace="batch", table="people", module="phone_lines", into={"carrier": "text"})
    view = daemon.ended(daemon.submit(submission).job)
    assert (view.state, view.counts.done, view.counts.failed, view.counts.skipped) == ("partial", 1, 1, 2)
    assert daemon.lead_reasons(view.job) == {
        "b@x.example": "not_found",
        "c@x.example": "not_found",
        "d@x.example": "refused_by_provider",
    }
    assert [call.method for call in lines.calls[before:]] == ["POST"]
    assert [str(each.credits) for each in daemon.ask(wire.Job(job=view.job)).spent] == ["0.5"]
