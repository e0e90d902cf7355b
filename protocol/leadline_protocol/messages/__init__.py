"""Everything that may be said on a Leadline socket, as types: submissions, operations, replies and notices.

A line is one JSON object and each shape here is one such object, with the same names in Python as on the wire (the one
exception is `as`, a Python keyword, which is `as_` here). There are four families, told apart by one key each:

    submission   `kind`    work for the queue; `op` may say "submit" and usually says nothing
    operation    `op`      a question or an instruction about what is there
    reply        `ok`      one per request, in the order of the requests: what was asked for, or a Refusal
    notice       `event`   sent by the daemon between replies, because of `notify`, `follow` or `watch`

Each family is a module of this package, operations and replies a module for each subject; `requests` says which socket
allows which operation, and `words` is what all of them share. Whoever speaks the protocol imports the package.

What a peer sends is read strictly: an unknown field is a mistake worth telling. What the daemon sends is read
leniently, so that a client goes on working with a daemon that has learnt to say more. Optional fields at their default
are left out of the line. All times are aware datetimes, RFC 3339 in UTC on the wire; a duration carries its unit in its
name.

Submissions and the steps of a chain carry the same work under the same names. msgspec cannot inherit from two structs,
so the fields of the work are written twice: a step has nothing else, a submission adds the envelope (teamspace, key,
times). A test holds the two equal, and `submission_of` turns one into the other, so that whoever does the work sees
submissions only.
"""

from leadline_protocol.messages.notices import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.operations.base import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.operations.batch import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.operations.jobs import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.operations.links import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.operations.notices import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.operations.outreach import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.operations.queue import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.operations.schedules import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.operations.service import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.operations.tables import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.operations.tokens import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.operations.usage import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.outreach import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.replies.base import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.replies.batch import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.replies.jobs import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.replies.links import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.replies.notices import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.replies.plans import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.replies.providers import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.replies.schedules import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.replies.status import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.replies.submissions import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.replies.tables import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.replies.tokens import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.replies.usage import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.requests import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.submissions import *  # noqa: F403  what is said on a socket, by one name
from leadline_protocol.messages.words import *  # noqa: F403  what is said on a socket, by one name
