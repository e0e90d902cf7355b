"""schema.json says what the types say, and agrees with the codec about what a request is."""

import json
from typing import Any

import jsonschema
import pytest

from leadline_protocol import schema
from leadline_protocol.codec import LineFault, RequestDecoder
from leadline_protocol.messages import CONTROL_OPERATIONS, SUBMISSION_TYPES, SUBMIT_OPERATIONS


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(schema.PATH.read_text(encoding="utf-8"))
    return document


def test_the_file_is_what_the_types_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main(["--check"]) == 0, capsys.readouterr().err


def test_a_file_that_is_out_of_date_is_named(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schema, "PATH", tmp_path / "schema.json")
    assert schema.main(["--check"]) == 1
    assert "schema.json is out of date" in capsys.readouterr().err
    assert schema.main([]) == 0
    assert schema.main(["--check"]) == 0


def test_the_file_is_a_schema_of_2020_12(written: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(written)


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "noop", "teamspace": "a"},
        {"kind": "noop", "teamspace": "a", "ref": 7, "delay": 3},
        {"kind": "noop"},
        {"kind": "noop", "teamspace": "", "ref": []},
        {"kind": "noop", "teamspace": "a", "colour": "red"},
        {"kind": "formula", "teamspace": "a", "table": "t", "into": {"x": ["a", "b"]}, "expression": "1"},
        {"kind": "formula", "teamspace": "a", "table": "t", "into": {}, "expression": "1"},
        {"kind": "chain", "teamspace": "a", "steps": [{"kind": "export", "table": "t", "select_leads": "on_start"}]},
        {"kind": "chain", "teamspace": "a", "steps": [{"kind": "export", "table": "t", "select_leads": "on_submit"}]},
        {"op": "ping"},
        {"op": "cancel", "job": 4, "as": {"person": "x", "role": "admin"}},
        {"op": "cancel", "job": 0},
    ],
)
@pytest.mark.parametrize("socket", ["SubmitRequest", "ControlRequest"])
def test_the_schema_and_the_codec_agree(line: dict[str, Any], socket: str, written: dict[str, Any]) -> None:
    operations = SUBMIT_OPERATIONS if socket == "SubmitRequest" else CONTROL_OPERATIONS
    taken = not isinstance(RequestDecoder(SUBMISSION_TYPES, operations).decode(json.dumps(line).encode()), LineFault)
    validator = jsonschema.Draft202012Validator({"$ref": f"#/$defs/{socket}", "$defs": written["$defs"]})
    assert validator.is_valid(line) == taken


def test_every_operation_and_message_is_described(written: dict[str, Any]) -> None:
    undescribed = [name for name, definition in written["$defs"].items() if not definition.get("description")]
    assert undescribed == []
