"""The bytes of one mail.

Every header with a text in it is written here, in ASCII, and nothing else has a say in it. The header code of some
interpreters decodes encoded words that somebody put into a name or a subject, and writes what they hide, line breaks
included, as headers of its own (CPython 3.11.7 and 3.12.1 do; distributions have mended it in versions that are older,
so that a version tells nothing). A text that is not plainly harmless becomes encoded words (RFC 2047) made here,
whatever it looked like before; and the one line that has to stay in one piece, the address by which to leave (RFC
8058), does. Only the parts of the body are encoded by the standard library, whose headers for them are fixed words.
"""

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from hashlib import sha256
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from leadline.features.outreach.characters import Unwritable, lines, one_line
from leadline.features.outreach.model import SECOND, Associate, AssociateId, FollowUp
from leadline.features.outreach.texts import Text
from leadline_protocol.ids import Instant

NAME_CHARACTERS_MAX: Final = 100
"""Of the name before an address; the rest is cut off."""

LINE_BYTES_MAX: Final = 998
"""RFC 5322, without its end."""

_WORD_BYTES: Final = 45
"""An encoded word has at most 75 characters, 12 of them for what it is."""

_BODY_POLICY: Final = SMTP.clone(max_line_length=76, cte_type="7bit")
"""76 is what RFC 2045 allows to encoded lines; no server has to know 8BITMIME."""

_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS: Final = re.compile(rf"(?=.{{3,254}}\Z)(?=.{{1,64}}@){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*")
_MESSAGE_ID: Final = re.compile(r"<[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\[\]:-]+>")
_URL: Final = re.compile(r"https?://[!#-;=?-~]+")
_PLAIN: Final = re.compile(r"[ -~]*")
_PLAIN_NAME: Final = re.compile(r"[ !#-\[\]-~]*")
"""What may stand between quotes as it is."""


class BadAddress(Unwritable):
    """An address is none, or none that every mail server takes."""


class Leaving(Struct, frozen=True):
    """How a contact says that it wants no more mail."""

    link: str
    """To which their mail program posts."""
    address: str | None = None
    """To which it may write."""


def ascii_address(address: str) -> str:
    """The address as every mail server takes it: a domain in other letters is written with xn--. Raises BadAddress.

    A mailbox that has other letters before the @ is beyond most servers, and beyond this.
    """
    local, at, domain = address.rpartition("@")
    try:
        written = f"{local}{at}{domain.encode('idna').decode()}"
    except UnicodeError:
        written = ""
    if not _ADDRESS.fullmatch(written):
        raise BadAddress(f"{address[:100]!r} is no address that every mail server takes")
    return written


def headers_are_sound() -> bool:
    """Whether a mail made here is read by this interpreter as it was meant, whatever a name or a subject hides.

    It is to be asked once, at the start: how the interpreter treats headers is nothing that its version tells.
    """
    hidden = "=?utf-8?q?x=0D=0ABcc:_eve@eve.example?="
    raw = message_of(
        Text(hidden, f"{hidden}\n", f"{hidden}\n"),
        Associate(id=AssociateId(0), teamspace="", name="", address="a@a.example", full_name=hidden),
        address="b@b.example",
        name=hidden,
        message_id="<a@a.example>",
        references=(),
        date=Instant(0),
        leaving=None,
    )
    read = message_from_bytes(raw, policy=SMTP)
    names = [read[header].addresses[0].display_name for header in ("From", "To")]
    headers = ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"]
    return read.keys() == headers and [read["Subject"], *names] == [hidden] * 3


def message_id_of(follow_up: FollowUp, domain: str) -> str:
    """The Message-ID of the follow-up's next mail, in angle brackets.

    It is the same however often the sending of that mail is tried: whoever gets it twice after all can tell. The
    follow-up's seed is in it, so that nobody who has one of them can name another.
    """
    parts = (follow_up.teamspace, follow_up.id, follow_up.round, follow_up.step, follow_up.seed)
    return f"<{sha256(chr(0).join(map(str, parts)).encode()).hexdigest()[:32]}@{domain}>"


def message_of(
    text: Text,
    associate: Associate,
    *,
    address: str,
    name: str,
    message_id: str,
    references: Sequence[str],
    date: Instant,
    leaving: Leaving | None,
) -> bytes:
    """The mail, complete, its lines ended by CRLF.

    `message_id` and `references` (of the mails before it in the thread, the oldest first) are in angle brackets.

    Raises:
        BadAddress: the associate's or the contact's.
        Unwritable: something else cannot stand in a mail.

    """
    headers = [
        f"From: {_mailbox(associate.full_name, associate.address)}",
        f"To: {_mailbox(name, address)}",
        f"Subject: {header_text(one_line(text.subject))}",
        f"Date: {format_datetime(datetime.fromtimestamp(date / SECOND, UTC))}",
        f"Message-ID: {_id(message_id)}",
    ]
    if references:
        headers.append(f"In-Reply-To: {_id(references[-1])}")
        headers.append("References: " + "\r\n ".join(map(_id, references)))
    if leaving is not None:
        headers += _leaving(leaving)
    html = None if text.html is None else lines(text.html)
    head = "\r\n".join(headers).encode("ascii")
    assert all(len(line) <= LINE_BYTES_MAX for line in head.split(b"\r\n")), "every part of it is bounded"
    return head + b"\r\n" + _body(lines(text.text), html, message_id)


def _body(text: str, html: str | None, message_id: str) -> bytes:
    """The headers that say what the body is, and the body."""
    body = EmailMessage(policy=_BODY_POLICY)
    body.set_content(text)
    if html is not None:
        body.add_alternative(html, subtype="html")
        digest = sha256(f"{message_id}\0{text}\0{html}".encode()).hexdigest()
        body.set_boundary(f"=_{digest[:32]}")  # nothing in the text can hold it, as it depends on all of the text
    return body.as_bytes()


def _mailbox(name: str, address: str) -> str:
    shown = one_line(name)[:NAME_CHARACTERS_MAX].rstrip()
    written = ascii_address(address)
    if not shown:
        return written
    if _PLAIN_NAME.fullmatch(shown) and "=?" not in shown:
        return f'"{shown}" <{written}>'
    return f"{_encoded(shown)} <{written}>"


def header_text(text: str) -> str:
    """A text as it stands in a header: as it is where that is plainly harmless, else as encoded words."""
    plain = _PLAIN.fullmatch(text) and "=?" not in text and len(text) < LINE_BYTES_MAX - 20
    return text if plain else _encoded(text)


def _encoded(text: str) -> str:
    """A text as encoded words, one a line; a character is never divided."""
    return "\r\n ".join(f"=?utf-8?b?{b64encode(piece).decode()}?=" for piece in _pieces(text))


def _pieces(text: str) -> Iterator[bytes]:
    piece = b""
    for character in text:
        encoded = character.encode()
        if len(piece) + len(encoded) > _WORD_BYTES:
            yield piece
            piece = b""
        piece += encoded
    yield piece


def _id(message_id: str) -> str:
    if not _MESSAGE_ID.fullmatch(message_id) or len(message_id) > LINE_BYTES_MAX - 20:
        raise Unwritable(f"{message_id[:100]!r} is no Message-ID")
    return message_id


def _leaving(leaving: Leaving) -> list[str]:
    ways = (
        [leaving.link]
        if leaving.address is None
        else [leaving.link, f"mailto:{quote(ascii_address(leaving.address), safe='@')}"]
    )
    line = "List-Unsubscribe: " + ", ".join(f"<{way}>" for way in ways)
    if not _URL.fullmatch(leaving.link) or len(line) > LINE_BYTES_MAX:
        raise Unwritable(f"{leaving.link[:100]!r} is no address to leave by, or too long")
    return [line, "List-Unsubscribe-Post: List-Unsubscribe=One-Click"]
