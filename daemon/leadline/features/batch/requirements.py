"""The packages that a batch job's code needs: its requirements.txt, read before pip ever sees it.

It comes from a tenant, and pip takes more from such a file than names of packages: folders of the machine, other
indexes, other files, programs to fetch sources with. Taken are lines that name a package, as PEP 508 has it, each with
its hashes where it has some, and links to wheels by https. Whatever else there is, is refused with its line.

What is handed on is written anew from what was understood. So nothing gets past by being read differently further on,
and two files that mean the same have the same text, by which what was installed for one is found for the other.
"""

import codecs
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from leadline_protocol.errors import ErrorCode, Refused

REQUIREMENTS: Final = "requirements.txt"

BYTES_MAX: Final = 1 << 20
"""Some 300 packages with all their hashes."""
PACKAGES_MAX: Final = 1_000
LINE_CHARACTERS_MAX: Final = 1_000
"""Of a line without its hashes."""

_BYTE_ORDER_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",  # as Windows' shell writes it
    codecs.BOM_UTF16_BE: "utf-16",
}
_COMMENT: Final = re.compile(r"(^|\s+)#.*$")
_HASH: Final = re.compile(r"\s--hash[= ]\s*(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})(?=\s|$)")
_OPTION: Final = re.compile(r"(?:^|\s)(--?[a-z][a-z-]*)", re.IGNORECASE)
_FILE: Final = re.compile(r"\.(whl|zip|tar|tgz|tbz|txz|tlz|tar\.(gz|bz2|xz|lz|lzma))$", re.IGNORECASE)

_FOREIGN: Final = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--trusted-host", "--no-index")
_OTHER_FILES: Final = ("-r", "--requirement", "-c", "--constraint")
_SOURCES: Final = ("-e", "--editable")


def read(content: bytes) -> tuple[str, ...]:
    """What packages it asks for, a line each, every one once; none where there are only comments in it.

    Raises Refused with bad_archive, at `requirements.txt:LINE`.
    """
    if len(content) > BYTES_MAX:
        raise _bad(0, f"it may have {BYTES_MAX:,} bytes and has more")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise _bad(0, "it is no text in UTF-8") from None
    found: dict[str, None] = {}
    for number, line in _lines(text):
        found[_package(number, line)] = None
        if len(found) > PACKAGES_MAX:
            raise _bad(number, f"more than {PACKAGES_MAX:,} packages are too many")
    return tuple(found)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that say something, without comments, by the number each begins at; a backslash at the end joins two."""
    begun, parts = 0, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        begun = begun or number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            parts += line[:-1] + " "
            continue
        whole = _COMMENT.sub("", parts + line).strip()
        if whole:
            yield begun, whole
        begun, parts = 0, ""


def _package(number: int, line: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    hashes = sorted({f"--hash={found}" for found in _HASH.findall(line)})
    line = _HASH.sub("", line).strip()
    if len(line) > LINE_CHARACTERS_MAX:
        raise _bad(number, f"a line may have {LINE_CHARACTERS_MAX:,} characters")
    option = _OPTION.search(line)
    if option is not None:
        raise _bad(number, _why_no_option(option[1]))
    if line.startswith((".", "/", "~", "file:")) or "\\" in line:
        raise _bad(number, "a folder or file of some machine is not there where code runs; pack it beside main.py")
    try:
        requirement = Requirement(line)
    except InvalidRequirement as error:
        raise _bad(number, f"it names no package: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise _bad(number, "it names no package: it is nested too deeply") from None
    if requirement.url is not None:
        _check_link(number, requirement.url)
    elif _FILE.search(requirement.name):
        raise _bad(number, f"{requirement.name} is a file, and none of the index: name the package")
    requirement.name = canonicalize_name(requirement.name)
    return " ".join([str(requirement), *hashes])


def _check_link(number: int, url: str) -> None:
    """A link may lead to a wheel on the internet: sources would have to be built. Raises Refused."""
    try:
        link = urlsplit(url)
        fits = link.scheme == "https" and link.hostname is not None and link.path.endswith(".whl") and "$" not in url
    except ValueError:
        fits = False
    if not fits:
        raise _bad(number, "a link may only be one to a wheel: name @ https://…/file.whl")


def _why_no_option(option: str) -> str:
    if option in _FOREIGN:
        return f"{option} is not taken: packages come from the index that the operator has configured"
    if option in _OTHER_FILES:
        return f"{option} is not taken: all packages are named in this one file"
    if option in _SOURCES:
        return f"{option} is not taken: code that is to be imported lies beside main.py"
    return f"{option} is not taken: a line names a package, and --hash may follow"


def _bad(number: int, message: str) -> Refused:
    """About a line; 0: about the whole file."""
    if not number:
        return Refused(ErrorCode.BAD_ARCHIVE, f"{REQUIREMENTS}: {message}", at=REQUIREMENTS)
    return Refused(ErrorCode.BAD_ARCHIVE, f"{REQUIREMENTS}, line {number}: {message}", at=f"{REQUIREMENTS}:{number}")
