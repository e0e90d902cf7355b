"""All of the demo's outside world in one process: `python -m tests.world --dir DIR`.

Prints one JSON line with what listens where, then serves until SIGTERM or SIGINT, or (unless `--outlive-parent`)
until the process that started it is gone, however it went. The logs are written to DIR/logs.
"""

import argparse
import asyncio
import ctypes
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from tests.world import providers
from tests.world.demo_plan import DEMO
from tests.world.mail import Mailbox, serving_mail
from tests.world.servers import serving

API_KEY = "demo-key"
_PR_SET_PDEATHSIG = 1


async def serve(directory: Path) -> None:
    """Serve everything until a signal comes."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    logs = directory / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    behaviours = {
        "ai": providers.ai(API_KEY),
        "slow": providers.slow(hang_first=DEMO.stuck_lead),
        "plain": providers.plain(),
    }
    async with AsyncExitStack() as stack:
        listening: dict[str, object] = {"pid": os.getpid(), "api_key": API_KEY, "logs": str(logs)}
        for name, behaviour in behaviours.items():
            served = await stack.enter_async_context(serving(behaviour, name=name, log_path=logs / f"{name}.jsonl"))
            listening[name] = served.url
        mail = await stack.enter_async_context(serving_mail(Mailbox(), log_path=logs / "mail.jsonl"))
        listening["mail"] = f"smtp://{mail.host}:{mail.port}"
        print(json.dumps(listening), flush=True)
        await stop.wait()


def _end_with(parent: int) -> None:
    """Let the kernel send SIGTERM when the parent ends; it may have ended just before."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the process that started this is gone")


def main() -> None:
    """The command line."""
    parent = os.getppid()
    parser = argparse.ArgumentParser(prog="python -m tests.world", description="The demo's providers and mail server.")
    parser.add_argument("--dir", type=Path, required=True, help="where the logs go")
    parser.add_argument("--outlive-parent", action="store_true", help="go on when the process that started this ends")
    options = parser.parse_args()
    if not options.outlive_parent:
        _end_with(parent)
    asyncio.run(serve(options.dir))


if __name__ == "__main__":
    main()
