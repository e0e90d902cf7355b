"""Templates, and the words, numbers and times in them.

Every value is escaped unless a template says otherwise, and a name that is not there is an error, not an empty place.
No script and no style stands in a page itself (CSP): what is drawn to a measure is SVG, whose sizes are attributes.
"""

import hashlib
import mimetypes
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import jinja2
from aiohttp import web
from markupsafe import Markup
from msgspec import Struct

from leadline.adapters.http.headers import COMMON
from leadline.adapters.http.pages.foreign import harmless
from leadline_protocol.messages import Eta

TEMPLATES: Final = Path(__file__).parent / "templates"
ASSETS: Final = Path(__file__).parent / "assets"

_ALLOWED: Final = {
    "default-src": "'none'",
    **dict.fromkeys(("script-src", "style-src", "img-src", "connect-src", "form-action"), "'self'"),
    **dict.fromkeys(("base-uri", "frame-ancestors"), "'none'"),
}
CONTENT_SECURITY_POLICY: Final = "; ".join(f"{what} {whence}" for what, whence in _ALLOWED.items())

PAGE: Final = {
    **COMMON,
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A form of a page without any referrer would come with `Origin: null`, like one of another site.
    "Referrer-Policy": "same-origin",
}
"""On every page."""

ASSET: Final = {**COMMON, "Cache-Control": "public, max-age=31536000, immutable"}
"""On what pages load, which is named by what it holds."""


class Asset(Struct, frozen=True):
    """A file that pages load."""

    body: bytes
    content_type: str


class Assets:
    """All files that pages load, in memory, each under a name that changes with what it holds."""

    def __init__(self, folder: Path = ASSETS) -> None:
        self._by_address: dict[str, Asset] = {}
        self._addresses: dict[str, str] = {}
        for path in sorted(folder.rglob("*")):
            kind = mimetypes.types_map.get(path.suffix)
            if path.is_file() and kind is not None:
                name, body = path.relative_to(folder).as_posix(), path.read_bytes()
                address = f"{hashlib.sha256(body).hexdigest()[:12]}-{path.name}"
                self._by_address[address] = Asset(body, kind)
                self._addresses[name] = f"/assets/{address}"

    def address(self, name: str) -> str:
        """Where a file is. Raises KeyError."""
        return self._addresses[name]

    def find(self, address: str) -> Asset | None:
        """The file at the end of such an address."""
        return self._by_address.get(address)


class Templates:
    """Writes pages."""

    def __init__(self, assets: Assets) -> None:
        self._environment: Final = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals["asset"] = assets.address
        self._environment.filters |= {
            "number": number,
            "size": size,
            "span": span,
            "sentence": sentence,
            "harmless": harmless,
        }
        self._environment.filters["in_path"] = partial(quote, safe="")
        self._environment.filters |= {
            "moment": moment,
            "clock": clock,
            "second": second,
            "hour": hour,
            "day": day,
            "weekday": weekday,
            "expected": expected,
        }

    def page(self, template: str, context: Mapping[str, Any], status: int = 200) -> web.Response:
        """A page."""
        text = self._environment.get_template(template).render(context)
        return web.Response(text=text, status=status, content_type="text/html", charset="utf-8", headers=PAGE)


def number(value: float | Decimal) -> str:
    """A number for people: thousands apart, at most two places."""
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def size(bytes_: float) -> str:
    """An amount of bytes for people: `4.2 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if bytes_ < 999.5:
            return f"{bytes_:.3g} {unit}"
        bytes_ /= 1000
    return f"{bytes_:,.3g} TB"


def sentence(message: str) -> str:
    """A message as it stands on a page: with a capital and an end; empty where there is none."""
    text = message.strip(" ;:")
    return text and f"{text[0].upper()}{text[1:]}" + ("" if text.endswith((".", "?", "!")) else ".")


_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def span(seconds: float | timedelta) -> str:
    """A length of time for people, in its two largest units: `3 min 20 s`."""
    left = round(seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)
    if left < 1:
        return "under 1 s"
    parts: list[str] = []
    for length, unit in _UNITS:
        if (count := left // length) or parts:
            parts.append(f"{count} {unit}" if count else "")
            left -= count * length
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)


def moment(at: datetime) -> Markup:
    """A point in time: in UTC as it is sent, in the viewer's zone as soon as a script has run."""
    return _time(at, "moment", f"{at.astimezone(UTC):%d %b %Y, %H:%M:%S} UTC")


def clock(at: datetime) -> Markup:
    """The same without its day, where that is today's."""
    return _time(at, "clock", f"{at.astimezone(UTC):%d %b, %H:%M} UTC")


NEAR: Final = timedelta(seconds=90)
"""Two times that are no further apart are one for people."""


def expected(eta: Eta) -> Markup:
    """When something is expected: `at about 14:05`, or `between 14:05 and 14:20`."""
    if eta.latest - eta.earliest <= NEAR:
        return Markup("at about {}").format(clock(eta.latest))
    return Markup("between {} and {}").format(clock(eta.earliest), clock(eta.latest))


def second(at: datetime) -> Markup:
    """The time of day alone, to the second."""
    return _time(at, "second", f"{at.astimezone(UTC):%H:%M:%S}")


def hour(at: datetime) -> Markup:
    """The time of day alone, to the minute."""
    return _time(at, "hour", f"{at.astimezone(UTC):%H:%M} UTC")


def weekday(date_: date) -> str:
    """A day near enough to need no year: `Mon 30 Nov`."""
    return f"{date_:%a} {date_.day} {date_:%b}"


def day(at: datetime) -> Markup:
    """The same without its time of day."""
    return _time(at, "day", f"{at.astimezone(UTC):%d %b %Y}")


def _time(at: datetime, shape: str, text: str) -> Markup:
    sent = f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"
    # Markup.format takes five times as long, and a page may have a hundred times on it.
    return Markup(f'<time datetime="{sent}" data-shape="{shape}">{text}</time>')  # noqa: S704  all of it is ours
