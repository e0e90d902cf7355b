"""The three closed lists: every word has its meaning, no other word passes, and no module says one by hand."""

import ast
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from leadline_protocol.errors import (
    ERROR_CODES,
    JOB_REASONS,
    LEAD_REASONS,
    RETRYABLE,
    ErrorCode,
    JobReason,
    LeadReason,
)
from leadline_protocol.messages import ENDED_STATES, Ended, Fault, JobView, ProviderView, State, Wait

ROOT = Path(__file__).parents[2]
SOURCES = [*(ROOT / "protocol").rglob("*.py"), *(ROOT / "daemon" / "leadline").rglob("*.py")]


@pytest.mark.parametrize(
    ("words", "meanings"), [(ErrorCode, ERROR_CODES), (JobReason, JOB_REASONS), (LeadReason, LEAD_REASONS)]
)
def test_every_word_has_its_meaning_in_a_sentence(words: type[StrEnum], meanings: dict[StrEnum, str]) -> None:
    assert list(meanings) == list(words)
    for word, meaning in meanings.items():
        assert word.value == word.name.lower()
        assert meaning.endswith(".")


def test_what_may_be_tried_again_is_a_code() -> None:
    assert set(ErrorCode) >= RETRYABLE


def test_no_other_code_can_be_read() -> None:
    assert msgspec.convert({"code": "busy", "message": ""}, Fault).code is ErrorCode.BUSY
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"code": "tired", "message": ""}, Fault)


@pytest.mark.parametrize("shape", [Wait, JobView, Ended, ProviderView])
def test_every_reason_of_a_job_is_a_word_of_the_list(shape: type[msgspec.Struct]) -> None:
    (field,) = (field for field in msgspec.structs.fields(shape) if field.name == "reason")
    assert JobReason in (field.type, *get_args(field.type))


def test_the_ends_of_a_job_are_states() -> None:
    assert set(get_args(State)) >= ENDED_STATES


def spoken(path: Path) -> Iterator[tuple[int, str]]:
    """Texts given by hand where a word of a list belongs: `code=` and `reason=` in calls."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id="JobWarning") | ast.Attribute(attr="JobWarning")):
                continue
            case ast.Call(keywords=keywords):
                for keyword in keywords:
                    match keyword:
                        case ast.keyword(arg="code" | "reason", value=ast.Constant(value=str(word))):
                            yield node.lineno, word


def test_no_module_gives_a_reason_or_a_code_but_by_the_list() -> None:
    assert SOURCES
    by_hand = [f"{path}:{line}: {word!r}" for path in SOURCES for line, word in spoken(path)]
    assert by_hand == []


def test_a_word_given_by_hand_would_be_found(tmp_path: Path) -> None:
    module = tmp_path / "m.py"
    module.write_text('Wait(reason="tired")\nJobWarning(code="free", message="")\nWait(reason=JobReason.LIMIT)\n')
    assert list(spoken(module)) == [(1, "tired")]
