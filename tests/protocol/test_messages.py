"""The shapes: what must agree although it is written twice, and what is never left out of a line."""

from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest

from leadline_protocol.messages import (
    CONTROL_OPERATIONS,
    REPLY_TYPES,
    SUBMISSION_TYPES,
    Batch,
    Chain,
    Counts,
    Ended,
    Enrich,
    EnrichStep,
    Export,
    ExportStep,
    Formula,
    FormulaStep,
    Noop,
    NoopStep,
    Outreach,
    Reply,
    StatusReply,
    StepBase,
    Submission,
    Upload,
    UploadStep,
    When,
    submission_of,
)

REPLIES: list[type[Reply]] = sorted(set(REPLY_TYPES.values()), key=lambda reply: reply.__name__)
STRUCTS: list[type[msgspec.Struct]] = [*SUBMISSION_TYPES, *CONTROL_OPERATIONS, *REPLIES, Ended]
PAIRS: list[tuple[type[StepBase], type[Submission]]] = [
    (NoopStep, Noop),
    (UploadStep, Upload),
    (FormulaStep, Formula),
    (EnrichStep, Enrich),
    (ExportStep, Export),
]
STEPS: list[type[StepBase]] = [step for step, _ in PAIRS]


@pytest.mark.parametrize(("step", "submission"), PAIRS)
def test_a_step_says_the_same_as_the_submission_of_its_kind(step: type[StepBase], submission: type[Submission]) -> None:
    envelope = set(Submission.__struct_fields__)
    own = {field.name: field for field in msgspec.structs.fields(submission) if field.name not in envelope}
    assert step.__struct_config__.tag == submission.__struct_config__.tag
    fields = [field for field in msgspec.structs.fields(step) if field.name not in StepBase.__struct_fields__]
    assert [field.name for field in fields] == list(own)
    for field in fields:
        twin = own[field.name]
        assert (field.default, field.default_factory) == (twin.default, twin.default_factory)
        if field.name == "select_leads":
            assert get_args(field.type) == ("on_start",)
        else:
            assert field.type == twin.type


def test_there_is_a_step_for_every_kind_but_the_chain_the_batch_and_outreach() -> None:
    assert {submission for _, submission in PAIRS} == set(SUBMISSION_TYPES) - {Chain, Batch, Outreach}
    (field,) = (field for field in msgspec.structs.fields(Chain) if field.name == "steps")
    (listed,) = get_args(get_args(field.type)[0])
    assert set(get_args(listed)) == {step for step, _ in PAIRS}


def test_a_step_becomes_the_submission_that_says_the_same() -> None:
    step = EnrichStep(
        table="t",
        module="m",
        into={"x": "text"},
        params={"a": 1},
        where="x IS NULL",
        empty="skip",
        when=When(failed_at_most=0),
    )
    submission = submission_of(step, "acme")
    assert submission == Enrich(
        teamspace="acme", table="t", module="m", into={"x": "text"}, params={"a": 1}, where="x IS NULL", empty="skip"
    )


def test_every_request_refuses_what_it_does_not_know_and_every_reply_bears_it() -> None:
    requests: list[type[msgspec.Struct]] = [*SUBMISSION_TYPES, *CONTROL_OPERATIONS, *STEPS]
    for request in requests:
        assert request.__struct_config__.forbid_unknown_fields
    for reply in REPLIES:
        assert not reply.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize("reply", REPLIES)
def test_every_reply_says_ok_and_its_line_and_can_repeat_the_ref(reply: type[Reply]) -> None:
    names = [field.name for field in msgspec.structs.fields(reply)]
    assert {"ok", "line", "ref"} <= set(names)


def test_a_count_of_nothing_is_written_all_the_same() -> None:
    nothing = Counts(total=0, done=0, failed=0, skipped=0, unknown=0, pending=0)
    assert b'"pending":0' in msgspec.json.encode(nothing)


def test_times_are_written_in_utc() -> None:
    counts = Counts(total=0, done=0, failed=0, skipped=0, unknown=0, pending=0)
    ended = Ended(at=datetime(2026, 12, 1, 9, tzinfo=UTC), job=1, state="completed", counts=counts)  # type: ignore[arg-type]
    assert b'"at":"2026-12-01T09:00:00Z"' in msgspec.json.encode(ended)


def test_every_struct_is_out_of_the_garbage_collectors_sight() -> None:
    seen: set[type] = set()

    def check(struct: type[msgspec.Struct]) -> None:
        if struct in seen:
            return
        seen.add(struct)
        assert struct.__struct_config__.frozen, struct
        assert not struct.__struct_config__.gc, struct
        for field in msgspec.structs.fields(struct):
            for inner in (field.type, *get_args(field.type)):
                if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                    check(inner)

    for struct in STRUCTS:
        check(struct)
    assert StatusReply in seen
