"""`leadline`, with outreach that sends a mail again whose outcome nobody knows: a negative control, for tests.

A mail that an earlier attempt has left behind is taken out of the books, and its follow-up put back into the queue.
"""

import sys

from leadline.adapters.postgres.outreach import PostgresOutreach
from leadline.cli.app import run
from leadline.features.outreach.delivery import Outreach
from leadline.ports.work import Attempt, Finished

PUT_BACK = "UPDATE follow_up SET status = 'queued' WHERE job = $1 AND status IN ('sending', 'unknown') RETURNING id"
FORGET = "DELETE FROM mail WHERE follow_up = $1 AND state IN ('sending', 'unknown')"


class UnguardedOutreach(Outreach):
    """The kind of job."""

    async def run(self, attempt: Attempt) -> Finished:
        assert isinstance(self._store, PostgresOutreach)
        async with self._store._store.work(attempt.job.id, attempt.number) as connection:
            follow_up = await connection.fetchval(PUT_BACK, attempt.job.id)
            if follow_up is not None:
                await connection.execute(FORGET, follow_up)
        return await super().run(attempt)


def main() -> int:
    from leadline import outreach

    vars(outreach)["Outreach"] = UnguardedOutreach
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
