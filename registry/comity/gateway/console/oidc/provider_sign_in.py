"""Signing in at the console through the OpenID Connect provider of the settings: code, state, nonce and PKCE.

    GET /-/sign-in/oidc            goes to the provider
    GET /-/sign-in/oidc/callback   the provider sends the browser back with a code; a session begins

A sign-in that has begun is remembered in a sealed cookie of the browser, not in this node: strangers who begin many
cost no memory, and push nobody out. Its key is made at each start. The cookie is SameSite=Lax, because the browser
comes back from another site; for the same reason the answer is a page that goes on by itself, not a redirect: a browser
that follows a redirect of another site does not send the session's SameSite=Strict cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from cryptography.fernet import Fernet, InvalidToken
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from comity.gateway.console.forms import BrowserOrigins
from comity.gateway.console.oidc.provider import HINT, OpenIdProvider
from comity.gateway.console.oidc.provider_documents import ProviderMetadata, SignedInPerson
from comity.gateway.console.page import HEADERS, POLICY, WITH_FORMS, PageMaker, Reader
from comity.gateway.console.sessions import Role
from comity.gateway.console.sign_in import FIRST_PAGE, PROVIDER_PATH, SignInPages
from comity.gateway.declared_routes import DeclaredRoute
from comity.node.settings import OpenIdConnect
from comity.node.threads import Clock
from comity.trust.errors import Malformed, Refused
from comity.trust.frozen import frozen

CALLBACK: Final = f"{PROVIDER_PATH}/callback"
SECONDS: Final = 600
"""How long a person may take at the provider."""
MAX_ANSWER: Final = 4_096
"""Characters of a field that the provider sends by the browser."""


@frozen
class PendingSignIn:
    """What a sign-in was begun with: three secrets of the browser that began it, and the language that was chosen
    on the page, or empty."""

    state: str
    nonce: str
    verifier: str
    language: str

    @classmethod
    def begin(cls, language: str) -> PendingSignIn:
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        return cls(state, nonce, verifier, language)


class PendingCookie:
    """Seals a pending sign-in into a cookie, and opens it. `node` is a name that no other node on this host has."""

    def __init__(self, node: str, clock: Clock) -> None:
        self._name = f"comity-oidc-{hashlib.sha256(node.encode()).hexdigest()[:8]}"
        self._fernet = Fernet(Fernet.generate_key())
        self._clock = clock

    def set(self, response: Response, pending: PendingSignIn, *, secure: bool) -> None:
        text = json.dumps([pending.state, pending.nonce, pending.verifier, pending.language])
        sealed = self._fernet.encrypt_at_time(text.encode(), int(self._clock())).decode()
        name = self._cookie(secure)
        response.set_cookie(name, sealed, SECONDS, path="/", secure=secure, httponly=True, samesite="lax")

    def of(self, request: Request, *, secure: bool) -> PendingSignIn | None:
        sealed = request.cookies.get(self._cookie(secure), "")[:MAX_ANSWER]
        try:
            text = self._fernet.decrypt_at_time(sealed.encode(), SECONDS, int(self._clock()))
        except InvalidToken:
            return None
        return PendingSignIn(*json.loads(text))

    def delete(self, response: Response, *, secure: bool) -> None:
        response.delete_cookie(self._cookie(secure), "/", secure=secure, httponly=True, samesite="lax")

    def _cookie(self, secure: bool) -> str:
        return f"__Host-{self._name}" if secure else self._name


class ProviderSignIn:
    """Not thread-safe: call from the event loop. `address` is where browsers reach the console."""

    def __init__(
        self,
        settings: OpenIdConnect,
        provider: OpenIdProvider,
        maker: PageMaker,
        pages: SignInPages,
        origins: BrowserOrigins,
        pending: PendingCookie,
        address: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._provider = provider
        self._maker = maker
        self._pages = pages
        self._origins = origins
        self._pending = pending
        self._address = address

    def routes(self) -> list[DeclaredRoute]:
        return [
            self._maker.route(PROVIDER_PATH, self.leave, self._maker.access(None)),
            self._maker.route(CALLBACK, self.come_back, self._maker.access(None), secret_query=True),
        ]

    async def leave(self, reader: Reader) -> Response:
        """To the provider."""
        metadata = await self._provider.metadata()
        pending = PendingSignIn.begin(reader.language if reader.chosen else "")
        url: str = prepare_grant_uri(
            metadata.authorization_endpoint,
            client_id=self._settings.client_id,
            response_type="code",
            redirect_uri=self._redirect(),
            scope=" ".join(("openid", *self._settings.scopes)),
            state=pending.state,
            nonce=pending.nonce,
            code_challenge=create_s256_code_challenge(pending.verifier),
            code_challenge_method="S256",
        )
        headers = {"Vary": HEADERS["Vary"], "Cache-Control": "no-store", "Content-Security-Policy": POLICY}
        response = RedirectResponse(url, 303, {**headers, "Referrer-Policy": "no-referrer"})
        self._pending.set(response, pending, secure=self._origins.secure(reader.request))
        return response

    async def come_back(self, reader: Reader) -> Response:
        """From the provider, with a code or its refusal."""
        secure = self._origins.secure(reader.request)
        fields = answer_fields(reader.request)
        pending = self._pending.of(reader.request, secure=secure)
        if pending is None or not hmac.compare_digest(pending.state.encode(), fields.get("state", "").encode()):
            raise Refused(
                "this sign-in was not begun in this browser",
                why=f"it is older than {SECONDS // 60} minutes, was finished already, or the node has started again",
                hint="begin again on the page for signing in",
                code="OIDC-STATE",
            )
        check_answer(fields, await self._provider.metadata())
        person = await self._provider.person(fields["code"], pending.verifier, pending.nonce, self._redirect())
        role = role_of(person, self._settings)
        if pending.language:
            reader = replace(reader, language=pending.language, chosen=True)
        who = f"{person.shown}, {urlsplit(self._settings.issuer).netloc}"
        refresh = {**WITH_FORMS, "Refresh": f"0; url={reader.link(FIRST_PAGE)}"}
        response = self._maker.render(reader, "signed_in.html", None, headers=refresh, who=who, next=FIRST_PAGE)
        await self._pages.begin(reader, response, who, role, "oidc")
        self._pending.delete(response, secure=secure)
        return response

    def _redirect(self) -> str:
        return self._address() + CALLBACK


def answer_fields(request: Request) -> Mapping[str, str]:
    """What the provider sent by the browser. Raises Malformed for a field that is there twice, or too long."""
    pairs = request.query_params.multi_items()
    fields = dict(pairs)
    if len(fields) != len(pairs) or any(len(value) > MAX_ANSWER for value in fields.values()):
        raise Malformed("the provider's answer cannot be read", why="a field is repeated, or too long")
    return fields


def check_answer(fields: Mapping[str, str], metadata: ProviderMetadata) -> None:
    """Raises Refused (OIDC-REFUSED) unless the answer is a code of this provider (RFC 9207)."""
    why = ""
    if fields.get("iss", metadata.issuer) != metadata.issuer or (metadata.names_itself and "iss" not in fields):
        why = "the answer is not that of the provider in the settings"
    elif "error" in fields or not fields.get("code"):
        why = f"it says {fields.get('error', 'nothing')[:60]!r}"
    if why:
        raise Refused("the OpenID Connect provider did not let you in", why=why, hint=HINT, code="OIDC-REFUSED")


def role_of(person: SignedInPerson, settings: OpenIdConnect) -> Role:
    """Raises Refused (OIDC-ROLE) if nothing in the claim is a role here."""
    if set(person.roles) & set(settings.operators):
        return "operator"
    if set(person.roles) & set(settings.viewers):
        return "viewer"
    raise Refused(
        "you have no role at this node",
        why=f"the provider knows you as {person.shown}, and nothing in its claim {settings.claim!r} is named here",
        hint="ask the operator to name a group of yours in [oidc] of node.toml",
        code="OIDC-ROLE",
    )
