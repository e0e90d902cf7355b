"""The rows of a file are taken in chunks that are bounded in every way, and each is read ahead."""

import threading
from collections.abc import Iterator

import anyio
import anyio.to_thread
import pytest

from leadline.features.tables import upload
from leadline.features.tables.ingest import UploadPlan, plan_upload
from leadline.features.tables.reading import RefusedRow, Row
from leadline_protocol.errors import LeadReason


def plan(*columns: str) -> UploadPlan:
    return plan_upload(columns, [], (), mapping={}, declared=(), key=None)


def rows(count: int, text: str) -> Iterator[Row | RefusedRow]:
    return (Row(number, number + 1, [text, None, number]) for number in range(1, count + 1))


def sizes(count: int, text: str, most: int) -> list[int]:
    return [chunk.rows for chunk in upload._chunks(rows(count, text), plan("a", "b", "c"), "skip", lambda: most)]


def test_a_chunk_has_at_most_as_many_rows_as_are_wanted() -> None:
    assert sizes(2_500, "x", 1_000) == [1_000, 1_000, 500]
    assert sizes(0, "x", 1_000) == []


def test_a_chunk_of_long_rows_has_fewer() -> None:
    found = sizes(1_500, "x" * 32_768, 5_000)
    assert sum(found) == 1_500
    assert max(found) * 32_768 <= upload.CHUNK_CHARACTERS_MAX + upload.PIECE_ROWS * 32_768


def test_the_refused_rows_of_a_chunk_stand_in_their_order() -> None:
    refused = RefusedRow(2, 3, LeadReason.RAGGED_ROW, "", "x")
    mixed: Iterator[Row | RefusedRow] = iter(
        [Row(1, 2, ["a@a.example"]), refused, Row(3, 4, [""]), Row(4, 5, ["A@a.example"])]
    )
    (chunk,) = upload._chunks(mixed, plan("email"), "skip", lambda: 10)
    assert [row.number for row in chunk.refused] == [2, 3, 4]
    assert [row.data for row in chunk.ready] == ['{"email":"a@a.example"}']
    assert (chunk.rows, chunk.last) == (4, 4)


async def test_a_chunk_is_read_while_the_one_before_it_is_stored() -> None:
    began = threading.Event()

    def chunks() -> Iterator[upload.Chunk]:
        yield upload.Chunk([], [], [], 1, 1)
        began.set()
        yield upload.Chunk([], [], [], 1, 2)

    found = []
    async with upload._read_ahead(chunks()) as ahead:
        async for chunk in ahead:
            found.append(chunk.last)
            assert await anyio.to_thread.run_sync(began.wait, 10), "the next one is not read"
    assert found == [1, 2]


async def test_what_goes_wrong_while_reading_or_storing_is_raised_as_it_is() -> None:
    def chunks() -> Iterator[upload.Chunk]:
        yield upload.Chunk([], [], [], 1, 1)
        raise OSError("the disk")

    async def stored(fault: Exception | None) -> None:
        async with upload._read_ahead(chunks()) as ahead:
            async for _ in ahead:
                if fault is not None:
                    raise fault

    with pytest.raises(OSError, match="the disk"):
        await stored(None)
    with pytest.raises(ValueError, match="the store"):
        await stored(ValueError("the store"))
