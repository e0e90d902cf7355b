"""The link by which a contact leaves, and what it says.

A mail program posts to it without asking anybody (RFC 8058), long after the mail, so a link holds for ever, and says by
itself whose it is. It is signed: nobody ends what was sent to others by counting up. No address of a person stands in
it, as links end up in the logs of whatever is in between.
"""

import hmac
from base64 import b64decode, urlsafe_b64encode
from typing import Final

from msgspec import Struct

from leadline.features.outreach.model import FollowUpId

MAC_BYTES: Final = 16
TOKEN_CHARACTERS_MAX: Final = 400

_KEY_LABEL: Final = b"leadline: links by which contacts leave"


class Wish(Struct, frozen=True):
    """The contact of this follow-up wants no more mail."""

    teamspace: str
    follow_up: FollowUpId


def unsubscribe_key(seal_key: bytes) -> bytes:
    """The key that signs links, made of the daemon's one key."""
    return hmac.digest(seal_key, _KEY_LABEL, "sha256")


def token(key: bytes, wish: Wish) -> str:
    """What stands at the end of the link."""
    content = f"{wish.follow_up}.{wish.teamspace}".encode()
    return _written(_mac(key, content) + content)


def link(base_url: str, token: str) -> str:
    """The link, below an address under which the listener is reached."""
    return f"{base_url.rstrip('/')}/{token}"


def read(key: bytes, token: str) -> Wish | None:
    """The wish that a token stands for; None where it was not made with this key."""
    if len(token) > TOKEN_CHARACTERS_MAX or not token.isascii():
        return None
    try:
        signed = b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    if _written(signed) != token:  # other characters that mean the same are none of ours
        return None
    mac, content = signed[:MAC_BYTES], signed[MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(key, content)):
        return None
    number, _, teamspace = content.decode().partition(".")
    return Wish(teamspace, FollowUpId(int(number)))


def _written(signed: bytes) -> str:
    return urlsafe_b64encode(signed).rstrip(b"=").decode()


def _mac(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, "sha256")[:MAC_BYTES]
