"""The wire without the socket: bytes to lines, lines to requests, replies to bytes; and the client's half of the same.

Nothing here does I/O, so every rule of the wire can be tested by feeding bytes, cut anywhere. A server holds one
`LineDecoder` per connection and one `RequestDecoder` per kind of socket; a client holds a `ClientConnection`, and an
`Exchange` for each group of requests that it waits for.

    bytes ──LineDecoder──▶ (number, line) ──RequestDecoder──▶ Submission | Operation | LineFault ──…──▶ encode ──▶ bytes

The intuition: msgspec refuses by itself what is not JSON or not of the declared shape, faster than anything written
here could look at the bytes. What it lets pass must still be refused: duplicate keys (the last would win, so that two
readers of one line may disagree about it), NUL characters (Postgres cannot store them), nesting that a recursive reader
could drown in, integers of more than 64 bits, and lines that are nothing but punctuation, which would cost ten times
what their length says.

The complication: at 100,000 lines a second there are ten microseconds for everything, and a look at every value costs
half of that. The choice: one count of the colons proves most lines innocent. Each key is followed by a colon, so a line
with as many colons as its outermost object has distinct keys has neither duplicate keys nor nested objects with keys.
That holds for the sums over many lines as well, so a whole block is proved innocent by counting once. Where texts hold
colons too, those that follow a quote are counted. Lines that this proof does not cover are walked through, value by
value, and only where that leaves a doubt about duplicates is the line read again, pair by pair.
"""

import json
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from leadline_protocol.errors import ErrorCode, LeadlineError, OutcomeUnknown, ProtocolViolation, Refused, Unreachable
from leadline_protocol.messages import (
    INT64_MAX,
    REPLY_TYPES,
    BatchJobs,
    ContactEvent,
    Ended,
    Fault,
    FollowUps,
    Missed,
    Notice,
    Operation,
    Preview,
    Progress,
    Queued,
    Receipt,
    Ref,
    Refusal,
    Reply,
    Request,
    Started,
    Submission,
    Tables,
    Tokens,
)

LINE_BYTES_MAX: Final = 256 * 1024
"""The longest line a daemon reads, without its newline."""

REPLY_BYTES_MAX: Final = 64 * 1024 * 1024
"""The longest line a client reads: a page of 1,000 jobs is far shorter, and a runaway peer is stopped."""

DEPTH_MAX: Final = 32
"""How deep objects and arrays may nest, the outermost object included."""

PARTS_MAX: Final = 10_000
"""How many objects, arrays and keys a line may hold together. It bounds what one line costs: to look through 256 KiB of
`[],` would take 30 ms, in which nobody else is served."""

REF_CHARACTERS_MAX: Final = 256


class LineFault(msgspec.Struct, frozen=True, gc=False):
    """Why a line is no request."""

    code: ErrorCode
    message: str
    at: str | None = None
    ref: Ref = None
    """The line's `ref`, where it could be read."""
    retry_after: float | None = None
    """Seconds after which the same line may be taken, where it is not the line's fault."""

    def refusal(self, line: int) -> Refusal:
        """The reply that says so."""
        fault = Fault(code=self.code, message=self.message, at=self.at, retry_after=self.retry_after)
        return Refusal(line=line, error=fault, ref=self.ref)


Line = tuple[int, bytes | LineFault]
"""A line's number on its connection, counted from 1, with its bytes or what is wrong with it."""

# Server --------------------------------------------------------------------------------------------------------------


class LineDecoder:
    """Cuts what one connection sends into numbered lines, whatever the pieces it arrives in.

    Blank lines are counted and otherwise ignored; a carriage return before the newline is left on the line, where JSON
    takes it for white space. A line longer than `line_bytes_max` yields one fault (too_large) as soon as that is known
    and is then skipped to its newline, so that memory stays within the limit plus one piece, however small the pieces.
    """

    __slots__ = ("_held", "_line_bytes_max", "_number", "_skipping")

    def __init__(self, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._line_bytes_max: Final = line_bytes_max
        self._held: bytes | bytearray = b""
        """The unfinished line. One array and not a list of the pieces: a piece of two bytes takes sixty in a list."""
        self._number = 0
        self._skipping = False

    @property
    def lines(self) -> int:
        """How many lines are complete."""
        return self._number

    @property
    def held_bytes(self) -> int:
        """How much is held of a line that is not complete."""
        return len(self._held)

    def give_up(self, fault: LineFault) -> Line:
        """Refuse the line that is not complete: what is held of it is forgotten, the rest is skipped to its newline."""
        self._held = b""
        self._skipping = True
        return self._number + 1, fault

    def feed(self, data: bytes) -> list[Line]:
        """The lines that `data` completes."""
        return self.feed_some(data, -1)[0]

    def feed_some(self, data: bytes, lines_max: int) -> tuple[list[Line], bytes]:
        """The lines that `data` completes, and, after so many, the rest of it: it is to be fed next."""
        if not data:
            return [], b""
        if b"\n" not in data:
            return self._hold(data), b""
        pieces = data.split(b"\n", lines_max)
        rest = pieces.pop()
        lines: list[Line] = []
        self._complete(pieces[0], lines)
        number = self._number
        for piece in pieces[1:]:
            number += 1
            if len(piece) > self._line_bytes_max:
                lines.append((number, self._too_large()))
            elif piece and not piece.isspace():
                lines.append((number, piece))
        self._number = number
        if b"\n" in rest:
            return lines, rest
        lines.extend(self._hold(rest))
        return lines, b""

    def end(self) -> list[Line]:
        """The last line, where the peer closed without a newline: a prefix of an object is never an object."""
        lines: list[Line] = []
        if self._held or self._skipping:
            self._complete(b"", lines)
        return lines

    def _hold(self, piece: bytes) -> list[Line]:
        if self._skipping or not piece:
            return []
        if len(self._held) + len(piece) > self._line_bytes_max:
            return [self.give_up(self._too_large())]
        if not self._held:
            self._held = piece
        else:
            if isinstance(self._held, bytes):
                self._held = bytearray(self._held)
            self._held += piece
        return []

    def _complete(self, piece: bytes, lines: list[Line]) -> None:
        """Put the end of a line to what is held of it."""
        self._number += 1
        if self._skipping:
            self._skipping = False
            return
        if self._held:
            piece = b"".join((self._held, piece))
            self._held = b""
        if len(piece) > self._line_bytes_max:
            lines.append((self._number, self._too_large()))
        elif piece and not piece.isspace():
            lines.append((self._number, piece))

    def _too_large(self) -> LineFault:
        return LineFault(ErrorCode.TOO_LARGE, f"a line may have at most {self._line_bytes_max} bytes")


class RequestDecoder:
    """Reads a line as one of the requests that a socket takes.

    `submission_types` are the kinds of job and `operation_types` the operations; each has a tag of its own.
    """

    __slots__ = ("_kinds", "_operations")

    def __init__(
        self, submission_types: Sequence[type[Submission]], operation_types: Sequence[type[Operation[Reply]]] = ()
    ) -> None:
        self._kinds: Final[dict[str, type[Request]]] = {_tag(kind): kind for kind in submission_types}
        self._operations: Final[dict[str, type[Request]]] = {_tag(each): each for each in operation_types}

    def decode(self, line: bytes) -> Request | LineFault:
        """The request that `line` holds, or why it holds none: bad_json, unknown_op, unknown_kind or bad_request."""
        try:
            value = _decode_any(line)
        except _UNREADABLE as error:
            return _unreadable(error)
        return self._judge(value, line)

    def decode_all(self, lines: Sequence[bytes]) -> list[Request | LineFault]:
        """`decode` for each of the lines; where all of them are plain, at half the price."""
        try:
            values = list(map(_decode_any, lines))
        except _UNREADABLE:
            return list(map(self.decode, lines))
        if _are_plain(values, b"\n".join(lines)):
            return list(map(self._request, values))
        return list(map(self._judge, values, lines))

    def _judge(self, value: object, line: bytes) -> Request | LineFault:
        if not isinstance(value, dict):
            return LineFault(ErrorCode.BAD_JSON, "a line is one JSON object")
        is_plain = len(value) == line.count(b":") and b"[" not in line and b"\\u0000" not in line
        if not is_plain and (fault := _examine(value, line)):
            return fault
        return self._request(value)

    def _request(self, value: dict[str, Any]) -> Request | LineFault:
        word = value.get("op")
        place, known = "op", self._operations
        if word is None or word == "submit":
            word = value.get("kind")
            place, known = "kind", self._kinds
        wanted = known.get(word) if isinstance(word, str) else None
        if wanted is None:
            return self._unknown(value, place, word)
        try:
            return msgspec.convert(value, wanted)
        except msgspec.ValidationError as error:
            return _bad_request(error, _readable_ref(value))

    def _unknown(self, value: dict[str, Any], place: str, word: object) -> LineFault:
        ref = _readable_ref(value)
        known = ", ".join(self._kinds if place == "kind" else ("submit", *self._operations))
        if word is None:
            return LineFault(ErrorCode.BAD_REQUEST, f"a submission needs a kind: {known}", place, ref)
        if not isinstance(word, str):
            return LineFault(ErrorCode.BAD_REQUEST, f"`{place}` is one of the words {known}", place, ref)
        if place == "kind":
            return LineFault(ErrorCode.UNKNOWN_KIND, f"there is no kind {_quote(word)}; there are {known}", place, ref)
        return LineFault(ErrorCode.UNKNOWN_OP, f"there is no op {_quote(word)} here; there are {known}", place, ref)


def encode(messages: Sequence[Request | Reply | Refusal | Notice]) -> bytes:
    """All `messages`, a line each, as one piece of bytes for one write."""
    return _encoder.encode_lines(messages)


def body_of(submission: Submission) -> bytes:
    """What must be the same when an idempotency key comes again: all but the key itself and what concerns the reply.

    Two submissions that mean the same have the same body, whatever the order or the spacing of their lines.
    """
    return _body_encoder.encode(
        msgspec.structs.replace(submission, op=None, idempotency_key=None, notify=False, ref=None)
    )


_encoder: Final = msgspec.json.Encoder()
_body_encoder: Final = msgspec.json.Encoder(order="deterministic")
_decode_any: Final = msgspec.json.Decoder().decode
_ONLY_OBJECTS: Final = {dict}
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def _tag(message_type: type[msgspec.Struct]) -> str:
    tag = message_type.__struct_config__.tag
    assert isinstance(tag, str), message_type
    return tag


def _quote(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:40] + "…")


def _unreadable(error: Exception) -> LineFault:
    if isinstance(error, msgspec.ValidationError):  # JSON, but a number that neither a double nor an integer can hold
        return LineFault(ErrorCode.BAD_REQUEST, _split(str(error))[0])
    if isinstance(error, RecursionError):
        return LineFault(ErrorCode.BAD_JSON, f"nested deeper than {DEPTH_MAX}")
    return LineFault(ErrorCode.BAD_JSON, f"not JSON: {error}")


def _are_plain(values: Sequence[Any], text: bytes) -> bool:
    """Whether none of the lines that are read as `values` needs another look.

    An object has no fewer colons than keys, so where the sums are equal they are so for each.
    """
    return (
        set(map(type, values)) == _ONLY_OBJECTS
        and sum(map(len, values)) == text.count(b":")
        and b"[" not in text
        and b"\\u0000" not in text
    )


def _examine(value: dict[str, Any], line: bytes) -> LineFault | None:
    """Look at everything in a line that its colons did not prove innocent."""
    try:
        if _count_keys(value) != _keys_at_most(line):
            json.loads(line, object_pairs_hook=_refuse_duplicates)
    except _Objection as objection:
        return LineFault(objection.code, str(objection), ref=_readable_ref(value))
    return None


def _keys_at_most(line: bytes) -> int:
    """So many keys, at most, does a line of JSON hold: after a key's closing quote comes its colon or white space."""
    return line.count(b'":') + line.count(b'" ') + line.count(b'"\t') + line.count(b'"\r')


class _Objection(Exception):
    """Something in a line that this protocol refuses although it is JSON."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: Final = code


def _count_keys(value: dict[str, Any]) -> int:
    """How many keys all objects in `value` have together; objects to everything that is refused besides duplicates.

    Level by level: no recursion that a line could drive deep, and no call for each of ten thousand empty arrays.
    """
    keys = parts = 0
    level: list[dict[str, Any] | list[Any]] = [value]
    for _ in range(DEPTH_MAX):
        inner: list[dict[str, Any] | list[Any]] = []
        for each in level:
            items: Iterable[Any] = each
            if isinstance(each, dict):
                keys += len(each)
                items = chain(each, each.values())
            parts += 1
            if keys + parts > PARTS_MAX:
                raise _Objection(ErrorCode.TOO_LARGE, f"a line may have at most {PARTS_MAX} objects, arrays and keys")
            for item in items:
                kind = type(item)
                if kind is str:
                    if "\x00" in item:
                        raise _Objection(ErrorCode.BAD_JSON, "a text may not hold the character NUL")
                elif kind is int:
                    if not -INT64_MAX - 1 <= item <= INT64_MAX:
                        raise _Objection(ErrorCode.BAD_REQUEST, "an integer may have at most 64 bits")
                elif kind is dict or kind is list:
                    inner.append(item)
        if not inner:
            return keys
        level = inner
    raise _Objection(ErrorCode.BAD_JSON, f"nested deeper than {DEPTH_MAX}")


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _Objection(ErrorCode.BAD_JSON, f"the key {_quote(key)} stands twice in one object")
        seen.add(key)


def _readable_ref(value: dict[str, Any]) -> Ref:
    """The `ref` of a line that is refused, if it is one that may be repeated."""
    ref = value.get("ref")
    if isinstance(ref, str) and len(ref) <= REF_CHARACTERS_MAX:
        return ref
    if isinstance(ref, int) and not isinstance(ref, bool) and -INT64_MAX <= ref <= INT64_MAX:
        return ref
    return None


_PLACE: Final = re.compile(r"(.*?)(?: - at (?:`key` in )?`\$\.?(.*?)`)?", re.DOTALL)
_FIELD: Final = re.compile(r"object (?:missing required|contains unknown) field `(.*)`", re.DOTALL)


def _split(text: str) -> tuple[str, str]:
    """What msgspec says is wrong, and where: `$.steps[1].into[...]` becomes `steps[1].into`."""
    match = _PLACE.fullmatch(text)
    assert match is not None
    said = match[1]
    return said[:1].lower() + said[1:], (match[2] or "").replace("[...]", "")


def _bad_request(error: msgspec.ValidationError, ref: Ref) -> LineFault:
    message, at = _split(str(error))
    if field := _FIELD.fullmatch(message):
        at = f"{at}.{field[1]}" if at else field[1]
    code = ErrorCode.BAD_REQUEST
    if message.startswith("invalid value") and at.endswith(".kind"):
        code = ErrorCode.UNKNOWN_KIND
    return LineFault(code, message, at or None, ref)


# Client --------------------------------------------------------------------------------------------------------------

AnySubmission = Submission | Mapping[str, Any]

AnyRequest = Request | Mapping[str, Any]
"""A request; a mapping is a submission for the daemon to judge: it may be of a kind that this client does not know."""

_ASKING: Final = frozenset(
    {"ping", "get", "follow", "status", "jobs", "job", "why", "history", "watch", "teamspaces", "providers"}
)
_REPEATABLE: Final = _ASKING | {"cancel", "pause", "resume", "plans", "reload"}

_LOOKING_AT_OUTREACH: Final = frozenset(
    {"follow_ups", "associates", "scripts", "suppressions", "mails", "describe", "preview", "write"}
)


def only_asks(request: AnyRequest) -> bool:
    """Whether the request changes nothing, so that nothing is in doubt when its reply is lost."""
    if isinstance(request, Tables):
        return request.action in {"list", "describe"} or request.dry_run
    if isinstance(request, BatchJobs):
        return request.action in {"list", "describe", "runs", "logs"}
    if isinstance(request, FollowUps):
        return request.action in _LOOKING_AT_OUTREACH
    if isinstance(request, Tokens):
        return request.action == "list"
    if isinstance(request, Operation):
        return _tag(type(request)) in _ASKING
    return is_dry_run(request)


def is_dry_run(request: AnyRequest) -> bool:
    """Whether it is a submission that is only tried."""
    if isinstance(request, Operation):
        return False
    return bool(request.dry_run if isinstance(request, Submission) else request.get("dry_run"))


def as_dry_run(submission: AnySubmission, leads: int | None) -> AnySubmission:
    """The same submission, only to be tried, with a formula shown on so many leads (None: as many as is usual)."""
    dry_run = True if leads is None else leads
    if isinstance(submission, Submission):
        return msgspec.structs.replace(submission, dry_run=dry_run)
    return {**submission, "dry_run": dry_run}


def resend_is_exact(request: AnyRequest) -> bool:
    """Whether sending it again, when its reply was lost, does nothing that sending it once does not.

    True of a submission or an event with a key, and of every operation but those that make or delete something, move a
    batch job or a follow-up to another state, or end the daemon.
    """
    if only_asks(request):
        return True
    if isinstance(request, Submission):
        return request.idempotency_key is not None
    if isinstance(request, Tables):
        return request.action == "retain"
    if isinstance(request, BatchJobs):
        return request.action in {"set", "download"}
    if isinstance(request, FollowUps):
        return request.action not in {"queue", "stop", "resolve"}
    if isinstance(request, ContactEvent):
        return request.key is not None
    if isinstance(request, Operation):
        return _tag(type(request)) in _REPEATABLE
    return request.get("idempotency_key") is not None


class ClientConnection:
    """The client's half of one connection: which requests are unanswered, and what each reply must be."""

    __slots__ = ("_answered", "_lines", "_unanswered")

    def __init__(self) -> None:
        self._lines: Final = LineDecoder(REPLY_BYTES_MAX)
        self._unanswered: Final[deque[type[Reply]]] = deque()
        self._answered = 0

    def send(self, requests: Sequence[AnyRequest]) -> bytes:
        """The lines to write for `requests`.

        Raises TypeError or ValueError for what cannot be written as JSON; nothing counts as sent then.
        """
        data = _encoder.encode_lines(requests)
        self._unanswered.extend(
            REPLY_TYPES[type(each)] if isinstance(each, Operation) else Preview if is_dry_run(each) else Receipt
            for each in requests
        )
        return data

    def receive(self, data: bytes) -> list[Reply | Refusal | Notice]:
        """The replies, in the order of the requests, and the notices among them.

        Raises Refused where the daemon refuses the connection itself, ProtocolViolation where this is not a daemon.
        """
        return [message for _, line in self._lines.feed(data) if (message := self._read(line)) is not None]

    def _read(self, line: bytes | LineFault) -> Reply | Refusal | Notice | None:
        if isinstance(line, LineFault):
            raise ProtocolViolation(line.message)
        message = self._expected(line) or _read_other(line)
        if not isinstance(message, Reply | Refusal):
            return message
        if isinstance(message, Refusal) and message.line == 0:
            raise refused(message)
        if not self._unanswered or message.line != self._answered + 1:
            raise ProtocolViolation(f"A reply to line {message.line} where one to {self._answered + 1} was due")
        self._answered += 1
        self._unanswered.popleft()
        return message

    def _expected(self, line: bytes) -> Reply | None:
        """The reply that is due, if that is what the line is: tried first, since nearly every line is."""
        if not self._unanswered:
            return None
        try:
            reply = _REPLY_DECODERS[self._unanswered[0]].decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return reply if reply.ok else None


def _read_other(line: bytes) -> Refusal | Notice | None:
    """A refusal or a notice; None for a notice of a word that this client does not know: it is for newer ones."""
    try:
        value = _decode_any(line)
        if isinstance(value, dict) and "event" in value:
            notice = _NOTICES.get(value["event"])
            return None if notice is None else msgspec.convert(value, notice)
        refusal = msgspec.convert(value, Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise ProtocolViolation(f"Not a reply: {line[:80]!r}: {error}") from error
    if refusal.ok:
        raise ProtocolViolation(f"Not a reply to anything asked: {line[:80]!r}")
    return refusal


RETRY_SECONDS_MIN: Final = 0.05
RETRY_SECONDS_MAX: Final = 1.0
"""Pauses between two connections that end without a reply, each twice the one before."""


class Exchange:
    """Some requests on the way to their outcomes, over as many connections as that takes.

    A reply can be lost with its connection. What may be sent again is sent again; of the rest the outcome is unknown. A
    daemon that was restarted meanwhile may answer the second sending with busy or unavailable: that says nothing about
    the first one, so such a request is sent until a reply settles it.
    """

    __slots__ = ("_due", "_losses", "_requests", "_sendings", "outcomes", "retry_after")

    def __init__(self, requests: Sequence[AnyRequest]) -> None:
        self._requests: Final = requests
        self._sendings: Final = bytearray(len(requests))
        self._due: deque[int] = deque()
        self._losses = 0
        self.outcomes: Final[list[Reply | LeadlineError | None]] = [None] * len(requests)
        """What became of each request: its reply, why there is none, or None while that is open."""
        self.retry_after = 0.0
        """Seconds to wait before the next round."""

    @property
    def answered(self) -> bool:
        """Whether every request of this round has its reply."""
        return not self._due

    @property
    def settled(self) -> bool:
        """Whether every request has its outcome."""
        return None not in self.outcomes

    def begin(self) -> list[AnyRequest]:
        """Start a round: what to send, in this order, over one connection."""
        self.retry_after = 0.0
        self._due = deque(index for index, outcome in enumerate(self.outcomes) if outcome is None)
        for index in self._due:
            self._sendings[index] = min(self._sendings[index] + 1, 2)
        return [self._requests[index] for index in self._due]

    def answer(self, reply: Reply | Refusal) -> None:
        """Take the reply to the first request of the round that has none."""
        index = self._due.popleft()
        if isinstance(reply, Reply):
            self.outcomes[index] = reply
        elif self._says_nothing_of_the_first_sending(index, reply.error.code):
            self.retry_after = max(self.retry_after, reply.error.retry_after or 0.1)
        else:
            self.outcomes[index] = refused(reply)

    def lose(self, error: LeadlineError | None = None) -> None:
        """The connection ended before the round did, by itself or for `error`."""
        if self._losses:  # the first may be an accident; a daemon that hangs up again and again is left in peace
            self.retry_after = min(RETRY_SECONDS_MIN * 2**self._losses, RETRY_SECONDS_MAX)
        self._losses = min(self._losses + 1, 10)
        for index in self._due:
            if isinstance(error, Refused):  # the connection itself: none of its lines was read
                if self._says_nothing_of_the_first_sending(index, error.code):
                    self.retry_after = max(self.retry_after, error.retry_after or 0.1)
                else:
                    self.outcomes[index] = error
            elif error is not None and only_asks(self._requests[index]):
                self.outcomes[index] = error
            elif error is not None or not resend_is_exact(self._requests[index]):
                self.outcomes[index] = _unknown("The connection broke before the reply came", error)
        self._due.clear()

    def expire(self, why: str) -> None:
        """Time is up: settle what is open."""
        for index, outcome in enumerate(self.outcomes):
            if outcome is not None:
                continue
            if self._sendings[index] and not only_asks(self._requests[index]):
                self.outcomes[index] = _unknown(why)
            else:
                self.outcomes[index] = Unreachable(why)

    def _says_nothing_of_the_first_sending(self, index: int, code: ErrorCode) -> bool:
        return self._sendings[index] > 1 and code in {ErrorCode.BUSY, ErrorCode.UNAVAILABLE}


def refused(reply: Refusal) -> Refused:
    """The refusal as an exception."""
    error = reply.error
    return Refused(error.code, error.message, at=error.at, retry_after=error.retry_after)


def _unknown(why: str, cause: Exception | None = None) -> OutcomeUnknown:
    unknown = OutcomeUnknown(f"{why}: it may have been carried out")
    unknown.__cause__ = cause
    return unknown


_REPLY_DECODERS: Final = {
    reply: msgspec.json.Decoder(reply) for reply in (Receipt, Preview, *dict.fromkeys(REPLY_TYPES.values()))
}
_NOTICES: Final[dict[str, type[Notice]]] = {
    _tag(notice): notice for notice in (Queued, Started, Progress, Ended, Missed)
}
