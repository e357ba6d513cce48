"""Who may open a page for people who signed in, and which forms are taken.

Forms are strict, bounded, and come only from pages of this node:

(1) a form is `application/x-www-form-urlencoded`, UTF-8, at most `MAX_FORM` bytes, and has exactly the fields that its
    route declares, each once
(2) its `Origin` header, which browsers send with each form, must name this node; SameSite cookies do not tell the ports
    of one host apart
(3) a form of a session contains the key of that session

The address of the operator in the settings counts as this node, because a proxy may change the header `Host`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request

from comity.gateway.console.sessions import BrowserSession, BrowserSessions, Role, is_form_key
from comity.gateway.declared_routes import Who
from comity.gateway.http import read_body
from comity.trust.errors import Malformed, Refused
from comity.trust.frozen import frozen

MAX_FORM: Final = 8 * 1024
FORM_TYPE: Final = "application/x-www-form-urlencoded"
FORM_KEY: Final = "form"
"""The field with the key of the session."""
FORM: Final = "comity.form"
"""Key in an ASGI scope: the fields of a form that was accepted."""


class BrowserOrigins:
    """How browsers reach this node. `url` is the address in the settings, or empty."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._public = f"{parts.scheme}://{parts.netloc}".lower() if parts.netloc else ""

    def secure(self, request: Request) -> bool:
        """Whether the browser of this request uses TLS, to this node or to a proxy in front of it."""
        if request.url.scheme == "https":
            return True
        if not self._public.startswith("https://"):
            return False
        host = request.headers.get("host", "").lower()
        return f"https://{host}" == self._public or request.headers.get("origin", "").lower() == self._public

    def require_private(self, request: Request) -> None:
        """Raise Refused (CONSOLE-PLAIN) if others on the network could read the cookie of a session."""
        address = str((request.scope.get("client") or ("",))[0])
        loopback = False
        with suppress(ValueError):
            loopback = ipaddress.ip_address(address).is_loopback
        if not loopback and not self.secure(request):
            raise Refused(
                "nobody signs in over a connection that others can read",
                why="the browser is on another machine, and the connection is not HTTPS",
                hint="set certificate and key in [gateway] of node.toml, or url to the https address of a proxy",
                code="CONSOLE-PLAIN",
            )

    def require_own(self, request: Request) -> None:
        """Raise Refused (FORM-ORIGIN) unless a page of this node sent the form."""
        given = request.headers.get("origin", "").lower()
        own = {f"{request.url.scheme}://{request.headers.get('host', '')}".lower(), self._public} - {""}
        if given not in own:
            raise Refused(
                "the form does not come from a page of this node",
                why=f"its origin is {given[:100] or 'not given'}",
                hint="open the page at this node, and send the form again",
                code="FORM-ORIGIN",
            )


@frozen
class PageAccess:
    """Lets people with `role` in: with `fields`, by a form that has these, and for a session its key; without a role,
    those who sign in, over a connection that nobody else can read. The fields go on to the handler.

    Raises Refused (FORM-ORIGIN, CONSOLE-PLAIN, NO-SESSION, ROLE, FORM-KEY) and Malformed (FORM, BODY-TOO-LARGE).
    """

    sessions: BrowserSessions
    origins: BrowserOrigins
    role: Role | None
    fields: tuple[str, ...] | None = None

    @property
    def who(self) -> Who:
        return WHO[self.role]

    @property
    def form(self) -> bool:
        return self.fields is not None

    async def require(self, request: Request) -> None:
        if self.form:
            self.origins.require_own(request)
        if self.role is None:
            self.origins.require_private(request)
        fields = await self._fields(request)
        if self.role is not None:
            session = require_session(self.sessions.of(request), self.role)
            if self.form:
                require_form_key(session, fields)
        request.scope[FORM] = fields

    async def _fields(self, request: Request) -> Mapping[str, str]:
        if self.fields is None:
            return {}
        return await read_form(request, self.fields if self.role is None else (FORM_KEY, *self.fields))


WHO: Final[Mapping[Role | None, Who]] = {None: "everybody", "viewer": "viewers", "operator": "operators"}


def require_session(session: BrowserSession | None, role: Role) -> BrowserSession:
    """Return the session, if it may do what needs `role`. Raises Refused (NO-SESSION, ROLE)."""
    if session is None:
        raise Refused(
            "this page is for people who signed in",
            why="your browser has no session, or it has ended",
            hint="comity console sign-in",
            code="NO-SESSION",
        )
    session.require(role)
    return session


async def read_form(request: Request, names: Sequence[str]) -> Mapping[str, str]:
    """The fields of a form, which are exactly `names`. Raises Malformed (FORM, BODY-TOO-LARGE)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM_TYPE:
        raise _unreadable(f"its type is {kind[:60] or 'not given'}")
    return parse_form(await read_body(request, MAX_FORM), names)


def parse_form(body: bytes, names: Sequence[str]) -> Mapping[str, str]:
    """Raises Malformed (FORM)."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=len(names),
        )
    except ValueError as error:  # among them UnicodeError
        raise _unreadable("it is not percent-encoded UTF-8 with the fields of the page") from error
    fields = dict(pairs)
    if len(fields) != len(pairs) or set(fields) != set(names):
        raise _unreadable("it has other fields than its page")
    return fields


def require_form_key(session: BrowserSession, fields: Mapping[str, str]) -> None:
    """Raise Refused (FORM-KEY) unless the form was made for this session."""
    if not is_form_key(session, fields[FORM_KEY]):
        raise Refused(
            "the form is not of your session",
            why="you signed in again after the page was loaded",
            hint="load the page again",
            code="FORM-KEY",
        )


def _unreadable(why: str) -> Malformed:
    return Malformed("the form cannot be read", why=why, code="FORM")
