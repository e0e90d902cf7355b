"""A mail's bytes, read back: exactly the headers, recipients and body that were meant, on every interpreter."""

import email
import email.policy
import re
from email.header import decode_header, make_header
from email.message import EmailMessage, Message
from email.utils import getaddresses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from leadline.features.outreach.characters import Unwritable
from leadline.features.outreach.message import (
    NAME_CHARACTERS_MAX,
    BadAddress,
    Leaving,
    ascii_address,
    headers_are_sound,
    message_id_of,
    message_of,
)
from leadline.features.outreach.model import SECOND, Associate, AssociateId, FollowUp, FollowUpId, Status
from leadline.features.outreach.texts import Text
from leadline_protocol.ids import Instant

ADA = Associate(id=AssociateId(1), teamspace="acme", name="ada", address="ada@a.example", full_name="Ada")
NINE = Instant(1_796_116_440 * SECOND)
LINK = "https://leave.example/u/" + "x" * 700
FOLLOW_UP = FollowUp(
    id=FollowUpId(7), teamspace="acme", associate=AssociateId(1), address="bob@b.example", fields={}, zone=None,
    script="warm", step=1, due=NINE, created=NINE, status=Status.QUEUED, seed=99,
)  # fmt: skip

BODY_HEADERS = {"MIME-Version", "Content-Type", "Content-Transfer-Encoding"}


def composed(text: Text, *, full_name: str = "Ada", name: str = "Bob", leaving: Leaving | None = None) -> bytes:
    return message_of(
        text,
        replace(ADA, full_name=full_name),
        address="bob@b.example",
        name=name,
        message_id="<3@a.example>",
        references=("<1@a.example>", "<2@a.example>"),
        date=NINE,
        leaving=leaving,
    )


def read(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def read_otherwise(raw: bytes) -> dict[str, str]:
    """By the interpreter's other, older code for headers."""
    message: Message = email.message_from_bytes(raw, policy=email.policy.compat32)
    return {name: str(make_header(decode_header(value.replace("\r\n", "")))) for name, value in message.items()}


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    content = part.get_content()
    assert isinstance(content, str)
    return content.replace("\r\n", "\n")


def test_a_mail_has_the_headers_that_are_meant_and_no_others() -> None:
    raw = composed(Text("Hello", "Hi\n", "<p>Hi</p>\n"), leaving=Leaving(LINK, "leave@a.example"))
    message = read(raw)
    assert {name: value for name, value in message.items() if name != "Content-Type"} == {
        "From": "Ada <ada@a.example>",
        "To": "Bob <bob@b.example>",
        "Subject": "Hello",
        "Date": "Tue, 01 Dec 2026 09:14:00 +0000",
        "Message-ID": "<3@a.example>",
        "In-Reply-To": "<2@a.example>",
        "References": "<1@a.example> <2@a.example>",
        "List-Unsubscribe": f"<{LINK}>, <mailto:leave@a.example>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "MIME-Version": "1.0",
    }
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert (body(message, "plain"), body(message, "html")) == ("Hi\n", "<p>Hi</p>\n")


def test_a_mail_without_html_is_one_text_and_the_first_answers_none() -> None:
    raw = message_of(
        Text("Hello", "Hi\n", None), replace(ADA, full_name=""), address="bob@b.example", name=" ",
        message_id="<1@a.example>", references=(), date=NINE, leaving=None,
    )  # fmt: skip
    message = read(raw)
    assert message.get_content_type() == "text/plain"
    assert (message["From"], message["To"]) == ("ada@a.example", "bob@b.example")
    assert "References" not in message
    assert "List-Unsubscribe" not in message


def test_the_address_to_leave_by_stands_on_one_line() -> None:
    lines = composed(Text("Hello", "Hi\n", None), leaving=Leaving(LINK, "leave@a.example")).split(b"\r\n")
    assert f"List-Unsubscribe: <{LINK}>, <mailto:leave@a.example>".encode() in lines
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in lines


@pytest.mark.parametrize(
    "link", ["https://x.example/" + "x" * 998, "https://x.example/ x", "https://x.example/>\r\nBcc: e", "x"]
)
def test_an_address_to_leave_by_that_cannot_stand_there_is_refused(link: str) -> None:
    with pytest.raises(Unwritable, match="no address to leave by"):
        composed(Text("Hello", "Hi\n", None), leaving=Leaving(link))


HOSTILE = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.lists(
        st.sampled_from([
            "\r\nBcc: eve@eve.example\r\n", "\nBcc: eve@eve.example", "\r", "\0", "\x0b", "\x0c", "\x1c", "\x85",
            "=?utf-8?q?x=0D=0ABcc:_eve@eve.example?=", "=?utf-8?b?DQpCY2M6IGVAZS5leGFtcGxl?=", "=?x?q?", "?=", "=?",
            "eve@eve.example, ", "<eve@eve.example>", '"', "\\", ";", ":", "(", ")", ",", "{{ 7 * 7 }}",
            "{% for x in y %}", "https://long.example/" + "a" * 1_000, "x" * 998, "x" * 1_200, "שלום", "\u202e", "ü",
            "👩\u200d👩\u200d👧", "\n.\n", "\r\n.\r\n", "\n..", "\nFrom eve", "\n--", " ", "  ", "\t", "\xa0", "\n\n",
            "= \n", "=", "=0A", "a", "\u2028",
        ]),
        max_size=12,
    ).map("".join),
)  # fmt: skip


def on_one_line(text: str) -> str:
    spaced = "".join(
        " " if ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u2028\u2029" else char for char in text
    )
    return re.sub(" +", " ", spaced).strip(" ")


def as_lines(text: str) -> str:
    joined = "\n".join(re.split("\r\n|\r|\x85|\n", text))
    plain = "".join(char for char in joined if char in "\t\n" or not (ord(char) < 32 or 127 <= ord(char) < 160))
    return plain.rstrip("\n") + "\n"


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
@example(
    "=?utf-8?q?x=0D=0ABcc:_eve@eve.example?=", "=?utf-8?q?=0ABcc:_e@e.example?=", "a\r\nBcc: e", "\n.\n", "<p>.\n."
)
@example("ü" * 250, '\\"', "“”" * 50, "x" * 1_200 + " \n" + "ü" * 700, "\n" * 5 + "From e\n.\n")
def test_a_mail_is_read_as_it_was_meant_whatever_was_written_into_it(
    subject: str, full_name: str, name: str, text: str, html: str
) -> None:
    raw = composed(Text(subject, text, html), full_name=full_name, name=name, leaving=Leaving(LINK))
    message, otherwise = read(raw), read_otherwise(raw)

    meant = ["From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "List-Unsubscribe"]
    meant += ["List-Unsubscribe-Post", "MIME-Version", "Content-Type"]
    assert message.keys() == meant
    assert list(otherwise) == meant
    assert message["Subject"] == otherwise["Subject"] == on_one_line(subject)
    for header, shown, address in (("From", full_name, "ada@a.example"), ("To", name, "bob@b.example")):
        [mailbox] = message[header].addresses
        assert mailbox.addr_spec == address
        meant_name = on_one_line(shown)[:NAME_CHARACTERS_MAX].rstrip()
        # Of the spaces in a name this parser has ideas of its own, and sees some between encoded words.
        assert "".join(mailbox.display_name.split()) == "".join(meant_name.split())
        [(_, addr_spec)] = getaddresses([email.message_from_bytes(raw)[header]])
        assert addr_spec == address
        assert otherwise[header] in (f"{meant_name} <{address}>", f'"{meant_name}" <{address}>', address)
    assert (body(message, "plain"), body(message, "html")) == (as_lines(text), as_lines(html))
    assert not message.defects

    assert raw.isascii()
    assert raw.endswith(b"\r\n")
    lines = raw.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert not any(char in line for line in lines for char in b"\r\n\0")


@given(st.text(max_size=40))
def test_half_a_character_is_refused_and_no_other_is(text: str) -> None:
    halves = any("\ud800" <= char <= "\udfff" for char in text)
    for mail in (Text(text, "x\n", None), Text("x", text, None), Text("x", "x\n", text)):
        if halves:
            with pytest.raises(Unwritable, match="half a character"):
                composed(mail)
        else:
            composed(mail)


@pytest.mark.parametrize(
    "address", ["a@b.example", "a.b+c@x-y.example", "o'neil@b.example", "a@localhost", "a@xn--bcher-kva.example"]
)
def test_an_address_of_a_mailbox_is_taken_as_it_is(address: str) -> None:
    assert ascii_address(address) == address


def test_a_domain_in_other_letters_is_written_in_these() -> None:
    assert ascii_address("a@Bücher.example") == "a@xn--bcher-kva.example"
    raw = message_of(
        Text("x", "x\n", None), ADA, address="bob@bücher.example", name="Bob", message_id="<1@a.example>",
        references=(), date=NINE, leaving=None,
    )  # fmt: skip
    assert read(raw)["To"] == "Bob <bob@xn--bcher-kva.example>"


@pytest.mark.parametrize(
    "address",
    [
        "", "a", "a@", "@b", "a@b@c", "a b@c.example", "a@b.example\r\nBcc: e@e.example", "a@b.example\n",
        "a,b@c.example", "<a@b.example>", '"a b"@c.example', ".a@b.example", "a.@b.example", "a..b@c.example",
        "a@-b.example", "a@b-.example", "a@b..example", "ü@b.example", "a@b\xfc\u2028.example", "a@b.example>",
        "a" * 65 + "@b.example",
        "a@" + "b." * 130 + "example", "=?utf-8?q?a?=@b.example\0", "a@[127.0.0.1]", "a%0d%0a@b.example ",
        "a@b\u2028.example", "\ud800@b.example",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_wherever_it_stands(address: str) -> None:
    with pytest.raises(BadAddress):
        ascii_address(address)
    with pytest.raises(BadAddress):
        composed(Text("x", "x\n", None), leaving=Leaving(LINK, address))


@pytest.mark.parametrize(
    "reference", ["", "a@b", "<a@b>\r\nBcc: e@e", "<a b@c>", "<a>", "<a@b>, <c@d>", "<" + "a" * 1_000 + "@b>"]
)
def test_what_is_no_message_id_is_refused(reference: str) -> None:
    with pytest.raises(Unwritable, match="no Message-ID"):
        message_of(
            Text("x", "x\n", None), ADA, address="bob@b.example", name="", message_id="<1@a.example>",
            references=[reference], date=NINE, leaving=None,
        )  # fmt: skip


def test_the_same_mail_has_the_same_bytes_and_the_same_message_id() -> None:
    text = Text("Hello", "Hi\n", "<p>Hi</p>\n")
    assert composed(text) == composed(text)
    assert message_id_of(FOLLOW_UP, "a.example") == message_id_of(FOLLOW_UP, "a.example")


def test_another_mail_has_another_message_id_and_none_tells_another() -> None:
    ids = {
        message_id_of(follow_up, "a.example")
        for follow_up in (
            FOLLOW_UP,
            replace(FOLLOW_UP, step=2),
            replace(FOLLOW_UP, round=2),
            replace(FOLLOW_UP, id=FollowUpId(8)),
            replace(FOLLOW_UP, teamspace="other"),
            replace(FOLLOW_UP, seed=100),
        )
    }
    assert len(ids) == 6
    assert all(re.fullmatch(r"<[0-9a-f]{32}@a\.example>", one) for one in ids)


def test_headers_are_sound_here_whatever_the_interpreter_does_by_itself() -> None:
    assert headers_are_sound()


def test_headers_would_not_be_sound_if_a_subject_were_written_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leadline.features.outreach.message.header_text", lambda text: text)
    assert not headers_are_sound()
