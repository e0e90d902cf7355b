"""Pages that people have open, in a process of its own: what their browsers ask for, without what they draw.

`python -m tests.acceptance.readers ORIGIN SECONDS` reads lines `link path` from its standard input. For each it signs
in by the link and has the page open: it loads it, listens to the stream that the page names, and loads it again as the
page's script does, some time after something began or ended, or when nothing has happened for a while. It tells when
all are open, and at the end how long each loading took, in seconds, and how many events came.
"""

import asyncio
import json
import random
import re
import sys
import time
from typing import Final

import aiohttp

SOON_SECONDS: Final = 0.4
SPREAD_SECONDS: Final = 1.0
GAP_SECONDS: Final = 4.0
IDLE_SECONDS: Final = 20.0
"""As in the script of the pages."""

STREAM: Final = re.compile(r'data-stream="([^"]+)" data-seen="([^"]+)"')
ANEW: Final = (b"event: queued", b"event: started", b"event: ended", b"event: missed")
COOKIE: Final = "__Host-leadline"


class Reader:
    """One page."""

    def __init__(self, session: aiohttp.ClientSession, origin: str, path: str) -> None:
        self._session = session
        self._origin = origin
        self._path = path
        self._headers: dict[str, str] = {}
        self._news = asyncio.Event()
        self.took: list[float] = []
        self.events = 0

    async def sign_in(self, link: str) -> None:
        sent = self._session.post(self._origin + link, headers={"Origin": self._origin}, allow_redirects=False)
        async with sent as response:
            assert response.status == 303, await response.text()
            self._headers = {"Cookie": f"{COOKIE}={response.cookies[COOKIE].value}"}

    async def load(self) -> str:
        began = time.perf_counter()
        async with self._session.get(self._origin + self._path, headers=self._headers) as response:
            text = await response.text()
            assert response.status == 200, (response.status, text)
        self.took.append(time.perf_counter() - began)
        return text

    async def open(self, opened: asyncio.Queue[None]) -> None:
        found = STREAM.search(await self.load())
        assert found is not None
        address = self._origin + found[1].replace("&amp;", "&") + ("&" if "?" in found[1] else "?") + f"seen={found[2]}"
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(address, opened))
            tasks.create_task(self._load_again())

    async def _listen(self, address: str, opened: asyncio.Queue[None]) -> None:
        async with self._session.get(address, headers=self._headers) as response:
            assert response.status == 200
            opened.put_nowait(None)
            async for line in response.content:
                if line.startswith(b"event:"):
                    self.events += 1
                    if line.startswith(ANEW):
                        self._news.set()
        raise AssertionError("the stream has ended")

    async def _load_again(self) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS * random.uniform(0.5, 1.5)):
                    await self._news.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(SOON_SECONDS + random.uniform(0, SPREAD_SECONDS))
            self._news.clear()
            await self.load()
            await asyncio.sleep(GAP_SECONDS)


async def main(origin: str, seconds: float) -> None:
    """The command."""
    wanted = [line.split() for line in sys.stdin]
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        readers = [Reader(session, origin, path) for _, path in wanted]
        for reader, (link, _) in zip(readers, wanted, strict=True):
            await reader.sign_in(link)
        opened: asyncio.Queue[None] = asyncio.Queue()
        try:
            async with asyncio.timeout(seconds + 60), asyncio.TaskGroup() as tasks:
                for reader in readers:
                    tasks.create_task(reader.open(opened))
                for _reader in readers:
                    await opened.get()
                for reader in readers:
                    reader.took.clear()
                print(json.dumps({"open": len(readers)}), flush=True)
                await asyncio.sleep(seconds)
                raise TimeoutError
        except* TimeoutError:
            pass
    took = [each for reader in readers for each in reader.took]
    print(json.dumps({"seconds": took, "events": sum(reader.events for reader in readers)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
