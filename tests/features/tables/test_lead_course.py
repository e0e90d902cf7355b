"""What follows from what on a lead's way through a provider."""

import pytest

from leadline.core.model import SECOND
from leadline.features.tables.lead_course import Ask, Course, Pause, Policy, Settle
from leadline_protocol.errors import JobReason, LeadReason

START = Ask("start")


def test_a_fresh_lead_is_asked_about() -> None:
    assert Course("retry_once").begin([]) == START


def test_a_lead_whose_order_the_provider_has_is_asked_for_its_result() -> None:
    assert Course("retry_once", task="t1").begin(["crash"]) == Ask("poll")


def test_calls_that_a_crash_cut_off_use_nothing_up() -> None:
    course = Course("retry_once")
    assert course.begin(["crash"] * 5) == START
    assert isinstance(course.lost("no answer", 0.0), Pause)


def test_a_lead_in_flight_at_two_stall_kills_has_failed() -> None:
    assert Course("retry_once").begin(["stalled"]) == START
    end = Course("retry_once").begin(["stalled", "crash", "stalled"])
    assert isinstance(end, Settle)
    assert (end.state, end.reason) == ("failed", LeadReason.STALLED)


def test_after_one_lost_call_the_lead_is_asked_about_once_more_and_no_more() -> None:
    course = Course("retry_once")
    assert course.begin([]) == START
    again = course.lost("timed out", 0.0)
    assert isinstance(again, Pause)
    assert again.then == START
    end = course.lost("timed out", 0.0)
    assert isinstance(end, Settle)
    assert (end.state, end.reason) == ("unknown", LeadReason.UNKNOWN_OUTCOME)


def test_a_lost_call_counts_over_a_restart() -> None:
    course = Course("retry_once")
    assert course.begin(["lost"]) == START
    assert isinstance(course.lost("timed out", 0.0), Settle)
    assert isinstance(Course("retry_once").begin(["lost", "lost"]), Settle)


@pytest.mark.parametrize("cut_off", [["crash"], ["lost"], ["stalled"]])
def test_a_provider_that_must_not_be_asked_twice_leaves_the_lead_to_a_person(cut_off: list[str]) -> None:
    end = Course("hold").begin(cut_off)
    assert isinstance(end, Settle)
    assert end.state == "unknown"
    assert isinstance(Course("hold").lost("timed out", 0.0), Settle)


def test_a_provider_that_knows_a_call_again_is_asked_until_the_tries_are_used_up() -> None:
    course = Course("reuse_id")
    turns = [course.lost("timed out", 0.0) for _ in range(3)]
    assert [type(turn) for turn in turns] == [Pause, Pause, Settle]


def test_being_thrown_back_is_no_try() -> None:
    course = Course("retry_once")
    assert [course.thrown_back() for _ in range(100)] == [START] * 100


def test_the_third_server_error_fails_the_lead() -> None:
    course = Course("retry_once")
    turns = [course.broke(LeadReason.SERVER_ERROR, "status 503", 0.999) for _ in range(3)]
    assert [type(turn) for turn in turns] == [Pause, Pause, Settle]
    first, second, last = turns
    assert isinstance(first, Pause)
    assert isinstance(second, Pause)
    assert first.reason is JobReason.BACKOFF
    assert 0.5 * SECOND <= first.microseconds <= SECOND
    assert SECOND <= second.microseconds <= 2 * SECOND
    assert isinstance(last, Settle)
    assert last.reason is LeadReason.SERVER_ERROR


def test_polls_are_no_tries_and_end_with_the_providers_patience() -> None:
    course = Course("retry_once", poll_seconds=2.0, poll_wait_seconds=10.0)
    assert course.pending("t1") == Pause(2 * SECOND, JobReason.POLL, Ask("poll"))
    turns = [course.pending(None) for _ in range(5)]
    assert [type(turn) for turn in turns] == [Pause] * 4 + [Settle]


def test_a_lost_poll_orders_nothing_again() -> None:
    course = Course("hold", poll_seconds=1.0, poll_wait_seconds=60.0)
    course.pending("t1")
    again = course.lost("reset", 0.0)
    assert isinstance(again, Pause)
    assert again.then == Ask("poll")


def test_one_repair_is_asked_for() -> None:
    course = Course("retry_once")
    assert course.unusable("not a number") == Ask("repair")
    assert course.thrown_back() == Ask("repair")
    end = course.unusable("still not a number")
    assert isinstance(end, Settle)
    assert end.reason is LeadReason.BAD_OUTPUT


@pytest.mark.parametrize("policy", ["retry_once", "hold", "reuse_id"])
def test_what_the_provider_knows_nothing_of_is_skipped_under_every_policy(policy: Policy) -> None:
    end = Course(policy).not_found()
    assert isinstance(end, Settle)
    assert (end.state, end.reason) == ("skipped", LeadReason.NOT_FOUND)


def test_a_question_keeps_its_id_until_it_is_answered() -> None:
    course = Course("reuse_id")
    course.begin([])
    assert course.id_for("7") == "7"
    course.lost("timed out", 0.0)
    assert course.id_for("8") == "7", "nobody knows what became of it"
    course.answered()
    course.broke(LeadReason.SERVER_ERROR, "500", 0.0)
    assert course.id_for("9") == "9", "the other one has failed for certain"
    again = Course("reuse_id")
    again.begin(["crash"], "9")
    assert again.id_for("12") == "9", "also over a restart"


def test_what_was_lost_before_an_order_was_taken_does_not_count_any_more() -> None:
    assert Course("retry_once", task="t1").begin(["lost", "lost"]) == Ask("poll")
    assert Course("hold", task="t1").begin(["lost"]) == Ask("poll")


def test_nobody_asks_before_the_result_can_be_there_also_after_a_restart() -> None:
    course = Course("hold", poll_seconds=10.0, poll_first_seconds=60.0, poll_wait_seconds=600.0)
    assert course.pending("t1") == Pause(60 * SECOND, JobReason.POLL, Ask("poll"))
    assert course.pending(None) == Pause(10 * SECOND, JobReason.POLL, Ask("poll"))
    early = Course("hold", poll_seconds=10.0, poll_first_seconds=60.0, task="t1", waited_microseconds=20 * SECOND)
    assert early.begin([]) == Pause(40 * SECOND, JobReason.POLL, Ask("poll"))
    late = Course("hold", poll_seconds=10.0, poll_first_seconds=60.0, task="t1", waited_microseconds=70 * SECOND)
    assert late.begin([]) == Ask("poll")


def test_patience_counts_from_the_order_over_restarts() -> None:
    course = Course("hold", poll_seconds=10.0, poll_wait_seconds=60.0, task="t1", waited_microseconds=55 * SECOND)
    assert isinstance(course.pending(None), Pause)
    assert isinstance(course.pending(None), Settle)


def test_a_page_that_could_not_be_read_is_read_again_and_nothing_is_ordered() -> None:
    course = Course("retry_once", task="t1", poll_reason=JobReason.BULK_RESULT)
    assert course.ready() == Ask("read")
    assert course.ready("2") == Ask("read", "2")
    assert course.thrown_back() == Ask("read", "2")
    again = course.lost("reset", 0.0)
    assert isinstance(again, Pause)
    assert again.then == Ask("read", "2")
