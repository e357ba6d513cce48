"""The page of the gateway's tokens, for people who signed in: who may read what, until when, and when it was used last.

    GET  /-/node/tokens          the list; operators see forms
    POST /-/node/tokens          makes a token, and shows it once
    POST /-/node/tokens/rotate   makes a successor, and shows it once; the old token ends a day later
    POST /-/node/tokens/revoke   ends a token at once

A token is shown in the answer to the form that made it, and nowhere else: the node keeps its hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from comity.content.secrets import ALL_REPOSITORIES, Token, TokenFile
from comity.content.token_uses import TokenUses
from comity.gateway.console.forms import BrowserOrigins
from comity.gateway.console.node_pages import NODE, operator_form
from comity.gateway.console.page import PageMaker, Reader
from comity.gateway.console.sign_in import see_other
from comity.gateway.console.state import StateReader
from comity.node.operator_acts import OperatorActs
from comity.node.threads import Clock, Pools
from comity.trust.errors import Malformed

TOKENS: Final = f"{NODE}/tokens"
OVERLAP: Final = 86_400
"""Seconds for which a rotated token is still accepted."""
MAX_DAYS: Final = 3_650
MAX_REACHES: Final = 100
DAY: Final = 86_400

_log: Final = structlog.get_logger("comity.gateway.console")


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token in the list. `used` in POSIX seconds, 0 for never or unknown."""

    token: Token
    used: int
    expired: bool


class TokenPages:
    """Not thread-safe: call from the event loop."""

    def __init__(
        self,
        file: TokenFile,
        uses: TokenUses,
        pools: Pools,
        clock: Clock,
        maker: PageMaker,
        states: StateReader,
        origins: BrowserOrigins,
        acts: OperatorActs,
    ) -> None:
        self._file = file
        self._acts = acts
        self._uses = uses
        self._pools = pools
        self._clock = clock
        self._maker = maker
        self._states = states
        self._origins = origins

    def routes(self) -> list[BaseRoute]:
        page = self._maker.handler
        return [
            Route(TOKENS, page(self.tokens), methods=["GET"]),
            Route(TOKENS, page(self.make), methods=["POST"]),
            Route(f"{TOKENS}/rotate", page(self.rotate), methods=["POST"]),
            Route(f"{TOKENS}/revoke", page(self.revoke), methods=["POST"]),
        ]

    async def tokens(self, reader: Reader) -> Response:
        reader.require("viewer")
        return await self._list(reader)

    async def make(self, reader: Reader) -> Response:
        fields, session = await operator_form(reader, self._origins, ("name", "reach", "days"))
        now = int(self._clock())
        reach = tuple(fields["reach"].split())[: MAX_REACHES + 1] or (ALL_REPOSITORIES,)
        if len(reach) > MAX_REACHES:
            raise Malformed("the token names too many repositories", why=f"at most {MAX_REACHES}")
        days = read_days(fields["days"])
        expires = now + days * DAY if days else 0
        async with self._acts.recorded("token.new", fields["name"], f"access to {', '.join(reach)}", by=session.who):
            secret, token = await self._pools.files(self._file.add, fields["name"], reach, now, expires)
        _log.info("token made", by=session.who, token=token.id)
        return await self._list(reader, token, secret)

    async def rotate(self, reader: Reader) -> Response:
        fields, session = await operator_form(reader, self._origins, ("id",))
        async with self._acts.recorded("token.rotate", fields["id"], by=session.who):
            secret, token, old = await self._pools.files(self._file.rotate, fields["id"], int(self._clock()), OVERLAP)
        _log.info("token rotated", by=session.who, token=token.id, old=old.id)
        return await self._list(reader, token, secret)

    async def revoke(self, reader: Reader) -> Response:
        fields, session = await operator_form(reader, self._origins, ("id",))
        async with self._acts.recorded("token.revoke", fields["id"], by=session.who):
            token = await self._pools.files(self._file.revoke, fields["id"])
        _log.info("token revoked", by=session.who, token=token.id)
        return see_other(reader, TOKENS)

    async def _list(self, reader: Reader, made: Token | None = None, secret: str = "") -> Response:
        now = self._clock()
        listed = [
            TokenView(token, self._uses.times.get(token.id, 0), token.expired(now))
            for token in await self._pools.files(self._file.read)
        ]
        state = await self._states.now()
        return self._maker.render(reader, "tokens.html", state, tokens=listed, made=made, secret=secret, now=now)


def read_days(text: str) -> int:
    """The days of a form until a token ends; 0 if it is empty. Raises Malformed."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_DAYS):
        raise Malformed("the days are not a number that is possible", why=f"expected 1 to {MAX_DAYS}, or nothing")
    return int(text)
