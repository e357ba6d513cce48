"""Asks an OpenID Connect provider for its metadata, its keys, and the tokens of a sign-in.

Requests go to the issuer of the settings and to the endpoints that it names, by HTTPS, without following redirects.

    what                          bound         at the bound
    an answer                     MAX_DOCUMENT  Unavailable
    time of one request           TIMEOUT       Unavailable
    requests for tokens at once   AT_ONCE, OF_A_BLOCK of one address block;
                                  MAX_WAITING of a block wait, and then
                                                Unavailable, at once
    age of metadata and keys      KEPT          they are fetched again
    fetches for a key id that is  KEYS_EVERY    the token is not valid
    not known
    requests to a provider that   RETRY         the last error is the answer
    did not answer
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import field
from typing import Final
from urllib.parse import quote_plus, urlencode, urlsplit

from joserfc.jwk import KeySet

from comity.content.secrets import read_secret
from comity.gateway.console.oidc.provider_documents import (
    DISCOVERY,
    MAX_DOCUMENT,
    ProviderMetadata,
    SignedInPerson,
    UnknownKey,
    check_id_token,
    parse_keys,
    parse_refusal,
    parse_tokens,
    read_person,
)
from comity.node.replication.fair_queue import FairSlots
from comity.node.settings import OpenIdConnect
from comity.node.threads import Clock, Pools
from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.trust.frozen import frozen
from comity.wire.access import BLOCK

TIMEOUT: Final = 10.0
AT_ONCE: Final = 4
OF_A_BLOCK: Final = 2
MAX_WAITING: Final = 8
KEPT: Final = 3600.0
KEYS_EVERY: Final = 60.0
RETRY: Final = 5.0
HINT: Final = "comity console sign-in"
_READ: Final = 64 * 1024


@frozen
class ProviderAnswer:
    status: int
    body: bytes


@frozen
class _Fetched:
    metadata: ProviderMetadata
    keys: KeySet
    at: float


@frozen
class ProviderAccess:
    """The secret by which the provider knows this node, and the authorities that vouch for the provider."""

    secret: str = field(repr=False)
    tls: ssl.SSLContext = field(repr=False)

    @classmethod
    def read(cls, settings: OpenIdConnect) -> ProviderAccess:
        """Blocking. Raises Refused (SECRET-EXPOSED), Unavailable, and Malformed (CONFIG) for unusable files."""
        assert settings.secret_file is not None  # the settings require it
        try:
            secret = read_secret(settings.secret_file).decode().strip()
            tls = ssl.create_default_context(cafile=settings.ca_file)
        except (OSError, ValueError) as error:
            raise _unusable(str(error)) from error
        if not secret:
            raise _unusable(f"{settings.secret_file} is empty")
        return cls(secret, tls)


class OpenIdProvider:
    """Not thread-safe: call from the event loop.

    Args:
        access: what is read from files, once, so that no page shows a path.
        clock: POSIX seconds, for the expiry of tokens.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        settings: OpenIdConnect,
        access: ProviderAccess,
        pools: Pools,
        clock: Clock,
        monotonic: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._access = access
        self._pools = pools
        self._clock = clock
        self._monotonic = monotonic
        self._fetched: _Fetched | None = None
        self._failed: tuple[float, ComityError] | None = None
        self._lock = asyncio.Lock()
        self._exchanges = FairSlots(AT_ONCE, per_key=OF_A_BLOCK, max_per_key=MAX_WAITING)

    async def metadata(self) -> ProviderMetadata:
        """Raises Unavailable (OIDC-PROVIDER), Untrusted (OIDC-ISSUER)."""
        return (await self._known()).metadata

    async def person(self, code: str, verifier: str, nonce: str, redirect: str) -> SignedInPerson:
        """Who signed in at the provider, by the code that a browser brought.

        Raises Unavailable (OIDC-PROVIDER), Untrusted (OIDC-ISSUER, OIDC-TOKEN) and Malformed.
        """
        async with self._turn():
            known = await self._known()
            answer = await self._exchange(known.metadata, code, verifier, redirect)
            token, access = parse_tokens(answer)
            try:
                return self._read(token, access, nonce, known)
            except UnknownKey:
                if self._monotonic() - known.at < KEYS_EVERY:
                    raise
                return self._read(token, access, nonce, await self._known(fresh=True))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One of the requests for tokens at once: anybody can cause them, with a code that is none."""
        async with AsyncExitStack() as held:
            try:
                await held.enter_async_context(self._exchanges.slot(BLOCK.get()))
            except Unavailable as error:
                raise _unavailable("too many people sign in from your addresses at this moment") from error
            yield

    def _read(self, token: str, access: str, nonce: str, known: _Fetched) -> SignedInPerson:
        claims = check_id_token(
            token,
            known.keys,
            issuer=self._settings.issuer,
            client=self._settings.client_id,
            nonce=nonce,
            access_token=access,
            now=self._clock(),
        )
        return read_person(claims, self._settings.claim)

    async def _exchange(self, metadata: ProviderMetadata, code: str, verifier: str, redirect: str) -> bytes:
        settings, secret = self._settings, self._access.secret
        fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if metadata.secret_in_body:
            fields |= {"client_id": settings.client_id, "client_secret": secret}
        else:
            headers["Authorization"] = basic(settings.client_id, secret)
        body = urlencode(fields).encode()
        answer = await self._pools.files(ask, metadata.token_endpoint, self._access.tls, body, headers)
        if answer.status != 200:
            refusal = parse_refusal(answer.body)
            raise _unavailable(f"it gave no token: status {answer.status}{f', {refusal}' if refusal else ''}")
        return answer.body

    async def _known(self, *, fresh: bool = False) -> _Fetched:
        """Metadata and keys; fetched by one request at a time, however many people wait."""
        async with self._lock:
            now = self._monotonic()
            if self._fetched is not None and now - self._fetched.at < (KEYS_EVERY if fresh else KEPT):
                return self._fetched
            if self._failed is not None and now - self._failed[0] < RETRY:
                raise self._failed[1].without_traceback()
            try:
                metadata, keys = await self._pools.files(fetch_provider, self._settings.issuer, self._access.tls)
            except ComityError as error:
                self._failed = self._monotonic(), error.without_traceback()
                raise
            self._fetched, self._failed = _Fetched(metadata, keys, self._monotonic()), None
            return self._fetched


def fetch_provider(issuer: str, tls: ssl.SSLContext) -> tuple[ProviderMetadata, KeySet]:
    """Blocking. Raises Unavailable (OIDC-PROVIDER), Untrusted (OIDC-ISSUER)."""
    try:
        metadata = ProviderMetadata.parse(_body(issuer.rstrip("/") + DISCOVERY, tls), issuer)
        return metadata, parse_keys(_body(metadata.keys_url, tls))
    except Malformed as error:
        raise _unavailable(f"its answer cannot be read: {error}") from error


def _body(url: str, tls: ssl.SSLContext) -> bytes:
    answer = ask(url, tls)
    if answer.status != 200:
        raise _unavailable(f"{urlsplit(url).netloc} answered with status {answer.status}")
    return answer.body


def ask(
    url: str, tls: ssl.SSLContext, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> ProviderAnswer:
    """Blocking. The answer with any status: a GET, or a POST of `body`. Raises Unavailable (OIDC-PROVIDER)."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT, context=tls)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    try:
        wanted = {"Accept": "application/json", **(headers or {})}
        connection.request("GET" if body is None else "POST", target, body, wanted)
        with connection.getresponse() as response:
            return ProviderAnswer(response.status, _read(response))
    except (OSError, http.client.HTTPException) as error:
        raise _unavailable(f"{parts.netloc}: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse) -> bytes:
    found, until = bytearray(), time.monotonic() + TIMEOUT
    while part := response.read1(_READ):
        found += part
        if len(found) > MAX_DOCUMENT or time.monotonic() > until:
            raise _unavailable(
                f"an answer is longer than {MAX_DOCUMENT} bytes, or took longer than {TIMEOUT:g} seconds"
            )
    return bytes(found)


def basic(client: str, secret: str) -> str:
    """The header that proves who asks: both parts encoded as in a form (RFC 6749, section 2.3.1)."""
    pair = f"{quote_plus(client)}:{quote_plus(secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _unusable(why: str) -> Malformed:
    hint = "comity config check"
    return Malformed("a file that [oidc] in node.toml names cannot be used", why=why, hint=hint, code="CONFIG")


def _unavailable(why: str) -> Unavailable:
    return Unavailable("the OpenID Connect provider did not sign anybody in", why=why, hint=HINT, code="OIDC-PROVIDER")
