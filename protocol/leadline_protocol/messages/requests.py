"""Which operations each socket allows, and what answers them."""

from typing import Final, get_args

from leadline_protocol.messages.operations.base import Operation
from leadline_protocol.messages.operations.batch import BatchJobs
from leadline_protocol.messages.operations.jobs import Cancel, Follow, Get, History, Job, Jobs, Rerun, Watch, Why
from leadline_protocol.messages.operations.links import Links
from leadline_protocol.messages.operations.notices import Notices
from leadline_protocol.messages.operations.outreach import ContactEvent, FollowUps
from leadline_protocol.messages.operations.queue import Pause, Plans, Providers, Resume, Teamspaces
from leadline_protocol.messages.operations.schedules import Schedules
from leadline_protocol.messages.operations.service import Drain, Ping, Reload, Status
from leadline_protocol.messages.operations.tables import Tables
from leadline_protocol.messages.operations.tokens import Tokens
from leadline_protocol.messages.operations.usage import Usage
from leadline_protocol.messages.replies.base import Reply
from leadline_protocol.messages.submissions import Submission

SUBMIT_OPERATIONS: Final[tuple[type[Operation[Reply]], ...]] = (Ping, Get, Follow, ContactEvent)
"""What the submit socket allows, besides submissions."""

CONTROL_OPERATIONS: Final[tuple[type[Operation[Reply]], ...]] = (
    *SUBMIT_OPERATIONS,
    Status,
    Jobs,
    Job,
    Why,
    History,
    Cancel,
    Rerun,
    Pause,
    Resume,
    Watch,
    Teamspaces,
    Providers,
    Plans,
    Notices,
    Usage,
    Tables,
    Schedules,
    BatchJobs,
    FollowUps,
    Tokens,
    Links,
    Reload,
    Drain,
)
"""What the control socket allows, besides submissions."""

REPLY_TYPES: Final[dict[type[Operation[Reply]], type[Reply]]] = {
    operation: get_args(operation.__dict__["__orig_bases__"][0])[0] for operation in CONTROL_OPERATIONS
}
"""What answers each operation where it is not refused; a submission is answered by Receipt."""

Request = Submission | Operation[Reply]
