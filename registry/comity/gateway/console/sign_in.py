"""Signing in and out at the console.

    GET  /-/sign-in?key=…   shows a button; nothing ends yet, because mail filters and chat programs open links
    POST /-/sign-in         ends the link, begins a session, and goes on to the pages of the node
    POST /-/sign-out        ends the session

A person who signs in by a link is an operator: the link came over the node's Unix socket.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from comity.content.gateway_tokens import Token, TokenUses
from comity.gateway.access_tokens import GatewayAccess
from comity.gateway.console.forms import BrowserOrigins
from comity.gateway.console.page import HEADERS, NODE, POLICY, PREFIX, WITH_FORMS, PageMaker, Reader
from comity.gateway.console.sessions import BrowserSessions, Role, SignInKind
from comity.gateway.declared_routes import DeclaredRoute
from comity.node.operator_acts import OperatorActs
from comity.node.services.operator import PATH, SignInLinks
from comity.node.threads import Clock, Pools

OPERATOR: Final = "operator"
"""Who signed in by a link."""
FIRST_PAGE: Final = NODE
MAX_KEY: Final = 100
PROVIDER_PATH: Final = f"{PATH}/oidc"
"""Where signing in through an OpenID Connect provider begins (package oidc)."""

_log: Final = structlog.get_logger("comity.gateway.console")


class SessionAccess(GatewayAccess):
    """What a reader of the console may read: everything with a session, otherwise what `GatewayAccess` allows."""

    def __init__(
        self, file: Path, pools: Pools, uses: TokenUses, clock: Clock, sessions: BrowserSessions, *, public: bool
    ) -> None:
        super().__init__(file, pools, uses, clock, public=public)
        self._sessions = sessions

    async def require_any(self, request: Request) -> Token | None:
        """As `GatewayAccess.require_any`; None also for a reader with a session."""
        return None if self._sessions.of(request) else await super().require_any(request)

    async def readable_names(self, request: Request) -> Callable[[str], bool]:
        return (lambda name: True) if self._sessions.of(request) else await super().readable_names(request)


class SignInPages:
    """Not thread-safe: call from the event loop."""

    def __init__(
        self,
        maker: PageMaker,
        sessions: BrowserSessions,
        origins: BrowserOrigins,
        links: SignInLinks,
        acts: OperatorActs,
        provider: str = "",
    ) -> None:
        """`provider` is the issuer of the OpenID Connect provider, or empty."""
        self._maker = maker
        self._sessions = sessions
        self._origins = origins
        self._links = links
        self._acts = acts
        self._provider = urlsplit(provider).netloc

    def routes(self) -> list[DeclaredRoute]:
        page, access = self._maker.route, self._maker.access
        return [
            page(PATH, self.show, access(None)),
            page(PATH, self.sign_in, access(None, ("key",))),
            page(f"{PREFIX}/sign-out", self.sign_out, access("viewer", ())),
        ]

    async def show(self, reader: Reader) -> Response:
        return self._maker.render(
            reader, "sign_in.html", None, headers=WITH_FORMS, key=reader.field("key"), provider=self._provider
        )

    async def sign_in(self, reader: Reader) -> Response:
        self._links.use(reader.form["key"][:MAX_KEY])
        response = see_other(reader, FIRST_PAGE)
        await self.begin(reader, response, OPERATOR, "operator", "link")
        return response

    async def begin(self, reader: Reader, response: Response, who: str, role: Role, by: SignInKind) -> None:
        """Begin a session, whose cookie goes out with `response`. Raises as `OperatorActs.append`."""
        secure = self._origins.secure(reader.request)
        await self._acts.append("session.begin", who, f"{role}, by {by}", by=who)
        session, secret = self._sessions.begin(reader.request, who, role, by, secure=secure)
        _log.info("console sign-in", who=who, role=role, by=by, session=session.id)
        self._sessions.set_cookie(response, secret, secure=secure)

    async def sign_out(self, reader: Reader) -> Response:
        session = reader.person
        await self._acts.append("session.end", session.id[:8], by=session.who)
        self._sessions.end_own(reader.request)
        _log.info("console sign-out", who=session.who, session=session.id)
        response = see_other(reader, "/")
        self._sessions.delete_cookies(response, reader.request)
        return response


def see_other(reader: Reader, path: str, **query: object) -> Response:
    """What follows a form: a page, which the browser can load again without sending the form again."""
    headers = {"Vary": HEADERS["Vary"], "Cache-Control": "no-store", "Content-Security-Policy": POLICY}
    return RedirectResponse(reader.link(path, **query), 303, headers)
