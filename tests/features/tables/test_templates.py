"""`{{placeholder}}` templates: what parses, where it does not, and what they are filled with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.features.tables.templates import (
    TemplateFaultError,
    fill_json,
    fill_text,
    names_in,
    parse_json_template,
    parse_prompt,
    parse_template,
)
from leadline_protocol.errors import ErrorCode, Refused

COLUMNS = ["company", "score", "größe"]


def test_a_prompt_is_filled_with_the_cells_of_a_lead() -> None:
    prompt = parse_prompt("Score {{company}} ({{ SCORE }}): {{company}}!", COLUMNS, field="params.prompt")
    assert prompt.names == ("company", "score", "company")
    assert fill_text(prompt, {"company": "Acme", "score": 7.0}) == "Score Acme (7): Acme!"
    assert fill_text(prompt, {}) == "Score  (): !"


@pytest.mark.parametrize(
    ("text", "at", "code"),
    [
        ("Score {{company", "params.prompt:7", ErrorCode.BAD_EXPRESSION),
        ("Score {{}}", "params.prompt:7", ErrorCode.BAD_EXPRESSION),
        ("{{company}} and {{firm}}", "params.prompt:17", ErrorCode.UNKNOWN_COLUMN),
        ("é {{ {{company}} }}", "params.prompt:3", ErrorCode.BAD_EXPRESSION),
        ("  ", "params.prompt:1", ErrorCode.BAD_EXPRESSION),
        ("x" * 100_001, "params.prompt:100001", ErrorCode.BAD_EXPRESSION),
    ],
)
def test_a_faulty_prompt_is_refused_at_its_place(text: str, at: str, code: ErrorCode) -> None:
    with pytest.raises(Refused) as caught:
        parse_prompt(text, COLUMNS, field="params.prompt")
    assert (caught.value.at, caught.value.code) == (at, code)


def test_what_a_cell_holds_is_never_read_as_a_template() -> None:
    assert fill_text(parse_template("{{company}}", COLUMNS), {"company": "{{score}}"}) == "{{score}}"


def test_braces_that_open_nothing_are_text() -> None:
    assert fill_text(parse_template("a } b }} c { d", COLUMNS), {}) == "a } b }} c { d"


def test_a_lone_placeholder_in_json_becomes_the_value_itself() -> None:
    template = parse_json_template({"n": "{{score}}", "t": "{{score}}!", "l": ["{{company}}", 1, None, True]}, COLUMNS)
    assert fill_json(template, {"score": 7, "company": "Acme"}) == {"n": 7, "t": "7!", "l": ["Acme", 1, None, True]}
    assert names_in(template) == ("score", "company")


def test_a_key_without_a_value_is_left_out() -> None:
    template = parse_json_template({"a": "{{company}}", "b": None, "c": {"d": "{{score}}"}}, COLUMNS)
    assert fill_json(template, {}) == {"b": None, "c": {}}


def test_json_templates_know_the_same_names() -> None:
    with pytest.raises(TemplateFaultError):
        parse_json_template({"a": [{"b": "{{firm}}"}]}, COLUMNS)


@given(st.text(), st.dictionaries(st.sampled_from(COLUMNS), st.text()))
def test_a_text_without_placeholders_is_itself(text: str, cells: dict[str, str]) -> None:
    if "{{" in text:
        return
    assert fill_text(parse_template(text, COLUMNS), dict(cells)) == text
