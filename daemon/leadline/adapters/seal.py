"""Values that nobody reads in the database or in a backup of it: sealed by a key that is kept elsewhere.

AES-256-GCM; what a value is for is authenticated with it, so that one that was moved to another place cannot be opened
there. The key is a credential of the service, `leadline-key`, where there is one, else a file of the state directory
which is made when it is missing. Whoever loses it has to set all values anew.
"""

import os
import secrets
from pathlib import Path
from typing import Final

from leadline_protocol.errors import LeadlineError

CREDENTIAL: Final = "leadline-key"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
VERSION: Final = b"\x01"


class Unsealable(LeadlineError):
    """A value cannot be opened: it was sealed by another key, or for another place."""


class BadKey(LeadlineError):
    """The key cannot be used; the message says why."""


class AesSeal:
    """Seals values (`features.batch.ports.Seal`)."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal(self, value: str, *, of: str) -> bytes:
        """A value, to be opened for the same `of` alone."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(NONCE_BYTES)
        return VERSION + nonce + AESGCM(self._key).encrypt(nonce, value.encode(), of.encode())

    def open(self, sealed: bytes, *, of: str) -> str:
        """The value. Raises Unsealable."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce, text = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            if sealed[:1] != VERSION:
                raise InvalidTag
            return AESGCM(self._key).decrypt(nonce, text, of.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise Unsealable("a setting was sealed by another key than the daemon has now: set it anew") from error


def seal_key(state_dir: Path) -> bytes:
    """The key of this daemon. Raises BadKey."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and (path := Path(credentials, CREDENTIAL)).is_file():
        return _read(path)
    path = state_dir / "seal.key"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
        file.flush()
        os.fsync(descriptor)
    return _read(path)


def _read(path: Path) -> bytes:
    text = path.read_text(encoding="ascii", errors="replace").strip()
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise BadKey(f"{path} holds no key: {2 * KEY_BYTES} hexadecimal digits, as `openssl rand -hex 32` prints them")
    return key
