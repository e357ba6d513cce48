"""Tokens of OCI registries: what a registry may demand, who is asked for a token, and who gets which credentials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from comity.trust.errors import ComityError, Malformed, Refused, Untrusted
from comity.upstream.download import Timeouts
from comity.upstream.guarded import AllowedHosts
from comity.upstream.listed_files import UpstreamRequest
from comity.upstream.mirror import MirrorOrder, MirrorResult, fetch_repository, list_repository, pin_revision
from comity.upstream.oci_image import OciImage
from comity.upstream.registry_tokens import (
    BASIC,
    BEARER,
    LEAST_SECONDS,
    MOST_SECONDS,
    AccessDemand,
    RegistryToken,
    RegistryTokens,
    parse_demand,
    parse_token,
)
from hypothesis import given
from hypothesis import strategies as st
from support.image_registry import image_registry, layer, manifest, push
from support.token_registry import (
    SERVICE,
    USER,
    Answer,
    Respond,
    SigningTokens,
    StrictRegistry,
    answering,
    basic,
    host_of,
)

FILES = {"config.json": b"{}\n", "weights.bin": bytes(range(256)) * 400}
BODY = manifest(*(layer(path, data) for path, data in FILES.items()))


@pytest.mark.parametrize(
    ("header", "demand"),
    [
        ('Bearer realm="https://a/token",service="s",scope="x"', AccessDemand(BEARER, "https://a/token", "s")),
        ("bearer realm=https://a/token", AccessDemand(BEARER, "https://a/token")),
        ('Basic realm="x", Bearer realm="https://a/t" , error="e"', AccessDemand(BEARER, "https://a/t")),
        ('Bearer realm="https://a/t", Basic realm="x"', AccessDemand(BEARER, "https://a/t")),
        ('Basic realm="x"', AccessDemand(BASIC)),
        ("Negotiate", None),
        ("", None),
    ],
)
def test_a_demand_is_read(header: str, demand: AccessDemand | None) -> None:
    assert parse_demand(header) == demand


@pytest.mark.parametrize(
    "header",
    [
        "Bearer ",
        'Bearer service="s"',
        'Bearer realm="a b"',
        'Bearer realm="https://a/\u00e4"',
        'Bearer realm="https://a/t#x"',
        'Bearer realm="https://a/t",realm="https://b/t"',
        f'Bearer realm="https://a/{"t" * 3000}"',
        f'Bearer realm="https://a/t",service="{"s" * 5000}"',
    ],
)
def test_a_demand_without_one_token_server_is_refused(header: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_demand(header)
    assert caught.value.code == "UPSTREAM-ANSWER"


@given(st.text(max_size=200) | st.text('Bearer,= "ralm:/', max_size=80))
def test_any_header_is_read_or_refused(header: str) -> None:
    try:
        parse_demand(header)
    except Malformed as refusal:
        assert refusal.code == "UPSTREAM-ANSWER"


@pytest.mark.parametrize(
    ("answer", "token"),
    [
        ({"token": "a.b-c_d"}, RegistryToken("a.b-c_d", LEAST_SECONDS)),
        ({"access_token": "abc=", "expires_in": 300}, RegistryToken("abc=", 300)),
        ({"token": "a", "access_token": "b", "expires_in": 10**12}, RegistryToken("a", MOST_SECONDS)),
        ({"token": "a", "expires_in": -1}, RegistryToken("a", LEAST_SECONDS)),
    ],
)
def test_a_token_is_read_and_its_time_is_bounded(answer: dict[str, object], token: RegistryToken) -> None:
    assert parse_token(json.dumps(answer).encode()) == token


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 60_000,
        b"{}",
        b'{"token": ""}',
        b'{"token": 7}',
        b'{"token": "a\\r\\nX: b"}',
        b'{"token": "a b"}',
        b'{"token": "%s"}' % (b"a" * 8193),
        b'{"token": "a", "expires_in": "300"}',
        b'{"token": "a", "expires_in": true}',
    ],
)
def test_an_answer_without_a_usable_token_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        parse_token(body)
    assert caught.value.code == "UPSTREAM-ANSWER"


class Silent:
    def progress(self, path: str, count: int) -> None:
        pass

    def wait(self, seconds: float, why: str) -> None:
        pass


@contextmanager
def strict_registry(token: Respond | None = None) -> Iterator[tuple[StrictRegistry, str, str]]:
    """A registry, its URL, and the host of its token server."""
    registry = StrictRegistry("lab/tiny", BODY, FILES)
    with answering(registry.respond) as url, answering(token or registry.token) as tokens:
        registry.realm = f"{tokens}/token?x=1"
        yield registry, url, host_of(tokens)


def mirrored(url: str, folder: Path, *hosts: str, token: str = "") -> MirrorResult:
    wanted = UpstreamRequest.parse("oci:127.0.0.1/tiny@v1")
    order = MirrorOrder(wanted, AllowedHosts.to(f"{url}/lab", hosts, token), timeouts=Timeouts(first_delay=0.01))
    listing = list_repository(order, pin_revision(order, Silent()), Silent())
    return fetch_repository(order, listing, folder, Silent())


def refusal(url: str, *hosts: str, token: str = "") -> ComityError:
    with pytest.raises(ComityError) as caught:
        mirrored(url, Path(), *hosts, token=token)
    return caught.value


def test_a_token_for_everybody_is_asked_for_the_one_repository(tmp_path: Path) -> None:
    with strict_registry() as (registry, url, tokens):
        done = mirrored(url, tmp_path, tokens)
    assert [path.read_bytes() for path in done.paths] == list(FILES.values())
    wanted = {"x": ["1"], "service": [SERVICE], "scope": ["repository:lab/tiny:pull"]}
    assert registry.tokens_asked == [(wanted, "")] * 3  # to pin, to list, to fetch


def test_name_and_password_go_to_the_token_server_alone(tmp_path: Path) -> None:
    with strict_registry() as (registry, url, tokens):
        mirrored(url, tmp_path, tokens, token=USER)
    assert {given for _, given in registry.tokens_asked} == {basic(USER)}


def test_a_token_that_the_registry_no_longer_takes_is_replaced() -> None:
    with strict_registry() as (registry, url, tokens):
        image = OciImage(AllowedHosts.to(f"{url}/lab", [tokens]), read_timeout=5.0)
        pinned = image.revision_info(UpstreamRequest.parse("oci:127.0.0.1/tiny@v1"))
        registry.left = 0
        listing = image.listing(pinned)
        registry.left = 0
        _, headers = image.file_request(pinned.upstream, listing.files[0])
    assert (registry.issued, headers) == (3, {"Authorization": "Bearer token-3"})


def test_a_token_is_replaced_after_half_of_its_time() -> None:
    now = [0.0]
    with strict_registry() as (registry, url, tokens):
        access = RegistryTokens(AllowedHosts.to(url, [tokens]), 5.0, lambda: now[0])
        assert access.headers("lab/tiny") == {}
        assert access.learn(DemandOf(registry), "lab/tiny", {})
        given = []
        for now[0] in (0.0, 149.0, 150.0):
            given.append(access.headers("lab/tiny")["Authorization"])
    assert given == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]


class DemandOf:
    def __init__(self, registry: StrictRegistry) -> None:
        self.headers = {name.lower(): value for name, value in registry.respond("", {})[1].items()}


def test_a_token_server_that_the_operator_did_not_name_is_not_asked() -> None:
    with strict_registry() as (registry, url, tokens):
        said = refusal(url, token=USER)
        assert isinstance(said, Untrusted)
        assert (said.code, registry.tokens_asked) == ("UPSTREAM-REDIRECT", [])
        assert said.hint.endswith(f"--allow-host {tokens}")


@pytest.mark.parametrize(
    "realm", ["http://10.0.0.1/token", "http://127.0.0.1:1/", "http://169.254.169.254/", "ftp://a/"]
)
def test_a_token_server_at_a_private_address_is_not_asked(realm: str) -> None:
    with strict_registry() as (registry, url, _):
        registry.realm = realm
        assert refusal(url, token=USER).code in ("UPSTREAM-REDIRECT", "UPSTREAM-ANSWER")


def test_a_token_server_over_http_is_not_asked_for_a_registry_over_https() -> None:
    access = RegistryTokens(AllowedHosts.to("https://registry.test/lab", ["auth.test"], USER), 5.0)
    registry = StrictRegistry("lab/tiny", BODY, FILES, realm="http://auth.test/token")
    with pytest.raises(Untrusted) as caught:
        access.learn(DemandOf(registry), "lab/tiny", {})
    assert caught.value.code == "UPSTREAM-REDIRECT"
    registry.realm = "https://auth.test/token"
    assert access.learn(DemandOf(registry), "lab/tiny", {})


def answers(status: int, body: bytes = b"", **headers: str) -> Respond:
    def respond(path: str, given: Mapping[str, str]) -> Answer:
        return status, headers, body

    return respond


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (answers(200, b'{"token": "%s"}' % (b"a" * 70_000)), "UPSTREAM-ANSWER"),
        (answers(200, b"<html>"), "UPSTREAM-ANSWER"),
        (answers(302, Location="/token"), "UPSTREAM-ANSWER"),
        (answers(302, Location="http://127.0.0.1:1/token"), "UPSTREAM-REDIRECT"),
        (answers(401), "UPSTREAM-DENIED"),
        (answers(403), "UPSTREAM-DENIED"),
        (answers(404), "UPSTREAM-DENIED"),
        (answers(429), "UPSTREAM-BUSY"),
        (answers(200, b'{"token": "other"}'), "UPSTREAM-DENIED"),
    ],
)
def test_a_token_server_that_answers_falsely_is_refused(token: Respond, code: str) -> None:
    with strict_registry(token=token) as (_, url, tokens):
        said = refusal(url, tokens, token=USER)
    assert said.code == code
    assert "secret" not in f"{said} {said.hint}"


def test_credentials_do_not_follow_a_redirect_of_the_token_server() -> None:
    seen: list[str] = []

    def other(path: str, headers: Mapping[str, str]) -> Answer:
        seen.append(headers.get("Authorization", ""))
        return 200, {}, b'{"token": "a"}'

    with answering(other) as elsewhere, strict_registry(token=answers(307, Location=elsewhere)) as (_, url, tokens):
        assert refusal(url, tokens, host_of(elsewhere), token=USER).code == "UPSTREAM-REDIRECT"
    assert seen == []


def test_a_token_given_by_the_operator_is_sent_as_it_is() -> None:
    with strict_registry() as (registry, url, tokens):
        assert refusal(url, tokens, token="another").code == "UPSTREAM-DENIED"
        assert registry.tokens_asked == []


def test_a_password_that_the_registry_itself_demands_is_sent_to_it_alone(tmp_path: Path) -> None:
    seen: list[str] = []
    inner = StrictRegistry("lab/tiny", BODY, FILES)

    def cdn(path: str, headers: Mapping[str, str]) -> Answer:
        seen.append(headers.get("Authorization", ""))
        inner.left = 1
        return inner.respond(path, {"Authorization": "Bearer token-0"})

    def respond(path: str, headers: Mapping[str, str]) -> Answer:
        if headers.get("Authorization", "") != basic(USER):
            return 401, {"WWW-Authenticate": 'Basic realm="registry"'}, b""
        return cdn(path, {}) if "/manifests/" in path else (307, {"Location": f"{elsewhere}{path}"}, b"")

    with answering(cdn) as elsewhere, answering(respond) as url:
        done = mirrored(url, tmp_path, host_of(elsewhere), token=USER)
        assert refusal(url).code == "UPSTREAM-DENIED"
    assert len(done.paths) == len(FILES)
    assert set(seen) == {""}


def test_the_representation_of_a_token_does_not_have_it() -> None:
    assert "abc" not in repr(RegistryToken("abc", 60))


@pytest.mark.slow
def test_a_registry_that_checks_signed_tokens_is_mirrored(tmp_path: Path) -> None:
    signing = SigningTokens(tmp_path / "bundle.pem", public=False)
    with ExitStack() as stack:
        tokens = stack.enter_context(answering(signing.respond))
        settings = {
            "realm": f"{tokens}/token",
            "service": SERVICE,
            "issuer": "tokens",
            "rootcertbundle": str(signing.bundle),
        }
        lines = "".join(f"    {name}: {value}\n" for name, value in settings.items())
        url = stack.enter_context(image_registry(tmp_path, f"auth:\n  token:\n{lines}"))
        rights: dict[str, object] = {"type": "repository", "name": "lab/tiny", "actions": ["pull", "push"]}
        body = push(url, "lab/tiny", "v1", FILES, signing.sign([rights]))
        assert isinstance(refusal(url, host_of(tokens)), Refused)
        done = mirrored(url, tmp_path, host_of(tokens), token=USER)
        assert done.listing.revision_info.upstream.commit == hashlib.sha256(body).hexdigest()[:40]
        assert [path.read_bytes() for path in done.paths] == list(FILES.values())
        signing.public = True
        assert len(mirrored(url, tmp_path, host_of(tokens)).paths) == len(FILES)
