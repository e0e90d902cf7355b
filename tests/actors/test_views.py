"""Waits in words: a sentence for every reason, with the numbers that a person judges it by."""

import pytest

from leadline.actors.views import sentence
from leadline.core.model import Wait
from leadline_protocol.errors import JobReason

IT_WAITS = "it waits until a person resumes or cancels it."

Numbers = dict[str, int | float | str]


@pytest.mark.parametrize("reason", JobReason)
def test_every_reason_is_a_sentence(reason: JobReason) -> None:
    words = sentence(Wait(reason))
    assert words[0].isupper() or words.startswith("the provider")
    assert words.endswith(".")
    assert len(words.split()) > 3
    assert "None" not in words


@pytest.mark.parametrize(
    ("reason", "numbers", "words"),
    [
        (
            JobReason.APPROVAL,
            {"guard": "guard_more_than", "leads": 5000},
            f"5000 leads matched, which is more than its guard lets through: {IT_WAITS}",
        ),
        (
            JobReason.APPROVAL,
            {"guard": "guard_empty", "leads": 0},
            f"No lead matched: {IT_WAITS}",
        ),
        (
            JobReason.SLOT,
            {"slots": 2, "held": 2, "job": 41, "jobs": "41, 43"},
            "This teamspace runs 2 of 2 jobs of the kind that its plan allows (now 41, 43); it starts when one ends.",
        ),
        (
            JobReason.CAPACITY,
            {"in_hand": 8, "waking": 0, "capacity": 8},
            "The servers have all 8 jobs of this kind in hand that they may; it goes on as soon as one rests.",
        ),
        (
            JobReason.PAUSED,
            {"scope": "teamspace", "name": "acme"},
            "A person paused the teamspace acme; it goes on when that is resumed.",
        ),
        (JobReason.PAUSED, {"scope": "queue"}, "A person paused the queue; it goes on when that is resumed."),
        (
            JobReason.LIMIT,
            {"provider": "snov", "amount": 15, "per_seconds": 60, "unit": "lead", "charged": 12, "cost": 1},
            "Waiting for snov: 15 leads in any 60 s are shared by everyone, 12 of them are taken.",
        ),
        (
            JobReason.LIMIT,
            {"provider": "snov", "amount": 15, "per_seconds": 60, "unit": "lead", "charged": 15, "position": 3},
            (
                "Waiting for snov: 15 leads in any 60 s are shared by everyone, 15 of them are taken;"
                " this teamspace is third in line."
            ),
        ),
        (
            JobReason.LIMIT,
            {"provider": "snov", "amount": 5, "position": 21},
            "Waiting for snov: 5 calls at a time are shared by everyone; this teamspace is 21st in line.",
        ),
        (
            JobReason.LIMIT,
            {"provider": "snov@acme", "amount": 5, "position": 1},
            "Waiting for snov@acme: 5 calls at a time are allowed to this teamspace's own key.",
        ),
        (
            JobReason.LIMIT,
            {"provider": "snov", "pace_per_second": 0.5, "position": 2},
            "Waiting for snov: it is asked every 2 s; this teamspace is second in line.",
        ),
        (
            JobReason.LIMIT,
            {"provider": "snov", "pace_per_second": 1.0},
            "Waiting for snov: it is asked every 1 s.",
        ),
        (
            JobReason.LIMIT,
            {"provider": "snov", "pace_per_second": 20.0},
            "Waiting for snov: it is asked 20 times a second, evenly.",
        ),
    ],
)
def test_a_wait_says_its_numbers(reason: JobReason, numbers: Numbers, words: str) -> None:
    assert sentence(Wait(reason, None, numbers)) == words
