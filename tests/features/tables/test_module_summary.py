"""A module read back in sentences."""

from pathlib import Path

import pytest

from leadline.features.tables.module_summary import summary
from leadline.features.tables.provider_modules import preset, preset_names, read_module


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_be_read_back(name: str) -> None:
    told = dict(summary(preset(name)))
    assert {"calls", "key", "costs", "limit", "too fast", "used up", "lost call", "source"} <= set(told)
    assert all(told.values())


def test_what_a_status_means_at_a_provider_is_told_once() -> None:
    told = dict(summary(preset("hunter")))
    assert told["too fast"] == "status 403"
    assert told["used up"] == "status 429, or status 402"


def test_all_limits_and_costs_are_told() -> None:
    told = list(summary(preset("snov")))
    assert [text for about, text in told if about == "limit"] == ["60 requests in any 60 s", "15 leads in any 60 s"]
    assert dict(told)["costs"] == "1 request, 1 lead for a lead; 1 request for each poll"
    prospeo = dict(summary(preset("prospeo")))
    assert prospeo["costs"] == "1 record, 1 lead for a lead; calls that fail are given back"


def test_an_order_of_many_is_told_as_such() -> None:
    text = (Path(__file__).parents[2] / "acceptance" / "modules" / "bulk.toml").read_text()
    told = dict(summary(read_module(text, file="bulk.toml")))
    assert told["orders"] == "up to 100 leads at a time; a lead's result is the one whose id is {{record}}"
    assert told["costs"] == (
        "1 request, 1 job for an order, 1 record, 1 lead for each lead in it; 1 request for each poll;"
        " 1 request for each page of results"
    )
    assert told["calls"].endswith("for 600 s; then GET http://127.0.0.1/jobs/{{task}}/results, up to 100 pages")
