"""One page: its reader, its headers, and its text from a template; also errors as pages; and forms sent back.

A page of a signed-in reader has forms, whose `Origin` header browsers hide under `no-referrer`; such pages have
`same-origin`, which tells other hosts nothing either, and caches do not keep them. Forms are strict, bounded, and come
only from pages of this node:

(1) a form is `application/x-www-form-urlencoded`, UTF-8, at most `MAX_FORM` bytes, and has exactly the fields that its
    page has, each once
(2) its `Origin` header, which browsers send with each form, must name this node; SameSite cookies do not tell the ports
    of one host apart
(3) a form of a session contains the key of that session

The address of the operator in the settings counts as this node, because a proxy may change the header `Host`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from comity.gateway.console.logs import log_id
from comity.gateway.console.sessions import BrowserSession, BrowserSessions, Role, is_form_key
from comity.gateway.console.state import STATEMENTS, FederationState, StateReader
from comity.gateway.console.words import LANGUAGES, choose_language, environment
from comity.gateway.http import error_response, read_body
from comity.trust.errors import ComityError, Malformed, Refused

MAX_FORM: Final = 8 * 1024
FORM_TYPE: Final = "application/x-www-form-urlencoded"
FORM_KEY: Final = "form"
"""The field with the key of the session."""
PREFIX: Final = "/-"
MAX_QUERY: Final = 200
"""Characters of a search, and of any other field of a query."""
POLICY: Final = (
    "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
    "Vary": "Accept, Accept-Language, Authorization, Cookie",
}
WITH_FORMS: Final = {"Referrer-Policy": "same-origin", "Cache-Control": "no-store"}

Handler = Callable[[Request], Awaitable[Response]]


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


@dataclass(frozen=True, slots=True)
class Reader:
    """The reader of one page: the language, whether it was chosen by `?lang=`, and the request. `prefix` is the path
    at which a proxy serves this node, or empty; `session` is None for the public. With `secret_query`, links on the
    page do not repeat the query."""

    request: Request
    language: str
    chosen: bool
    prefix: str = ""
    session: BrowserSession | None = None
    secret_query: bool = False

    @classmethod
    def of(cls, request: Request, prefix: str, session: BrowserSession | None = None) -> Reader:
        wanted = request.query_params.get("lang", "")
        language = choose_language(wanted, request.headers.get("accept-language", ""))
        return cls(request, language, wanted in LANGUAGES, prefix, session)

    def link(self, path: str, **query: object) -> str:
        """An address on this node; it keeps a chosen language."""
        fields = {name: str(value) for name, value in query.items() if value not in ("", None)}
        if self.chosen:
            fields.setdefault("lang", self.language)
        text = urlencode(fields)
        return self.prefix + quote(path, safe="/:@._-") + (f"?{text}" if text else "")

    def in_language(self, language: str) -> str:
        """The same page in another language."""
        given = [] if self.secret_query else self.request.query_params.multi_items()
        fields = [(name, value) for name, value in given if name != "lang"]
        path = self.prefix + quote(self.request.url.path, safe="/:@._-")
        return f"{path}?{urlencode([*fields, ('lang', language)])}"

    def field(self, name: str) -> str:
        """A field of the query. Raises Malformed for a long one."""
        value = self.request.query_params.get(name, "")
        if len(value) > MAX_QUERY:
            raise Malformed("a field of the address is too long", why=f"more than {MAX_QUERY} characters")
        return value

    def number(self, name: str) -> int | None:
        """Raises Malformed."""
        value = self.field(name)
        if not value:
            return None
        if not value.isascii() or not value.isdigit() or len(value) > 15:
            raise Malformed("not a number", why=value[:40])
        return int(value)

    def require(self, role: Role) -> BrowserSession:
        """The session, if it may do what needs `role`. Raises Refused (NO-SESSION, ROLE)."""
        if self.session is None:
            raise Refused(
                "this page is for people who signed in",
                why="your browser has no session, or it has ended",
                hint="comity console sign-in",
                code="NO-SESSION",
            )
        self.session.require(role)
        return self.session


class PageMaker:
    """Makes handlers and responses. Not thread-safe: call from the event loop."""

    def __init__(self, node: str, url: str, states: StateReader, sessions: BrowserSessions) -> None:
        self._node = node
        self._prefix = urlsplit(url).path
        self._states = states
        self._sessions = sessions

    def handler(self, make: Callable[[Reader], Awaitable[Response]], *, secret_query: bool = False) -> Handler:
        """A handler that finds the reader's session, and shows errors as pages."""

        async def handle(request: Request) -> Response:
            found = Reader.of(request, self._prefix, self._sessions.of(request))
            reader = replace(found, secret_query=secret_query)
            try:
                return await make(reader)
            except ComityError as error:
                return await self._error(reader, error)

        return handle

    def render(
        self,
        reader: Reader,
        template: str,
        state: FederationState | None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> Response:
        text = (
            environment(reader.language)
            .get_template(template)
            .render(
                reader=reader,
                link=reader.link,
                languages=LANGUAGES,
                state=state,
                node=self._node,
                statements=STATEMENTS,
                log_id=log_id,
                **values,
            )
        )
        shown = {**HEADERS, "Content-Language": reader.language, **(WITH_FORMS if reader.session else {})}
        return Response(text, status, {**shown, **(headers or {})}, "text/html")

    async def _error(self, reader: Reader, error: ComityError) -> Response:
        plain = error_response(error)
        kept = ("retry-after", "x-error-code", "x-error-message")
        headers = {name: plain.headers[name] for name in kept if name in plain.headers}
        if plain.status_code == 401:
            headers["WWW-Authenticate"] = 'Basic realm="Comity node", charset="UTF-8"'
            return self.render(reader, "refused.html", None, plain.status_code, headers, error=error)
        state = await self._states.now()
        return self.render(reader, "error.html", state, plain.status_code, headers, error=error)
