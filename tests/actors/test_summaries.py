"""What a job does, in one line for people."""

from typing import Any

import msgspec
import pytest

from leadline.actors.summaries import summary

TABLE = {"table": "prospects"}


@pytest.mark.parametrize(
    ("submission", "total", "words"),
    [
        ({"kind": "upload", "path": "/srv/in/fair.csv", **TABLE}, None, "Read fair.csv into prospects"),
        ({"kind": "upload", "path": "fair.csv", **TABLE}, 5060, "Read 5,060 rows of fair.csv into prospects"),
        (
            {"kind": "enrich", "module": "ai_prompt", "into": {"score": "number"}, **TABLE},
            4850,
            "Fill score of 4,850 leads of prospects with ai_prompt",
        ),
        (
            {"kind": "enrich", "module": "snov", "into": {"email": "text", "role": ["a", "b"]}, **TABLE},
            1,
            "Fill email and role of 1 lead of prospects with snov",
        ),
        (
            {"kind": "enrich", "module": "snov", "into": dict.fromkeys("abcd", "text"), **TABLE},
            None,
            "Fill a, b, c and d of the leads of prospects with snov",
        ),
        (
            {"kind": "enrich", "module": "snov", "into": dict.fromkeys("abcde", "text"), **TABLE},
            0,
            "Fill a, b, c and 2 more columns of 0 leads of prospects with snov",
        ),
        (
            {"kind": "formula", "into": {"size": "number"}, "expression": "n", **TABLE},
            12,
            "Fill size of 12 leads of prospects by a formula",
        ),
        ({"kind": "export", **TABLE}, 849, "Write 849 leads of prospects to a file"),
        ({"kind": "batch", "batch_job": "nightly", "body": {"kind": 7, "table": []}}, 0, "Run nightly"),
        ({"kind": "outreach"}, None, "Queue the follow-ups that are due"),
        ({"kind": "outreach", "associate": "jo"}, None, "Queue the follow-ups of jo that are due"),
        ({"kind": "outreach", "do": "first_mails"}, None, "Begin with first mails"),
        ({"kind": "outreach", "do": "send", "follow_up": 7}, None, "Send the next mail of follow-up 7"),
        ({"kind": "noop"}, None, "Do nothing"),
        (
            {"kind": "chain", "steps": [{"kind": "upload", **TABLE}, {"kind": "enrich", **TABLE}]},
            9,
            "2 steps on prospects: upload and enrich",
        ),
        (
            {"kind": "chain", "steps": [{"kind": "upload", "table": name} for name in "abcdef"]},
            9,
            "6 steps: upload, upload, upload and 3 more steps",
        ),
        ({"kind": "of a later version", "steps": []}, None, None),
        ({"kind": "formula", "table": ["of a later version"]}, None, None),
    ],
)
def test_a_summary_says_what_is_done_to_what_and_to_how_much_of_it(
    submission: dict[str, Any], total: int | None, words: str | None
) -> None:
    assert summary(msgspec.json.encode(submission), total) == words


def test_nothing_is_said_where_nothing_is_kept() -> None:
    assert summary(b"", None) is None
