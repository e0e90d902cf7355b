"""The life of a follow-up, as a table.

`pending → queued → sending` is one mail. What follows depends on how it ended: the next step is `pending` again, and
after the last one the follow-up is `finished`. Only `sending` is ever left without an answer; then it is `unknown`, and
nothing is sent to the contact until that is settled. Whoever stops a follow-up stops it wherever it is, but a mail
that may be on its way goes on being unknown or sent.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from leadline.features.outreach.model import Status


class Move(StrEnum):
    """What can happen to a follow-up."""

    QUEUE = "queue"
    SEND = "send"
    GO_ON = "go_on"
    """Its mail was sent, and there is another step."""
    FINISH = "finish"
    """Its last mail was sent."""
    LOSE = "lose"
    """Its mail may have been sent."""
    PUT_BACK = "put_back"
    """Its mail was certainly not sent, and may be tried again."""
    FAIL = "fail"
    STOP = "stop"


MOVES: Final[Mapping[tuple[Status, Move], Status]] = {
    (Status.PENDING, Move.QUEUE): Status.QUEUED,
    (Status.PENDING, Move.STOP): Status.STOPPED,
    (Status.PENDING, Move.FAIL): Status.FAILED,
    (Status.QUEUED, Move.SEND): Status.SENDING,
    (Status.QUEUED, Move.PUT_BACK): Status.PENDING,
    (Status.QUEUED, Move.STOP): Status.STOPPED,
    (Status.QUEUED, Move.FAIL): Status.FAILED,
    (Status.SENDING, Move.GO_ON): Status.PENDING,
    (Status.SENDING, Move.FINISH): Status.FINISHED,
    (Status.SENDING, Move.PUT_BACK): Status.QUEUED,
    (Status.SENDING, Move.FAIL): Status.FAILED,
    (Status.SENDING, Move.LOSE): Status.UNKNOWN,
    (Status.SENDING, Move.STOP): Status.STOPPED,
    (Status.UNKNOWN, Move.GO_ON): Status.PENDING,
    (Status.UNKNOWN, Move.FINISH): Status.FINISHED,
    (Status.UNKNOWN, Move.PUT_BACK): Status.PENDING,
    (Status.UNKNOWN, Move.STOP): Status.STOPPED,
}
"""How a follow-up goes on; what is not in it does not happen."""
