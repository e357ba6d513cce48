"""Where a download may be led, and who gets to see the token: the endpoint's own origin, and hosts named beforehand.

A Hub answers a request for a large file by a redirect to wherever the bytes lie. Who controls that answer could send a
node into its own network; so a redirect is followed to the endpoint's origin and to hosts that the operator named,
never from HTTPS to HTTP, and never with the token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from comity.trust.errors import Malformed, Untrusted
from comity.trust.upstream.naming import check_endpoint

HUB_ENDPOINT: Final = "https://huggingface.co"
HUB_HOSTS: Final = (".huggingface.co", ".hf.co")
"""Where huggingface.co itself sends downloads."""
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a URL."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Raises Malformed for what is no HTTP URL, or holds credentials."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Malformed("not a URL", why="it does not parse", code="UPSTREAM-ANSWER") from error
        if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
            raise Malformed("not a URL", why="expected http[s]://host", code="UPSTREAM-ANSWER")
        return cls(parts.scheme, parts.hostname.lower(), _PORTS[parts.scheme] if port is None else port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Reach:
    """An endpoint, the hosts beside it from which downloads may come (`.hf.co` stands for every host below it; a port
    after the host is compared too), and the token that the endpoint alone gets."""

    endpoint: str
    hosts: tuple[str, ...] = ()
    token: str = ""

    def __post_init__(self) -> None:
        check_endpoint(self.endpoint)

    def __repr__(self) -> str:
        return f"<Reach of {self.endpoint}>"

    @classmethod
    def to(cls, endpoint: str, hosts: Sequence[str] = (), token: str = "") -> Reach:
        """What `endpoint` needs, and `hosts`. Raises Malformed (BAD-ENDPOINT)."""
        usual = HUB_HOSTS if endpoint == HUB_ENDPOINT else ()
        return cls(endpoint, (*usual, *(host.lower() for host in hosts)), token)

    @property
    def origin(self) -> Origin:
        return Origin.of(self.endpoint)

    def file(self, repository: str, commit: str, path: str) -> str:
        """The URL of a file. Source: hub protocol, `/{id}/resolve/{revision}/{path}`."""
        return f"{self.endpoint}/{repository}/resolve/{commit}/{quote(path)}"

    def redirect(self, source: str, location: str) -> str:
        """The URL that an answer of `source` leads to. Raises Untrusted (UPSTREAM-REDIRECT), Malformed."""
        if not location or len(location) > 8192 or not location.isascii() or not location.isprintable():
            raise Malformed("a redirect to nowhere", why="its location is no URL", code="UPSTREAM-ANSWER")
        target = urljoin(source, location)
        origin = Origin.of(target)
        if origin == self.origin or self._named(origin):
            return target
        shown = origin if origin.scheme == Origin.of(source).scheme else f"{origin.scheme}://{origin}"
        raise Untrusted(
            f"{self.origin} leads elsewhere for a file",
            why=f"to {str(shown)[:200]}, which nobody named",
            hint=f"if that is right: --allow-host {str(origin)[:200]}",
            code="UPSTREAM-REDIRECT",
        )

    def headers(self, url: str) -> dict[str, str]:
        """What a request to `url` carries: the token for the endpoint alone."""
        bearer = {"Authorization": f"Bearer {self.token}"} if self.token and Origin.of(url) == self.origin else {}
        return {"Accept-Encoding": "identity", **bearer}

    def _named(self, origin: Origin) -> bool:
        if self.origin.scheme == "https" and origin.scheme != "https":
            return False
        names = {origin.host, str(origin)}
        return any(names & {host} or (host.startswith(".") and origin.host.endswith(host)) for host in self.hosts)
