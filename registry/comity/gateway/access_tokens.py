"""Who may read at the gateway: anyone if it is public, else who has a token of this node.

An unknown token is ignored and never logged, because it may be a secret for another endpoint.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from starlette.requests import Request

from comity.content.gateway_tokens import ALL_REPOSITORIES, Token, TokenFile, TokenUses, looks_like_token, token_hash
from comity.gateway.declared_routes import Who
from comity.gateway.http import REPOSITORY
from comity.node.threads import Clock, Pools
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Refused
from comity.trust.frozen import frozen

Permit: TypeAlias = Callable[[str], Awaitable[None]]
"""Raises Refused if the reader may not read the repository of this name."""


class GatewayAccess:
    """Checks tokens; reloads the token file when it changes. `uses` keeps when each was used last."""

    def __init__(self, file: Path, pools: Pools, uses: TokenUses, clock: Clock, *, public: bool) -> None:
        self._pools = pools
        self._public = public
        self._uses = uses
        self._clock = clock
        self._file = TokenFile(file)
        self._version: tuple[int, ...] | None = None
        self._tokens: dict[Digest, Token] = {}

    async def token(self, request: Request) -> Token | None:
        """Return the token of a request if it is one of this node and has not ended."""
        token = await self._known(request)
        now = self._clock()
        if token is None or token.expired(now):
            return None
        if self._uses.seen(token.id, now):
            with suppress(ComityError):  # a full disk keeps no reader out
                await self._pools.files(self._uses.write)
        return token

    async def _known(self, request: Request) -> Token | None:
        secret = _secret(request.headers.get("authorization", ""))
        if not looks_like_token(secret):
            return None
        await self._pools.files(self._refresh)
        return self._tokens.get(token_hash(secret))

    async def require_token(self, request: Request) -> Token:
        """Return the token of a request, at a public gateway too. Raises Refused (BAD-TOKEN)."""
        token = await self.token(request)
        if token is None:
            raise Refused("Invalid credentials in Authorization header", hint="ask the operator", code="BAD-TOKEN")
        return token

    async def require_any(self, request: Request) -> Token | None:
        """Return the token of a request, None at a public gateway. Raises Refused (NO-TOKEN, TOKEN-EXPIRED)."""
        if self._public:
            return None
        token = await self.token(request)
        if token is None and await self._known(request) is not None:
            raise Refused("the token has expired", hint="ask the operator of this node", code="TOKEN-EXPIRED")
        if token is None:
            sent = bool(_secret(request.headers.get("authorization", "")))
            why = "the token that was sent is not one of this node" if sent else "none was sent"
            raise Refused("a token of this node is required", why=why, hint="ask its operator", code="NO-TOKEN")
        return token

    async def require(self, request: Request, repository: str) -> None:
        """Raise Refused (NO-TOKEN, TOKEN-EXPIRED, TOKEN-SCOPE) unless the request may read `repository`, which its log
        line names."""
        request.scope[REPOSITORY] = repository
        token = await self.require_any(request)
        if token is not None and not token.allows(repository):
            raise Refused("the token does not cover this repository", hint="ask its operator", code="TOKEN-SCOPE")

    def permit(self, request: Request) -> Permit:
        """Return `require` of this request, for names that the address does not have."""
        return functools.partial(self.require, request)

    async def reach(self, request: Request) -> tuple[str, ...]:
        """Return what the request may read, as `Token.reach` does. Raises as `require_any`, because an empty list would
        say that nothing is there."""
        token = await self.require_any(request)
        return token.reach if token is not None else (ALL_REPOSITORIES,)

    async def readable_names(self, request: Request) -> Callable[[str], bool]:
        """Return a predicate of the repository names that the request may read, for lists. Raises as `require_any`."""
        token = await self.require_any(request)
        return token.allows if token is not None else lambda name: True

    async def readable_part(self, request: Request) -> Callable[[str], bool] | None:
        """As `readable_names`; None if the request may read every repository."""
        token = await self.require_any(request)
        return None if token is None or ALL_REPOSITORIES in token.reach else token.allows

    def for_readers(self) -> ReaderAccess:
        """Declare a route for those whom `require_any` lets in."""
        return ReaderAccess(self, "readers", self.require_any)

    def for_readers_of(self, repository: Callable[[Request], str]) -> ReaderAccess:
        """Declare a route for those whom `require` lets in; `repository` returns the one that an address names, and may
        raise."""

        async def check(request: Request) -> None:
            await self.require(request, repository(request))

        return ReaderAccess(self, "readers of the repository", check)

    def for_holders(self) -> ReaderAccess:
        """Declare a route for those whom `require_token` lets in."""
        return ReaderAccess(self, "holders of a token", self.require_token)

    def _refresh(self) -> None:
        version = self._file.version()
        if version != self._version:
            self._tokens = {token.hash: token for token in self._file.read()}
            self._version = version


@frozen
class ReaderAccess:
    """What a route declares for readers. `check` raises what refuses a request."""

    readers: GatewayAccess
    who: Who
    check: Callable[[Request], Awaitable[object]]
    form: bool = False

    async def require(self, request: Request) -> None:
        await self.check(request)


def _secret(authorization: str) -> str:
    """Return the secret of a header: a bearer token, or the password of registry clients, with any user name."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() == "basic":
        with suppress(ValueError):
            return base64.b64decode(given.strip(), validate=True).decode("ascii").partition(":")[2]
    return ""
