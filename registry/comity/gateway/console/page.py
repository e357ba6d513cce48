"""One page: its reader, its headers, and its text from a template; also errors as pages.

A page of a signed-in reader has forms (module forms), whose `Origin` header browsers hide under `no-referrer`; such
pages have `same-origin`, which tells other hosts nothing either, and caches do not keep them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import field
from functools import partial
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from comity.gateway.access_tokens import ReaderAccess
from comity.gateway.console.directions import settled
from comity.gateway.console.forms import FORM, BrowserOrigins, PageAccess
from comity.gateway.console.languages import LANGUAGES, choose_language
from comity.gateway.console.logs import log_id
from comity.gateway.console.posted_file import PostedFileAccess
from comity.gateway.console.sentences import in_language
from comity.gateway.console.sessions import BrowserSession, BrowserSessions, Role
from comity.gateway.console.state import STATEMENTS, FederationState, StateReader
from comity.gateway.console.table_labels import labelled_tables
from comity.gateway.console.words import environment, translations
from comity.gateway.declared_routes import DeclaredRoute, RouteAccess, RouteAnswers
from comity.gateway.http import ConnectionSlots, error_response
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen

PREFIX: Final = "/-"
NODE: Final = f"{PREFIX}/node"
CONTINUITY: Final = f"{PREFIX}/continuity"
POSTED_FILES: Final = 4
"""Files that are hashed at once while they arrive."""
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

MakePage = Callable[["Reader"], Awaitable[Response]]


@frozen
class Reader:
    """The reader of one page: the language, whether it was chosen by `?lang=`, and the request. `prefix` is the path
    at which a proxy serves this node, or empty; `session` is None for the public; `form` has the fields that the route
    declares. With `secret_query`, links on the
    page do not repeat the query."""

    request: Request
    language: str
    chosen: bool
    prefix: str = ""
    session: BrowserSession | None = None
    secret_query: bool = False
    form: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, request: Request, prefix: str, session: BrowserSession | None, *, secret_query: bool) -> Reader:
        wanted = request.query_params.get("lang", "")
        language = choose_language(wanted, request.headers.get("accept-language", ""))
        form = request.scope.get(FORM, {})
        return cls(request, language, wanted in LANGUAGES, prefix, session, secret_query, form)

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

    @property
    def person(self) -> BrowserSession:
        """The session, at a route for people who signed in."""
        assert self.session is not None, "the route declares another access"
        return self.session


class PageMaker:
    """Makes routes and responses. Not thread-safe: call from the event loop."""

    def __init__(self, node: str, url: str, states: StateReader, sessions: BrowserSessions | None) -> None:
        """Without `sessions` nobody signs in, and no page has a form that changes anything."""
        self._node = node
        self._prefix = urlsplit(url).path
        self._states = states
        self._sessions = sessions
        self._origins = BrowserOrigins(url)

    def access(self, role: Role | None, fields: tuple[str, ...] | None = None) -> PageAccess:
        """Return who may open a page: people with `role`, else those who sign in; with `fields`, by such a form."""
        assert self._sessions is not None, "nobody signs in here"
        return PageAccess(self._sessions, self._origins, role, fields)

    def file_form(self, readers: ReaderAccess) -> PostedFileAccess:
        """Return that those readers may send a file by a form."""
        return PostedFileAccess(readers, self._origins, ConnectionSlots(POSTED_FILES, "files that are sent"))

    def route(
        self,
        path: str,
        make: MakePage,
        access: RouteAccess,
        *,
        secret_query: bool = False,
        kind: type[DeclaredRoute] = DeclaredRoute,
    ) -> DeclaredRoute:
        """Return a route that finds the reader's session, and shows errors as pages; it takes POST if it is a form."""

        def reader(request: Request) -> Reader:
            session = self._sessions.of(request) if self._sessions is not None else None
            return Reader.of(request, self._prefix, session, secret_query=secret_query)

        async def handle(request: Request) -> Response:
            return await make(reader(request))

        async def failed(request: Request, error: ComityError) -> Response:
            return await self._error(reader(request), error)

        return kind(path, handle, access, answers=RouteAnswers(failed), methods=("POST",) if access.form else ("GET",))

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
                signs_in=self._sessions is not None,
                statements=STATEMENTS,
                log_id=log_id,
                sentence=partial(in_language, words=translations(reader.language)),
                **values,
            )
        )
        shown = {**HEADERS, "Content-Language": reader.language, **(WITH_FORMS if reader.session else {})}
        page = labelled_tables(text)
        if LANGUAGES[reader.language].direction == "rtl":
            page = settled(page)
        return Response(page, status, {**shown, **(headers or {})}, "text/html")

    async def _error(self, reader: Reader, error: ComityError) -> Response:
        plain = error_response(error)
        kept = ("retry-after", "x-error-code", "x-error-message")
        headers = {name: plain.headers[name] for name in kept if name in plain.headers}
        if plain.status_code == 401:
            headers["WWW-Authenticate"] = 'Basic realm="Comity node", charset="UTF-8"'
            return self.render(reader, "refused.html", None, plain.status_code, headers, error=error)
        state = None
        with suppress(ComityError):  # of a database that does not answer, which may be the error
            state = await self._states.now()
        return self.render(reader, "error.html", state, plain.status_code, headers, error=error)
