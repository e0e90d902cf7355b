"""PROTOCOL.md is what the codec does: every example is read by it, and nothing that may be said is left out."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from leadline_protocol import codec
from leadline_protocol.codec import ClientConnection, LineFault, RequestDecoder, encode
from leadline_protocol.errors import ERROR_CODES, JOB_REASONS, LEAD_REASONS, ErrorCode
from leadline_protocol.messages import (
    CONTROL_OPERATIONS,
    REPLY_TYPES,
    SUBMISSION_TYPES,
    Receipt,
    Refusal,
    Submission,
)

TEXT = (Path(__file__).parents[2] / "protocol" / "PROTOCOL.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```jsonl\n(.*?)```", TEXT, re.DOTALL)
decoder = RequestDecoder(SUBMISSION_TYPES, CONTROL_OPERATIONS)


def sections(level: str, text: str = TEXT) -> dict[str, str]:
    parts = re.split(rf"^{level} (.+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def lines(example: str) -> Iterator[tuple[str, bytes]]:
    for line in example.splitlines():
        assert line[:2] in {"→ ", "← "}, line
        yield line[0], line[2:].encode()


def said() -> Iterator[object]:
    """Everything that the examples say, as types."""
    for example in EXAMPLES:
        connection = ClientConnection()
        for who, line in lines(example):
            if who == "←":
                yield from connection.receive(line + b"\n")
            else:
                request = decoder.decode(line)
                connection.send([{}] if isinstance(request, LineFault) else [request])
                yield request


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_conversation_that_can_be_held(example: str) -> None:
    connection = ClientConnection()
    expected: list[ErrorCode | None] = []
    for who, line in lines(example):
        if who == "→":
            request = decoder.decode(line)
            expected.append(request.code if isinstance(request, LineFault) else None)
            connection.send([{}] if isinstance(request, LineFault) else [request])
            continue
        (message,) = connection.receive(line + b"\n")
        assert json.loads(encode([message])) == json.loads(line), "said otherwise than the codec would say it"
        if isinstance(message, Refusal) and (code := expected[message.line - 1]) is not None:
            assert message.error.code is code


def test_what_the_examples_refuse_as_unreadable_is_refused_in_these_words() -> None:
    for example in EXAMPLES:
        requests = [line for who, line in lines(example) if who == "→"]
        replies = [json.loads(line) for who, line in lines(example) if who == "←"]
        for reply in replies:
            if reply.get("ok") is False:
                fault = decoder.decode(requests[reply["line"] - 1])
                if isinstance(fault, LineFault):
                    assert json.loads(encode([fault.refusal(reply["line"])])) == reply


def test_every_kind_operation_reply_and_notice_has_an_example() -> None:
    shown = {type(message) for message in said()}
    wanted = {*SUBMISSION_TYPES, *CONTROL_OPERATIONS, *REPLY_TYPES.values(), *codec._NOTICES.values(), Receipt, Refusal}
    assert {each.__name__ for each in wanted - shown} == set()


def test_every_kind_and_operation_has_a_section() -> None:
    for part, types in (("Submissions", SUBMISSION_TYPES), ("Operations", CONTROL_OPERATIONS)):
        words = {str(each.__struct_config__.tag) for each in types}
        headings = {word for heading in sections("###", sections("##")[part]) for word in heading.split(" and ")}
        assert words == headings, part


def test_every_field_of_a_submission_is_in_a_table() -> None:
    kinds = sections("###", sections("##")["Submissions"])
    for kind in SUBMISSION_TYPES:
        own = kinds[str(kind.__struct_config__.tag)]
        for field in kind.__struct_fields__:
            if field not in {"op", *Submission.__struct_fields__}:
                assert f"`{field}`" in own, f"{kind.__name__}.{field}"
    for field in Submission.__struct_fields__:
        assert f"| `{field}` |" in sections("##")["Submissions"] or field == "op"


def test_every_section_names_only_codes_that_exist_and_every_code_is_explained_where_it_comes_up() -> None:
    lists = re.findall(r"[Rr]efused\s(?:besides\s)?with((?:,?\s`\w+`)+)", TEXT)
    named = {code for each in lists for code in re.findall(r"`(\w+)`", each)}
    assert len(lists) > 15
    assert named - set(ERROR_CODES) == set()
    before_the_lists = TEXT[: TEXT.index("## The three closed lists")]
    unmentioned = {code for code in ERROR_CODES if f"`{code.value}`" not in before_the_lists}
    assert unmentioned - {ErrorCode.BAD_JSON} == set()


@pytest.mark.parametrize(
    ("heading", "meanings"),
    [("Request error codes", ERROR_CODES), ("Job reasons", JOB_REASONS), ("Lead reasons", LEAD_REASONS)],
)
def test_the_lists_are_those_of_the_code(heading: str, meanings: dict[str, str]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", sections("###")[heading], re.MULTILINE)
    wanted = [(str(word), meaning) for word, meaning in meanings.items()]
    assert rows == wanted, "\n".join(f"| `{word}` | {meaning} |" for word, meaning in wanted)


def test_the_limits_are_those_of_the_codec() -> None:
    limits = sections("##")["Framing"]
    assert f"{codec.LINE_BYTES_MAX // 1024} KiB" in limits
    assert f"| nesting | {codec.DEPTH_MAX}," in limits
    assert f"up to {codec.REF_CHARACTERS_MAX} characters" in limits
