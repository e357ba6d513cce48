"""Who may ask what over HTTP: every route and form of a running gateway, asked by every kind of caller. Nothing is
listed here by hand: routes come from the running application, and what they require from their declarations."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from comity.content.gateway_tokens import TOKENS_FILE, TokenFile
from comity.gateway import app as gateway_app
from comity.gateway.access_tokens import Readers, RepositoryReaders
from comity.gateway.console.forms import FORM_KEY, PageAccess
from comity.gateway.console.sessions import Role
from comity.gateway.console.sign_in import SessionAccess
from comity.gateway.declared_routes import EVERYBODY, DeclaredRoute, RouteAccess, require_declared
from comity.gateway.http import HUB_CODES
from comity.gateway.http_listener import listen_http
from comity.node.settings import Gateway
from comity.trust.errors import Refused
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route
from support.gateway import gateway_node

UNDECLARED = "ACCESS-UNDECLARED"
SEGMENTS = ("tests/model", "tests/model/resolve/main/x")
"""For parameters that match more than one segment of an address."""


@dataclass(frozen=True)
class HttpCaller:
    """Attributes:
    token: whether it has a token, for the repository `tests/model` alone.
    role: that of its session, or None.
    """

    http: httpx2.AsyncClient
    token: bool = False
    role: Role | None = None


@dataclass(frozen=True)
class RunningGateway:
    app: Starlette
    url: str
    callers: dict[str, HttpCaller]

    @property
    def routes(self) -> list[DeclaredRoute]:
        found = [route for route in self.app.routes if isinstance(route, DeclaredRoute)]
        assert len(found) == len(self.app.routes)
        return found

    def asked(self, route: DeclaredRoute) -> Iterator[tuple[str, str, dict[str, str]]]:
        """Method, address and headers of requests that reach exactly this route."""
        for method in sorted((route.methods or set()) - {"HEAD"}):
            for segments in SEGMENTS:
                path = re.sub(r"{\w+}", "x", re.sub(r"{\w+:path}", segments, route.path))
                for accept in ("*/*", "text/html"):
                    if self._first(method, path, accept) is route:
                        yield method, path, {"Accept": accept}
                        break

    def _first(self, method: str, path: str, accept: str) -> object:
        headers = [(b"accept", accept.encode())]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        return next((each for each in self.app.routes if each.matches(scope)[0] == Match.FULL), None)


@contextlib.asynccontextmanager
async def running(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[RunningGateway]:
    """A gateway with callers of every kind."""
    apps: list[Starlette] = []

    def listen(app: Starlette, settings: Gateway) -> contextlib.AbstractAsyncContextManager[str]:
        apps.append(app)
        return listen_http(app, settings)

    monkeypatch.setattr(gateway_app, "listen_http", listen)
    async with (
        gateway_node(folder, calls_per_second=10_000.0, **settings) as node,
        contextlib.AsyncExitStack() as opened,
    ):
        secret, _ = TokenFile(node.home.directory / TOKENS_FILE).add("reader", ("tests/model",), 0)

        async def caller(**more: Any) -> httpx2.AsyncClient:
            return await opened.enter_async_context(httpx2.AsyncClient(base_url=node.url, timeout=60, **more))

        callers = {
            "stranger": HttpCaller(await caller()),
            "reader": HttpCaller(await caller(headers={"Authorization": f"Bearer {secret}"}), token=True),
        }
        declarations = (route.access for route in apps[0].routes if isinstance(route, DeclaredRoute))
        sessions = next(access.sessions for access in declarations if isinstance(access, PageAccess))
        roles: tuple[Role, ...] = ("viewer", "operator")
        for role in roles:
            nobody = Request({"type": "http", "headers": []})
            _, secret = sessions.begin(nobody, role, role, "link", secure=False)
            browser = await caller(cookies={sessions._cookie(secure=False): secret})
            callers[role] = HttpCaller(browser, role=role)
        yield RunningGateway(apps[0], node.url, callers)


NO_ADDRESS = {"NO-SUCH-ROUTE", "METHOD"}
"""No repository is named, so nobody is let in or refused."""
REFUSALS = {"NO-TOKEN", "TOKEN-SCOPE", "BAD-TOKEN", "NO-SESSION", "ROLE", "FORM-ORIGIN", "FORM-KEY", UNDECLARED}
SHOWN = {HUB_CODES.get(code, code): code for code in REFUSALS}


def refused(answer: httpx2.Response) -> str:
    """The code of a refusal; empty if the caller was let in."""
    code = answer.headers.get("X-Error-Code", "")
    return SHOWN.get(code, code if code in REFUSALS else "") if answer.status_code in (401, 403) else ""


def expected(access: RouteAccess, who: HttpCaller, *, public: bool) -> str:
    """The code with which the declaration refuses a caller that sends no form, or no field of it wrong."""
    match access.who:
        case "everybody":
            return ""
        case "readers" | "readers of the repository":
            assert isinstance(access, Readers | RepositoryReaders)
            known = who.token or (who.role is not None and isinstance(access.access, SessionAccess))
            return "" if public or known else "NO-TOKEN"
        case "holders of a token":
            return "" if who.token else "BAD-TOKEN"
        case "viewers":
            return "" if who.role else "NO-SESSION"
        case "operators":
            return "" if who.role == "operator" else "ROLE" if who.role else "NO-SESSION"


@pytest.mark.parametrize("public", [False, True])
async def test_each_route_lets_in_whom_it_declares_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public: bool
) -> None:
    async with running(tmp_path, monkeypatch, public=public) as gateway:
        for route in gateway.routes:
            access = route.access
            assert access is not None
            asked = list(gateway.asked(route))
            assert asked, f"no request reaches {route.path}"
            if access.form:
                continue
            for name, who in gateway.callers.items():
                answers = [await who.http.request(method, path, headers=headers) for method, path, headers in asked]
                wanted = {expected(access, who, public=public)}
                found = {refused(each) for each in answers if each.headers.get("X-Error-Code") not in NO_ADDRESS}
                scope = {"TOKEN-SCOPE"} if who.token and not public and isinstance(access, RepositoryReaders) else set()
                assert found <= wanted | scope, (route.path, name, found)
                assert access.who == "everybody" or found or wanted == {""}, (route.path, name)


async def test_each_form_is_refused_without_its_origin_session_role_or_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as gateway:
        forms = [route for route in gateway.routes if route.access is not None and route.access.form]
        assert forms
        own = {"Origin": gateway.url}
        for route in forms:
            access = route.access
            assert isinstance(access, PageAccess)
            assert route.methods == {"POST"}
            for who in gateway.callers.values():
                fields = dict.fromkeys(access.fields or (), "x") | ({FORM_KEY: "wrong"} if access.role else {})
                assert refused(await who.http.post(route.path, data=fields)) == "FORM-ORIGIN"
                foreign = await who.http.post(route.path, data=fields, headers={"Origin": "https://evil.example"})
                assert refused(foreign) == "FORM-ORIGIN"
                wanted = expected(access, who, public=True) or ("FORM-KEY" if access.role else "")
                assert refused(await who.http.post(route.path, data=fields, headers=own)) == wanted
                more = await who.http.post(route.path, data=fields | {"more": "x"}, headers=own)
                assert (more.status_code, more.headers["X-Error-Code"]) == (400, "FORM")


async def test_a_route_without_its_declaration_is_refused_to_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, public=True) as gateway:
        for route in gateway.routes:
            with monkeypatch.context() as removed:
                removed.setattr(route, "access", None)
                for name, who in gateway.callers.items():
                    for method, path, headers in gateway.asked(route):
                        answer = await who.http.request(method, path, headers={**headers, "Origin": gateway.url})
                        assert (answer.status_code, refused(answer)) == (403, UNDECLARED), (route.path, name)


async def nothing(request: Request) -> Response:
    return PlainTextResponse("open")


def test_an_application_takes_no_route_without_a_declaration() -> None:
    route = DeclaredRoute("/x", nothing, EVERYBODY)
    assert require_declared([route]) == [route]
    with pytest.raises(Refused, match="nobody may ask /y") as refusal:
        require_declared([route, Route("/y", nothing)])
    assert refusal.value.code == UNDECLARED
    route.access = None
    with pytest.raises(Refused, match="nobody may ask /x"):
        require_declared([route])


async def test_the_security_page_says_who_may_ask_each_route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    table = page.partition("<!-- routes -->\n")[2].partition("<!-- end -->")[0]
    async with running(tmp_path, monkeypatch) as gateway:
        rows = [
            f"| `{' '.join(sorted((route.methods or set()) - {'HEAD'}))} {route.path}` | {route.access.who} | "
            f"{'yes' if route.access.form else 'no'} |\n"
            for route in gateway.routes
            if route.access is not None
        ]
    assert table == "| route | for | form |\n|---|---|---|\n" + "".join(rows)
