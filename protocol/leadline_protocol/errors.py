"""What may go wrong, and why things ended as they did: one error tree and three closed lists of words.

    LeadlineError
    ├── Refused              the daemon understood and said no; carries a code of the first list
    ├── Unreachable          no daemon answers at the socket
    ├── OutcomeUnknown       a request was sent and its reply lost: it may have been carried out
    └── ProtocolViolation    the other side sent something that is not this protocol

An expected refusal has a code; a bug is an assertion. Each list below is closed: a word that is not in it cannot be put
on the wire, and each word says in its documentation what it means to the person who reads it.
"""

from enum import StrEnum
from typing import Final


class ErrorCode(StrEnum):
    """Why a request was refused: the closed list of request error codes."""

    BAD_JSON = "bad_json"
    BAD_REQUEST = "bad_request"
    BAD_EXPRESSION = "bad_expression"
    UNKNOWN_OP = "unknown_op"
    UNKNOWN_KIND = "unknown_kind"
    UNKNOWN_MODULE = "unknown_module"
    UNKNOWN_TABLE = "unknown_table"
    UNKNOWN_COLUMN = "unknown_column"
    UNKNOWN_TEAMSPACE = "unknown_teamspace"
    UNKNOWN_PROVIDER = "unknown_provider"
    NOT_FOUND = "not_found"
    BAD_STATE = "bad_state"
    BAD_ARCHIVE = "bad_archive"
    BAD_SCHEDULE = "bad_schedule"
    TOO_LARGE = "too_large"
    CONFLICT = "conflict"
    QUEUE_FULL = "queue_full"
    QUOTA = "quota"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


ERROR_CODES: Final[dict[ErrorCode, str]] = {
    ErrorCode.BAD_JSON: (
        "The line is not one JSON object: not UTF-8, not JSON, too deep, or with a duplicate key or a NUL."
    ),
    ErrorCode.BAD_REQUEST: "A field is missing, unknown or of the wrong type or range; `at` names it.",
    ErrorCode.BAD_EXPRESSION: (
        "A filter, formula or prompt does not compile; `at` is the field and the 1-based character."
    ),
    ErrorCode.UNKNOWN_OP: "There is no such operation on this socket.",
    ErrorCode.UNKNOWN_KIND: "There is no such kind of job.",
    ErrorCode.UNKNOWN_MODULE: "No data module of that name is configured.",
    ErrorCode.UNKNOWN_TABLE: "The teamspace has no table of that name.",
    ErrorCode.UNKNOWN_COLUMN: "The table has no column of that name.",
    ErrorCode.UNKNOWN_TEAMSPACE: "No such teamspace, and this operation does not create one.",
    ErrorCode.UNKNOWN_PROVIDER: "No provider of that name is configured.",
    ErrorCode.NOT_FOUND: "There is no such job, or it is not yours to see.",
    ErrorCode.BAD_STATE: "What was asked cannot be done in the present state; the message says which state that is.",
    ErrorCode.BAD_ARCHIVE: (
        "The file is missing, unreadable, outside the allowed folders, or not of a kind that can be read."
    ),
    ErrorCode.BAD_SCHEDULE: "The schedule does not parse or breaks a rule of the plan.",
    ErrorCode.TOO_LARGE: "The line or the file is larger than allowed.",
    ErrorCode.CONFLICT: "The idempotency key was used before with another body.",
    ErrorCode.QUEUE_FULL: "The teamspace has as many jobs queued as its plan allows.",
    ErrorCode.QUOTA: "A quota of the plan is used up.",
    ErrorCode.UNAUTHORIZED: "The credentials are missing or not valid.",
    ErrorCode.FORBIDDEN: "This peer or person may not do that.",
    ErrorCode.BUSY: "The daemon has more work in hand than it can take; try again after `retry_after` seconds.",
    ErrorCode.UNAVAILABLE: (
        "The daemon cannot reach its database or is starting; try again after `retry_after` seconds."
    ),
    ErrorCode.INTERNAL: "A fault of the daemon itself; it is in its log under the same words.",
}

RETRYABLE: Final[frozenset[ErrorCode]] = frozenset(
    {ErrorCode.BUSY, ErrorCode.UNAVAILABLE, ErrorCode.QUEUE_FULL, ErrorCode.QUOTA}
)
"""The codes after which the same request may succeed later; only these carry `retry_after`."""


class JobReason(StrEnum):
    """Why a job ended, or waits, other than by plainly running to its end: the closed list of job reasons."""

    LIMIT = "limit"
    RETRY_AFTER = "retry_after"
    DAILY_CAP = "daily_cap"
    CREDITS = "credits"
    POLL = "poll"
    BULK_RESULT = "bulk_result"
    BACKOFF = "backoff"
    PAUSED = "paused"
    QUOTA = "quota"
    CIRCUIT = "circuit"
    APPROVAL = "approval"
    PREVIOUS_STEP = "previous_step"
    QUARANTINED = "quarantined"
    DELAYED = "delayed"
    SLOT = "slot"
    CAPACITY = "capacity"
    STALLED = "stalled"
    WORKER_LOST = "worker_lost"
    CANCELLED = "cancelled"
    PREVIOUS_STEP_FAILED = "previous_step_failed"
    GUARD_EMPTY = "guard_empty"
    GUARD_MORE_THAN = "guard_more_than"
    WHEN = "when"
    INVALID_KEY = "invalid_key"
    SPEND_CAP = "spend_cap"
    BAD_FILE = "bad_file"
    TABLE_DELETED = "table_deleted"
    DAILY_EXECUTIONS = "daily_executions"
    INVOCATIONS = "invocations"
    LEFT_DURATION = "left_duration"
    NO_SLOT = "no_slot"
    SENDING_HOURS = "sending_hours"
    UNPUBLISHED = "unpublished"
    TIMED_OUT = "timed_out"
    ERROR = "error"


JOB_REASONS: Final[dict[JobReason, str]] = {
    JobReason.LIMIT: "A provider's rate limit is used up for now.",
    JobReason.RETRY_AFTER: "The provider asked everyone to wait.",
    JobReason.DAILY_CAP: "The provider's allowance for the day is used up.",
    JobReason.CREDITS: "The provider account has no credits left.",
    JobReason.POLL: "The provider works on it; the result is asked for at intervals.",
    JobReason.BULK_RESULT: "The provider works on a bulk order.",
    JobReason.BACKOFF: "An attempt failed; the next one waits a little.",
    JobReason.PAUSED: "A person paused the queue, the family, the teamspace, the provider or the job.",
    JobReason.QUOTA: "A quota of the plan is used up.",
    JobReason.CIRCUIT: "The provider failed or throttled without a hint; one trial call decides when work goes on.",
    JobReason.APPROVAL: "A guard holds the job until a person resumes it.",
    JobReason.PREVIOUS_STEP: "The step before it in its chain has not ended.",
    JobReason.QUARANTINED: "The job took the daemon down three times; a person decides.",
    JobReason.DELAYED: "Its run_at has not come.",
    JobReason.SLOT: "The teamspace runs as many jobs of this family as its plan allows.",
    JobReason.CAPACITY: "The servers have as many jobs of this family in hand as they may.",
    JobReason.STALLED: "It stood still for too long, as often as is allowed.",
    JobReason.WORKER_LOST: "Its worker stopped beating.",
    JobReason.CANCELLED: "A person or a service cancelled it.",
    JobReason.PREVIOUS_STEP_FAILED: (
        "An earlier step of its chain failed or was cancelled, and the chain stops on failure."
    ),
    JobReason.GUARD_EMPTY: "No lead matched, and the step's guard says to skip it then.",
    JobReason.GUARD_MORE_THAN: "More leads matched than the step's guard allows.",
    JobReason.WHEN: "The step before it did not end as its `when` wants.",
    JobReason.INVALID_KEY: "The provider refused the credential.",
    JobReason.SPEND_CAP: "Its spend cap was reached; leads that it had no credits for were skipped.",
    JobReason.BAD_FILE: "The file cannot be read as a table.",
    JobReason.TABLE_DELETED: "The table that it was submitted for was deleted.",
    JobReason.DAILY_EXECUTIONS: "The teamspace had as many executions of batch jobs in the day as its plan allows.",
    JobReason.INVOCATIONS: "The batch job was invoked as often in the day as the plan allows.",
    JobReason.LEFT_DURATION: "The day had less time left for batch jobs than it needed.",
    JobReason.NO_SLOT: "A schedule wanted it started, and no slot was free for it soon enough.",
    JobReason.SENDING_HOURS: "Mails of its mailbox leave within certain hours only.",
    JobReason.UNPUBLISHED: "The batch job was unpublished or deleted before it started.",
    JobReason.TIMED_OUT: "It ran as long as its timeout allows.",
    JobReason.ERROR: "The job itself failed; the message says how.",
}


class LeadReason(StrEnum):
    """Why a lead was not simply done, or a row not taken: the closed list of lead reasons."""

    MISSING_INPUT = "missing_input"
    RUN_IF = "run_if"
    DELETED = "deleted"
    NOT_FOUND = "not_found"
    NEVER_FITS = "never_fits"
    SPEND_CAP = "spend_cap"
    PAID_BEFORE = "paid_before"
    PASSED_OVER = "passed_over"
    STALLED = "stalled"
    SERVER_ERROR = "server_error"
    REFUSED_BY_PROVIDER = "refused_by_provider"
    BAD_RESPONSE = "bad_response"
    BAD_OUTPUT = "bad_output"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    UNKNOWN_OUTCOME = "unknown_outcome"
    CANCELLED = "cancelled"
    DIVISION_BY_ZERO = "division_by_zero"
    BAD_CAST = "bad_cast"
    OUT_OF_RANGE = "out_of_range"
    DUPLICATE = "duplicate"
    MISSING_KEY = "missing_key"
    INVALID_EMAIL = "invalid_email"
    RAGGED_ROW = "ragged_row"
    FIELD_TOO_LONG = "field_too_long"
    UNDECODABLE = "undecodable"
    BAD_JSON = "bad_json"


LEAD_REASONS: Final[dict[LeadReason, str]] = {
    LeadReason.MISSING_INPUT: "A column that the module needs is empty.",
    LeadReason.RUN_IF: "The step's run_if is not true for it.",
    LeadReason.DELETED: "It was deleted before its turn.",
    LeadReason.NOT_FOUND: "The provider has nothing on it.",
    LeadReason.NEVER_FITS: "Its cost is above the provider's limit itself.",
    LeadReason.SPEND_CAP: "What it may cost would have gone beyond the job's spend cap; it was not asked about.",
    LeadReason.PAID_BEFORE: "An earlier run of the same job has got its result and paid for it.",
    LeadReason.PASSED_OVER: "No provider that could be asked has it; another was out of use, and might.",
    LeadReason.STALLED: "It was in flight at two stall kills.",
    LeadReason.SERVER_ERROR: (
        "The provider answered with a server error three times, or a Python module raised or crashed as often."
    ),
    LeadReason.REFUSED_BY_PROVIDER: "The provider refused the request for this lead.",
    LeadReason.BAD_RESPONSE: "The provider's answer is not what its module describes.",
    LeadReason.BAD_OUTPUT: "The answer is not of the declared type, also after one repair.",
    LeadReason.UNREACHABLE: "No connection to the provider could be made.",
    LeadReason.TIMED_OUT: "No answer came in the call's time.",
    LeadReason.UNKNOWN_OUTCOME: "Whether the provider did the work is not known; it was not asked again.",
    LeadReason.CANCELLED: "Its job was cancelled before its turn.",
    LeadReason.DIVISION_BY_ZERO: "The formula divides by zero for it.",
    LeadReason.BAD_CAST: "A value of it cannot be read as the type the formula needs.",
    LeadReason.OUT_OF_RANGE: "The formula's result is too large or too small for it.",
    LeadReason.DUPLICATE: "The row's key is already in the file or the table.",
    LeadReason.MISSING_KEY: "The row has no value in the key column.",
    LeadReason.INVALID_EMAIL: "The row's e-mail address is not one.",
    LeadReason.RAGGED_ROW: "The row has more or fewer fields than the header.",
    LeadReason.FIELD_TOO_LONG: "A field of the row is longer than allowed.",
    LeadReason.UNDECODABLE: "The row's bytes are not text in the file's encoding.",
    LeadReason.BAD_JSON: "The row's line is no JSON object.",
}


class LeadlineError(Exception):
    """Everything that Leadline raises on purpose."""


class Refused(LeadlineError):
    """The daemon understood the request and said no."""

    def __init__(
        self, code: ErrorCode, message: str, *, at: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code: Final = code
        self.message: Final = message
        self.at: Final = at
        """The place of the fault: a field, or `field:character` (1-based)."""
        self.retry_after: Final = retry_after
        """Seconds after which to try again; only with a code of RETRYABLE."""

    def __str__(self) -> str:
        place = f" (at {self.at})" if self.at else ""
        return f"{self.code}: {self.message}{place}"


class Unreachable(LeadlineError):
    """No daemon answers at the socket."""


class OutcomeUnknown(LeadlineError):
    """A request was sent, its reply was lost, and sending it again might do it twice: it may have been carried out."""


class ProtocolViolation(LeadlineError):
    """The other side sent something that is not this protocol."""
