"""A provider that answers at once and has no limits, in a process of its own; it ends with the bench."""

import asyncio
import sys

from aiohttp import web


async def _answer(_: web.BaseRequest) -> web.Response:
    return web.Response(text='{"size": 17}', content_type="application/json")


async def _serve() -> None:
    runner = web.ServerRunner(web.Server(_answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(_serve())
