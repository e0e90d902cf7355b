"""Files over HTTP: in by pieces, out by pieces, whatever their size.

A file that comes in grows under a name that nobody can guess and gets its own when it is whole and on the disk, so
that a submission never names half a file. What a broken connection leaves is removed; what a crash leaves, at the next
start.
"""

import asyncio
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import anyio
import anyio.to_thread
from aiohttp import web

from leadline.adapters.http.headers import API as HEADERS
from leadline_protocol.errors import ErrorCode, Refused

PIECE_BYTES: Final = 256 * 1024
SILENCE_SECONDS_MAX: Final = 30.0
"""Who sends or takes nothing for so long is hung up on."""

FILE_MODE: Final = 0o640
_PART_PREFIX: Final = ".http-"


def remove_parts(folder: Path) -> None:
    """Remove what a daemon before has left of files that never came in whole."""
    for path in folder.glob(f"{_PART_PREFIX}*.part"):
        path.unlink(missing_ok=True)


class Source(Protocol):
    """Where a file comes from."""

    @property
    def announced_bytes(self) -> int:
        """The size that was announced; 0: none was."""

    async def next(self) -> bytes:
        """The next piece; empty: there is no more."""


class Body:
    """The body of a request as a file."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._began = False

    @property
    def announced_bytes(self) -> int:
        """The body's length."""
        return self._request.content_length or 0

    async def next(self) -> bytes:
        """The next piece."""
        if not self._began:
            self._began = True
            await expect(self._request)
        return await self._request.content.read(PIECE_BYTES)


async def receive(source: Source, folder: Path, name: str, bytes_max: int) -> int:
    """Store a file, durably; its size. Raises Refused, and TimeoutError where nothing comes."""
    if source.announced_bytes > bytes_max:
        raise _too_large(bytes_max)
    part = folder / f"{_PART_PREFIX}{secrets.token_hex(16)}.part"
    try:
        return await _receive(source, part, folder / name, bytes_max)
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise
        message = f"the file could not be stored: {error.strerror}"
        raise Refused(ErrorCode.UNAVAILABLE, message, retry_after=10.0) from error
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


async def _receive(source: Source, part: Path, final: Path, bytes_max: int) -> int:
    size = 0
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        while piece := await _next(source):
            size += len(piece)
            if size > bytes_max:
                raise _too_large(bytes_max)
            await anyio.to_thread.run_sync(_write_all, descriptor, piece)
        await anyio.to_thread.run_sync(_publish, descriptor, part, final)
    finally:
        os.close(descriptor)
    return size


async def _next(source: Source) -> bytes:
    async with asyncio.timeout(SILENCE_SECONDS_MAX):
        return await source.next()


def _write_all(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


def _publish(descriptor: int, part: Path, final: Path) -> None:
    os.fchmod(descriptor, FILE_MODE)  # the service's umask would keep the group out
    os.fsync(descriptor)
    part.replace(final)
    folder = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


async def remove(folder: Path, name: str) -> None:
    """Remove a file that was stored, if it is still there."""
    await anyio.Path(folder / name).unlink(missing_ok=True)


async def expect(request: web.BaseRequest) -> None:
    """Tell a client that asks before it sends a body that it may."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the response itself nothing has been written


async def send(request: web.BaseRequest, folder: Path, file: str, shown: str) -> web.StreamResponse:
    """Answer with a file of a folder under the name `shown`. Raises Refused where there is none."""
    try:
        descriptor = os.open(folder / file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise there_is_none(shown) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise there_is_none(shown)
        response = web.StreamResponse(headers=HEADERS)
        response.content_type = "application/octet-stream"
        response.content_length = status.st_size
        response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(shown, safe='')}"
        await response.prepare(request)
        left = status.st_size
        while left and (piece := await anyio.to_thread.run_sync(os.read, descriptor, min(left, PIECE_BYTES))):
            left -= len(piece)
            async with asyncio.timeout(SILENCE_SECONDS_MAX):
                await response.write(piece)
        if left:
            raise ConnectionResetError(f"{shown} has become shorter")
        await response.write_eof()
    finally:
        os.close(descriptor)
    return response


def there_is_none(name: str) -> Refused:
    """What is said of a file that is not there."""
    return Refused(ErrorCode.NOT_FOUND, f"there is no file {name}", at="file")


def _too_large(bytes_max: int) -> Refused:
    return Refused(ErrorCode.TOO_LARGE, f"a file may have at most {bytes_max} bytes")
