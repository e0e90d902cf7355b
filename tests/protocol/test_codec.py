"""The wire as a server meets it: lines cut anywhere, requests good and bad, and what an ordinary line costs."""

import json
import sys
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline_protocol import codec
from leadline_protocol.codec import (
    DEPTH_MAX,
    LINE_BYTES_MAX,
    PARTS_MAX,
    ClientConnection,
    Line,
    LineDecoder,
    LineFault,
    RequestDecoder,
    body_of,
    encode,
    resend_is_exact,
)
from leadline_protocol.errors import ErrorCode, ProtocolViolation, Refused
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    CONTROL_OPERATIONS,
    SUBMISSION_TYPES,
    SUBMIT_OPERATIONS,
    BatchJobs,
    Cancel,
    Chain,
    Done,
    Drain,
    Ended,
    Enrich,
    Fault,
    Follow,
    FormulaStep,
    Get,
    Jobs,
    Noop,
    Ping,
    Plans,
    Pong,
    Receipt,
    Refusal,
    Rerun,
    Submission,
)

on_submit_socket = RequestDecoder(SUBMISSION_TYPES, SUBMIT_OPERATIONS)
on_control_socket = RequestDecoder(SUBMISSION_TYPES, CONTROL_OPERATIONS)


def fault_of(line: bytes | str, decoder: RequestDecoder = on_control_socket) -> LineFault:
    fault = decoder.decode(line.encode() if isinstance(line, str) else line)
    assert isinstance(fault, LineFault), fault
    return fault


def enrich_with(params: str) -> bytes:
    head = b'{"kind":"enrich","teamspace":"a","table":"t","module":"m","into":{"x":"text"},"ref":7,"params":'
    return head + params.encode() + b"}"


def lines_of(pieces: list[bytes], line_bytes_max: int = LINE_BYTES_MAX) -> list[Line]:
    decoder = LineDecoder(line_bytes_max)
    lines = [line for piece in pieces for line in decoder.feed(piece)]
    return lines + decoder.end()


# Lines ---------------------------------------------------------------------------------------------------------------


def test_lines_are_numbered_from_one_and_blank_ones_count() -> None:
    assert lines_of([b"\n{}\r\n \t\r\n{1}\n"]) == [(2, b"{}\r"), (4, b"{1}")]


def test_a_last_line_without_a_newline_is_read_at_the_end() -> None:
    assert lines_of([b"a\nb"]) == [(1, b"a"), (2, b"b")]


def test_a_line_of_exactly_the_limit_is_taken_and_one_byte_more_is_too_large() -> None:
    ((number, line),) = lines_of([b"x" * LINE_BYTES_MAX + b"\n"])
    assert (number, len(line) if isinstance(line, bytes) else None) == (1, 262_144)
    ((_, fault),) = lines_of([b"x" * (LINE_BYTES_MAX + 1) + b"\n"])
    assert isinstance(fault, LineFault)
    assert fault.code is ErrorCode.TOO_LARGE


def test_an_endless_line_is_refused_once_skipped_to_its_newline_and_holds_no_memory() -> None:
    decoder = LineDecoder(100)
    found = [line for _ in range(1000) for line in decoder.feed(b"x" * 64)]
    assert [number for number, _ in found] == [1]
    assert decoder.held_bytes == 0
    assert decoder.feed(b"still the same line\n{}\n") == [(2, b"{}")]


@given(st.binary(max_size=400), st.data())
def test_every_way_to_cut_the_bytes_gives_the_same_lines(data: bytes, draw: st.DataObject) -> None:
    data = data.replace(b"\x01", b"\n").replace(b"\x02", b"xxxxxxxxxxxxxxxx")
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=20)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert lines_of(pieces, 24) == lines_of([data], 24)


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=30))
def test_each_line_has_the_number_an_editor_would_show(lines: list[bytes]) -> None:
    found = lines_of([b"".join(line + b"\n" for line in lines)], 24)
    expected = [n for n, line in enumerate(lines, 1) if line.strip() or len(line) > 24]
    assert [number for number, _ in found] == expected


# Requests ------------------------------------------------------------------------------------------------------------


def test_a_submission_need_not_name_its_op() -> None:
    expected = Noop(teamspace="a", ref="echoed back")
    assert on_submit_socket.decode(b'{"kind":"noop","teamspace":"a","ref":"echoed back"}') == expected
    named = on_submit_socket.decode(b'{"op":"submit","kind":"noop","teamspace":"a","ref":"echoed back"}')
    assert named == Noop(op="submit", teamspace="a", ref="echoed back")


def test_a_full_submission_is_read_whole() -> None:
    line = (
        b'{"kind":"enrich","teamspace":"acme","table":"prospects","module":"ai_prompt","into":{"score":"number",'
        b'"size":["small","large"]},"params":{"prompt":"Score 1-10: {{company}}","n":[1,{"a":null}]},'
        b'"where":"country = \'DE\'","select_leads":"on_submit","idempotency_key":"order-17","priority_seconds":5,'
        b'"run_at":"2026-12-01T10:00:00+01:00","notify":true,"more_than":{"count":9,"then":"hold"}}'
    )
    request = on_submit_socket.decode(line)
    assert isinstance(request, Enrich)
    assert request.run_at == datetime(2026, 12, 1, 9, tzinfo=UTC)
    assert request.into == {"score": "number", "size": ["small", "large"]}
    assert request.params == {"prompt": "Score 1-10: {{company}}", "n": [1, {"a": None}]}
    assert request.more_than is not None
    assert request.more_than.then == "hold"


def test_the_socket_decides_which_operations_there_are() -> None:
    assert on_control_socket.decode(b'{"op":"cancel","job":4}') == Cancel(job=4)  # type: ignore[arg-type]
    fault = fault_of(b'{"op":"cancel","job":4,"ref":"r"}', on_submit_socket)
    assert (fault.code, fault.at, fault.ref) == (ErrorCode.UNKNOWN_OP, "op", "r")


def test_kinds_can_be_added_by_handing_over_another_type() -> None:
    class Sleep(Submission, tag="sleep", frozen=True, kw_only=True):
        seconds: float

    line = b'{"kind":"sleep","teamspace":"a","seconds":0.5}'
    assert RequestDecoder((*SUBMISSION_TYPES, Sleep)).decode(line) == Sleep(teamspace="a", seconds=0.5)
    assert fault_of(line).code is ErrorCode.UNKNOWN_KIND


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b'{"kind":"noop","teamspace":"a"} {}',
        b'{"kind":"noop","teamspace":"\xff"}',
        '{"kind":"noop","teamspace":"a"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"kind":"noop","teamspace":"a"}',
        b'{"kind":"noop","teamspace":"a\x00b"}',
        rb'{"kind":"noop","teamspace":"a\u0000b"}',
        rb'{"kind":"noop","teamspace":"a\ud800"}',
        rb'{"kind":"noop","teamspace":"a\ud800\u0041"}',
        rb'{"kind":"noop","teamspace":"\udc00a"}',
        b'{"kind":"noop","teamspace":"a","priority_seconds":NaN}',
        b'{"kind":"noop","teamspace":"a","priority_seconds":Infinity}',
        b"[" * 200_000,
        b'{"a":' * 40_000,
    ],
)
def test_what_is_not_one_json_object_is_bad_json(line: bytes) -> None:
    assert fault_of(line).code is ErrorCode.BAD_JSON


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"noop","teamspace":"a","teamspace":"b"}',
        b'{"kind":"noop","teamspace":"a","teamspace" : "b"}',
        b'{"kind":"noop","teamspace":"a:b","teamspace"\t:"c"}',
        b'{"kind":"noop","teamspace":"a","ref":":","ref":"::"}',
        rb'{"kind":"noop","teamspace":"a","te\u0061mspace":"b"}',
        enrich_with('{"a":1,"a":2}'),
        enrich_with('[{"a":[{"b":1,"b":1}]}]'),
        enrich_with('{"a":{},"a":{}}'),
    ],
)
def test_a_key_that_stands_twice_in_one_object_is_bad_json(line: bytes) -> None:
    fault = fault_of(line)
    assert fault.code is ErrorCode.BAD_JSON
    assert "twice" in fault.message


def test_the_same_key_in_two_objects_is_no_duplicate() -> None:
    assert isinstance(on_submit_socket.decode(enrich_with('{"a":{"a":"a:b"},"b":[{"a":1},{"a":"\\" \\":"}]}')), Enrich)


def test_nesting_is_allowed_to_depth_32_and_no_deeper() -> None:
    allowed = DEPTH_MAX - 2
    assert isinstance(on_submit_socket.decode(enrich_with('{"a":' + "[" * allowed + "]" * allowed + "}")), Enrich)
    fault = fault_of(enrich_with('{"a":' + "[" * (allowed + 1) + "]" * (allowed + 1) + "}"))
    assert (fault.code, fault.ref) == (ErrorCode.BAD_JSON, 7)


def test_arrays_without_a_single_key_are_looked_at_too() -> None:
    class Odd(Submission, tag="odd", frozen=True, kw_only=True):
        anything: Any

    odd = RequestDecoder((Odd,))
    line = '{"kind":"odd","teamspace":"a","anything":' + "[" * DEPTH_MAX + "]" * DEPTH_MAX + "}"
    assert fault_of(line, odd).code is ErrorCode.BAD_JSON
    assert (
        fault_of('{"kind":"odd","teamspace":"a","anything":[9223372036854775808]}', odd).code is ErrorCode.BAD_REQUEST
    )


@pytest.mark.parametrize("number", ["9223372036854775808", "-9223372036854775809", "9" * 50, "9" * 5000, "1e999"])
def test_a_number_that_does_not_fit_is_refused_as_a_bad_request(number: str) -> None:
    assert fault_of(enrich_with('{"a":[' + number + "]}")).code is ErrorCode.BAD_REQUEST
    assert fault_of('{"kind":"noop","teamspace":"a","delay":' + number + "}").code is ErrorCode.BAD_REQUEST
    assert fault_of('{"op":"get","job":' + number + "}").code is ErrorCode.BAD_REQUEST


def test_the_greatest_integers_fit() -> None:
    request = on_submit_socket.decode(enrich_with('{"a":[9223372036854775807,-9223372036854775808]}'))
    assert isinstance(request, Enrich)
    assert request.params == {"a": [2**63 - 1, -(2**63)]}


@pytest.mark.parametrize(
    ("line", "code", "at"),
    [
        (b"{}", ErrorCode.BAD_REQUEST, "kind"),
        (b'{"kind":3}', ErrorCode.BAD_REQUEST, "kind"),
        (b'{"op":["ping"]}', ErrorCode.BAD_REQUEST, "op"),
        (b'{"op":"pingg"}', ErrorCode.UNKNOWN_OP, "op"),
        (b'{"kind":"letters","teamspace":"a"}', ErrorCode.UNKNOWN_KIND, "kind"),
        (b'{"kind":"noop"}', ErrorCode.BAD_REQUEST, "teamspace"),
        (b'{"kind":"noop","teamspace":""}', ErrorCode.BAD_REQUEST, "teamspace"),
        (b'{"kind":"noop","teamspace":7}', ErrorCode.BAD_REQUEST, "teamspace"),
        (b'{"kind":"noop","teamspace":"a","colour":1}', ErrorCode.BAD_REQUEST, "colour"),
        (b'{"kind":"noop","teamspace":"a","delay":-1}', ErrorCode.BAD_REQUEST, "delay"),
        (b'{"kind":"noop","teamspace":"a","run_at":"tomorrow"}', ErrorCode.BAD_REQUEST, "run_at"),
        (b'{"kind":"noop","teamspace":"a","run_at":"2026-12-01T09:00:00"}', ErrorCode.BAD_REQUEST, "run_at"),
        (b'{"kind":"noop","teamspace":"a","ref":[]}', ErrorCode.BAD_REQUEST, "ref"),
        (b'{"op":"jobs","as":{"person":"x","role":"boss"}}', ErrorCode.BAD_REQUEST, "as.role"),
        (b'{"op":"jobs","state":"waiting"}', ErrorCode.BAD_REQUEST, "state"),
        (b'{"op":"get","job":0}', ErrorCode.BAD_REQUEST, "job"),
        (b'{"op":"pause","scope":"job","name":"x"}', ErrorCode.BAD_REQUEST, None),
        (b'{"op":"pause","scope":"provider"}', ErrorCode.BAD_REQUEST, None),
        (b'{"op":"resume","scope":"queue","name":"x"}', ErrorCode.BAD_REQUEST, None),
        (b'{"op":"plans","teamspace":"a","key":"slots.tables"}', ErrorCode.BAD_REQUEST, None),
        (
            b'{"kind":"noop","teamspace":"a","delay":1,"run_at":"2026-12-01T09:00:00Z"}',
            ErrorCode.BAD_REQUEST,
            None,
        ),
    ],
)
def test_a_bad_request_says_where_it_is_bad(line: bytes, code: ErrorCode, at: str | None) -> None:
    fault = fault_of(line)
    assert (fault.code, fault.at) == (code, at)


@pytest.mark.parametrize(
    ("step", "code", "at"),
    [
        ('{"kind":"formula","table":"t","into":{"x":"text"},"expression":3}', ErrorCode.BAD_REQUEST, "expression"),
        ('{"kind":"formula","table":"t","into":{"x":"texts"},"expression":"1"}', ErrorCode.BAD_REQUEST, "into"),
        ('{"kind":"formula","table":"t","into":{"":"text"},"expression":"1"}', ErrorCode.BAD_REQUEST, "into"),
        (
            '{"kind":"formula","table":"t","into":{"x":"text","y":"text"},"expression":"1"}',
            ErrorCode.BAD_REQUEST,
            "into",
        ),
        ('{"kind":"export","table":"t","where":""}', ErrorCode.BAD_REQUEST, "where"),
        ('{"kind":"export","table":"t","select_leads":"on_submit"}', ErrorCode.BAD_REQUEST, "select_leads"),
        ('{"kind":"noop","teamspace":"a"}', ErrorCode.BAD_REQUEST, "teamspace"),
        ('{"kind":"noops"}', ErrorCode.UNKNOWN_KIND, "kind"),
        ('{"kind":"chain","steps":[]}', ErrorCode.UNKNOWN_KIND, "kind"),
        ("{}", ErrorCode.BAD_REQUEST, "kind"),
    ],
)
def test_a_fault_in_a_step_of_a_chain_names_the_step(step: str, code: ErrorCode, at: str) -> None:
    fault = fault_of('{"kind":"chain","teamspace":"a","ref":"c","steps":[{"kind":"noop"},' + step + "]}")
    assert (fault.code, fault.at, fault.ref) == (code, f"steps[1].{at}", "c")


def test_a_ref_that_may_not_be_repeated_is_not() -> None:
    assert fault_of('{"op":"x","ref":"' + "r" * 257 + '"}').ref is None
    assert fault_of('{"op":"x","ref":"' + "r" * 256 + '"}').ref == "r" * 256
    assert fault_of('{"op":"x","ref":true}').ref is None
    assert fault_of('{"op":"x","ref":18446744073709551616}').ref is None


def test_a_word_of_the_peer_is_shortened_in_the_message() -> None:
    assert len(fault_of('{"op":"' + "x" * 100_000 + '"}').message) < 400


@given(st.binary(max_size=300))
def test_no_bytes_whatever_crash_the_decoder(line: bytes) -> None:
    on_control_socket.decode(line)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    sorted({field for kind in (*SUBMISSION_TYPES, *CONTROL_OPERATIONS) for field in kind.__struct_encode_fields__})
)
WORDS = st.sampled_from([
    *(str(kind.__struct_config__.tag) for kind in (*SUBMISSION_TYPES, *CONTROL_OPERATIONS)), "submit", "a", "on_start"
])  # fmt: skip


@given(
    st.dictionaries(NAMES, WORDS | JSON_VALUES, max_size=6),
    st.none() | WORDS,
    st.none() | WORDS,
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_no_object_whatever_crashes_the_decoder_and_what_it_takes_comes_back_the_same(
    value: dict[str, Any], kind: str | None, op: str | None, ascii_only: bool, indent: int | None
) -> None:
    if kind is not None:
        value = {"teamspace": "a", **value, "kind": kind}
    if op is not None:
        value["op"] = op
    line = json.dumps(value, ensure_ascii=ascii_only, indent=indent).replace("\n", " ").encode(errors="surrogatepass")
    request = on_control_socket.decode(line)
    if not isinstance(request, LineFault):
        assert on_control_socket.decode(encode([request])) == request


@given(st.lists(st.tuples(st.sampled_from(["a", "b", ":", '"', " "]), JSON_VALUES | st.just('": "')), max_size=5))
def test_duplicates_are_found_exactly(pairs: list[tuple[str, object]]) -> None:
    space = pairs[0][0] if pairs and pairs[0][0] == " " else ""
    params = ",".join(f"{json.dumps(key)}{space}:{json.dumps(value)}" for key, value in pairs)
    request = on_submit_socket.decode(enrich_with("{" + params + "}"))
    duplicate = len({key for key, _ in pairs}) != len(pairs)
    assert (isinstance(request, LineFault) and "twice" in request.message) == duplicate or (
        isinstance(request, LineFault) and "twice" not in request.message  # a number or text that is refused first
    )


GOOD_LINES = [
    b'{"kind":"noop","teamspace":"acme","idempotency_key":"order-17","ref":"r","delay":1.5}',
    b'{"kind":"upload","teamspace":"a","table":"t","path":"in: 1.csv","key":["email"],"types":{"a":["x: y","b"]}}',
    enrich_with('{"prompt": "Score 1-10: {{company}}", "more": [{"a": "b:c"}, [[1], -2.5e3, null, true]]}'),
    b'{"kind":"chain","teamspace":"a","steps":[{"kind":"noop"},{"kind":"export","table":"t","columns":["a"]}]}',
    b'{"op":"pause","scope":"job","name":17,"as":{"person":"x","role":"super_admin"},"ref":9223372036854775807}',
    b'{"op":"jobs","teamspace":"acme","state":"running","limit":10}',
]
PIECES = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"\r", b"\t", b"\x00", b"\xff", b"\xef\xbb\xbf"),
    *(b"\\u0000", b"\\ud800", b"9" * 25, b"1e999", b"NaN", b'"a":1,', b'"ref":{},', "\u2028".encode()),
]


@st.composite
def damaged_lines(draw: st.DrawFn) -> bytes:
    """A good line with some bytes cut out, put in, put twice or exchanged."""
    line = bytearray(draw(st.sampled_from(GOOD_LINES)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(line)))
        end = min(len(line), start + draw(st.integers(0, 12)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=4) | st.just(bytes(line[start:end]) * 2))
        line[start:end] = piece
    return bytes(line.replace(b"\n", b" "))


@given(damaged_lines())
def test_a_damaged_line_is_refused_with_a_word_or_means_what_another_reader_reads(line: bytes) -> None:
    request = on_control_socket.decode(line)
    if isinstance(request, LineFault):
        assert request.code in ErrorCode
        assert len(encode([request.refusal(1)])) < 2_000, "a refusal is no echo"
        return
    text = line.decode()  # an independent reader: UTF-8, one object, no key twice, no NaN
    value = json.loads(text, object_pairs_hook=dict_without_duplicates, parse_constant=pytest.fail)
    assert isinstance(value, dict)
    assert "\x00" not in str(value)
    assert on_control_socket.decode(encode([request])) == request


@given(st.lists(damaged_lines() | st.sampled_from([b'{"op":"ping"}', b'"a:b"', b"7", *GOOD_LINES]), max_size=8))
def test_many_lines_at_once_are_read_as_each_of_them_is(lines: list[bytes]) -> None:
    assert on_control_socket.decode_all(lines) == [on_control_socket.decode(line) for line in lines]


def test_a_text_with_colons_does_not_answer_for_another_lines_duplicate_key() -> None:
    duplicate, *others = on_submit_socket.decode_all(
        [b'{"kind":"noop","teamspace":"a","teamspace":"b"}', b'"no object and : no key"', b'"ab:cd"', b'"a"']
    )
    assert isinstance(duplicate, LineFault)
    assert duplicate.code is ErrorCode.BAD_JSON
    assert all(isinstance(other, LineFault) for other in others)


def dict_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


@given(st.lists(damaged_lines() | st.sampled_from([b"", b" ", *GOOD_LINES]), max_size=12), st.integers(1, 5), st.data())
def test_lines_taken_a_few_at_a_time_are_the_same_lines(lines: list[bytes], few: int, draw: st.DataObject) -> None:
    data = b"\n".join(lines)
    decoder = LineDecoder(120)
    found: list[Line] = []
    while data:
        piece = draw.draw(st.integers(1, len(data)))
        rest, data = data[:piece], data[piece:]
        while rest:
            some, rest = decoder.feed_some(rest, few)
            assert len(some) <= few + 1
            found += some
    found += decoder.end()
    assert found == lines_of([b"\n".join(lines)], 120)


def test_a_line_that_is_given_up_is_refused_once_and_skipped() -> None:
    decoder = LineDecoder()
    assert decoder.feed(b"a\nbcd") == [(1, b"a")]
    fault = LineFault(ErrorCode.BUSY, "no", retry_after=1.0)
    assert decoder.give_up(fault) == (2, fault)
    assert decoder.held_bytes == 0
    assert decoder.feed(b"efg") == []
    assert decoder.feed(b"h\n{}\n") == [(3, b"{}")]


def test_a_half_line_takes_its_own_size_however_small_the_pieces() -> None:
    tracemalloc.start()
    try:
        decoder = LineDecoder()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(100_000):
            decoder.feed(b"xy")
        now, _ = tracemalloc.get_traced_memory()
        assert decoder.held_bytes == 200_000
        assert now - before < 300_000
    finally:
        tracemalloc.stop()


HOSTILE = {
    "a million keys": enrich_with("{" + ",".join(f'"{n}":1' for n in range(25_000)) + "}"),
    "keys twice": enrich_with("{" + ",".join(f'"{n % 9_000}" :1' for n in range(22_000)) + "}"),
    "arrays": enrich_with('{"a":[' + "[]," * 80_000 + "[]]}"),
    "objects": enrich_with('{"a":[' + '{"a":1},' * 30_000 + "{}]}"),
    "brackets": b"[" * 250_000,
    "digits": enrich_with('{"a":' + "9" * 250_000 + "}"),
    "fractions": enrich_with('{"a":0.' + "9" * 250_000 + "}"),
    "escapes": enrich_with('{"a":"' + "\\u00e9" * 40_000 + '"}'),
    "colons": enrich_with('{"a":"' + '\\":' * 80_000 + '"}'),
    "steps": b'{"kind":"chain","teamspace":"a","steps":[' + b'{"kind":"noop"},' * 16_000 + b"{}]}",
    "blanks": b'{"kind":"noop","teamspace":"a"' + b" " * 250_000 + b"}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_hostile_line_costs_grows_with_its_length_and_not_faster(name: str) -> None:
    """Judged by work and not by time: the steps that are taken in Python, and the memory that is allocated."""
    line = HOSTILE[name]
    assert len(line) > 200_000
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    tracemalloc.start()
    sys.setprofile(count)
    try:
        on_control_socket.decode(line)
    finally:
        sys.setprofile(None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert steps < len(line)
    assert peak < 40 * len(line)


def test_a_line_may_have_many_parts_and_not_more() -> None:
    def line(parts: int) -> bytes:
        return enrich_with('{"a":[' + ",".join(["[]"] * parts) + "]}")

    rest = 3 + 8 + 1 + 1  # objects; keys of the line, of `into`, of `params`; the array
    assert isinstance(on_submit_socket.decode(line(PARTS_MAX - rest)), Enrich)
    assert fault_of(line(PARTS_MAX - rest + 1)).code is ErrorCode.TOO_LARGE


# What an ordinary line costs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"noop","teamspace":"acme"}',
        b'{"kind":"noop","teamspace":"acme-0001","idempotency_key":"order-000017","ref":17}',
        b'{"kind": "noop", "teamspace": "acme", "priority_seconds": 1.5, "notify": true}',
        b'{"op":"get","job":41,"ref":"a, b"}',
    ],
)
def test_an_ordinary_line_is_read_once_and_not_walked_through(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def walked(*_: object) -> None:
        raise AssertionError("walked through")

    monkeypatch.setattr(codec, "_examine", walked)
    assert not isinstance(on_submit_socket.decode(line), LineFault)
    assert not any(isinstance(request, LineFault) for request in on_submit_socket.decode_all([line] * 3))


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"noop","teamspace":"a","run_at":"2026-12-01T09:00:00Z"}',
        b'{"kind":"upload","teamspace":"a","table":"t","path":"in: 1.csv","key":["email"],"types":{"a":["x: y","b"]}}',
        enrich_with('{"prompt": "Score 1-10: {{company}}", "more": [{"a": "b:c"}]}'),
    ],
)
def test_a_line_with_colons_in_its_texts_is_not_read_a_second_time(
    line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_again(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(codec, "_refuse_duplicates", read_again)
    assert not isinstance(on_submit_socket.decode(line), LineFault)


def test_a_thousand_receipts_are_one_piece_of_bytes() -> None:
    receipts = [Receipt(line=n, job=n, state="queued", jobs_ahead=0) for n in range(1, 1001)]  # type: ignore[arg-type]
    data = encode(receipts)
    assert data.count(b"\n") == 1000
    assert data.startswith(b'{"ok":true,"line":1,"job":1,"state":"queued","jobs_ahead":0}\n')


# Replies -------------------------------------------------------------------------------------------------------------


def test_a_refusal_stands_on_its_line_with_its_code_and_place() -> None:
    refusal = LineFault(ErrorCode.BAD_REQUEST, "no", "where", "r").refusal(2)
    assert encode([refusal]) == (
        b'{"ok":false,"line":2,"error":{"code":"bad_request","message":"no","at":"where"},"ref":"r"}\n'
    )


def test_a_body_is_the_same_whatever_the_order_and_the_envelope_of_the_reply() -> None:
    first = on_submit_socket.decode(b'{"kind":"noop","teamspace":"a","ref":1,"idempotency_key":"k","notify":true}')
    again = on_submit_socket.decode(b'{"op":"submit","teamspace":"a", "kind":"noop"}')
    other = on_submit_socket.decode(b'{"teamspace":"a","kind":"noop","delay":1}')
    assert isinstance(first, Noop)
    assert isinstance(again, Noop)
    assert isinstance(other, Noop)
    assert body_of(first) == body_of(again) != body_of(other)
    one, two = (on_submit_socket.decode(enrich_with(text)) for text in ('{"a":1,"b":2}', '{"b":2,"a":1}'))
    assert isinstance(one, Enrich)
    assert isinstance(two, Enrich)
    assert body_of(one) == body_of(two)


def answers(connection: ClientConnection, *messages: Any) -> list[Any]:
    return list(connection.receive(encode(messages)))


def test_a_client_reads_replies_in_the_order_of_its_requests_and_notices_among_them() -> None:
    connection = ClientConnection()
    sent = connection.send([Noop(teamspace="a"), Ping(), {"kind": "letters", "teamspace": "a"}, Follow()])
    assert sent.count(b"\n") == 4
    receipt = Receipt(line=1, job=5, state="queued", jobs_ahead=0)  # type: ignore[arg-type]
    pong = Pong(line=2, version="1")
    refusal = Refusal(line=3, error=Fault(code=ErrorCode.UNKNOWN_KIND, message="no"), ref=None)
    assert answers(connection, receipt, pong, refusal) == [receipt, pong, refusal]
    data = encode([Done(line=4)])
    assert connection.receive(data[:7]) == []
    ended = b'{"event":"ended","job":5,"state":"completed","counts":' + msgspec.json.encode(
        dict.fromkeys(("total", "done", "failed", "skipped", "unknown", "pending"), 0)
    )
    found = connection.receive(data[7:] + ended + b"}\n")
    assert found[0] == Done(line=4)
    assert isinstance(found[1], Ended)


def test_a_client_bears_fields_and_notices_it_does_not_know_yet() -> None:
    connection = ClientConnection()
    connection.send([Ping()])
    data = b'{"event":"eclipsed","by":"moon"}\n{"ok":true,"line":1,"version":"9","mood":"good"}\n'
    assert connection.receive(data) == [Pong(line=1, version="9")]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"[]\n",
        b'{"ok":true,"line":1}\n',
        b'{"ok":true,"line":2,"version":"1"}\n',
        b'{"ok":false,"line":1,"error":{"code":"tired","message":"no"}}\n',
        b'{"event":"ended"}\n',
        b'{"event":[]}\n',
    ],
)
def test_what_no_daemon_would_say_is_a_protocol_violation(data: bytes) -> None:
    connection = ClientConnection()
    connection.send([Ping()])
    with pytest.raises(ProtocolViolation):
        connection.receive(data)


def test_a_reply_nobody_asked_for_is_a_protocol_violation() -> None:
    with pytest.raises(ProtocolViolation):
        ClientConnection().receive(encode([Pong(line=1, version="1")]))


def test_a_connection_that_is_refused_as_a_whole_raises_the_refusal() -> None:
    connection = ClientConnection()
    connection.send([Ping()])
    with pytest.raises(Refused) as refused:
        answers(connection, Refusal(line=0, error=Fault(code=ErrorCode.BUSY, message="no", retry_after=1.0)))
    assert (refused.value.code, refused.value.retry_after) == (ErrorCode.BUSY, 1.0)


@given(st.binary(max_size=200))
def test_no_bytes_whatever_crash_a_client(data: bytes) -> None:
    connection = ClientConnection()
    connection.send([Ping(), Noop(teamspace="a")])
    with suppress(ProtocolViolation, Refused):
        connection.receive(data + b"\n")


def test_a_submission_is_sent_again_only_under_a_key() -> None:
    assert resend_is_exact(Noop(teamspace="a", idempotency_key="k"))
    assert resend_is_exact({"kind": "noop", "teamspace": "a", "idempotency_key": "k"})
    assert not resend_is_exact(Noop(teamspace="a"))
    assert not resend_is_exact({"kind": "noop", "teamspace": "a"})


def test_what_only_asks_may_be_sent_again_and_what_makes_a_job_may_not() -> None:
    assert resend_is_exact(Get(job=1))  # type: ignore[arg-type]
    assert resend_is_exact(Jobs())
    assert resend_is_exact(Plans(teamspace="a", key="k", value=3))
    assert not resend_is_exact(Rerun(job=1))  # type: ignore[arg-type]
    assert not resend_is_exact(Drain())


@pytest.mark.parametrize(
    ("actions", "exact"),
    [(("list", "describe", "set", "download", "runs"), True), (("create", "publish", "unpublish", "delete"), False)],
)
def test_what_is_told_of_batch_jobs_may_be_asked_again_and_none_is_made_twice(
    actions: Sequence[Any], exact: bool
) -> None:
    for action in actions:
        assert resend_is_exact(BatchJobs(action=action, teamspace="a", name="nightly")) is exact, action
    assert resend_is_exact(BatchJobs(action="logs", instance=JobId(1)))
    assert not resend_is_exact(BatchJobs(action="upload", teamspace="a", name="nightly", path="code.zip"))


def test_a_chain_written_by_a_client_is_read_by_a_server() -> None:
    chain = Chain(teamspace="a", steps=[FormulaStep(table="t", into={"x": "text"}, expression="'y'")])
    assert on_submit_socket.decode(encode([chain])) == chain
