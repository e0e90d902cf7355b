"""What can be an address, and which addresses are the same.

The rule is simpler than the standard's: a dot-atom, `@`, and a domain of at least two labels. Left out on purpose are
quoted local parts, comments, literals and host names without a dot: no person has such an address, and they are what
smuggles a second recipient or header into a mail. Letters beyond ASCII are allowed on both sides (RFC 6531); whether a
mail server takes them it says itself. Nothing is looked up.

For suppression, case does not count: a mailbox that tells Ann from ann is rarer than a list that does not. Neither does
it matter how a domain beyond ASCII is written.
"""

import re
from typing import Final

_LOCAL_OCTETS_MAX: Final = 64
"""RFC 5321, 4.5.3.1.1."""
_OCTETS_MAX: Final = 254
"""A path of 256 (RFC 5321, 4.5.3.1.3) less its brackets."""
_LABEL_OCTETS_MAX: Final = 63

_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
_LABEL: Final = r"(?!-)[A-Za-z0-9\u0080-\U0010ffff-]+(?<!-)"
_ADDRESS: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*\.(?![0-9]+$){_LABEL}")


def is_plausible(address: str) -> bool:
    """Whether it can be one person's address."""
    if not address.isprintable() or _ADDRESS.fullmatch(address) is None:
        return False
    local, _, domain = address.rpartition("@")
    ascii_domain = _ascii(domain)
    return (
        ascii_domain is not None
        and len(local.encode()) <= _LOCAL_OCTETS_MAX
        and max(map(len, ascii_domain.split("."))) <= _LABEL_OCTETS_MAX
        and len(local.encode()) + 1 + len(ascii_domain) <= _OCTETS_MAX
    )


def domain_of(address: str) -> str:
    """The domain, as it is counted and suppressed; of a bare domain, or one behind an `@`, it is that."""
    domain = address.rpartition("@")[2]
    return _ascii(domain) or domain.casefold()


def normal(address: str) -> str:
    """The address as it is suppressed."""
    return f"{address.rpartition('@')[0].casefold()}@{domain_of(address)}"


def _ascii(domain: str) -> str | None:
    try:
        return domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return None
