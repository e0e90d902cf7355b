"""A disk that can lose its power: one file in FUSE, over which the kernel lays a loop device and a file system.

A real disk has a cache that forgets. What was written and not flushed may have arrived or not, in any order, sector by
sector; what was flushed stays. A copy of an image file at a random moment would be kinder than that: everything ever
written would be in it. So this program keeps two images: `now`, which reads see, and `durable`, into which a flush
copies what was written since the one before. When the power goes, each sector of the rest is kept or lost by chance,
everything after that fails, and when the power comes back, `now` is what `durable` has become.

FUSE because it needs no module, no daemon and no other program: requests come from /dev/fuse one after the other, so a
cut is between two of them and never inside. The loop driver turns the file system's barriers into FSYNC here. The
conversation is the kernel's include/uapi/linux/fuse.h, of which one file that is always there needs eight requests.

    python -m tests.chaos.block_device FOLDER MOUNTPOINT

serves FOLDER/now and FOLDER/durable, two equal files that exist, as the file MOUNTPOINT, until its standard input ends.
Lines it understands there, each answered by one line: `cut SEED SHARE REQUESTS`, `power`, `slow SECONDS`, `lie`. A cut
comes so many writes and flushes later, or soon when there are none: between a write and its flush is where it hurts.
"""

import ctypes
import errno
import os
import random
import select
import stat
import struct
import sys
import time
from pathlib import Path
from typing import Final

SECTOR: Final = 512
WRITE_BYTES_MAX: Final = 1 << 20
IDLE_SECONDS: Final = 0.5
"""A cut waits for writes no longer than that."""

_IN: Final = struct.Struct("<IIQQIIIHH")
_OUT: Final = struct.Struct("<IiQ")
_INIT: Final = struct.Struct("<IIIIHHIIHHII24x")
_ATTRIBUTES: Final = struct.Struct("<QIIQQQQQQIIIIIIIIII")
_RANGE: Final = struct.Struct("<QQIIQII")

GETATTR, OPEN, READ, WRITE, RELEASE, FSYNC, FLUSH, INIT = 3, 14, 15, 16, 18, 20, 25, 26
FORGET, BATCH_FORGET, INTERRUPT = 2, 42, 36
DIRECT_IO: Final = 1
ASYNC_READ, BIG_WRITES, MAX_PAGES = 1 << 0, 1 << 5, 1 << 22


class Platter:
    """What is on the disk, and what is only in its cache."""

    def __init__(self, folder: Path) -> None:
        self._now = os.open(folder / "now", os.O_RDWR)
        self._durable = os.open(folder / "durable", os.O_RDWR)
        self._cached: list[tuple[int, bytes]] = []
        self.size: Final = os.fstat(self._now).st_size
        self.lies = False
        """True: a flush is acknowledged and not done. No honest disk does this; it shows what flushes are good for."""

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._now, size, offset)

    def write(self, offset: int, data: bytes) -> None:
        os.pwrite(self._now, data, offset)
        self._cached.append((offset, data))

    def flush(self) -> None:
        if self.lies:
            return
        for offset, data in self._cached:
            os.pwrite(self._durable, data, offset)
        self._cached.clear()

    def cut(self, chance: random.Random, share: float) -> tuple[int, int]:
        """The power goes: how many sectors of the cache were kept, each with the probability `share`, and how many
        were lost.
        """
        kept = lost = 0
        for offset, data in self._cached:
            for begin in range(0, len(data), SECTOR):
                if chance.random() < share:
                    os.pwrite(self._durable, data[begin : begin + SECTOR], offset + begin)
                    kept += 1
                else:
                    lost += 1
        for offset, data in self._cached:
            os.pwrite(self._now, os.pread(self._durable, len(data), offset), offset)
        self._cached.clear()
        return kept, lost


class Device:
    """Answers the kernel's requests about one file."""

    def __init__(self, platter: Platter, fuse: int) -> None:
        self._platter = platter
        self._fuse = fuse
        self._powered = True
        self._flush_seconds = 0.0
        self._cut: tuple[int, float] | None = None
        self._until_cut = 0
        """Writes and flushes that are still carried out before that cut."""

    def serve(self) -> None:
        """Until standard input ends, or the file is unmounted."""
        while True:
            ready, _, _ = select.select([self._fuse, sys.stdin], [], [], None if self._cut is None else IDLE_SECONDS)
            if not ready:
                self._lose_power()
            elif sys.stdin in ready:
                line = sys.stdin.readline()
                if not line:
                    return
                self._obey(line.split())
            elif not self._answer():
                return

    def _lose_power(self) -> None:
        assert self._cut is not None
        seed, share = self._cut
        self._cut = None
        self._powered = False
        kept, lost = self._platter.cut(random.Random(seed), share)
        print(f"{kept} {lost}", flush=True)

    def _obey(self, words: list[str]) -> None:
        match words:
            case ["cut", seed, share, requests]:
                self._cut = int(seed), float(share)
                self._until_cut = int(requests)
                return
            case ["power"]:
                self._powered = True
            case ["slow", seconds]:
                self._flush_seconds = float(seconds)
            case ["lie"]:
                self._platter.lies = True
            case _:
                raise ValueError(f"no such line: {words}")
        print("done", flush=True)

    def _answer(self) -> bool:
        """One request; False when there will be no more."""
        try:
            request = os.read(self._fuse, WRITE_BYTES_MAX + 65536)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                return True  # it was taken back before it could be read
            if error.errno == errno.ENODEV:
                return False
            raise
        _, opcode, unique, *_ = _IN.unpack_from(request)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            return True
        try:
            answer, code = self._carry_out(opcode, memoryview(request)[_IN.size :]), 0
        except OSError as error:
            answer, code = b"", -(error.errno or errno.EIO)
        try:
            os.write(self._fuse, _OUT.pack(_OUT.size + len(answer), code, unique) + answer)
        except OSError as error:
            if error.errno != errno.ENOENT:  # who asked is gone
                raise
        return True

    def _carry_out(self, opcode: int, body: memoryview) -> bytes:
        if self._cut is not None and opcode in (WRITE, FSYNC):
            if self._until_cut == 0:
                self._lose_power()
            self._until_cut -= 1
        if opcode in (READ, WRITE, FSYNC) and not self._powered:
            raise OSError(errno.EIO, "no power")
        match opcode:
            case 26:  # INIT: numbers, for a name would be a pattern that matches everything
                flags = ASYNC_READ | BIG_WRITES | MAX_PAGES
                return _INIT.pack(7, 31, 1 << 17, flags, 16, 12, WRITE_BYTES_MAX, 1, WRITE_BYTES_MAX // 4096, 0, 0, 0)
            case 3:  # GETATTR
                size = self._platter.size
                mode = stat.S_IFREG | 0o600
                return _ATTRIBUTES.pack(3600, 0, 0, 1, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
            case 14:  # OPEN
                return struct.pack("<QIi", 1, DIRECT_IO, 0)
            case 15:  # READ
                _, offset, size, *_ = _RANGE.unpack_from(body)
                return self._platter.read(offset, size)
            case 16:  # WRITE
                _, offset, size, *_ = _RANGE.unpack_from(body)
                self._platter.write(offset, bytes(body[_RANGE.size : _RANGE.size + size]))
                return struct.pack("<II", size, 0)
            case 20:  # FSYNC
                time.sleep(self._flush_seconds)
                self._platter.flush()
                return b""
            case 18 | 25:  # RELEASE, FLUSH: closing is no barrier
                return b""
            case _:
                raise OSError(errno.ENOSYS, f"request {opcode}")


def main() -> None:
    """The command line."""
    folder, mountpoint = sys.argv[1:]
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={fuse},rootmode=100000,user_id=0,group_id=0,allow_other"
    if libc.mount(b"chaos", mountpoint.encode(), b"fuse", 0, options.encode()):
        code = ctypes.get_errno()
        sys.exit(f"cannot mount FUSE: {os.strerror(code)}")
    print("mounted", flush=True)
    Device(Platter(Path(folder)), fuse).serve()


if __name__ == "__main__":
    main()
