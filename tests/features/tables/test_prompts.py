"""What a model is asked, and what its answer is worth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.features.tables.columns import BadValueError, Column, ColumnType
from leadline.features.tables.prompts import Message, conversation, estimated_tokens, read_answer, repair

SCORE = Column("score", ColumnType.NUMBER)
LINE = Column("line", ColumnType.TEXT)
FIT = Column("fit", ColumnType.BOOLEAN)
TIER = Column("tier", ColumnType.TEXT, ("A", "B"))


@pytest.mark.parametrize(
    "answer", ["7", " 7 ", "7.", "**7**", '"7"', "`7`", "```\n7\n```", '{"score": 7}', '{"rating": "7"}']
)
def test_a_number_is_found_in_what_models_put_round_it(answer: str) -> None:
    assert read_answer(answer, [SCORE]) == {"score": 7}


@pytest.mark.parametrize("answer", ["", "  ", "```\n```", "seven", "7 out of 10", "Score: 7", "7 8", "{}", "null"])
def test_what_is_not_surely_a_number_is_refused(answer: str) -> None:
    with pytest.raises(BadValueError):
        read_answer(answer, [SCORE])


@pytest.mark.parametrize("answer", ["null", " Null. ", "`null`", '"null"'])
@pytest.mark.parametrize("column", [SCORE, LINE, FIT, TIER])
def test_where_others_may_be_asked_a_model_may_say_that_it_does_not_know(answer: str, column: Column) -> None:
    assert read_answer(answer, [column], may_miss=True) == {column.name: None}
    told, _ = conversation("Who?", [column], may_miss=True)
    assert "null where you do not know" in told.content
    assert "null" not in conversation("Who?", [column])[0].content


def test_booleans_and_allowed_texts_are_read_alike() -> None:
    assert read_answer("Yes.", [FIT]) == {"fit": True}
    assert read_answer("**b**", [TIER]) == {"tier": "B"}
    assert read_answer('{"tier": "a"}', [TIER]) == {"tier": "A"}
    with pytest.raises(BadValueError, match="none of A, B"):
        read_answer("C", [TIER])


def test_a_text_is_kept_as_it_was_said() -> None:
    assert read_answer("  I saw your *new* depot. ", [LINE]) == {"line": "I saw your *new* depot."}
    assert read_answer('"I saw it."', [LINE]) == {"line": "I saw it."}
    assert read_answer('"A" and "B"', [LINE]) == {"line": '"A" and "B"'}
    assert read_answer("```text\nHi\nthere\n```", [LINE]) == {"line": "Hi\nthere"}
    assert read_answer("{curly}", [LINE]) == {"line": "{curly}"}


def test_several_columns_are_answered_by_one_object() -> None:
    into = [SCORE, LINE, TIER]
    answer = 'Sure!\n```json\n{"score": "7", "line": "Hi", "tier": null}\n```'
    assert read_answer(answer, into) == {"score": 7, "line": "Hi", "tier": None}
    for bad in ("7", '{"score": 7}', '{"score": "x", "line": "", "tier": "A"}', "[1, 2]"):
        with pytest.raises(BadValueError):
            read_answer(bad, into)


def test_a_json_column_takes_any_document() -> None:
    column = Column("facts", ColumnType.JSON)
    assert read_answer('Here: [{"a": 1}]', [column]) == {"facts": [{"a": 1}]}
    with pytest.raises(BadValueError):
        read_answer("no JSON here", [column])


def test_the_model_is_told_in_which_form_to_answer() -> None:
    assert conversation("Rate Acme", [SCORE]) == (
        Message("system", "Answer with one number in digits and nothing else."),
        Message("user", "Rate Acme"),
    )
    assert "exactly one of: A, B" in conversation("x", [TIER])[0].content
    assert (
        '"score": one number in digits, or null; "line": the text itself' in conversation("x", [SCORE, LINE])[0].content
    )


def test_a_bad_answer_is_sent_back_with_its_fault() -> None:
    sent = conversation("Rate Acme", [SCORE])
    again = repair(sent, "seven" * 1_000, "'seven' is not a number", [SCORE])
    assert again[:2] == sent
    assert again[2].role == "assistant"
    assert len(again[2].content) == 2_000
    assert again[3].content.startswith("This cannot be used: 'seven' is not a number. Answer with one number")


def test_tokens_are_estimated_on_the_safe_side() -> None:
    assert estimated_tokens([Message("user", "abc" * 100)], 50) == 100 + 4 + 50
    assert estimated_tokens([Message("user", "日本" * 100)], 0) >= 200


@given(st.text(), st.sampled_from([[SCORE], [LINE], [FIT], [TIER], [SCORE, LINE]]))
def test_any_answer_is_of_the_declared_types_or_refused(answer: str, into: list[Column]) -> None:
    try:
        cells = read_answer(answer, into)
    except BadValueError:
        return
    for column in into:
        assert column.accept(cells[column.name]) == cells[column.name]
