"""A dry run on the command line: a table for people, the daemon's own answer for programs."""

import json
from pathlib import Path

from leadline_protocol.errors import ErrorCode, LeadReason
from leadline_protocol.ids import LeadId
from leadline_protocol.messages import Chain, Formula, JobWarning, LeadTrial, LimitNeed, Preview, StepPreview
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import FakeDaemon, refusal

WINDOW = LimitNeed(shape="window", unit="lead", amount=15, per_seconds=60, needed=300)

CHAIN = Preview(
    line=0,
    steps=[
        StepPreview(kind="upload", table="people", size_bytes=100),
        StepPreview(kind="formula", table="people"),
        StepPreview(
            kind="enrich",
            table="others",
            leads=310,
            provider="snov",
            asked=300,
            units={"request": 300, "lead": 300},
            limits=[WINDOW],
            seconds_at_least=1140,
            guard="hold",
            warnings=[JobWarning(code="no_leads_matched", message="0 leads matched")],
        ),
    ],
    seconds_at_least=1140,
)


def test_a_chain_is_shown_step_by_step(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.on(Chain, lambda _: CHAIN)
    file = tmp_path / "chain.toml"
    file.write_text('teamspace = "acme"\n[[steps]]\nkind = "noop"\n')
    assert leadline("chain", "run", file, "--dry-run").out.splitlines() == [
        "STEP  KIND     TABLE   LEADS                      ASKED        TAKES                    AT LEAST",
        "   1  upload   people",
        "   2  formula  people  known when its turn comes",
        "   3  enrich   others  310 (its guard holds it)   300 of snov  300 requests, 300 leads    19 min",
        "Step 3: snov allows 15 leads in any 60 s.",
        "Step 3: Warning: 0 leads matched",
        "",
        "Nothing was submitted. It would take 19 min at least.",
    ]
    assert [request.dry_run for request in daemon.requests if isinstance(request, Chain)] == [True]
    (line,) = leadline("chain", "run", file, "--dry-run", "--json").out.splitlines()
    assert json.loads(line)["steps"][2]["asked"] == 300


def test_lines_are_tried_one_by_one_and_a_refused_one_fails(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: Path
) -> None:
    trials = [
        LeadTrial(lead=LeadId(1), before="old", after="x" * 50),
        LeadTrial(lead=LeadId(12), after=None, reason=LeadReason.DIVISION_BY_ZERO),
    ]
    good = Preview(line=0, steps=[StepPreview(kind="formula", table="people", leads=2, trials=trials)])
    bad = refusal(ErrorCode.BAD_EXPRESSION, "no such column", at="where:1")
    daemon.on(Formula, lambda asked: bad if asked.where else good)
    line = {"kind": "formula", "teamspace": "acme", "table": "people", "into": {"a": "text"}, "expression": "b"}
    file = tmp_path / "jobs.jsonl"
    file.write_text(json.dumps(line) + "\n\n" + json.dumps(line | {"where": "nope"}) + "\n")
    result = leadline("submit", file, "--dry-run")
    assert result.status == 1
    assert result.err == "leadline: line 3: bad_expression: no such column (at where:1)\n"
    assert result.out.splitlines()[3:6] == [
        "Step 1 on the first 2 leads:",
        "LEAD  BEFORE  AFTER                                     FAILS",
        f"   1  old     {'x' * 39}…",
    ]
