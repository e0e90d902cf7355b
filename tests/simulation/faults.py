"""What can go wrong, by name; each seed draws which of it does.

Every fault has dice of its own, so that leaving one out changes nothing in when the others strike first; that is what
makes the list of a failing seed worth shrinking.
"""

import random
from enum import StrEnum


class Fault(StrEnum):
    """Everything that a simulation may do to the daemon, its providers and its people."""

    CRASH = "crash"
    """The daemon dies at any moment, also in the middle of a commit, and comes back later."""
    COMMIT_REFUSED = "commit_refused"
    """The database is gone for a moment: nothing of the decision is stored."""
    COMMIT_UNKNOWN = "commit_unknown"
    """The connection breaks during a commit, which took place or did not."""
    SLOW_COMMIT = "slow_commit"
    """A commit takes seconds, or a work transaction."""
    FREEZE = "freeze"
    """The daemon stands still, for a second or for hours, while the world goes on."""
    TAKEOVER = "takeover"
    """A second daemon takes over while the first still runs, or stands still and wakes later."""
    CLOCK_STEP = "clock_step"
    """Somebody sets the clock on the wall."""
    STUCK_LEAD = "stuck_lead"
    """The work hangs on a lead, one to three times."""
    WORKER_LOST = "worker_lost"
    """An attempt falls silent."""
    DEADLY_JOB = "deadly_job"
    """A job takes the daemon down as often as it is begun."""
    LINGER = "linger"
    """An attempt that is stopped takes seconds to be gone."""
    THROTTLE = "throttle"
    """A provider throws calls back though they are within its limits."""
    SERVER_ERROR = "server_error"
    """A provider answers with 503 for a while."""
    HANG = "hang"
    """A provider takes the request and never answers, for some leads as often as it is asked."""
    CUT = "cut"
    """A connection to a provider is torn down, for some leads each time."""
    SLOW_NETWORK = "slow_network"
    """Requests take seconds to arrive."""
    CANCEL = "cancel"
    """People cancel jobs, some with force."""
    PAUSE = "pause"
    """People pause and resume whatever can be paused."""
    LIMITS = "limits"
    """People change teamspaces' limits and the capacity."""


def dice(seed: int, name: str) -> random.Random:
    """Dice that depend on nothing but the seed and their name, in every process."""
    return random.Random(f"{seed}/{name}")


def drawn(seed: int) -> frozenset[Fault]:
    """The faults of a seed: about two thirds of them."""
    chance = dice(seed, "faults")
    return frozenset(fault for fault in Fault if chance.random() < 0.65)
