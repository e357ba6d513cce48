"""Gets what an OCI registry demands with each request: a token for one repository, or a user's name and password.

    GET https://registry.example/v2/org/tiny/manifests/v1
    401, WWW-Authenticate: Bearer realm="https://auth.example/token",service="registry.example"
    GET https://auth.example/token?service=registry.example&scope=repository:org/tiny:pull
    200, {"token": "eyJ…", "expires_in": 300}

(1) the token server is at the endpoint's own origin or at a host that the operator named, and is not asked over HTTP
    for a registry that is asked over HTTPS
(2) the scope is to read the one repository: what the registry names as scope is not used, because a token for more
    would be sent to that registry
(3) name and password go to the token server, or to the endpoint if it demands them itself (`Basic`); the token goes to
    the endpoint; neither follows a redirect to another host, and neither is written anywhere
(4) a token is replaced after half of its time, or when the registry no longer accepts it

Without a name and password, a token for everybody is asked for. Sources: distribution's token authentication
specification; RFC 6750, section 3; RFC 7617.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode, urljoin

from comity.trust.errors import Untrusted
from comity.trust.frozen import frozen
from comity.upstream.guarded import AllowedHosts, Origin, access_denied, guarded_requests, require_success, unusable

MAX_DEMAND: Final = 4096
MAX_ANSWER: Final = 64 * 1024
"""Bytes of all answers of a token server to one question."""
LEAST_SECONDS: Final = 60
"""Seconds that a token is valid if the server does not say for how long, and at least (token specification)."""
MOST_SECONDS: Final = 3600
_SCHEME: Final = r"(?:\A|,)\s*{}(?:\s+|\Z)"
_PARAMETER: Final = re.compile(r'\s*,?\s*([A-Za-z_]{1,40})\s*=\s*(?:"([^"\\]*)"|([!#-+./0-9:A-Za-z_~-]+))')
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,8192}=*\Z")
_PRINTABLE: Final = re.compile(r"[!-~]{1,2048}\Z")
BASIC: Final = "basic"
BEARER: Final = "bearer"


@frozen
class AccessDemand:
    """What a registry demands: `basic`, or `bearer` with the URL of its token server and the name of its service there,
    which may be empty."""

    scheme: str
    realm: str = ""
    service: str = ""


def parse_demand(header: str) -> AccessDemand | None:
    """The first demand of `WWW-Authenticate` that can be met; a token is preferred. None if there is none. Raises
    Malformed (UPSTREAM-ANSWER)."""
    if len(header) > MAX_DEMAND:
        raise unusable("its demand for credentials is too long")
    if found := re.search(_SCHEME.format(BEARER), header, re.IGNORECASE):
        given = _parameters(header, found.end())
        realm, service = given.get("realm", ""), given.get("service", "")
        if not _PRINTABLE.match(realm) or "#" in realm or (service and not _PRINTABLE.match(service)):
            raise unusable("its demand for a token names no token server, or an invalid one")
        return AccessDemand(BEARER, realm, service)
    return AccessDemand(BASIC) if re.search(_SCHEME.format(BASIC), header, re.IGNORECASE) else None


def _parameters(header: str, position: int) -> dict[str, str]:
    """The parameters of a demand from `position` on, up to the next one."""
    found: dict[str, str] = {}
    while match := _PARAMETER.match(header, position):
        name, value = match[1].lower(), match[2] if match[2] is not None else match[3]
        if name in found:
            raise unusable("its demand for a token says something twice")
        found[name], position = value, match.end()
    return found


@frozen
class RegistryToken:
    """A token, and the seconds for which the server says that it is valid, within limits of ours."""

    text: str
    seconds: int

    def __repr__(self) -> str:
        return f"<RegistryToken for {self.seconds} s>"


def parse_token(body: bytes) -> RegistryToken:
    """The answer of a token server. Raises Malformed (UPSTREAM-ANSWER)."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise unusable("the answer of the token server is not JSON") from error
    given = answer if isinstance(answer, dict) else {}
    text, seconds = given.get("token") or given.get("access_token"), given.get("expires_in", LEAST_SECONDS)
    if not isinstance(text, str) or not _TOKEN.match(text) or type(seconds) is not int:
        raise unusable("the answer of the token server has no token, or an invalid one")
    return RegistryToken(text, min(MOST_SECONDS, max(LEAST_SECONDS, seconds)))


class RegistryTokens:
    """The credentials of requests to one registry. Blocking; thread-safe.

    Args:
        allowed_hosts: with `USER:PASSWORD`, a token that is sent as it is, or nothing.
        clock: seconds that only ever increase.

    Attributes:
        allowed_hosts: without user and password, which are not for every request.
    """

    def __init__(
        self, allowed_hosts: AllowedHosts, read_timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        secret = allowed_hosts.token
        encoded = base64.b64encode(secret.encode()).decode() if ":" in secret else ""
        self._basic = {"Authorization": f"Basic {encoded}"} if encoded else {}
        self.allowed_hosts = replace(allowed_hosts, token="") if encoded else allowed_hosts
        self._read_timeout = read_timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._demand: AccessDemand | None = None
        self._tokens: dict[str, tuple[str, float]] = {}

    @property
    def demanded(self) -> bool:
        """Whether the registry has demanded credentials."""
        return self._demand is not None

    def headers(self, repository: str) -> dict[str, str]:
        """The headers of a request for a repository to the endpoint; none as long as the registry demands nothing.

        Raises Refused (UPSTREAM-DENIED), Malformed, Unavailable, RetryLater.
        """
        with self._lock:
            if self._demand is None:
                return {}
            if self._demand.scheme == BASIC:
                return self._basic
            text, replaced = self._tokens.get(repository, ("", 0.0))
            if not text or self._clock() >= replaced:
                token = self._request(self._demand, repository)
                text = token.text
                self._tokens[repository] = (text, self._clock() + token.seconds / 2)
            return {"Authorization": f"Bearer {text}"}

    def learn(self, answer: Any, repository: str, sent: Mapping[str, str]) -> bool:
        """Whether to ask again, with the right headers, after an answer 401 to a request with the headers `sent`.
        Raises Untrusted (UPSTREAM-REDIRECT) for a token server that may not be asked, Malformed (UPSTREAM-ANSWER)."""
        if self.allowed_hosts.token:
            return False
        demand = parse_demand(str(answer.headers.get("www-authenticate", "")))
        if demand is None or (demand.scheme == BASIC and not self._basic):
            return False
        if demand.scheme == BEARER:
            demand = replace(demand, realm=self._require_allowed(demand.realm))
        with self._lock:
            self._demand = demand
            text, _ = self._tokens.get(repository, ("", 0.0))
            if sent.get("Authorization") == f"Bearer {text}":  # else another thread has a newer one
                self._tokens.pop(repository, None)
        return True

    def _require_allowed(self, realm: str) -> str:
        """The URL of the token server. Raises Untrusted (UPSTREAM-REDIRECT), Malformed (UPSTREAM-ANSWER)."""
        try:
            target = urljoin(self.allowed_hosts.endpoint, realm)
        except ValueError as error:
            raise unusable("the URL of its token server is malformed") from error
        origin = Origin.of(target)
        if self.allowed_hosts.allows(origin):
            return target
        raise Untrusted(
            f"{self.allowed_hosts.origin} demands a token of a host that is not allowed",
            why=f"its token server is at {f'{origin.scheme}://{origin}'[:200]}",
            hint=f"to ask it, and to send it the credentials of --token-file: --allow-host {str(origin)[:200]}",
            code="UPSTREAM-REDIRECT",
        )

    def _request(self, demand: AccessDemand, repository: str) -> RegistryToken:
        """A new token to read a repository."""
        origin = Origin.of(demand.realm)
        query = {"service": demand.service} if demand.service else {}
        asked = urlencode({**query, "scope": f"repository:{repository}:pull"})
        url = f"{demand.realm}{'&' if '?' in demand.realm else '?'}{asked}"
        server = AllowedHosts(f"{origin.scheme}://{origin}")
        with guarded_requests(server, self._read_timeout, MAX_ANSWER) as ask:
            answer = ask("GET", url, **self._basic)
            if answer.status_code in (400, 404, 410):
                raise access_denied(repository, f"its token server {origin} answers {answer.status_code}")
            require_success(answer, repository, origin)
            return parse_token(answer.content)
