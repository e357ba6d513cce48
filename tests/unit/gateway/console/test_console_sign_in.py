"""Signing in to the console without a node: links that work once, sessions that end, forms of other sites."""

from __future__ import annotations

from typing import Any, cast

import httpx2
import pytest
from comity.gateway.console.forms import FORM_KEY, MAX_FORM, BrowserOrigins, parse_form
from comity.gateway.console.page import PageMaker, Reader
from comity.gateway.console.sessions import IDLE, LONGEST, MAX_OF_ONE, MAX_SESSIONS, BrowserSessions
from comity.gateway.console.setup import console_url
from comity.gateway.console.sign_in import FIRST_PAGE, SignInPages
from comity.gateway.http import on_error
from comity.node.operator_acts import OperatorActs
from comity.node.services.operator import MAX_LINKS, SECONDS, SignInLinks
from comity.node.settings import Gateway
from comity.trust.errors import ComityError, Malformed, NotFound, Refused
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from support.console import check_page, read_page

URL = "http://127.0.0.1:7480"
OWN = {"Origin": URL}


class NoState:
    async def now(self) -> None:
        return None


class Acts:
    """The lines that the audit log would get."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    async def append(self, act: str, subject: str = "", detail: str = "", *, by: str = "") -> int:
        self.lines.append((act, by))
        return len(self.lines)


class Scene:
    """The sign-in pages, a page for signed-in people, and a clock that the test sets."""

    def __init__(self, url: str = "") -> None:
        self.seconds = 1_000.0
        self.links = SignInLinks(lambda: self.seconds)
        self.links.serve_at(URL)
        self.sessions = BrowserSessions("node.example", lambda: 1_800_000_000.0, lambda: self.seconds)
        states: Any = NoState()
        maker = PageMaker("node.example", url, states, self.sessions)
        self.acts = Acts()
        acts = cast(OperatorActs, self.acts)
        pages = SignInPages(maker, self.sessions, BrowserOrigins(url), self.links, acts)

        async def who(reader: Reader) -> Response:
            return PlainTextResponse(reader.person.who)

        routes = [*pages.routes(), maker.route("/-/node", who, maker.access("viewer"))]
        self.app = Starlette(routes=routes, exception_handlers={ComityError: on_error})

    def browser(self, base: str = URL, client: str = "127.0.0.1") -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=self.app, client=(client, 1))
        return httpx2.AsyncClient(transport=transport, base_url=base)

    def key(self) -> str:
        return self.links.make().link.partition("key=")[2]

    async def sign_in(self, http: httpx2.AsyncClient, **headers: str) -> httpx2.Response:
        return await http.post("/-/sign-in", data={"key": self.key()}, headers={**OWN, **headers})

    def form_key(self) -> str:
        (found,) = [session.form_key for session, _ in self.sessions.all()]
        return found


def code(answer: httpx2.Response) -> str:
    return answer.headers.get("X-Error-Code", "")


async def test_a_link_shows_a_button_and_signs_in_once() -> None:
    scene, key = Scene(), ""
    async with scene.browser() as http:
        key = scene.key()
        for _ in range(2):  # opening the page does not use it up
            shown = await http.get("/-/sign-in", params={"key": key})
            assert [field["value"] for field in check_page(shown.text).found("input")] == [key]
            assert "Set-Cookie" not in shown.headers
        done = await http.post("/-/sign-in", data={"key": key}, headers=OWN)
        assert (done.status_code, done.headers["Location"]) == (303, FIRST_PAGE)
        cookie = done.headers["Set-Cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie and "domain" not in cookie
        assert (await http.get("/-/node")).text == "operator"
    async with scene.browser() as other:
        again = await other.post("/-/sign-in", data={"key": key}, headers=OWN)
        assert (again.status_code, code(again)) == (403, "SIGN-IN-LINK")
        assert code(await other.get("/-/node")) == "NO-SESSION"


def test_a_link_ends_after_five_minutes_and_the_oldest_makes_room() -> None:
    scene = Scene()
    late = scene.key()
    scene.seconds += SECONDS
    with pytest.raises(Refused, match="does not sign anybody in"):
        scene.links.use(late)
    keys = [scene.key() for _ in range(MAX_LINKS + 1)]
    with pytest.raises(Refused):
        scene.links.use(keys[0])
    for key in keys[1:]:
        scene.links.use(key)


async def test_wrong_guesses_do_not_keep_the_operator_out() -> None:
    scene = Scene()
    key = scene.key()
    async with scene.browser() as http:
        for number in range(200):
            wrong = await http.post("/-/sign-in", data={"key": f"{number}"}, headers=OWN)
            assert code(wrong) == "SIGN-IN-LINK"
        assert (await http.post("/-/sign-in", data={"key": key}, headers=OWN)).status_code == 303


def test_there_is_no_link_without_a_console() -> None:
    links = SignInLinks(lambda: 0.0)
    with pytest.raises(NotFound, match="serves no console") as refused:
        links.make()
    assert refused.value.code == "NO-CONSOLE"


async def test_a_sign_in_makes_a_new_session_and_ends_the_one_before() -> None:
    scene = Scene()
    async with scene.browser() as http:
        await scene.sign_in(http)
        (name, first), *_ = http.cookies.items()
        await scene.sign_in(http)
        assert http.cookies[name] != first
        assert len(scene.sessions.all()) == 1
    async with scene.browser() as thief:
        thief.cookies.set(name, first)
        assert code(await thief.get("/-/node")) == "NO-SESSION"


async def test_a_cookie_that_another_chose_becomes_no_session() -> None:
    scene = Scene()
    async with scene.browser() as http:
        await scene.sign_in(http)
        (name, _), *_ = http.cookies.items()
    async with scene.browser() as victim:
        victim.cookies.set(name, "chosen-by-another")
        done = await scene.sign_in(victim)
        assert "chosen-by-another" not in done.headers["Set-Cookie"]


@pytest.mark.parametrize(("step", "steps"), ((IDLE, 1), (IDLE - 1, int(LONGEST // (IDLE - 1)) + 1)))
async def test_a_session_ends_when_it_is_not_used_and_at_the_latest_after_eight_hours(step: float, steps: int) -> None:
    scene = Scene()
    async with scene.browser() as http:
        await scene.sign_in(http)
        for _ in range(steps - 1):
            scene.seconds += step
            assert (await http.get("/-/node")).status_code == 200
        scene.seconds += step
        assert code(await http.get("/-/node")) == "NO-SESSION"
        assert scene.sessions.all() == []


async def test_signing_out_ends_the_session_and_takes_the_cookie() -> None:
    scene = Scene()
    async with scene.browser() as http:
        await scene.sign_in(http)
        kept = dict(http.cookies)
        assert code(await http.post("/-/sign-out", data={FORM_KEY: "wrong"}, headers=OWN)) == "FORM-KEY"
        done = await http.post("/-/sign-out", data={FORM_KEY: scene.form_key()}, headers=OWN)
        assert (done.status_code, done.headers["Location"]) == (303, "/")
        assert scene.acts.lines == [("session.begin", "operator"), ("session.end", "operator")]
        assert dict(http.cookies) == {}
        http.cookies.update(kept)
        assert code(await http.get("/-/node")) == "NO-SESSION"


@pytest.mark.parametrize("origin", ["", "null", "https://evil.example", "http://127.0.0.1:7481", f"{URL}.evil.example"])
async def test_a_form_of_another_site_is_refused(origin: str) -> None:
    scene = Scene()
    async with scene.browser() as http:
        await scene.sign_in(http)
        headers = {"Origin": origin} if origin else {}
        out = await http.post("/-/sign-out", data={FORM_KEY: scene.form_key()}, headers=headers)
        assert (out.status_code, code(out)) == (403, "FORM-ORIGIN")
        key = scene.key()
        assert code(await http.post("/-/sign-in", data={"key": key}, headers=headers)) == "FORM-ORIGIN"
        assert (await http.get("/-/node")).status_code == 200
        scene.links.use(key)  # it was not used up


async def test_a_get_changes_nothing() -> None:
    scene = Scene()
    async with scene.browser() as http:
        await scene.sign_in(http)
        assert (await http.get("/-/sign-out")).status_code == 405
        assert (await http.get("/-/node")).status_code == 200


async def test_pages_with_forms_send_an_origin_and_are_not_kept() -> None:
    scene = Scene()
    async with scene.browser() as http:
        await scene.sign_in(http)
        shown = await http.get("/-/sign-in")
        page = check_page(shown.text)
        assert [field["value"] for field in page.found("input") if field["name"] == FORM_KEY] == [scene.form_key()]
        assert shown.headers["Referrer-Policy"] == "same-origin"
        assert shown.headers["Cache-Control"] == "no-store"
        assert "script-src 'none'" in shown.headers["Content-Security-Policy"]


async def test_behind_a_proxy_with_tls_the_cookie_is_bound_to_the_host_and_secure() -> None:
    scene = Scene("https://models.example.org")
    async with scene.browser("https://models.example.org") as http:
        done = await scene.sign_in(http, Origin="https://models.example.org")
        cookie = done.headers["Set-Cookie"]
        assert cookie.startswith("__Host-") and "; secure" in cookie.lower()
        assert (await http.get("/-/node")).status_code == 200
        ((name, secret),) = http.cookies.items()
    async with scene.browser(
        "https://models.example.org"
    ) as planted:  # a cookie that another service of this host could have set
        planted.cookies.set(name.removeprefix("__Host-"), secret)
        assert code(await planted.get("/-/node")) == "NO-SESSION"


async def test_a_proxy_may_change_the_host() -> None:
    scene = Scene("https://models.example.org")
    async with scene.browser() as http:
        done = await scene.sign_in(http, Origin="https://models.example.org")
        assert done.headers["Set-Cookie"].startswith("__Host-")


async def test_nobody_signs_in_where_others_can_read_the_cookie() -> None:
    scene = Scene()
    async with scene.browser("http://10.0.0.1:7480", client="10.0.0.9") as http:
        assert code(await http.get("/-/sign-in")) == "CONSOLE-PLAIN"
        assert code(await scene.sign_in(http, Origin="http://10.0.0.1:7480")) == "CONSOLE-PLAIN"
    assert scene.sessions.all() == []


def request(cookies: str = "") -> Request:
    return Request({"type": "http", "headers": [(b"cookie", cookies.encode())], "client": ("127.0.0.1", 1)})


def test_sessions_are_bounded_and_nobody_pushes_out_others() -> None:
    sessions = BrowserSessions("node.example", lambda: 0.0, lambda: 0.0)
    sessions.begin(request(), "operator", "operator", "link", secure=True)
    for _ in range(2 * MAX_OF_ONE):
        sessions.begin(request(), "one", "viewer", "oidc", secure=True)
    assert [session.who for session, _ in sessions.all()].count("one") == MAX_OF_ONE
    for number in range(2 * MAX_SESSIONS):
        sessions.begin(request(), f"person {number // 2}", "viewer", "oidc", secure=True)
    listed = [session.who for session, _ in sessions.all()]
    assert len(listed) == MAX_SESSIONS
    assert "operator" in listed


def test_secrets_are_in_no_text() -> None:
    scene = Scene()
    link = scene.links.make()
    session, secret = scene.sessions.begin(request(), "operator", "operator", "link", secure=False)
    assert link.link not in repr(link)
    assert session.form_key not in repr(session) and secret not in repr(session)


@given(st.binary(max_size=200))
def test_a_form_has_the_fields_of_its_page_or_is_refused(body: bytes) -> None:
    try:
        found = parse_form(body, ("form", "id"))
    except Malformed as error:
        assert error.code == "FORM"
    else:
        assert set(found) == {"form", "id"}


@pytest.mark.parametrize("body", ["form=a", "form=a&id=b&id=c", "form=a&id=b&c=d", "form=a&id=%ff", "form=a;id=b"])
def test_a_form_with_other_fields_is_refused(body: str) -> None:
    with pytest.raises(Malformed, match="cannot be read"):
        parse_form(body.encode(), ("form", "id"))


async def test_a_form_is_bounded_and_of_one_type() -> None:
    scene = Scene()
    async with scene.browser() as http:
        long = await http.post("/-/sign-in", data={"key": "x" * MAX_FORM}, headers=OWN)
        assert (long.status_code, code(long)) == (413, "BODY-TOO-LARGE")
        assert code(await http.post("/-/sign-in", json={"key": scene.key()}, headers=OWN)) == "FORM"
        files = {"key": ("", scene.key().encode())}
        assert code(await http.post("/-/sign-in", files=files, headers=OWN)) == "FORM"
        assert "Code:" in read_page(long.text).text


@pytest.mark.parametrize(
    ("settings", "listening", "expected"),
    (
        ({}, "http://127.0.0.1:7480", "http://127.0.0.1:7480"),
        ({}, "http://0.0.0.0:7480", "http://127.0.0.1:7480"),
        ({}, "https://[::]:7480", "https://[::1]:7480"),
        ({}, "http://[2001:db8::1]:7480", "http://[2001:db8::1]:7480"),
        ({"url": "https://models.example.org"}, "http://0.0.0.0:7480", "https://models.example.org"),
        ({"url": "http://models.example.org"}, "http://10.0.0.1:80", "http://10.0.0.1:80"),
        ({"console": False}, "http://127.0.0.1:7480", ""),
    ),
)
def test_a_link_leads_to_an_address_where_signing_in_is_safe(
    settings: dict[str, Any], listening: str, expected: str
) -> None:
    assert console_url(Gateway(http="127.0.0.1:7480", **settings), listening) == expected
