"""Who may ask what over HTTP: every listener, route and form of a running node, asked by every kind of caller. Nothing
is listed here by hand: listeners are the sockets of the process, routes come from the running application, and what
they require from their declarations."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from comity.gateway.app import serve_gateway
from comity.gateway.console.forms import FORM_KEY, PageAccess
from comity.gateway.console.posted_file import PostedFileAccess
from comity.gateway.declared_routes import EVERYBODY, DeclaredRoute, require_declared
from comity.gateway.fileserver.server import BlobServer, SignedAddresses
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Refused
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from support.federation import found, serving, until
from support.http_callers import (
    UNDECLARED,
    RunningGateway,
    called,
    each_route_is_closed_without_its_declaration,
    each_route_lets_in_whom_it_declares,
    expected,
    listening,
    pages_of_metrics_are_for_everybody,
    record_served,
    refused,
    rows,
)
from support.ports import free_port
from support.publisher import Publisher, model, release, send


@contextlib.asynccontextmanager
async def running(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, public: bool = False
) -> AsyncIterator[RunningGateway]:
    """The gateway of a node at which people sign in through a provider, too."""
    served = record_served(monkeypatch)
    (home,) = found(folder, 1).homes
    secret = home.directory / "oidc-secret"
    secret.touch(mode=0o600)
    secret.write_text("secret")
    home.set("oidc", issuer="https://127.0.0.1:1", client_id="x", secret_file=secret.name, operators=["operators"])
    home.set("gateway", calls_per_second=10_000.0, public=public)
    async with (
        serving(home, companion=serve_gateway) as (listening_at,),
        called(served.apps[0], listening_at.http, home.directory) as gateway,
    ):
        yield gateway


@pytest.mark.parametrize("public", [False, True])
async def test_each_route_lets_in_whom_it_declares_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public: bool
) -> None:
    async with running(tmp_path, monkeypatch, public=public) as gateway:
        await each_route_lets_in_whom_it_declares(gateway, public=public)


async def test_each_form_is_refused_without_its_origin_session_role_or_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as gateway:
        forms = [route for route in gateway.routes if route.access is not None and route.access.form]
        assert forms
        own = {"Origin": gateway.url}
        for route in forms:
            access = route.access
            assert route.methods == {"POST"}
            if isinstance(access, PostedFileAccess):
                await a_file_is_taken_from_readers(route.path, access, gateway, own)
                continue
            assert isinstance(access, PageAccess)
            for who in gateway.callers.values():
                fields = dict.fromkeys(access.fields or (), "x") | ({FORM_KEY: "wrong"} if access.role else {})
                assert refused(await who.http.post(route.path, data=fields)) == "FORM-ORIGIN"
                foreign = await who.http.post(route.path, data=fields, headers={"Origin": "https://evil.example"})
                assert refused(foreign) == "FORM-ORIGIN"
                wanted = expected(access, who, public=True) or ("FORM-KEY" if access.role else "")
                assert refused(await who.http.post(route.path, data=fields, headers=own)) == wanted
                more = await who.http.post(route.path, data=fields | {"more": "x"}, headers=own)
                assert (more.status_code, more.headers["X-Error-Code"]) == (400, "FORM")


async def a_file_is_taken_from_readers(
    path: str, access: PostedFileAccess, gateway: RunningGateway, own: Mapping[str, str]
) -> None:
    for who in gateway.callers.values():
        for origin in ({}, {"Origin": "https://evil.example"}):
            assert refused(await who.http.post(path, files={"file": ("a", b"x")}, headers=origin)) == "FORM-ORIGIN"
        answer = await who.http.post(path, files={"file": ("a", b"x")}, headers=own)
        assert refused(answer) == expected(access.access, who, public=False)
        if answer.status_code == 303:
            assert answer.headers["Location"] == f"{path}?sha256={sha256(b'x')}"
            answer = await who.http.post(path, data={"file": "x"}, headers=own)
            assert (answer.status_code, answer.headers["X-Error-Code"]) == (400, "FORM")


async def test_a_route_without_its_declaration_is_refused_to_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, public=True) as gateway:
        await each_route_is_closed_without_its_declaration(gateway, monkeypatch)


async def test_every_listener_of_a_node_asks_its_declarations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served, before = record_served(monkeypatch), listening()
    (home,) = found(tmp_path, 1).homes
    home.set("gateway", files=f"127.0.0.1:{free_port()}", ranges=f"127.0.0.1:{free_port()}")
    home.set("listen", metrics=f"127.0.0.1:{free_port()}")
    one = release(Publisher.generate(), model(tmp_path / "one", weights=1_000), "tests/one@v1")
    async with serving(home, companion=serve_gateway) as (node,), home.client() as client:
        grpc = {port_of(node.mutual), port_of(node.open), str(node.operator)}  # test_access asks these
        await until(lambda: served.metrics, what="the metrics listener")
        http = {str(urlsplit(node.http).port), *(str(server.port) for server in served.files)}
        http |= {str(listener.port) for listener in served.metrics}
        assert listening() - before == grpc | http
        assert len(served.files) == 2
        await send(client, one)
        for server in served.files:
            await files_are_for_holders_of_a_signed_address(server, next(iter(one.blobs)), monkeypatch)
        await pages_of_metrics_are_for_everybody(served.metrics[0], monkeypatch)


def port_of(address: str) -> str:
    return address.rpartition(":")[2]


async def files_are_for_holders_of_a_signed_address(
    server: BlobServer, blob: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = server._site
    assert isinstance(site.access, SignedAddresses)
    signed = site.access.urls.sign(blob, seconds=60)
    url = f"http{'s' if server._tls else ''}://127.0.0.1:{server.port}"

    async def ask(path: str) -> tuple[int, str]:
        async with httpx2.AsyncClient(verify=False) as http:
            answer = await http.get(url + path)
        return answer.status_code, answer.headers.get("X-Error-Code", "")

    assert await ask(signed) == (200, "")
    assert await ask(signed[:-1] + ("A" if signed[-1] != "A" else "B")) == (403, "URL-FORGED")
    assert await ask(f"/blobs/{blob}") == (403, "URL-FORGED")
    with monkeypatch.context() as removed:
        removed.setattr(server, "_site", dataclasses.replace(site, access=None))
        assert await ask(signed) == (403, UNDECLARED)


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
        assert table == "| route | for | form |\n|---|---|---|\n" + "".join(rows(gateway))
