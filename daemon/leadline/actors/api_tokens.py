"""API tokens: who a secret stands for, and the operation `tokens` by which they are made and taken back.

A secret is 32 random bytes behind a prefix by which scanners of code and logs know it. It is told once, when it is
made; kept is its SHA-256, by which it is looked up. All tokens are few and are held in memory, so that a request costs
no query: this daemon is the only one that changes them, and reads them anew when it has. Where a change may have taken
place or not they are forgotten, and read when the next request comes.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from leadline.actors.dispatcher import unavailable
from leadline.actors.losses import STORE_LOST
from leadline.actors.surroundings import Record
from leadline.ports.api_tokens import StoredToken, TokenStore
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused

PREFIX: Final = "ldl_"
SECRET_BYTES: Final = 32

SECRET_CHARACTERS_MAX: Final = 200
"""Nothing longer is looked up; ours are shorter."""


def hash_of(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ApiTokens:
    """The tokens there are."""

    def __init__(self, store: TokenStore, now: Callable[[], datetime] = _utc_now) -> None:
        self._store = store
        self._now = now
        self._known: Mapping[bytes, StoredToken] | None = None
        """By hash; None: they have to be read."""
        self._changes = 0
        """Counts on with each change: what was read before one is not kept."""

    async def find(self, secret: str) -> StoredToken:
        """Who a secret stands for. Raises Refused: unauthorized, or unavailable."""
        known = self._known if self._known is not None else await self._read()
        token = known.get(hash_of(secret)) if len(secret) <= SECRET_CHARACTERS_MAX else None
        if token is None or not self._is_taken(token):
            raise Refused(ErrorCode.UNAUTHORIZED, "the token is not known, has expired or was revoked")
        return token

    def is_good(self, token: StoredToken) -> bool:
        """Whether a token that was found before is still taken, as far as is known without asking the database."""
        return self._is_taken(token) and (self._known is None or token.hash in self._known)

    def _is_taken(self, token: StoredToken) -> bool:
        return token.expires is None or self._now() < token.expires

    async def _read(self) -> Mapping[bytes, StoredToken]:
        changes = self._changes
        try:
            known = {each.hash: each for each in await self._store.tokens()}
        except STORE_LOST:
            raise unavailable() from None
        if changes == self._changes:
            self._known = known
        return known

    async def perform(self, operation: wire.Tokens, record: Record, line: int) -> wire.TokensReply:
        """Carry out one operation. Raises Refused, and what the store raises."""
        if operation.action == "list":
            return wire.TokensReply(line=line, tokens=self._views(await self._read()), ref=operation.ref)
        assert operation.name is not None
        known = await self._read()
        before = [each for each in self._views(known) if each.name == operation.name]
        secret = None if operation.action == "revoke" else new_secret()
        try:
            await self._change(operation, _present(known, operation.name), secret, record)
        finally:  # also where nobody can say whether it is stored
            self._known = None
            self._changes += 1
        after = [each for each in self._views(await self._read()) if each.name == operation.name]
        return wire.TokensReply(line=line, tokens=after or before, secret=secret, ref=operation.ref)

    async def _change(
        self, operation: wire.Tokens, present: StoredToken | None, secret: str | None, record: Record
    ) -> None:
        assert operation.name is not None
        name, target = operation.name, f"token {operation.name}"
        if operation.action == "create":
            if present is not None:
                raise _there_is_one(name)
            assert secret is not None
            await record(target, _in_words(operation))
            if not await self._store.add(self._new(operation, secret)):
                raise _there_is_one(name)
            return
        if present is None:
            raise _there_is_none(name)
        await record(target, operation.action)
        if operation.action == "revoke":
            found = await self._store.revoke(name)
        else:
            assert secret is not None
            token = msgspec.structs.replace(
                present,
                hash=hash_of(secret),
                created=self._now(),
                expires=operation.expires_at or present.expires,
            )
            found = await self._store.rotate(token, self._now() + timedelta(seconds=operation.overlap_seconds))
        if not found:
            raise _there_is_none(name)

    def _new(self, operation: wire.Tokens, secret: str) -> StoredToken:
        assert operation.name is not None
        return StoredToken(
            hash_of(secret),
            operation.name,
            frozenset(operation.scopes),
            operation.teamspace,
            operation.role,
            self._now(),
            operation.expires_at,
        )

    def _views(self, known: Mapping[bytes, StoredToken]) -> list[wire.TokenView]:
        now = self._now()
        older = {
            each.name: each.expires
            for each in known.values()
            if each.rotated is not None and each.expires is not None and each.expires > now
        }
        return [
            wire.TokenView(
                name=each.name,
                scopes=sorted(each.scopes),
                teamspace=each.teamspace,
                role=each.role,
                created_at=each.created,
                expires_at=each.expires,
                older_until=older.get(each.name),
            )
            for each in known.values()
            if each.rotated is None
        ]


def new_secret() -> str:
    """A secret that nobody has seen."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def _present(known: Mapping[bytes, StoredToken], name: str) -> StoredToken | None:
    return next((each for each in known.values() if each.name == name and each.rotated is None), None)


def _there_is_one(name: str) -> Refused:
    message = f"there is a token {name} already: revoke or rotate it, or take another name"
    return Refused(ErrorCode.BAD_STATE, message, at="name")


def _there_is_none(name: str) -> Refused:
    return Refused(ErrorCode.NOT_FOUND, f"there is no token {name}", at="name")


def _in_words(operation: wire.Tokens) -> str:
    whose = "all teamspaces" if operation.teamspace is None else operation.teamspace
    return f"create for {whose}, {operation.role}: {', '.join(sorted(operation.scopes))}"
