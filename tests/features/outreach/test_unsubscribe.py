"""The link by which a contact leaves: nobody makes one but who has the key."""

import re

from hypothesis import given
from hypothesis import strategies as st

from leadline.features.outreach.message import Leaving, message_of
from leadline.features.outreach.model import Associate, AssociateId, FollowUpId
from leadline.features.outreach.texts import Text
from leadline.features.outreach.unsubscribe import Wish, link, read, token, unsubscribe_key
from leadline_protocol.ids import Instant

KEY = unsubscribe_key(b"k" * 32)
WISH = Wish("acme", FollowUpId(41))

wishes = st.builds(Wish, st.text(min_size=1, max_size=40).filter(str.isprintable), st.integers(0, 2**63 - 1))


@given(wishes)
def test_a_token_says_whose_it_is_and_fits_into_a_link(wish: Wish) -> None:
    made = token(KEY, wish)
    assert read(KEY, made) == wish
    assert re.fullmatch(r"[A-Za-z0-9_-]+", made)


@given(wishes, st.data())
def test_a_token_with_any_character_changed_says_nothing(wish: Wish, data: st.DataObject) -> None:
    made = token(KEY, wish)
    at = data.draw(st.integers(0, len(made) - 1))
    other = data.draw(st.sampled_from("ABCXYZabcxyz0189-_.=%/ü\n").filter(lambda char: char != made[at]))
    forged = made[:at] + other + made[at + 1 :]
    assert read(KEY, forged) in (None, wish), "the last character has bits that nobody reads"
    if at < len(made) - 1:
        assert read(KEY, forged) is None


@given(st.text(max_size=60))
def test_what_is_no_token_says_nothing(text: str) -> None:
    assert read(KEY, text) is None
    assert read(KEY, token(KEY, WISH) + text) in (None, WISH)


def test_another_key_reads_nothing_and_the_key_is_not_the_one_that_seals() -> None:
    assert read(unsubscribe_key(b"l" * 32), token(KEY, WISH)) is None
    assert read(b"k" * 32, token(KEY, WISH)) is None
    assert unsubscribe_key(b"k" * 32) == KEY


def test_the_same_number_in_another_teamspace_is_another_token() -> None:
    assert read(KEY, token(KEY, Wish("4.acme", FollowUpId(1)))) == Wish("4.acme", FollowUpId(1))
    assert token(KEY, Wish("4.acme", FollowUpId(1))) != token(KEY, Wish("acme", FollowUpId(14)))


def test_the_link_stands_in_the_mail_as_it_is_read() -> None:
    address = link("https://leave.example/u/", token(KEY, WISH))
    raw = message_of(
        Text("x", "x\n", None), Associate(id=AssociateId(1), teamspace="acme", name="ada", address="a@a.example"),
        address="b@b.example", name="", message_id="<1@a.example>", references=(), date=Instant(0),
        leaving=Leaving(address),
    )  # fmt: skip
    [found] = re.findall(rb"^List-Unsubscribe: <https://leave\.example/u/([^>/]+)>\r$", raw, re.MULTILINE)
    assert read(KEY, found.decode()) == WISH
