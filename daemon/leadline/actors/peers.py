"""Who asks, and how a face says no to it."""

import time

from msgspec import Struct

from leadline.ports.control import Act
from leadline_protocol import messages as wire
from leadline_protocol.errors import Refused
from leadline_protocol.ids import Instant


class Peer(Struct, frozen=True):
    """Who is at the other end."""

    uid: int
    pid: int
    operator: bool
    """Whether it came in by the control socket."""


def refusal(refused: Refused, line: int, ref: wire.Ref) -> wire.Refusal:
    """The reply that says no."""
    fault = wire.Fault(code=refused.code, message=refused.message, at=refused.at, retry_after=refused.retry_after)
    return wire.Refusal(line=line, error=fault, ref=ref)


def act(operation: wire.ControlOperation[wire.Reply], peer: Peer, target: str, detail: str = "") -> Act:
    """What is written down of an operation: the peer as the kernel knows it, the person as the peer says."""
    return _act(str(operation.__struct_config__.tag), operation.as_, peer, target, detail)


def submission_act(submission: wire.Submission, person: wire.Person, peer: Peer) -> Act:
    """The same of a submission that a person has made by hand."""
    kind, table = str(submission.__struct_config__.tag), getattr(submission, "table", None)
    what = kind if table is None else f"{kind} on {table}"
    return _act("submit", person, peer, f"teamspace {submission.teamspace}", what)


def _act(op: str, someone: wire.Person | None, peer: Peer, target: str, detail: str) -> Act:
    return Act(
        at=Instant(time.time_ns() // 1_000),
        uid=peer.uid,
        pid=peer.pid,
        person=None if someone is None else someone.person,
        role=None if someone is None else someone.role,
        op=op,
        target=target,
        detail=detail,
    )
