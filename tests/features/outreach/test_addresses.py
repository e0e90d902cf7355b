"""What cannot be a person's address is not written to, and one address has one form where it is suppressed."""

import pytest

from leadline.features.outreach.addresses import domain_of, is_plausible, normal


@pytest.mark.parametrize(
    "address",
    [
        "a@b.co",
        "ann.lee+crm@mail.example.com",
        "o'hara_{x}@example.co.uk",
        "ann@3m.example",
        "ann@xn--bcher-kva.example",
        "jörg@bücher.example",
        "用户@例子.公司",
        f"{'a' * 64}@example.com",
    ],
)
def test_people_have_such_addresses(address: str) -> None:
    assert is_plausible(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ann",
        "@example.com",
        "ann@",
        "ann@localhost",
        "ann@example..com",
        "ann@.example.com",
        "ann@example.com.",
        ".ann@example.com",
        "ann.@example.com",
        "an..n@example.com",
        "ann@@example.com",
        "ann@bob@example.com",
        "ann@-example.com",
        "ann@example-.com",
        "ann@exa_mple.com",
        "ann@192.0.2.1",
        "ann@[192.0.2.1]",
        '"ann lee"@example.com',
        "ann lee@example.com",
        " ann@example.com",
        "ann@example.com\n",
        "ann@example.com\r\nBcc: eve@example.com",
        "ann@example.com,eve@example.com",
        "Ann <ann@example.com>",
        "ann\u202e@example.com",
        "ann\u00a0@example.com",
        "ann\ud800@example.com",
        f"{'a' * 65}@example.com",
        f"{'ü' * 33}@example.com",
        f"ann@{'a' * 64}.com",
        f"ann@{'ü' * 60}.com",
        f"ann@{'.'.join(['a' * 60] * 4)}.com.example",
    ],
)
def test_nobody_has_such_an_address(address: str) -> None:
    assert not is_plausible(address)


def test_an_address_is_suppressed_however_it_is_written() -> None:
    assert (
        normal("Ann.Lee@BÜCHER.example") == normal("ann.lee@xn--bcher-kva.EXAMPLE") == "ann.lee@xn--bcher-kva.example"
    )
    assert normal("ann@example.com") != normal("ann@mail.example.com")


@pytest.mark.parametrize("entry", ["BÜCHER.example", "@bücher.example", "ann@xn--bcher-kva.example"])
def test_a_domain_is_known_bare_and_from_an_address(entry: str) -> None:
    assert domain_of(entry) == "xn--bcher-kva.example"


def test_a_domain_that_cannot_be_encoded_is_still_one_thing() -> None:
    assert domain_of(f"ann@{'A' * 70}.com") == f"{'a' * 70}.com"
