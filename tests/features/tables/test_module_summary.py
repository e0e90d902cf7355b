"""A module read back in sentences."""

import pytest

from leadline.features.tables.module_summary import summary
from leadline.features.tables.provider_modules import preset, preset_names


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_be_read_back(name: str) -> None:
    told = dict(summary(preset(name)))
    assert {"calls", "key", "costs", "limit", "too fast", "used up", "lost call"} <= set(told)
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
