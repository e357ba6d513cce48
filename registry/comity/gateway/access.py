"""Who may read what through the gateway: anybody where it is public, else who shows one of the node's tokens.

A token that this node did not hand out is somebody else's secret: clients send what they have to whatever endpoint they
are told. It is never logged, and opens as much as no token does.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request

from comity.content.tokens import FILE, Token, TokenFile, hashed, looks_like_one
from comity.node.core import Core
from comity.trust.digest import Digest
from comity.trust.errors import Refused


class Access:
    """Reads the tokens again whenever their file has changed."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._file = TokenFile(core.config.path(FILE))
        self._version: tuple[int, ...] | None = None
        self._tokens: dict[Digest, Token] = {}

    async def token(self, request: Request) -> Token | None:
        """The token that comes with a request, if it is one of this node's."""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not looks_like_one(secret.strip()):
            return None
        await self._core.pools.files(self._refresh)
        return self._tokens.get(hashed(secret.strip()))

    async def require(self, request: Request, repository: str) -> None:
        """Raises Refused (NO-TOKEN, TOKEN-SCOPE) unless the request may read `repository`."""
        if self._core.config.gateway.public:
            return
        token = await self.token(request)
        if token is None:
            raise Refused(
                "this node serves nothing without a token of its own", hint="ask its operator", code="NO-TOKEN"
            )
        if not token.opens(repository):
            raise Refused("your token does not open this repository", hint="ask its operator", code="TOKEN-SCOPE")

    async def reach(self, request: Request) -> Callable[[str], bool]:
        """Whether the request may read a repository, by its name: for lists, which must not tell of others."""
        if self._core.config.gateway.public:
            return lambda name: True
        token = await self.token(request)
        return token.opens if token is not None else lambda name: False

    def _refresh(self) -> None:
        version = self._file.version()
        if version != self._version:
            self._tokens = {token.hash: token for token in self._file.read()}
            self._version = version
