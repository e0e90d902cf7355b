"""What the JSON of an answer must be like, by a schema that a tenant wrote."""

from typing import Any

import pytest

from leadline.features.tables.answer_schemas import check_schema, fault_in
from leadline.features.tables.columns import BadValueError, Column, ColumnType
from leadline.features.tables.prompts import conversation, read_answer, repair
from leadline_protocol.errors import ErrorCode, Refused

FACTS = Column("facts", ColumnType.JSON)
SCORE = Column("score", ColumnType.NUMBER)
PEOPLE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "people": {
            "type": "array",
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
                "required": ["name"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["people"],
}


def test_a_document_that_a_schema_takes_is_kept_as_it_is() -> None:
    check_schema(PEOPLE, "params.schemas.facts")
    answer = 'Here you are:\n```json\n{"people": [{"name": "Ada", "age": 36}]}\n```'
    assert read_answer(answer, [FACTS], {"facts": PEOPLE}) == {"facts": {"people": [{"name": "Ada", "age": 36}]}}


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({}, "'people' is a required property"),
        ({"people": [{"name": "Ada", "age": -1}]}, "people[0].age: -1 is less than the minimum of 0"),
        ({"people": [{"name": "Ada", "cat": True}]}, "people[0]: Additional properties are not allowed"),
        ({"people": [{"name": 7}]}, "people[0].name: 7 is not of type 'string'"),
        ([], "[] is not of type 'object'"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(document: object, fault: str) -> None:
    told = fault_in(document, PEOPLE)
    assert told is not None
    assert told.startswith(fault)


def test_among_several_columns_each_has_a_schema_of_its_own() -> None:
    schemas = {"facts": PEOPLE}
    into = [SCORE, FACTS]
    assert read_answer('{"score": 7, "facts": null}', into, schemas) == {"score": 7, "facts": None}
    with pytest.raises(BadValueError, match=r"^facts: 'people' is a required property"):
        read_answer('{"score": 7, "facts": {}}', into, schemas)


def test_a_model_is_told_the_schema_and_told_again_what_was_wrong() -> None:
    sent = conversation("Who works there?", [FACTS], {"facts": PEOPLE})
    assert '"maxItems":3' in sent[0].content
    again = repair(sent, "[]", "[] is not of type 'object'", [FACTS], {"facts": PEOPLE})
    assert "[] is not of type 'object'" in again[-1].content
    assert '"maxItems":3' in again[-1].content


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "objekt"}, "s.type"),
        ({"properties": {"a": {"minimum": "x"}}}, "s.properties.a.minimum"),
        ({"pattern": "(a+)+$"}, "s.pattern"),
        ({"items": {"anyOf": [{}, {"pattern": "(a+)+$"}]}}, "s.items.anyOf[1].pattern"),
        ({"properties": {"a": {"patternProperties": {"(a+)+$": {}}}}}, "s.properties.a.patternProperties"),
        ({"uniqueItems": True}, "s.uniqueItems"),
        ({"format": "email"}, "s.format"),
        ({"$ref": "https://elsewhere.example/schema"}, "s.$ref"),
        ({"$ref": "#"}, "s.$ref"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "s.$schema"),
        ({"additionalProperties": {"not": {"format": "email"}}}, "s.additionalProperties.not.format"),
        ({"description": "x" * 8_000}, "s"),
    ],
)
def test_what_cannot_be_checked_safely_is_refused_with_its_place(schema: dict[str, Any], place: str) -> None:
    with pytest.raises(Refused) as refused:
        check_schema(schema, "s")
    assert (refused.value.code, refused.value.at) == (ErrorCode.BAD_REQUEST, place)


def test_a_property_may_be_called_like_a_word_that_is_not_taken() -> None:
    check_schema({"properties": {"pattern": {"type": "string"}, "$ref": {}}}, "s")


def test_an_answer_without_end_is_not_looked_at() -> None:
    with pytest.raises(BadValueError, match="longer than 100,000 characters"):
        read_answer("[" + "1," * 100_000 + "1]", [FACTS], {"facts": {"items": {"type": "number"}}})
