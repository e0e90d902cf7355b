"""What keeps an ex-daemon's writes out of the database, and what follows when a COMMIT gets no answer."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
from msgspec.structs import replace as but

import leadline.adapters.postgres
from leadline.adapters.postgres import fence
from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import QUERIES
from leadline.adapters.postgres.store import PostgresStore
from leadline.core.effects import Records
from leadline.core.model import Counts
from leadline.ports.store import AttemptRetired, Fenced, OutcomeUnknown, OwnedByAnother, Unavailable
from leadline_protocol.ids import JobId
from tests.contracts.stores import ENRICH, KINDS, NAMES, admission, end, row, start, submission, together
from tests.postgres import disarm, meddle
from tests.postgres_proxy import Cut, Proxy

ADAPTER = Path(leadline.adapters.postgres.__file__).parent


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database)
    await store.take_over(owner="first", kinds=KINDS)
    await store.commit(Records(teamspaces=list(NAMES.items())))
    yield store
    await store.close()


@pytest.fixture
async def successor(database: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database)
    yield store
    await store.close()


@pytest.fixture
async def proxy(database: str, tmp_path: Path) -> AsyncIterator[Proxy]:
    async with Proxy(database, tmp_path).running() as proxy:
        yield proxy


@pytest.fixture
async def cut_off(proxy: Proxy) -> AsyncIterator[PostgresStore]:
    """A store whose connections can be cut."""
    store = PostgresStore(proxy.url)
    await store.take_over(owner="behind the proxy", kinds=KINDS)
    await store.commit(Records(teamspaces=list(NAMES.items())))
    yield store
    await store.close()


@asynccontextmanager
async def working(store: PostgresStore) -> AsyncIterator[Connection]:
    """A work transaction of job 1 that has written already."""
    async with store.work(JobId(1), 1) as connection:
        await connection.execute("UPDATE attempt SET done = 7 WHERE job = 1")
        yield connection


async def swallow(statement: Awaitable[object]) -> None:
    """Carry out a statement and go on as if it had not failed."""
    with suppress(asyncpg.PostgresError):
        await statement


async def stored(url: str) -> list[int]:
    async with meddle(url) as connection:
        return [found["id"] for found in await connection.fetch("SELECT id FROM job ORDER BY id")]


async def holder(connection: Connection) -> int:
    """The server's process of the session that holds the lock."""
    lock = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database"
    found: int = await connection.fetchval(f"{lock} WHERE datname = current_database())")
    return found


async def end_owners_session(url: str) -> None:
    """What a break in the network does to the session that holds the lock, and to no other."""
    async with meddle(url) as connection:
        await connection.fetchval("SELECT pg_terminate_backend($1, 5000)", await holder(connection))


# -------------------------------------------------------------------------------------------------- there is one way in


def test_nothing_but_the_fence_begins_a_transaction() -> None:
    begins = re.compile(r'"BEGIN|"START|\.transaction\((?!readonly=True\))|AND CHAIN|READ WRITE')
    # The queries of tenants' code log in as somebody who may write nothing that counts (test_batch_leads.py), or go to
    # another database.
    files = [path for path in (*ADAPTER.rglob("*.py"), *ADAPTER.rglob("*.sql")) if path.name != "batch_database.py"]
    found = [file.name for file in files for _ in begins.findall(file.read_text(encoding="utf-8"))]
    assert found == ["fence.py"], "in one place, which every transaction that writes goes through"


@pytest.mark.parametrize("statement", ["INSERT INTO pause VALUES ('queue', '')", "DELETE FROM job", "COPY"])
async def test_a_write_that_does_not_pass_the_fence_trips_the_wire(store: PostgresStore, statement: str) -> None:
    """The negative control of every test on this database: what goes round the fence is seen."""
    async with store.read() as connection:
        if statement == "COPY":
            writing = connection.copy_records_to_table("pause", records=[("queue", "")])
        else:
            writing = connection.execute(statement)
        with pytest.raises(asyncpg.RaiseError, match="did not pass the fence"):
            await writing


# ------------------------------------------------------------------------------------------------------------ take-over


async def test_a_take_over_waits_for_a_transaction_that_is_open_and_sees_what_it_wrote(
    database: str, store: PostgresStore, successor: PostgresStore
) -> None:
    await store.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    await end_owners_session(database)
    async with store.work(JobId(1), 1) as connection:
        await connection.execute("UPDATE attempt SET total = 8, done = 7 WHERE job = 1")
        taking_over = asyncio.create_task(successor.take_over(owner="second", kinds=KINDS))
        await until_blocked(database)
        assert not taking_over.done()
    await taking_over
    assert await counted(successor) == Counts(8, 7)
    with pytest.raises(Fenced):
        await store.commit(admission(row(2)))
    with pytest.raises(Fenced):
        async with store.work(JobId(1), 1):
            pytest.fail("the work transaction of an ex-daemon began")


async def counted(store: PostgresStore) -> Counts:
    """The counts of job 1 as its owner shows them."""
    job = await store.job(JobId(1))
    assert job is not None
    return job.counts


async def until_blocked(url: str) -> None:
    """Returns when some session of the database waits for a lock on a row or a transaction."""
    async with asyncio.timeout(60), meddle(url) as connection:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
        while not await connection.fetchval(waiting):
            await asyncio.sleep(0.01)


async def test_without_the_lock_on_the_leaders_row_an_ex_daemons_commit_would_land(
    database: str, store: PostgresStore, successor: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above: reading the epoch is not enough."""
    query = QUERIES["fence"]
    unlocked = but(query, sql=query.sql.replace("FOR SHARE", ""))
    monkeypatch.setattr(fence, "QUERIES", {**QUERIES, "fence": unlocked})
    await disarm(database)
    await store.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    await end_owners_session(database)
    async with store.work(JobId(1), 1) as connection:
        await connection.execute("UPDATE attempt SET total = 8, done = 7 WHERE job = 1")
        await asyncio.wait_for(successor.take_over(owner="second", kinds=KINDS), 60)
        async with meddle(database) as other:
            assert await other.fetchval("SELECT done FROM attempt") == 0
    async with meddle(database) as other:
        assert await other.fetchval("SELECT done FROM attempt") == 7, "it landed after the take-over"


async def test_a_forced_take_over_ends_what_the_owner_has_open(store: PostgresStore, successor: PostgresStore) -> None:
    await store.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    with pytest.raises(Unavailable):
        async with working(store):
            await successor.take_over(owner="second", kinds=KINDS, force=True)
    assert await counted(successor) == Counts()
    with pytest.raises(Fenced):
        await store.commit(admission(row(2)))


async def test_who_has_let_go_is_in_nobodys_way_however_slowly_its_session_ends(
    database: str, store: PostgresStore, successor: PostgresStore
) -> None:
    async with meddle(database) as connection:
        server = await holder(connection)
    os.kill(server, signal.SIGSTOP)
    later = asyncio.get_running_loop().call_later(0.5, os.kill, server, signal.SIGCONT)
    try:
        await store.close()
        await successor.take_over(owner="the next", kinds=KINDS)
    finally:
        later.cancel()
        with suppress(ProcessLookupError):  # where it went wrong, no process of the server is left standing
            os.kill(server, signal.SIGCONT)


async def test_an_owner_that_lost_its_session_takes_the_lock_again_with_its_next_commit(
    database: str, store: PostgresStore, successor: PostgresStore
) -> None:
    await end_owners_session(database)
    await store.commit(admission(row(1)))
    with pytest.raises(OwnedByAnother, match="first"):
        await successor.take_over(owner="second", kinds=KINDS)
    await store.commit(admission(row(2)))
    assert await stored(database) == [1, 2]


async def test_an_owner_that_lost_its_session_to_another_is_fenced(
    database: str, store: PostgresStore, successor: PostgresStore
) -> None:
    await end_owners_session(database)
    await successor.take_over(owner="second", kinds=KINDS)
    with pytest.raises(Fenced):
        await store.commit(admission(row(1)))


async def test_taking_over_again_ends_what_this_daemon_had_open(store: PostgresStore) -> None:
    await store.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    with pytest.raises(Unavailable):
        async with working(store):
            await store.take_over(owner="first", kinds=KINDS)
    async with store.work(JobId(1), 1) as connection:
        assert await connection.fetchval("SELECT done FROM attempt") == 0


# -------------------------------------------------------------------------------------------------- the lost connection


async def test_a_commit_whose_answer_is_lost_is_found_to_have_taken_place(
    database: str, proxy: Proxy, cut_off: PostgresStore
) -> None:
    proxy.cut = Cut.REPLY
    await cut_off.commit(admission(row(1)))
    assert proxy.has_cut.is_set()
    await cut_off.commit(admission(row(2)))
    assert await stored(database) == [1, 2]


async def test_a_commit_that_never_arrived_is_found_not_to_have_taken_place(
    database: str, proxy: Proxy, cut_off: PostgresStore
) -> None:
    proxy.cut = Cut.REQUEST
    with pytest.raises(Unavailable):
        await cut_off.commit(admission(row(1)))
    await cut_off.commit(admission(row(2)))
    assert await stored(database) == [2]


async def test_a_slices_commit_is_looked_up_too(database: str, proxy: Proxy, cut_off: PostgresStore) -> None:
    await cut_off.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    proxy.cut = Cut.REPLY
    async with cut_off.work(JobId(1), 1) as connection:
        await connection.execute("UPDATE attempt SET done = 1 WHERE job = 1")
    proxy.cut = Cut.REQUEST
    with pytest.raises(Unavailable):
        async with cut_off.work(JobId(1), 1) as connection:
            await connection.execute("UPDATE attempt SET done = 2 WHERE job = 1")
    async with meddle(database) as connection:
        assert await connection.fetchval("SELECT done FROM attempt") == 1


async def lose_the_reply_and_the_witness(proxy: Proxy, store: PostgresStore) -> "asyncio.Task[None]":
    """Commit job 1, and cut that connection and the owner's session when the server has done it."""
    proxy.cut = Cut.REPLY
    proxy.may_tell.clear()
    committing = asyncio.create_task(store.commit(admission(row(1))))
    await proxy.has_cut.wait()
    assert store._owner is not None
    store._owner.terminate()
    proxy.may_tell.set()
    return committing


async def test_an_outcome_that_cannot_be_found_out_is_unknown(
    database: str, proxy: Proxy, cut_off: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "LOOK_UP_SECONDS", 0.3)
    proxy.refuses = True
    committing = await lose_the_reply_and_the_witness(proxy, cut_off)
    with pytest.raises(OutcomeUnknown):
        await committing
    assert await stored(database) == [1], "it had taken place"


async def test_committed_is_not_believed_without_a_witness_that_the_server_did_not_crash(
    proxy: Proxy, cut_off: PostgresStore
) -> None:
    """After a crash the server may give the same id to another transaction, and that one may commit."""
    committing = await lose_the_reply_and_the_witness(proxy, cut_off)
    with pytest.raises(OutcomeUnknown):
        await committing


async def test_after_an_unknown_outcome_taking_over_again_tells(
    proxy: Proxy, cut_off: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "LOOK_UP_SECONDS", 0.3)
    proxy.refuses = True
    committing = await lose_the_reply_and_the_witness(proxy, cut_off)
    with pytest.raises(OutcomeUnknown):
        await committing
    with pytest.raises(Unavailable):
        await cut_off.take_over(owner="again", kinds=KINDS)
    proxy.refuses = False
    assert (await cut_off.take_over(owner="again", kinds=KINDS)).last_job == 1


async def test_a_writer_that_was_lost_while_idle_is_replaced_unnoticed(
    database: str, proxy: Proxy, cut_off: PostgresStore
) -> None:
    await cut_off.commit(admission(row(1)))
    proxy.cut_all()
    await asyncio.sleep(0)
    assert await cut_off.job(JobId(1)) is not None
    await cut_off.commit(admission(row(2)))
    assert await stored(database) == [1, 2]


async def test_who_is_cancelled_during_a_commit_leaves_no_connection_behind_in_the_middle_of_it(
    database: str, store: PostgresStore
) -> None:
    committing = asyncio.create_task(store.commit(admission(row(1))))
    while not committing.done():
        await asyncio.sleep(0)
        if store._in_turn.locked():
            committing.cancel()
    assert committing.cancelled()
    await store.commit(admission(row(2)))
    assert 2 in await stored(database)


# ---------------------------------------------------------------------------------------------------- work transactions


async def test_what_a_slice_does_wrong_comes_out_as_it_is_and_nothing_is_kept(store: PostgresStore) -> None:
    await store.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with working(store) as connection:
            await connection.execute("SELECT 1 / 0")
    with pytest.raises(FileNotFoundError):
        async with working(store):
            raise FileNotFoundError
    async with store.work(JobId(1), 1) as connection:
        assert await connection.fetchval("SELECT done FROM attempt") == 0


async def test_a_slice_that_goes_on_after_a_statement_failed_is_caught_at_the_commit(store: PostgresStore) -> None:
    await store.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    with pytest.raises(AssertionError, match="went on"):
        async with working(store) as connection:
            await swallow(connection.execute("SELECT 1 / 0"))


async def test_an_attempt_cannot_be_retired_while_its_work_transaction_is_open(store: PostgresStore) -> None:
    await store.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    async with store.work(JobId(1), 1) as connection:
        ending = asyncio.create_task(store.commit(end(1, slot=0)))
        await until_blocked(store_url(store))
        await connection.execute("UPDATE attempt SET total = 3, done = 3 WHERE job = 1")
        assert not ending.done()
    await ending
    ended = await store.job(JobId(1))
    assert ended is not None
    assert ended.counts == Counts(3, 3), "the end counts what was committed before it"
    with pytest.raises(AttemptRetired):
        async with store.work(JobId(1), 1):
            pytest.fail("a retired attempt began to write")


async def test_what_was_written_ahead_and_not_claimed_is_not_stored(store: PostgresStore) -> None:
    await store.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    with pytest.raises(AssertionError, match="as long as it is the present one"):
        async with store.work_ahead(JobId(1), 1) as (connection, _):
            await connection.execute("UPDATE attempt SET total = 7, done = 7 WHERE job = 1")
    assert await counted(store) == Counts(0)


async def test_an_attempt_may_be_retired_while_it_writes_ahead_and_then_stores_nothing(store: PostgresStore) -> None:
    await store.commit(together(admission(row(1, submission(ENRICH))), start(1)))

    async def claim_late() -> None:
        async with store.work_ahead(JobId(1), 1) as (connection, claim):
            await connection.execute("INSERT INTO lead_result (job, lead, state, attempt) VALUES (1, 7, 'done', 1)")
            await store.commit(end(1, slot=0))
            await claim()

    with pytest.raises(AttemptRetired):
        await claim_late()
    async with store.read() as connection:
        assert await connection.fetchval("SELECT count(*) FROM lead_result") == 0


async def test_a_claim_waits_for_the_transaction_before_and_holds_the_attempt_like_any_other(
    database: str, store: PostgresStore
) -> None:
    await store.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    async with store.work_ahead(JobId(1), 1) as (ahead, claim):
        await ahead.execute("SELECT 1")
        async with working(store):
            claiming = asyncio.ensure_future(claim())
            await until_blocked(database)
            assert not claiming.done()
        await claiming
        ending = asyncio.create_task(store.commit(end(1, slot=0)))
        await until_blocked(database)
        assert not ending.done()
        await ahead.execute("UPDATE attempt SET done = done + 1, total = 9 WHERE job = 1")
    await ending
    ended = await store.job(JobId(1))
    assert ended is not None
    assert ended.counts == Counts(9, 8)


async def test_a_take_over_waits_for_what_was_written_ahead_and_nothing_of_it_lands_later(
    database: str, store: PostgresStore, successor: PostgresStore
) -> None:
    await store.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    await end_owners_session(database)
    async with store.work_ahead(JobId(1), 1) as (connection, claim):
        await connection.execute("UPDATE attempt SET total = 8, done = 7 WHERE job = 1")
        taking_over = asyncio.create_task(successor.take_over(owner="second", kinds=KINDS))
        await until_blocked(database)
        assert not taking_over.done()
        await claim()
    await taking_over
    assert await counted(successor) == Counts(8, 7)
    with pytest.raises(Fenced):
        async with store.work_ahead(JobId(1), 1):
            pytest.fail("the work transaction of an ex-daemon began")


def store_url(store: PostgresStore) -> str:
    return store._connections._url
