"""Packages of Python modules that behave as badly as code can, for the daemon's worker processes.

Each call writes a line into a file that only the test reads: which module was called, about whom, in which process. A
package is a file and its metadata in a folder, as `pip install --target` would leave them.
"""

from pathlib import Path
from typing import Final

TRICKY: Final = '''
import asyncio, ctypes, os, time
from pathlib import Path
from leadline_protocol.modules import Module, QuotaGone, Rejected, Throttled


def called(name, lead, context):
    """Write the call down; how often there was one about this lead before."""
    book = Path(context.settings["book"])
    before = book.read_text().count(f"{name} {lead['email']} ") if book.exists() else 0
    with book.open("a") as lines:
        lines.write(f"{name} {lead['email']} {os.getpid()}\\n")
    return before


def is_stuck(lead):
    return lead["email"].startswith("person00004@")


COMMON = {"version": "1.0", "inputs": ("email",), "outputs": {"company": "text"}, "settings": {"book": ""}}


def module(name, *, hurt, **declared):
    def run(lead, context):
        before = called(name, lead, context)
        if is_stuck(lead):
            hurt(before)
        return {"company": lead["email"].partition("@")[2]}

    return Module(run=run, **{**COMMON, **declared})


def hang(before):
    if not before:
        time.sleep(3600)


def spin(before):
    while not before:
        pass


def reject(before):
    raise Rejected("not this one")


def raise_(before):
    raise LookupError("no such thing")


def throttle(before):
    if not before:
        raise Throttled(1)


def shout(before):
    print("secretless " * 10, flush=True)
    for _ in range(200):
        os.write(1, b"x" * 100_000)


steady = module("steady", hurt=lambda before: None)
crashes = module("crashes", hurt=lambda before: ctypes.string_at(0))
exits = module("exits", hurt=lambda before: os._exit(3))
hungry = module("hungry", hurt=lambda before: bytearray(1 << 30))
hangs = module("hangs", hurt=hang)
hangs_always = module("hangs_always", hurt=lambda before: time.sleep(3600))
spins = module("spins", hurt=spin)
rejects = module("rejects", hurt=reject)
raises = module("raises", hurt=raise_)
throttles = module("throttles", hurt=throttle)
shouts = module("shouts", hurt=shout)
takes_long = module("takes_long", hurt=lambda before: time.sleep(3600), timeout_seconds=3)


def slow_run(lead, context):
    called("slow", lead, context)
    time.sleep(0.2)
    return {"company": "Slow"}


slow = Module(run=slow_run, **COMMON)


async def together_run(lead, context):
    called("together", lead, context)
    await asyncio.sleep(0.1)
    if is_stuck(lead):
        os._exit(4)
    await asyncio.sleep(0.1)
    return {"company": lead["email"].partition("@")[2]}


together = Module(run=together_run, leads_at_once=8, **COMMON)
'''

BROKEN: Final = """
raise RuntimeError("this package is half installed")
"""

NO_MODULE: Final = """
thing = 7
"""


def install(folder: Path, package: str, source: str, *modules: str) -> None:
    """Put a package into a folder, with the modules that it offers."""
    (folder / f"{package}.py").write_text(source, encoding="utf-8")
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    points = "".join(f"{name} = {package}:{name}\n" for name in modules)
    (metadata / "entry_points.txt").write_text(f"[leadline.modules]\n{points}", encoding="utf-8")
