"""Each oracle says nothing of a sound history, and finds the one thing that is wrong with another."""

from collections import Counter
from pathlib import Path

from tests.chaos import oracles
from tests.chaos.load import Chain, Diary, Quiet
from tests.chaos.oracles import Books, StoredJob, Trouble
from tests.chaos.services import Limit
from tests.world.behaviours import SECOND, company_of, score_of
from tests.world.log import Call

EMAIL = "lead0@acme-0.example"


def call(at: float, lead: str = EMAIL, *, took: float = 0.1) -> Call:
    return Call(
        n=1, server="company", arrived_us=int(at * SECOND), arrived_wall_us=0, method="POST", path="/company",
        teamspace=None, lead=lead, body_sha256="", status=200, outcome="ok", ended_us=int((at + took) * SECOND),
        ended="answered",
    )  # fmt: skip


def noop(teamspace: str = "plain") -> StoredJob:
    return StoredJob(teamspace, "noop", "4", live=False)


def trouble(began: float, ended: float) -> Trouble:
    return Trouble("kill", int(began * SECOND), int(ended * SECOND))


def test_a_receipt_without_a_job_is_found() -> None:
    diary = Diary(unkeyed={1, 2}, unkeyed_lost=1)
    assert list(oracles.receipts(diary, {1: noop(), 2: noop(), 3: noop()})) == []
    assert "job 2 was acknowledged and is gone" in list(oracles.receipts(diary, {1: noop()}))
    assert "job 2, acknowledged as a noop of plain, is" in str(list(oracles.receipts(diary, {1: noop(), 2: noop("x")})))


def test_a_job_that_nobody_sent_or_that_was_refused_is_found() -> None:
    stored = {1: noop(), 2: noop(), 3: noop()}
    assert list(oracles.receipts(Diary(unkeyed={1, 2}), stored)) == [
        "3 unkeyed noops are stored: 2 have receipts, 0 were lost"
    ]


def test_two_jobs_of_one_key_are_found() -> None:
    diary = Diary(keyed={"a": {1, 2}}, keys_sent={"a"})
    assert "a made the jobs [1, 2]" in list(oracles.receipts(diary, {1: noop("keyed"), 2: noop("keyed")}))


def test_one_call_too_many_in_a_window_is_found() -> None:
    limits = {"company": [Limit(3, 1.0)]}
    assert list(oracles.windows({"company": [call(0), call(0.1), call(0.2), call(1.0)]}, limits)) == []
    assert list(oracles.windows({"company": [call(0), call(0.1), call(0.2), call(0.9)]}, limits)) != []


def test_a_lead_is_asked_about_again_for_a_reason_or_not_at_all() -> None:
    calls = {"company": [call(1), call(9)]}
    assert list(oracles.repeats(calls, [trouble(1.05, 2)])) == []
    assert list(oracles.repeats(calls, [])) != []
    assert list(oracles.repeats(calls, [trouble(7, 8)])) != [], "its answer had long been stored"
    assert list(oracles.repeats(calls, [trouble(0, 0.5)])) != [], "it had not been sent yet"


def test_a_call_in_a_pause_is_found() -> None:
    pause = Quiet("pause", None, frozenset({EMAIL}), 10 * SECOND, 16 * SECOND)
    allowed = [call(9.9), call(10.1), call(16.1), call(14, "other@b.example")]
    assert list(oracles.quiet({"company": allowed}, [pause])) == []
    assert list(oracles.quiet({"company": [call(14)]}, [pause])) != []


def test_books_that_do_not_balance_are_found() -> None:
    def books(**states: int) -> Books:
        return Books({}, {("company", EMAIL): Counter(states)}, 0, 0)

    calls = {"company": [call(1), call(2)]}
    assert list(oracles.books_balance(calls, books(done=1, unknown=1))) == []
    assert list(oracles.books_balance(calls, books(done=1, unknown=2, unsent=3))) == []
    assert list(oracles.books_balance(calls, books(done=1))) != []
    assert list(oracles.books_balance(calls, books(done=3))) != []
    assert list(oracles.books_balance(calls, books(done=1, sent=1))) != []


def test_a_table_with_a_wrong_cell_is_found(tmp_path: Path) -> None:
    chain = Chain("acme", 0, "chain-0", [EMAIL], "company", state="completed")
    company = company_of(EMAIL)
    row = f"{EMAIL},0,0,{company['company']},{company['country']},{score_of(EMAIL)}\n"
    head = "email,n,twice,company,country,score\n"
    (tmp_path / chain.export).write_text(head + row)
    assert list(oracles.tables([chain], tmp_path)) == []
    for wrong in (head, head + row + row, head + row.replace(",0,0,", ",0,1,")):
        (tmp_path / chain.export).write_text(wrong)
        assert list(oracles.tables([chain], tmp_path)) != []
