"""The program that installs packages: pip, and what it leaves as one file.

It runs in a sandbox as a batch job's code does, and on the interpreter that the packages are for: so it uses the
standard library of Python 3.9 and nothing of Leadline. A wheel is only unpacked: nothing of it is run here. As long as
no package may be built, whatever would start another program, as a build does, is refused.

What is there in the end is packed into a zip that whoever ordered it reads as a tenant's.
"""

import compileall
import os
import runpy
import shutil
import stat
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Whom the machine trusts; pip brings a list of its own otherwise."""


def main(event: dict[str, Any]) -> dict[str, Any]:
    """Install what `event` says; says why there is nothing, where that is so."""
    product = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        asked, target = Path(folder, "requirements.txt"), Path(folder, "packages")
        asked.write_text("\n".join(event["packages"]) + "\n", encoding="utf-8")
        target.mkdir()
        if not event["builds"]:
            sys.addaudithook(_refuse_programs)
        status = _pip(event, asked, target)
        if status:
            return {"status": status}
        warnings.simplefilter("ignore")  # whoever wrote the packages is not there to read them
        compileall.compile_dir(
            str(target),
            quiet=2,
            stripdir=str(target),
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,  # nobody changes what is installed
        )
        return _pack(target, product, event["files_max"], event["bytes_max"])


def _pip(event: dict[str, Any], asked: Path, target: Path) -> Any:
    if event["pip"] is not None:
        sys.path.insert(0, str(Path(__file__).parent / event["pip"]))
    words = ["install", "--isolated", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-color"]
    words += ["--progress-bar", "off", "--no-compile", "--retries", "2", "--target", str(target), "-r", str(asked)]
    words += [] if event["builds"] else ["--only-binary", ":all:"]
    words += ["--cert", str(CERTIFICATES)] if CERTIFICATES.exists() else []
    words += event["index"]
    sys.argv[:] = ["pip", *words]
    os.environ["PIP_CONFIG_FILE"] = os.devnull
    try:
        runpy.run_module("pip", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code
    return 0


def _refuse_programs(name: str, _: Any) -> None:
    if name in {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}:
        raise PermissionError("a package has to be built, and only those that are built already are installed")


def _pack(target: Path, descriptor: int, files_max: int, bytes_max: int) -> dict[str, Any]:
    found = sorted(_files(target))
    odd = [path for path in found if not stat.S_ISREG(path.lstat().st_mode)]
    if odd:
        return {"odd": str(odd[0].relative_to(target))}
    size = sum(path.lstat().st_size for path in found)
    if len(found) > files_max or size > bytes_max:
        return {"files": len(found), "bytes": size}
    with os.fdopen(descriptor, "wb") as out, zipfile.ZipFile(out, "w") as packed:
        for path in found:
            info = zipfile.ZipInfo(path.relative_to(target).as_posix())
            info.external_attr = path.lstat().st_mode << 16
            with path.open("rb") as file, packed.open(info, "w") as member:
                shutil.copyfileobj(file, member)
    return {}


def _files(target: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(target):
        yield from (Path(place, name) for name in names)
        yield from (Path(place, name) for name in folders if Path(place, name).is_symlink())
