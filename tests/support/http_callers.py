"""A running gateway, of a node or of a front end, with callers of every kind; and where a process listens."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from comity.content.gateway_tokens import TOKENS_FILE, TokenFile
from comity.gateway import app as gateway_app
from comity.gateway import front_end as front_end_gateway
from comity.gateway.access_tokens import ReaderAccess
from comity.gateway.console.forms import PageAccess
from comity.gateway.console.sessions import Role
from comity.gateway.console.sign_in import SessionAccess
from comity.gateway.declared_routes import DeclaredRoute, RouteAccess
from comity.gateway.fileserver import server as file_server
from comity.gateway.fileserver.server import BlobServer
from comity.gateway.http import HUB_CODES
from comity.gateway.http_listener import listen_http
from comity.node import app as node_app
from comity.node import front_end
from comity.node.metrics import MetricsListener
from comity.node.settings import Gateway
from comity.wire.draining import Draining
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Match

UNDECLARED = "ACCESS-UNDECLARED"
SEGMENTS = ("tests/model", "tests/model/resolve/main/x")
"""For parameters that match more than one segment of an address."""


@dataclass
class Served:
    """What a node or front end of this process serves over HTTP, as it was made."""

    apps: list[Starlette] = field(default_factory=list)
    files: list[BlobServer] = field(default_factory=list)
    metrics: list[MetricsListener] = field(default_factory=list)


def record_served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """From now on, keep what nodes and front ends of this process serve over HTTP."""
    served = Served()

    def listen(app: Starlette, settings: Gateway, draining: Draining) -> contextlib.AbstractAsyncContextManager[str]:
        served.apps.append(app)
        return listen_http(app, settings, draining)

    def files(*args: Any, **more: Any) -> BlobServer:
        served.files.append(BlobServer(*args, **more))
        return served.files[-1]

    def metrics(*args: Any) -> MetricsListener:
        served.metrics.append(MetricsListener(*args))
        return served.metrics[-1]

    for module in (gateway_app, front_end_gateway):
        monkeypatch.setattr(module, "listen_http", listen)
    monkeypatch.setattr(file_server, "BlobServer", files)
    for module in (node_app, front_end):
        monkeypatch.setattr(module, "MetricsListener", metrics)
    return served


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
async def called(app: Starlette, url: str, home: Path) -> AsyncIterator[RunningGateway]:
    """A gateway with callers of every kind that it knows: sessions only where there is a console."""
    async with contextlib.AsyncExitStack() as opened:
        secret, _ = TokenFile(home / TOKENS_FILE).add("reader", ("tests/model",), 0)

        async def caller(**more: Any) -> httpx2.AsyncClient:
            return await opened.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=60, **more))

        callers = {
            "stranger": HttpCaller(await caller()),
            "reader": HttpCaller(await caller(headers={"Authorization": f"Bearer {secret}"}), token=True),
        }
        declared = (route.access for route in app.routes if isinstance(route, DeclaredRoute))
        sessions = next((access.sessions for access in declared if isinstance(access, PageAccess)), None)
        roles: tuple[Role, ...] = ("viewer", "operator")
        for role in roles if sessions is not None else ():
            assert sessions is not None
            nobody = Request({"type": "http", "headers": []})
            _, secret = sessions.begin(nobody, role, role, "link", secure=False)
            browser = await caller(cookies={sessions._cookie(secure=False): secret})
            callers[role] = HttpCaller(browser, role=role)
        yield RunningGateway(app, url, callers)


NO_ADDRESS = {"NO-SUCH-ROUTE", "METHOD"}
"""No repository is named, so nobody is let in or refused."""
REFUSALS = {"NO-TOKEN", "TOKEN-SCOPE", "BAD-TOKEN", "NO-SESSION", "ROLE", "FORM-ORIGIN", "FORM-KEY", UNDECLARED}
SHOWN = {HUB_CODES.get(code, code): code for code in REFUSALS - {"TOKEN-SCOPE"}}


def refused(answer: httpx2.Response) -> str:
    """The code of a refusal; empty if the caller was let in."""
    code = answer.headers.get("X-Error-Code", "")
    if code == HUB_CODES["TOKEN-SCOPE"] and answer.status_code == 403:
        return "TOKEN-SCOPE"  # to Hub clients it looks as NO-TOKEN does, which is a 401
    return SHOWN.get(code, code if code in REFUSALS else "") if answer.status_code in (401, 403) else ""


def expected(access: RouteAccess, who: HttpCaller, *, public: bool) -> str:
    """The code with which the declaration refuses a caller that sends no form, or no field of it wrong."""
    match access.who:
        case "everybody":
            return ""
        case "readers" | "readers of the repository":
            assert isinstance(access, ReaderAccess)
            known = who.token or (who.role is not None and isinstance(access.readers, SessionAccess))
            return "" if public or known else "NO-TOKEN"
        case "holders of a token":
            return "" if who.token else "BAD-TOKEN"
        case "viewers":
            return "" if who.role else "NO-SESSION"
        case "operators":
            return "" if who.role == "operator" else "ROLE" if who.role else "NO-SESSION"


async def each_route_lets_in_whom_it_declares(gateway: RunningGateway, *, public: bool) -> None:
    """Ask every route that takes no form, as each caller; a front end refuses what only its writer does."""
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
            of_one = access.who == "readers of the repository"
            scope = {"TOKEN-SCOPE"} if who.token and not public and of_one else set[str]()
            assert found <= wanted | scope, (route.path, name, found)
            assert access.who == "everybody" or found or wanted == {""}, (route.path, name)


async def each_route_is_closed_without_its_declaration(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Remove the declaration of each route in turn."""
    for route in gateway.routes:
        with monkeypatch.context() as removed:
            removed.setattr(route, "access", None)
            for name, who in gateway.callers.items():
                for method, path, headers in gateway.asked(route):
                    answer = await who.http.request(method, path, headers={**headers, "Origin": gateway.url})
                    assert (answer.status_code, refused(answer)) == (403, UNDECLARED), (route.path, name)


async def pages_of_metrics_are_for_everybody(listener: MetricsListener, monkeypatch: pytest.MonkeyPatch) -> None:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{listener.port}") as http:
        for path, page in listener.pages.items():
            assert page.who == "everybody"
            assert (await http.get(path)).status_code == 200, path
            with monkeypatch.context() as removed:
                removed.setattr(page, "who", None)
                answer = await http.get(path)
                assert (answer.status_code, answer.json()["code"]) == (403, UNDECLARED), path
        assert (await http.get("/elsewhere")).status_code == 404


def rows(gateway: RunningGateway) -> list[str]:
    """The rows of the routes in docs/security.md."""
    return [
        f"| `{' '.join(sorted((route.methods or set()) - {'HEAD'}))} {route.path}` | {route.access.who} | "
        f"{'yes' if route.access.form else 'no'} |\n"
        for route in gateway.routes
        if route.access is not None
    ]


LISTEN = "0A"
"""The state of a listening TCP socket in /proc/net/tcp. Source: proc_net_tcp in the kernel's documentation."""
ACCEPTS = 0x10000
"""The flag of a listening Unix socket in /proc/net/unix (__SO_ACCEPTCON)."""


def listening(pid: int | None = None) -> set[str]:
    """Where a process listens, by default this one: TCP ports, and paths of Unix sockets."""
    own = Path("/proc") / str(pid or os.getpid())
    inodes = set[str]()
    for descriptor in (own / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            inodes |= set(re.findall(r"^socket:\[(\d+)\]$", str(descriptor.readlink())))
    found = set[str]()
    for table in ("tcp", "tcp6"):
        for line in (own / "net" / table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == LISTEN and columns[9] in inodes:
                found.add(str(int(columns[1].rpartition(":")[2], 16)))
    for line in (own / "net" / "unix").read_text().splitlines()[1:]:
        columns = line.split(maxsplit=7)
        if int(columns[3], 16) & ACCEPTS and columns[6] in inodes and len(columns) == 8:
            found.add(columns[7])
    return found
