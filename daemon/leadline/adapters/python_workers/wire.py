"""What daemon and worker say to each other: JSON, one message a line, over a socket pair that both were born with.

The daemon sends leads (`Task`), and nothing else. A worker first says what it holds (`Ready`), or why it cannot
(`Unusable`), then answers each lead (`Answer`) in whatever order; as long as it loads or has a lead in hand it beats.
Numbers stay what they are in JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

LINE_BYTES_MAX: Final = 8 * 1024 * 1024
"""A longer answer is none."""

BEAT_SECONDS: Final = 10.0
"""How often a worker gives a sign of life."""


class Task(Struct, frozen=True, gc=False, tag="task"):
    """Work on this lead, or on these."""

    id: int
    settings: Mapping[str, str]
    secret: str | None = None
    lead: Mapping[str, Any] = {}
    leads: Sequence[Mapping[str, Any]] | None = None
    """Of a module that takes a batch."""


class Ready(Struct, frozen=True, gc=False, tag="ready"):
    """The module is loaded; this is what it declares."""

    declared: msgspec.Raw


class Unusable(Struct, frozen=True, gc=False, tag="unusable"):
    """The module cannot be loaded."""

    message: str


class Beat(Struct, frozen=True, gc=False, tag="beat"):
    """A sign of life."""


class Answer(Struct, frozen=True, gc=False, tag="answer"):
    """What became of a lead: a status as HTTP has it, and the values, or a message.

    Of a batch: `results`, and in it for each lead `values` or an `error`.
    """

    id: int
    status: int
    body: msgspec.Raw
    retry_after: float | None = None


Said = Ready | Unusable | Beat | Answer
"""What a worker says."""

_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
TASKS: Final = msgspec.json.Decoder(Task)
SAID: Final = msgspec.json.Decoder(Said)


def line(message: Struct) -> bytes:
    """A message as it travels. Raises TypeError and ValueError for what is not JSON."""
    return _ENCODER.encode(message) + b"\n"


def raw(value: object) -> msgspec.Raw:
    """A part of a message, encoded already. Raises TypeError and ValueError for what is not JSON."""
    return msgspec.Raw(_ENCODER.encode(value))
