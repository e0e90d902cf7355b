"""The daemon itself."""

from leadline_protocol.messages.operations.base import ControlOperation, Operation
from leadline_protocol.messages.replies.base import Done
from leadline_protocol.messages.replies.status import Pong, StatusReply


class Ping(Operation[Pong], tag="ping", frozen=True, kw_only=True):
    """Is the daemon there and ready? Refused as unavailable while it starts."""


class Status(ControlOperation[StatusReply], tag="status", frozen=True, kw_only=True):
    """How the daemon is."""


class Reload(ControlOperation[Done], tag="reload", frozen=True, kw_only=True):
    """Read the configuration file again. Refused with every fault it has."""


class Drain(ControlOperation[Done], tag="drain", frozen=True, kw_only=True):
    """Start nothing more, checkpoint what runs and end the daemon. The answer comes when it begins."""
