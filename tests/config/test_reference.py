"""What people are told of the keys: all there are, what each means, and where a value comes from."""

import re
import tomllib
from pathlib import Path

from leadline.config import Config, describe, parse, reference, toml_text

FILE = Path("/etc/leadline/leadline.toml")


def test_every_key_has_a_sentence_and_a_type() -> None:
    for key in reference():
        assert key.sentence.endswith("."), key.name
        assert key.type, key.name


def test_a_duration_or_an_amount_has_a_unit() -> None:
    for key in reference():
        if re.search(r"_seconds?(_max)?$", key.name) and not key.name.endswith("_per_second"):
            assert key.unit == "s", key.name


def test_the_default_that_is_told_is_the_one_in_force() -> None:
    in_force = {setting.key.replace("plans.default", "plans.NAME"): setting.value for setting in describe(Config())}
    for key in reference():
        if key.name in in_force and key.name != "queue.capacity.batch":
            value = in_force[key.name]
            assert key.default == ("" if value is None else toml_text(value)), key.name


def test_every_setting_is_a_key_of_the_reference() -> None:
    config = parse(
        "[plans.gold]\nweight = 2\n[teamspaces.acme]\nplan = 'gold'\n[providers.snov]\npreset = 'snov'\n", FILE
    )
    known = {key.name for key in reference()}
    for setting in describe(config):
        assert re.sub(r"^(plans|teamspaces|providers)\.\w+", r"\1.NAME", setting.key) in known


def test_each_setting_tells_whether_it_stands_in_the_file() -> None:
    config = parse(
        """
        [queue]
        max_stall_kills = 2
        [plans.default]
        max_queued = 5
        [plans."north.east"]
        weight = 2
        [submit.allow]
        0 = ["*"]
        """,
        FILE,
    )
    sources = {setting.key: setting.source for setting in describe(config)}
    assert sources["queue.max_stall_kills"] == "toml", "also where it says what is built in"
    assert sources["queue.stall_after_seconds"] == "built-in"
    assert sources['plans."north.east".weight'] == "toml"
    assert sources['plans."north.east".max_queued'] == "toml", "taken from the plan default"
    assert sources['plans."north.east".slots.tables'] == "built-in"
    assert sources["submit.allow.0"] == "toml"


def test_what_is_described_can_be_read_again() -> None:
    config = parse(
        """
        [plans."north.east"]
        weight = 2.5
        [submit.allow]
        0 = ["*", "say \\"hi\\""]
        [providers.snov]
        preset = "snov"
        limits = [{shape = "window", amount = 15, per_seconds = 60, unit = "lead"}]
        settings = {model = "gpt"}
        """,
        FILE,
    )
    text = "\n".join(f"{each.key} = {toml_text(each.value)}" for each in describe(config) if each.value is not None)
    tomllib.loads(text)
    again = parse(text, FILE)
    assert [(each.key, each.value) for each in describe(again)] == [(each.key, each.value) for each in describe(config)]
