"""Signing in to the console through an OpenID Connect provider: what is accepted, what is refused, and its cost."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from comity.gateway.console.oidc.provider import KEPT, KEYS_EVERY, RETRY, ProviderAccess, basic
from comity.gateway.console.oidc.provider_documents import (
    MAX_DOCUMENT,
    ProviderMetadata,
    check_provider_url,
    parse_keys,
    read_person,
)
from comity.gateway.console.oidc.provider_sign_in import CALLBACK, SECONDS
from comity.gateway.console.sign_in import PROVIDER_PATH
from comity.node.settings import OpenIdConnect
from comity.node.threads import Pools
from comity.trust.errors import Malformed, Refused, Untrusted
from joserfc.jwk import ECKey, OctKey
from pydantic import ValidationError
from support.console import check_page
from support.openid_provider import CLIENT, SECRET, SmallProvider, small_provider
from support.sign_in_scene import SignInScene


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    pools = Pools()
    yield pools
    pools.close()


@pytest.fixture
def provider() -> Iterator[SmallProvider]:
    with small_provider() as provider:
        yield provider


class Scene(SignInScene):
    """The sign-in pages, with the small provider."""

    def __init__(self, provider: SmallProvider, folder: Path, pools: Pools, url: str = "", **settings: Any) -> None:
        super().__init__(settings.pop("issuer", provider.issuer), folder, pools, url, **settings)
        self.provider = provider

    async def sign_in(self, http: httpx2.AsyncClient, **changed: str) -> httpx2.Response:
        sent = await http.get(PROVIDER_PATH)
        assert sent.status_code == 303, sent.text
        return await http.get(CALLBACK, params={**self.provider.visit(sent.headers["Location"]), **changed})


@pytest.fixture
def scene(provider: SmallProvider, tmp_path: Path, pools: Pools) -> Scene:
    return Scene(provider, tmp_path, pools)


def code(answer: httpx2.Response) -> str:
    return answer.headers.get("X-Error-Code", "")


async def test_a_person_with_a_role_signs_in_and_the_page_goes_on(scene: Scene) -> None:
    async with scene.browser() as http:
        shown = await http.get("/-/sign-in")
        assert PROVIDER_PATH in [link["href"] for link in check_page(shown.text).found("a")]
        assert "comity console sign-in" in shown.text
        done = await scene.sign_in(http)
        assert (done.status_code, done.headers["Refresh"]) == (200, "0; url=/-/node")
        check_page(done.text)
        assert "ada (5d0c)" in done.text
        cookies = done.headers.get_list("Set-Cookie")
        (session,) = [cookie.lower() for cookie in cookies if "oidc" not in cookie]
        assert "httponly" in session and "samesite=strict" in session
        host = scene.provider.issuer.removeprefix("http://")
        assert (await http.get("/-/node")).text == f"ada (5d0c), {host}|operator|oidc"


async def test_the_language_that_was_chosen_is_kept_on_the_way(scene: Scene) -> None:
    async with scene.browser() as http:
        sent = await http.get(PROVIDER_PATH, params={"lang": "fr"})
        done = await http.get(CALLBACK, params=scene.provider.visit(sent.headers["Location"]))
        assert done.headers["Content-Language"] == "fr"
        assert done.headers["Refresh"] == "0; url=/-/node?lang=fr"


async def test_a_viewer_has_the_role_of_a_viewer_and_others_have_none(scene: Scene) -> None:
    for groups, expected in (
        ("comity-viewers", "viewer"),
        (["x", "comity-viewers"], "viewer"),
        (["x"], ""),
        (None, ""),
    ):
        scene.provider.claims = {"groups": groups}
        async with scene.browser() as http:
            done = await scene.sign_in(http)
            if expected:
                assert (await http.get("/-/node")).text.split("|")[1] == expected
            else:
                assert (done.status_code, code(done)) == (403, "OIDC-ROLE")
                assert not [name for name in http.cookies if "oidc" not in name]


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"aud": "another-client"},
        {"aud": [CLIENT, "another"]},
        {"aud": [CLIENT, "another"], "azp": "another"},
        {"exp": 1_000},
        {"exp": None},
        {"iat": 9_999_999_999},
        {"nbf": 9_999_999_999},
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"sub": None},
        {"sub": 7},
        {"at_hash": "AAAA"},
        {"groups": {"comity-operators": True}},
    ],
    ids=json.dumps,
)
async def test_a_token_with_a_wrong_claim_signs_nobody_in(scene: Scene, claims: dict[str, Any]) -> None:
    scene.provider.claims = claims
    async with scene.browser() as http:
        done = await scene.sign_in(http)
        assert code(done) in ("OIDC-TOKEN", "MALFORMED")
        assert code(await http.get("/-/node")) == "NO-SESSION"
    assert not scene.sessions.all()


async def test_clocks_may_differ_by_a_minute(scene: Scene) -> None:
    for late, works in ((300 + 50, True), (300 + 70, False), (-50, True), (-70, False)):
        scene.late = late
        async with scene.browser() as http:
            done = await scene.sign_in(http)
            assert (done.status_code == 200) == works, late


async def test_only_a_public_key_signature_of_the_provider_counts(scene: Scene) -> None:
    right = scene.provider.key
    public = json.dumps(right.as_dict(private=False)).encode()
    spoiled: list[tuple[Any, str]] = [
        (ECKey.generate_key("P-256", {"kid": "one"}), "ES256"),
        (ECKey.generate_key("P-256", {"kid": "two"}), "ES256"),
        (OctKey.import_key(public, {"kid": "one"}), "HS256"),
    ]
    async with scene.browser() as http:
        assert (await scene.sign_in(http)).status_code == 200
        for key, algorithm in spoiled:
            sent = await http.get(PROVIDER_PATH)
            back = scene.provider.visit(sent.headers["Location"])
            scene.provider.key, scene.provider.algorithm = key, algorithm
            token = scene.provider.token()
            scene.provider.documents["/token"] = (200, json.dumps({"id_token": token}).encode())
            assert code(await http.get(CALLBACK, params=back)) == "OIDC-TOKEN"
        header = "eyJhbGciOiJub25lIn0"
        scene.provider.documents["/token"] = (
            200,
            json.dumps({"id_token": f"{header}.{token.split('.')[1]}."}).encode(),
        )
        assert code(await scene.sign_in(http)) == "OIDC-TOKEN"


async def test_state_belongs_to_the_browser_and_to_ten_minutes(scene: Scene) -> None:
    async with scene.browser() as http:
        assert code(await scene.sign_in(http, state="of another")) == "OIDC-STATE"
        assert code(await http.get(CALLBACK)) == "OIDC-STATE"
        sent = await http.get(PROVIDER_PATH)
        back = scene.provider.visit(sent.headers["Location"])
        async with scene.browser() as other:
            assert code(await other.get(CALLBACK, params=back)) == "OIDC-STATE"
        scene.late = SECONDS + 5
        assert code(await http.get(CALLBACK, params=back)) == "OIDC-STATE"
        scene.late = 0
        assert (await http.get(CALLBACK, params=back)).status_code == 200
        assert code(await http.get(CALLBACK, params=back)) == "OIDC-STATE"  # finished


async def test_an_answer_of_another_provider_or_without_a_code_is_refused(scene: Scene) -> None:
    async with scene.browser() as http:
        for changed in ({"iss": "https://other.example"}, {"error": "access_denied"}, {"code": ""}):
            refused = await scene.sign_in(http, **changed)
            assert (refused.status_code, code(refused)) == (403, "OIDC-REFUSED")
        assert code(await scene.sign_in(http, code="x" * 5_000)) == "MALFORMED"
        twice = await http.get(f"{CALLBACK}?state=a&state=b")
        assert code(twice) == "MALFORMED"


async def test_a_provider_that_is_down_is_a_clear_page_and_the_link_still_works(
    provider: SmallProvider, tmp_path: Path, pools: Pools
) -> None:
    scene = Scene(provider, tmp_path, pools, issuer="http://127.0.0.1:1")
    async with scene.browser() as http:
        down = await http.get(PROVIDER_PATH)
        assert (down.status_code, code(down)) == (503, "OIDC-PROVIDER")
        check_page(down.text)
        assert "comity console sign-in" in down.text
        assert "comity console sign-in" in (await http.get("/-/sign-in")).text


async def test_metadata_and_keys_are_kept_and_a_failure_is_not_repeated_at_once(scene: Scene) -> None:
    discovery = "/.well-known/openid-configuration"
    scene.provider.documents[discovery] = (500, b"")
    async with scene.browser() as http:
        for _ in range(3):
            assert code(await http.get(PROVIDER_PATH)) == "OIDC-PROVIDER"
        assert scene.provider.asked == [discovery]
        del scene.provider.documents[discovery]
        scene.seconds += RETRY
        for _ in range(3):
            assert (await scene.sign_in(http)).status_code == 200
        assert scene.provider.asked.count("/keys") == 1
        scene.seconds += KEPT
        assert (await scene.sign_in(http)).status_code == 200
        assert scene.provider.asked.count("/keys") == 2


async def test_new_keys_of_the_provider_are_fetched_once_a_minute(scene: Scene) -> None:
    async with scene.browser() as http:
        assert (await scene.sign_in(http)).status_code == 200
        scene.provider.key = ECKey.generate_key("P-256", {"kid": "two", "use": "sig"})
        assert code(await scene.sign_in(http)) == "OIDC-TOKEN"
        scene.seconds += KEYS_EVERY
        assert (await scene.sign_in(http)).status_code == 200
        assert scene.provider.asked.count("/keys") == 2


async def test_hostile_answers_are_bounded_and_redirects_are_not_followed(scene: Scene) -> None:
    async with scene.browser() as http:
        for path in ("/.well-known/openid-configuration", "/keys", "/token"):
            long, deep = b" " * (MAX_DOCUMENT + 1), b"[" * 5_000
            for status, body in ((200, long), (200, deep), (302, b"http://127.0.0.1:1/"), (200, b"{}"), (200, b"\xff")):
                scene.provider.documents = {path: (status, body)}
                scene.seconds += KEPT
                sent = await http.get(PROVIDER_PATH)
                if sent.status_code == 303:
                    sent = await http.get(CALLBACK, params=scene.provider.visit(sent.headers["Location"]))
                assert code(sent) in ("OIDC-PROVIDER", "MALFORMED"), (path, status, body[:10])


async def test_others_on_the_network_cannot_sign_in_without_https(scene: Scene) -> None:
    async with scene.browser("http://node.example", "192.0.2.7") as http:
        for path in (PROVIDER_PATH, CALLBACK):
            assert code(await http.get(path)) == "CONSOLE-PLAIN"


async def test_over_https_the_cookie_is_of_this_host_only(
    provider: SmallProvider, tmp_path: Path, pools: Pools
) -> None:
    url = "https://node.example/comity"
    scene = Scene(provider, tmp_path, pools, url=url)
    async with scene.browser("https://node.example") as http:
        sent = await http.get(PROVIDER_PATH)
        cookie = sent.headers["Set-Cookie"]
        assert (
            cookie.startswith("__Host-comity-oidc-") and "secure" in cookie.lower() and "samesite=lax" in cookie.lower()
        )
        assert f"{url}{CALLBACK}" in httpx2.URL(sent.headers["Location"]).params["redirect_uri"]
        done = await http.get(CALLBACK, params=provider.visit(sent.headers["Location"]))
        assert done.headers["Refresh"] == "0; url=/comity/-/node"


async def test_nothing_that_is_secret_is_shown(scene: Scene) -> None:
    async with scene.browser() as http:
        sent = await http.get(PROVIDER_PATH)
        back = scene.provider.visit(sent.headers["Location"])
        done = await http.get(CALLBACK, params=back)
        pages = [(await http.get("/-/sign-in")).text, done.text, str(done.headers)]
    for secret in (SECRET, back["code"], back["state"], scene.provider.nonce):
        assert all(secret not in page for page in pages)


def test_urls_of_a_provider_are_https_or_of_this_machine() -> None:
    for good, secure in (("https://a.example/x?y=1", True), ("http://127.0.0.1:80/", False), ("https://a", False)):
        assert check_provider_url(good, secure=secure) == good
    refused = [
        "http://a.example/",
        "ftp://a",
        "javascript:alert(1)",
        "https://u@a/",
        "https://a/#x",
        "https://[",
        "//a",
    ]
    for bad in (*refused, "https://a:99999/", "https://a\\b/", "https://é/"):
        with pytest.raises(Malformed):
            check_provider_url(bad, secure=False)
    with pytest.raises(Malformed):
        check_provider_url("http://127.0.0.1/", secure=True)


def test_metadata_of_another_issuer_is_refused() -> None:
    document = {"issuer": "https://a.example", "authorization_endpoint": "https://a.example/a"}
    document |= {"token_endpoint": "https://a.example/t", "jwks_uri": "https://keys.example/k"}
    found = ProviderMetadata.parse(json.dumps(document).encode(), "https://a.example")
    assert (found.keys_url, found.secret_in_body) == ("https://keys.example/k", False)
    with pytest.raises(Untrusted, match="another issuer"):
        ProviderMetadata.parse(json.dumps(document).encode(), "https://a.example/")


def test_keys_that_are_secret_or_unknown_are_left_out() -> None:
    good = ECKey.generate_key("P-256", {"kid": "a"}).as_dict(private=True)
    oct_key = {"kty": "oct", "k": "AAAA", "kid": "b"}
    keys = parse_keys(json.dumps({"keys": [good, oct_key, {"kty": "EC"}, 7, {"kty": "XX"}]}).encode())
    assert [key.kid for key in keys] == ["a"]
    assert not [key for key in keys if key.is_private]


def test_a_name_cannot_pass_for_the_operator_of_the_link() -> None:
    person = read_person({"sub": "operator", "name": "x" * 500, "groups": "g"}, "groups")
    assert person.shown == f"{'x' * 64} (operator)"
    assert read_person({"sub": "operator"}, "groups").shown == "(operator)"
    assert read_person({"sub": "s", "name": "a\u202eb"}, "groups").name == ""


def test_incomplete_settings_and_issuers_without_tls_are_refused(tmp_path: Path) -> None:
    right: dict[str, Any] = {"issuer": "https://a.example", "client_id": "c", "secret_file": tmp_path}
    right["operators"] = ("o",)
    OpenIdConnect(**right)
    addresses = ("http://a.example", "https://u:p@a.example", "a.example", "https://a.example?x")
    wrong: list[dict[str, Any]] = [{"issuer": address} for address in addresses]
    for changed in (*wrong, {"operators": ()}, {"client_id": ""}, {"secret_file": None}):
        with pytest.raises(ValidationError):
            OpenIdConnect(**{**right, **changed})


def test_the_secret_goes_out_as_in_a_form() -> None:
    assert base64.b64decode(basic("a:b", "c d+é").removeprefix("Basic ")) == b"a%3Ab:c+d%2B%C3%A9"


def test_files_that_cannot_be_used_are_refused_at_the_start(tmp_path: Path) -> None:
    secret, authorities = tmp_path / "secret", tmp_path / "ca.pem"
    secret.write_text("\n")
    secret.chmod(0o600)
    authorities.write_text("no certificate")
    named: dict[str, Any] = {
        "issuer": "https://a.example",
        "client_id": "c",
        "operators": ("o",),
        "secret_file": secret,
    }
    with pytest.raises(Malformed, match="cannot be used"):
        ProviderAccess.read(OpenIdConnect(**named))
    secret.write_text("s\n")
    assert ProviderAccess.read(OpenIdConnect(**named)).secret == "s"
    with pytest.raises(Malformed, match="cannot be used"):
        ProviderAccess.read(OpenIdConnect(**named, ca_file=authorities))
    secret.chmod(0o644)
    with pytest.raises(Refused) as refused:
        ProviderAccess.read(OpenIdConnect(**named))
    assert refused.value.code == "SECRET-EXPOSED"
