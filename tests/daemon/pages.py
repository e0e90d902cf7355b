"""Pages as a person sees them without JavaScript: a browser's requests, and the HTML that came, taken apart."""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Any

import aiohttp
from msgspec import Struct, field

from leadline.adapters.http.pages.site import COOKIE
from leadline.config import HTTP_SOCKET
from leadline_protocol.client import Client
from leadline_protocol.messages import Links, Role
from tests.daemon.running import Place

ORIGIN = "http://leadline"
VOID = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "rect", "source", "wbr"})


class Element(Struct):
    """An element of a page."""

    tag: str
    attributes: Mapping[str, str]
    parts: "list[Element | str]" = field(default_factory=list)

    @property
    def text(self) -> str:
        """What is read in it, white space made single."""
        return " ".join(" ".join(part if isinstance(part, str) else part.text for part in self.parts).split())

    def every(self, tag: str | None = None, **attributes: str) -> "Iterator[Element]":
        """All elements in it with that tag and these attributes, of which a class may be one of several."""
        for part in self.parts:
            if isinstance(part, str):
                continue
            if tag in {None, part.tag} and all(part.has(name, value) for name, value in attributes.items()):
                yield part
            yield from part.every(tag, **attributes)

    def one(self, tag: str | None = None, **attributes: str) -> "Element":
        """The only such element. Raises AssertionError."""
        found = list(self.every(tag, **attributes))
        assert len(found) == 1, f"{len(found)} of {tag} {attributes} in {self.text[:500]}"
        return found[0]

    def has(self, name: str, value: str) -> bool:
        name = name.rstrip("_").replace("_", "-")
        own = self.attributes.get(name)
        return own is not None and (value in own.split() if name == "class" else own == value)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].parts.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].parts.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].parts.append(data)


def parsed(html: str) -> Element:
    """A page, every element of which is closed where it was opened. Raises AssertionError."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader._open == [reader.root], f"<{reader._open[-1].tag}> is not closed"
    return reader.root


class Shown(Struct, frozen=True):
    """What came."""

    status: int
    headers: Mapping[str, str]
    html: str
    address: str

    @property
    def page(self) -> Element:
        return parsed(self.html)

    @property
    def main(self) -> Element:
        return self.page.one("main")


class Person:
    """Somebody at a browser."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.cookies: dict[str, str] = {}

    async def ask(self, method: str, path: str, *, follow: bool = True, **request: Any) -> Shown:
        """One request, and where it leads."""
        headers = {**request.pop("headers", {})}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        async with self.session.request(method, path, allow_redirects=False, headers=headers, **request) as response:
            for name, morsel in response.cookies.items():
                self.cookies[name] = morsel.value
                if not morsel.value:
                    del self.cookies[name]
            if follow and response.status == 303:
                return await self.ask("GET", response.headers["Location"])
            text = (await response.read()).decode(errors="replace")
            return Shown(response.status, dict(response.headers), text, str(response.url.relative()))

    async def get(self, path: str, **request: Any) -> Shown:
        return await self.ask("GET", path, **request)

    async def post(self, path: str, fields: Mapping[str, str], **request: Any) -> Shown:
        """A form as it stands here."""
        headers = {"Origin": ORIGIN, **request.pop("headers", {})}
        return await self.ask("POST", path, data=dict(fields), headers=headers, **request)

    async def send(self, form: Element, **filled: str) -> Shown:
        """A form of a page with its fields as they stand there, but for those that are filled in."""
        return await self.post(form.attributes["action"], {**fields_of(form), **filled})

    async def sign_in(self, client: Client, teamspace: str | None, role: Role = "admin") -> Shown:
        """By a link."""
        reply = await client.call(Links(teamspace=teamspace, person="ann@acme.example", role=role))
        assert reply.path is not None
        door = await self.get(reply.path)
        shown = await self.send(door.page.one("form"))
        assert COOKIE in self.cookies
        return shown


def fields_of(form: Element) -> dict[str, str]:
    """What a form would send as it stands there."""
    fields: dict[str, str] = {}
    for element in form.every():
        name = element.attributes.get("name")
        if name is None:
            continue
        if element.tag == "select":
            options = list(element.every("option"))
            chosen = [each for each in options if "selected" in each.attributes] or options[:1]
            fields |= [(name, each.attributes.get("value", each.text)) for each in chosen]
        elif element.tag == "textarea":
            fields[name] = "".join(part for part in element.parts if isinstance(part, str))
        elif element.attributes.get("type") not in {"checkbox", "radio"} or "checked" in element.attributes:
            fields[name] = element.attributes.get("value", "")
    return fields


@asynccontextmanager
async def person(place: Place) -> AsyncIterator[Person]:
    """Somebody whom nobody knows."""
    connector = aiohttp.UnixConnector(path=str(place.folder / "run" / HTTP_SOCKET))
    jar = aiohttp.DummyCookieJar()  # aiohttp's own keeps Secure cookies to itself where there is no TLS
    async with aiohttp.ClientSession(connector=connector, base_url=ORIGIN, cookie_jar=jar) as session:
        yield Person(session)


@asynccontextmanager
async def signed_in(
    place: Place, client: Client, teamspace: str | None = "acme", role: Role = "admin"
) -> AsyncIterator[Person]:
    """Somebody who has come by a link."""
    async with person(place) as somebody:
        await somebody.sign_in(client, teamspace, role)
        yield somebody


def words_of(html: str) -> str:
    """All that is read on a page."""
    return re.sub(r"\s+", " ", parsed(html).text)
