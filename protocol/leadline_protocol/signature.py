"""How a webhook proves that it comes from the daemon, and is not an old one sent again.

With the secret that the daemon has for a teamspace, the header `Leadline-Signature` is `t=SECONDS,v1=HEX`: the Unix
time of sending, and the HMAC-SHA-256 over `SECONDS.BODY`. Who receives it verifies the bytes as they came, before
reading them:

    if not verify(secret, request.headers.get("Leadline-Signature", ""), body, now=time.time()):
        return 401
"""

import hmac
import re
from hashlib import sha256
from typing import Final

HEADER: Final = "Leadline-Signature"

TOLERANCE_SECONDS: Final = 300
"""An older signature, or one from further ahead, is none."""

_SIGNATURE = re.compile(r"t=(\d{1,15}),v1=([0-9a-f]{64})", re.ASCII)


def sign(secret: str, body: bytes, *, now: float) -> str:
    """The value of the header for a body that is sent now."""
    return f"t={int(now)},v1={_digest(secret, int(now), body)}"


def verify(secret: str, signature: str, body: bytes, *, now: float) -> bool:
    """Whether the header is that of a body which was sent just now by who knows the secret."""
    found = _SIGNATURE.fullmatch(signature.strip())
    if found is None or abs(now - int(found[1])) > TOLERANCE_SECONDS:
        return False
    return hmac.compare_digest(found[2], _digest(secret, int(found[1]), body))


def _digest(secret: str, seconds: int, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{seconds}.".encode() + body, sha256).hexdigest()
