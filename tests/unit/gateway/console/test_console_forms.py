"""Every form of the console with arbitrary input: it is refused with a page, or accepted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from comity.content.audit_log import AuditLog
from comity.content.gateway_tokens import TOKENS_FILE, USES_FILE, TokenFile, TokenUses
from comity.gateway.console.forms import FORM_KEY, FORM_TYPE, BrowserOrigins
from comity.gateway.console.node_pages import NodePages, TokenPages
from comity.gateway.console.page import HEADERS, POLICY, PageMaker
from comity.gateway.console.sessions import BrowserSessions
from comity.gateway.console.sign_in import SignInPages
from comity.gateway.http import on_error
from comity.node.operator_acts import OperatorActs
from comity.node.services.operator import SignInLinks
from comity.node.threads import Pools
from comity.trust.errors import ComityError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route
from support.console import HOSTILE, check_page
from support.examples import examples
from support.sign_in_scene import URL, NoState

FORMS = {
    "/-/sign-in": ("key",),
    "/-/sign-out": (FORM_KEY,),
    "/-/node/tokens": (FORM_KEY, "name", "reach", "days"),
    "/-/node/tokens/rotate": (FORM_KEY, "id"),
    "/-/node/tokens/revoke": (FORM_KEY, "id"),
    "/-/node/sessions": (FORM_KEY, "id"),
}
"""Every address of the console that takes a form, with its fields."""


class FormPages:
    """All pages with forms, and the session of an operator."""

    def __init__(self, folder: Path, pools: Pools) -> None:
        self.sessions = BrowserSessions("node.example", lambda: 1_800_000_000.0, lambda: 1_000.0)
        self.links = SignInLinks(lambda: 1_000.0)
        self.links.serve_at(URL)
        self.tokens = TokenFile(folder / TOKENS_FILE)
        states: Any = NoState()
        maker, origins = PageMaker("node.example", "", states, self.sessions), BrowserOrigins("")
        uses = TokenUses(folder / USES_FILE)
        acts = OperatorActs(AuditLog(folder, lambda: 1_800_000_000), pools)
        node: Any = None  # only its own pages ask it, and they have no form
        pages: tuple[SignInPages | NodePages | TokenPages, ...] = (
            SignInPages(maker, self.sessions, origins, self.links, acts),
            NodePages(node, maker, states, self.sessions, acts),
            TokenPages(self.tokens, uses, pools, lambda: 1_800_000_000.0, maker, states, acts),
        )
        self.routes = [route for page in pages for route in page.routes() if isinstance(route, Route)]
        self.app = Starlette(routes=self.routes, exception_handlers={ComityError: on_error})

    @asynccontextmanager
    async def signed_in(self) -> AsyncIterator[tuple[httpx2.AsyncClient, str]]:
        """A browser of an operator, and the key for its forms."""
        transport = httpx2.ASGITransport(app=self.app, client=("127.0.0.1", 1))
        async with httpx2.AsyncClient(transport=transport, base_url=URL, headers={"Origin": URL}) as http:
            key = self.links.make().link.partition("key=")[2]
            await http.post("/-/sign-in", data={"key": key})
            yield http, self.sessions.all()[0][0].form_key
            http.cookies.clear()
            for session, _ in self.sessions.all():
                self.sessions.end(session.id)


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FormPages]:
    pools = Pools()
    yield FormPages(tmp_path_factory.mktemp("forms"), pools)
    pools.close()


def test_every_form_is_in_this_table(forms: FormPages) -> None:
    assert {route.path for route in forms.routes if route.methods and "POST" in route.methods} == set(FORMS)


bounded = settings(
    max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("path", FORMS)
@bounded
@given(body=st.binary(max_size=300))
async def test_any_bytes_are_refused_with_a_page(forms: FormPages, path: str, body: bytes) -> None:
    async with forms.signed_in() as (http, _):
        answer = await http.post(path, content=body, headers={"Content-Type": FORM_TYPE})
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (400, "FORM")
        check_page(answer.text)
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert (await http.get("/-/sign-in")).headers["X-Content-Type-Options"] == HEADERS["X-Content-Type-Options"]


@pytest.mark.parametrize("path", [path for path in FORMS if path != "/-/sign-out"])
@bounded
@given(data=st.data())
async def test_any_values_in_a_form_get_an_answer(forms: FormPages, path: str, data: st.DataObject) -> None:
    words = st.one_of(st.text(max_size=60), st.sampled_from((*HOSTILE, "", "*", "a/b", "a/*", "7", "-1", "9999", "٣")))
    fields = {name: data.draw(words) for name in FORMS[path] if name != FORM_KEY}
    async with forms.signed_in() as (http, key):
        if FORM_KEY in FORMS[path]:
            fields[FORM_KEY] = key
        answer = await http.post(path, content=urlencode(fields, errors="replace"), headers={"Content-Type": FORM_TYPE})
        assert answer.status_code in (200, 303, 400, 403, 404, 409, 413, 507), (answer.status_code, fields)
        if answer.status_code != 303:
            check_page(answer.text)
    for token in forms.tokens.read():
        forms.tokens.revoke(token.id)


@pytest.mark.parametrize("path", [path for path in FORMS if path != "/-/sign-in"])
async def test_without_a_session_or_its_key_or_from_another_site_nothing_happens(forms: FormPages, path: str) -> None:
    forms.tokens.add("kept", ("*",), 0)
    before = forms.tokens.read()
    async with forms.signed_in() as (http, key):
        fields = dict.fromkeys(FORMS[path], before[0].id) | {FORM_KEY: key}
        for changed, headers, expected in (
            ({FORM_KEY: "wrong"}, {}, "FORM-KEY"),
            ({}, {"Origin": "https://evil.example"}, "FORM-ORIGIN"),
            ({}, {"Cookie": "none"}, "NO-SESSION"),
        ):
            if "Cookie" in headers:
                http.cookies.clear()
            answer = await http.post(path, data=fields | changed, headers=headers)
            assert answer.headers["X-Error-Code"] == expected
    assert forms.tokens.read() == before
    for token in before:
        forms.tokens.revoke(token.id)
