"""Before a mail leaves everything is checked once more, in an order that tells people what matters most."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from leadline.features.outreach.line import Why
from leadline.features.outreach.model import SECOND, Hours, Place, Ramp, Reason, Script, Status, Step, Whose
from leadline.features.outreach.sending import Decision, Drop, Facts, Held, Hold, NotBefore, Send, Stale, decide
from leadline_protocol.ids import Instant, JobId
from tests.features.outreach.people import EMPTY, NOW, associate, queued

TOMORROW = Instant(NOW + 11 * 3_600 * SECOND)
GOOD = Facts(
    follow_up=queued(),
    job=JobId(5),
    associate=associate(hours=Hours(days=frozenset(range(7)))),
    script=Script("acme", "drip", "Long Term", (Step(0, "Hello", "Hi"), Step(3, "", "Still there?"))),
    suppressed=None,
    replied=None,
    missing=(),
    domain_sent=0,
    domain_limit=3,
    next_day=TOMORROW,
    line=EMPTY,
    first=False,
    held=None,
)


def different(facts: Facts, **changed: Any) -> Facts:
    return replace(facts, follow_up=replace(facts.follow_up, **changed))


def with_associate(facts: Facts, **changed: Any) -> Facts:
    return facts if facts.associate is None else replace(facts, associate=replace(facts.associate, **changed))


LATER = Instant(NOW + 60 * SECOND)

CHECKS: list[tuple[Callable[[Facts], Facts], Decision]] = [
    (lambda facts: different(facts, status=Status.STOPPED), Stale(Status.STOPPED)),
    (lambda facts: replace(facts, suppressed=Reason.UNSUBSCRIBED), Drop(Reason.UNSUBSCRIBED)),
    (lambda facts: replace(facts, replied=NOW), Drop(Reason.REPLIED)),
    (lambda facts: different(facts, address="lee@localhost"), Drop(Reason.BAD_ADDRESS)),
    (lambda facts: with_associate(facts, active=False), Drop(Reason.NO_ASSOCIATE)),
    (lambda facts: with_associate(facts, paused="bounces"), Hold(Held.PAUSED)),
    (lambda facts: replace(facts, script=None), Drop(Reason.NO_SCRIPT)),
    (lambda facts: replace(facts, missing=("company",)), Drop(Reason.MISSING_FIELDS)),
    (
        lambda facts: replace(facts, domain_sent=3),
        NotBefore(TOMORROW, Why.DOMAIN_LIMIT, {"sent": 3, "limit": 3}, None),
    ),
    (
        lambda facts: replace(facts, line=replace(EMPTY, last_end=NOW)),
        NotBefore(LATER, Why.GAP, {"gap_seconds": 60}, Place(LATER, first=False, turn=LATER)),
    ),
]
"""What may be wrong, in the order in which it is told."""


def test_a_mail_that_nothing_is_wrong_with_is_sent() -> None:
    assert decide(GOOD, NOW) == Send()


@pytest.mark.parametrize("number", range(len(CHECKS)))
def test_of_all_that_is_wrong_the_first_is_told(number: int) -> None:
    facts = GOOD
    for spoil, _ in CHECKS[number:]:
        facts = spoil(facts)
    told = CHECKS[number][1]
    assert decide(facts, NOW) == told
    assert decide(CHECKS[number][0](GOOD), NOW) == told, "also alone"


@pytest.mark.parametrize("status", [one for one in Status if one is not Status.QUEUED])
def test_a_follow_up_that_is_not_queued_any_more_is_left_as_it_is(status: Status) -> None:
    assert decide(different(GOOD, status=status), NOW) == Stale(status)


@pytest.mark.parametrize("job", [JobId(4), JobId(6), None])
def test_a_follow_up_of_another_job_is_left_as_it_is(job: JobId | None) -> None:
    assert decide(different(GOOD, job=job), NOW) == Stale(Status.QUEUED)


@pytest.mark.parametrize("reason", [Reason.UNSUBSCRIBED, Reason.BOUNCED, Reason.COMPLAINED, Reason.DO_NOT_CONTACT])
def test_suppression_is_told_with_its_reason(reason: Reason) -> None:
    assert decide(replace(GOOD, suppressed=reason), NOW) == Drop(reason)


def test_a_reply_from_before_the_follow_up_does_not_stop_it() -> None:
    assert decide(replace(GOOD, replied=Instant(NOW - 1)), NOW) == Send()


def test_an_associate_that_is_gone_drops_the_mail() -> None:
    assert decide(replace(GOOD, associate=None), NOW) == Drop(Reason.NO_ASSOCIATE)


@pytest.mark.parametrize(("step", "there"), [(0, False), (1, True), (2, True), (3, False)])
def test_a_step_that_the_script_does_not_have_drops_the_mail(step: int, there: bool) -> None:
    assert decide(different(GOOD, step=step), NOW) == (Send() if there else Drop(Reason.NO_SCRIPT))


@pytest.mark.parametrize(("sent", "limit", "goes"), [(2, 3, True), (3, 3, False), (4, 3, False), (10**6, None, True)])
def test_a_domain_gets_as_many_mails_a_day_as_its_limit(sent: int, limit: int | None, goes: bool) -> None:
    decision = decide(replace(GOOD, domain_sent=sent, domain_limit=limit), NOW)
    assert isinstance(decision, Send if goes else NotBefore)


def test_a_mailbox_without_any_moment_holds_its_mails_for_a_person() -> None:
    assert decide(with_associate(GOOD, hours=Hours(days=frozenset())), NOW) == Hold(Held.NEVER)


def test_a_mail_that_is_moved_keeps_its_turn() -> None:
    held = Place(Instant(NOW - 5), first=False, turn=Instant(NOW - 9))
    decision = decide(replace(GOOD, line=replace(EMPTY, last_end=NOW, places=(held,)), held=held), NOW)
    assert isinstance(decision, NotBefore)
    assert decision.place == Place(LATER, first=False, turn=held.turn)


def test_the_hours_and_the_zone_of_the_lead_are_asked_for() -> None:
    facts = with_associate(GOOD, hours=Hours(whose=Whose.LEAD))
    assert decide(different(facts, zone="Europe/Berlin"), NOW) == Send()
    night = decide(different(facts, zone="Asia/Tokyo"), NOW)
    assert isinstance(night, NotBefore)
    assert (night.why, night.numbers) == (Why.HOURS, {})


def test_a_first_mail_is_told_of_the_cap_that_follow_ups_take() -> None:
    coming = Place(Instant(NOW + 3_600 * SECOND), first=False, turn=NOW)
    facts = with_associate(GOOD, ramp=Ramp(1, 1))
    facts = replace(facts, line=replace(EMPTY, places=(coming,)), first=True)
    waits = decide(facts, NOW)
    assert isinstance(waits, NotBefore)
    assert (waits.why, waits.numbers) == (Why.FOLLOW_UPS_FIRST, {"sent": 0, "cap": 1})
    assert waits.place is not None
    assert waits.place.first
    assert decide(replace(facts, first=False), NOW) != Send(), "the other follow-up has its turn before"
