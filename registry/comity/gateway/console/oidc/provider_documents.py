"""What an OpenID Connect provider says: its metadata, its keys, and the ID token of a person. No I/O.

The provider is named by the operator, and everything it sends is bounded and strict all the same. Each JSON document is
parsed by our own reader (no member twice, bounded depth) before Authlib and joserfc see it.

An ID token counts if a key of the provider signed it with a public-key algorithm of `ALGORITHMS`, its issuer is the one
in the settings, its audience is this client and no other is the authorized party, its nonce is that of this sign-in,
and it is valid now; clocks may differ by `LEEWAY` seconds. Source: OpenID Connect Core 1.0, section 3.1.3.7.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self
from urllib.parse import urlsplit

from authlib.oidc.core import CodeIDToken
from joserfc import jws
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import JWKRegistry, KeySet

from comity.trust.encoding import Fields, Json, parse_json
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen

MAX_DOCUMENT: Final = 256 * 1024
MAX_TOKEN: Final = 32 * 1024
MAX_URL: Final = 2_000
MAX_KEYS: Final = 64
MAX_LISTED: Final = 1_000
MAX_NAME: Final = 64
MAX_SUBJECT: Final = 255
LEEWAY: Final = 60
"""Seconds by which the clocks of the provider and this node may differ."""
ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
    "EdDSA",
)
NAME_CLAIMS: Final = ("preferred_username", "email", "name")
DISCOVERY: Final = "/.well-known/openid-configuration"


@frozen
class ProviderMetadata:
    """Attributes:
    secret_in_body: whether the client's secret goes into the body of a request for tokens, not into its header.
    names_itself: whether the provider adds `iss` to its answers (RFC 9207).
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    keys_url: str
    secret_in_body: bool
    names_itself: bool

    @classmethod
    def parse(cls, data: bytes, issuer: str) -> Self:
        """Raises Malformed, and Untrusted (OIDC-ISSUER) for the metadata of another issuer."""
        fields = Fields(parse_json(data, limit=MAX_DOCUMENT, what="provider metadata"), "provider metadata")
        named = fields.text("issuer", most=MAX_URL)
        if named != issuer:
            raise Untrusted(
                "the provider's metadata is that of another issuer",
                why=f"it names {named[:100]!r}",
                hint="set issuer in [oidc] of node.toml to exactly what the provider's metadata names",
                code="OIDC-ISSUER",
            )
        secure = issuer.startswith("https:")

        def url(name: str) -> str:
            return check_provider_url(fields.text(name, most=MAX_URL), secure=secure)

        methods = _optional(fields, "token_endpoint_auth_methods_supported", ["client_secret_basic"])
        in_body = "client_secret_basic" not in methods and "client_secret_post" in methods
        names_itself = _flag(fields, "authorization_response_iss_parameter_supported")
        return cls(issuer, url("authorization_endpoint"), url("token_endpoint"), url("jwks_uri"), in_body, names_itself)


@frozen
class SignedInPerson:
    """Who signed in. `subject` never changes at one provider; `name` is what the provider shows, and may be empty."""

    subject: str
    name: str
    roles: tuple[str, ...]

    @property
    def shown(self) -> str:
        return f"{self.name} ({self.subject})" if self.name else f"({self.subject})"


def check_provider_url(text: str, *, secure: bool) -> str:
    """`text`, if it is an https URL, or with `secure` false also an http URL of this machine. Raises Malformed."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Malformed("not a URL", why=text[:100]) from error
    plain = not secure and parts.scheme == "http" and _is_this_machine(host)
    simple = text.isascii() and text.isprintable() and " " not in text and "\\" not in text
    if not simple or not host or port == 0 or "@" in parts.netloc or parts.fragment or len(text) > MAX_URL:
        raise Malformed("not a URL of a provider", why=text[:100])
    if parts.scheme != "https" and not plain:
        raise Malformed("not a URL of a provider", why=f"{text[:100]} is not https, and not of this machine")
    return text


def parse_keys(data: bytes) -> KeySet:
    """The keys that verify signatures; keys of unknown types, and secret ones, are left out. Raises Malformed."""
    fields = Fields(parse_json(data, limit=MAX_DOCUMENT, what="provider keys"), "provider keys")
    keys = []
    for item in fields.items("keys", most=MAX_KEYS):
        if not isinstance(item, Mapping) or item.get("kty") not in ("RSA", "EC", "OKP") or item.get("use") == "enc":
            continue
        public: Any = {name: value for name, value in item.items() if name not in _PRIVATE}
        try:
            keys.append(JWKRegistry.import_key(public))
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):  # what the library raises for a bad key
            continue
    return KeySet(keys)


def parse_tokens(data: bytes) -> tuple[str, str]:
    """The ID token and the access token of a provider's answer. Raises Malformed."""
    fields = Fields(parse_json(data, limit=MAX_DOCUMENT, what="the provider's answer"), "the provider's answer")
    access = fields.text("access_token", most=MAX_TOKEN) if fields.has("access_token") else ""
    return fields.text("id_token", most=MAX_TOKEN), access


def parse_refusal(data: bytes) -> str:
    """The error code in an answer that gives no token; empty if there is none."""
    try:
        return Fields(parse_json(data, limit=MAX_DOCUMENT, what="answer"), "answer").text("error", most=100)
    except Malformed:
        return ""


class UnknownKey(Untrusted):
    """The provider may have changed its keys since they were fetched."""


def check_id_token(
    token: str, keys: KeySet, *, issuer: str, client: str, nonce: str, access_token: str, now: float
) -> Mapping[str, Json]:
    """The claims of a valid ID token. Raises Malformed, Untrusted (OIDC-TOKEN), and UnknownKey (OIDC-TOKEN)."""
    header, claims = _parts(token)
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS or "crit" in header:
        raise _not_valid(f"it is signed by the algorithm {str(algorithm)[:20]!r}, or in a way that is not known here")
    try:
        jws.deserialize_compact(token.encode(), keys, algorithms=ALGORITHMS)
    except InvalidKeyIdError as error:
        raise UnknownKey(*_NOT_VALID, why="no key of the provider has its key id", code="OIDC-TOKEN") from error
    except (JoseError, ValueError, TypeError) as error:
        raise _not_valid("the signature is not by a key of the provider") from error
    options = {
        "iss": {"essential": True, "value": issuer},
        "aud": {"essential": True, "value": client},
        "nonce": {"essential": True},
    }
    params = {"nonce": nonce, "client_id": client, "access_token": access_token}
    try:
        checked: Any = CodeIDToken(dict(claims), dict(header), options, params)
        checked.validate(now=int(now), leeway=LEEWAY)
    except (JoseError, ValueError, TypeError, AttributeError) as error:
        raise _not_valid(f"a claim is missing or wrong: {str(error)[:100]}") from error
    return claims


def read_person(claims: Mapping[str, Json], role_claim: str) -> SignedInPerson:
    """Who signed in, by the claims of a valid token. Raises Malformed."""
    fields = Fields(claims, "the ID token")
    subject = fields.text("sub", most=MAX_SUBJECT)
    names = (claims.get(claim) for claim in NAME_CLAIMS)
    name = next((text for text in names if isinstance(text, str) and text.isprintable() and text.strip()), "")
    given = claims.get(role_claim, ())
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, Sequence) or len(listed) > MAX_LISTED:
        raise Malformed("the ID token is malformed", why=f"the claim {role_claim!r} is no list of words")
    return SignedInPerson(subject, name.strip()[:MAX_NAME], tuple(item for item in listed if isinstance(item, str)))


_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_NOT_VALID: Final = ("the provider's ID token is not valid",)


def _parts(token: str) -> tuple[Mapping[str, Json], Mapping[str, Json]]:
    """Header and claims, not verified yet. Raises Malformed."""
    parts = token.split(".") if len(token) <= MAX_TOKEN else []
    if len(parts) != 3:
        raise Malformed("not an ID token", why="expected three parts, signed and not encrypted")
    found = []
    for part in parts[:2]:
        try:
            data = base64.b64decode(part.encode("ascii") + b"=" * (-len(part) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise Malformed("not an ID token", why="a part is not base64url") from error
        value = parse_json(data, limit=MAX_TOKEN, what="ID token", whole_fractions=True)
        if not isinstance(value, Mapping):
            raise Malformed("not an ID token", why="a part is not a JSON object")
        found.append(value)
    return found[0], found[1]


def _optional(fields: Fields, name: str, default: Sequence[Json]) -> Sequence[Json]:
    return fields.items(name, most=MAX_LISTED) if fields.has(name) else default


def _flag(fields: Fields, name: str) -> bool:
    return fields.has(name) and fields.take(name) is True


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _not_valid(why: str) -> Untrusted:
    return Untrusted(*_NOT_VALID, why=why, hint="comity console sign-in", code="OIDC-TOKEN")
