"""Asks an upstream over HTTP, with limits on hosts, time and bytes; and the errors of its answers.

An upstream answers a request for a large file by a redirect. The sender of that answer could direct a node into the
node's own network, so a redirect is followed only to the endpoint's origin and to hosts that the operator named, never
from HTTPS to HTTP, and never with the token.

Requests go through the HTTP client of huggingface-hub, one per process. Ours answers only inside `guarded`: every
request goes to the endpoint's own origin (no page link or redirect takes a token elsewhere), without compression, with
a read timeout. Every answer is bounded in bytes and time. An answer that asks to retry later is raised at once, because
the library would sleep as long as the server says. All answers are untrusted: they are parsed into checked values or
refused with the reason.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import urljoin, urlsplit

from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.upstream import check_endpoint

HUB_ENDPOINT: Final = "https://huggingface.co"
HUB_HOSTS: Final = (".huggingface.co", ".hf.co")
"""Hosts to which huggingface.co redirects downloads."""
MAX_RESPONSE_BYTES: Final = 128 * 1024 * 1024
"""Bytes of all pages of one listing: 100,000 files of one kilobyte each, and a margin."""
MAX_CALL_SECONDS: Final = 600.0
_PORTS: Final = {"http": 80, "https": 443}


@frozen
class Origin:
    """Scheme, host and port of a URL."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Raises Malformed for a URL that is not HTTP, or that holds credentials."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Malformed("not a URL", why="it cannot be parsed", code="UPSTREAM-ANSWER") from error
        if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
            raise Malformed("not a URL", why="expected http[s]://host", code="UPSTREAM-ANSWER")
        return cls(parts.scheme, parts.hostname.lower(), _PORTS[parts.scheme] if port is None else port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@frozen
class AllowedHosts:
    """An endpoint, other hosts allowed for downloads (`.hf.co` means every subdomain; a port after the host is compared
    too), and the token, which is sent to the endpoint only."""

    endpoint: str
    hosts: tuple[str, ...] = ()
    token: str = ""

    def __post_init__(self) -> None:
        check_endpoint(self.endpoint)

    def __repr__(self) -> str:
        return f"<AllowedHosts of {self.endpoint}>"

    @classmethod
    def to(cls, endpoint: str, hosts: Sequence[str] = (), token: str = "") -> AllowedHosts:
        """The usual hosts of `endpoint`, and `hosts`. Raises Malformed (BAD-ENDPOINT)."""
        usual = HUB_HOSTS if endpoint == HUB_ENDPOINT else ()
        return cls(endpoint, (*usual, *(host.lower() for host in hosts)), token)

    @property
    def origin(self) -> Origin:
        return Origin.of(self.endpoint)

    def redirect(self, source: str, location: str) -> str:
        """The URL that an answer of `source` leads to. Raises Untrusted (UPSTREAM-REDIRECT), Malformed."""
        if not location or len(location) > 8192 or not location.isascii() or not location.isprintable():
            raise Malformed("invalid redirect", why="its location is not a URL", code="UPSTREAM-ANSWER")
        target = urljoin(source, location)
        origin = Origin.of(target)
        if self.allows(origin):
            return target
        shown = origin if origin.scheme == Origin.of(source).scheme else f"{origin.scheme}://{origin}"
        raise Untrusted(
            f"{self.origin} redirects a file to a host that is not allowed",
            why=f"the host is {str(shown)[:200]}",
            hint=f"to allow it: --allow-host {str(origin)[:200]}",
            code="UPSTREAM-REDIRECT",
        )

    def headers(self, url: str) -> dict[str, str]:
        """Headers of a request to `url`; the token is included for the endpoint only."""
        bearer = {"Authorization": f"Bearer {self.token}"} if self.token and Origin.of(url) == self.origin else {}
        return {"Accept-Encoding": "identity", **bearer}

    def allows(self, origin: Origin) -> bool:
        """Whether requests may go to `origin`: the endpoint's own, or a host that the operator named."""
        if origin == self.origin:
            return True
        if self.origin.scheme == "https" and origin.scheme != "https":
            return False
        names = {origin.host, str(origin)}
        return any(names & {host} or (host.startswith(".") and origin.host.endswith(host)) for host in self.hosts)


MAX_CAUSES: Final = 8
"""Errors behind an error that are looked at."""
READ_TIMEOUT: Final = 20.0
"""Seconds without a byte after which a request times out."""
MAX_RETRY_AFTER: Final = 24 * 3600

_TIMEOUTS: Final = ("connect", "read", "write", "pool")


class RetryLater(Exception):
    """The upstream asks to retry later. `seconds` is None if it does not say when."""

    def __init__(self, what: str, seconds: float | None) -> None:
        super().__init__(what)
        self.seconds = seconds


@dataclass(slots=True)
class _Guard:
    origin: Origin
    ends: float
    bytes: int
    read_timeout: float


_guard: ContextVar[_Guard | None] = ContextVar("comity_upstream_guard", default=None)


@contextlib.contextmanager
def guarded(origin: Origin, *, seconds: float, size: int, read_timeout: float) -> Iterator[None]:
    """Allow the library to send requests to `origin` inside the block, for at most `seconds` and `size` bytes of
    answers."""
    http_module()
    token = _guard.set(_Guard(origin, time.monotonic() + seconds, size, read_timeout))
    try:
        yield
    finally:
        _guard.reset(token)


@functools.cache
def http_module() -> Any:
    """The HTTP library of this huggingface-hub (httpx or its successor). Also installs our HTTP client in the hub
    library, so that it sends no request outside `guarded`. Raises Unavailable (NO-IMPORTER)."""
    try:
        hub = importlib.import_module("huggingface_hub")
        module = sys.modules[type(hub.get_session()).__module__.partition(".")[0]]
        hub.set_client_factory(lambda: guarded_client(module))
    except (ImportError, AttributeError) as error:
        hint = "pip install 'huggingface-hub>=1'"
        what = "this installation cannot import repositories"
        raise Unavailable(what, why=str(error), hint=hint, code="NO-IMPORTER") from error
    return module


def retry_after(headers: Any) -> float | None:
    """Seconds to wait according to `Retry-After` or the Hub's `RateLimit` header; None if neither is given."""
    value = str(headers.get("retry-after", ""))
    if value.isascii() and value.isdigit() and len(value) < 7:
        return float(value)
    if value:
        from email.utils import parsedate_to_datetime

        with contextlib.suppress(ValueError, TypeError, OverflowError):
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    for part in str(headers.get("ratelimit", "")).split(";"):
        key, _, value = part.strip().partition("=")
        if key == "t" and value.isascii() and value.isdigit() and len(value) < 7:
            return float(value)
    return None


def guarded_client(module: Any) -> Any:
    """An HTTP client that sends requests only inside `guarded`. The caller closes it."""
    hooks = {"request": [_check_request], "response": [_check_response]}
    return module.Client(event_hooks=hooks, follow_redirects=True)


def _check_request(request: Any) -> None:
    guard = _guard.get()
    if guard is None:
        raise Unavailable("request blocked", why="the hub library sent a request outside `guarded`")
    if Origin.of(str(request.url)) != guard.origin:
        raise _foreign_origin(guard, str(request.url.host))
    left = guard.ends - time.monotonic()
    if left <= 0:
        raise _response_too_long(guard, "it exceeds the time limit")
    request.headers["Accept-Encoding"] = "identity"
    request.extensions["timeout"] = dict.fromkeys(_TIMEOUTS, min(guard.read_timeout, left))


def _check_response(response: Any) -> None:
    guard = _guard.get()
    assert guard is not None, "an answer without a guarded request"
    if response.status_code in (408, 429) or response.status_code >= 500:
        raise RetryLater(f"{guard.origin} answers {response.status_code}", retry_after(response.headers))
    if response.headers.get("content-encoding", "identity") != "identity":
        why = "it is compressed, which was not requested"
        raise Malformed("the upstream's answer is not usable", why=why, code="UPSTREAM-ANSWER")
    base = http_module().SyncByteStream  # the stream class that the HTTP library requires
    response.stream = type("BoundedStream", (_Bounded, base), {})(response.stream, guard)


class _Bounded:
    def __init__(self, stream: Any, guard: _Guard) -> None:
        self._stream = stream
        self._guard = guard

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            self._guard.bytes -= len(part)
            if self._guard.bytes < 0:
                raise _response_too_long(self._guard, "it exceeds the size limit")
            if time.monotonic() > self._guard.ends:
                raise _response_too_long(self._guard, "it exceeds the time limit")
            yield part

    def close(self) -> None:
        self._stream.close()


def _response_too_long(guard: _Guard, why: str) -> ComityError:
    return Malformed(f"the answer of {guard.origin} is too large", why=why, code="UPSTREAM-ANSWER")


def _foreign_origin(guard: _Guard, host: str) -> ComityError:
    return Untrusted(
        f"{guard.origin} redirects an API call",
        why=f"to {host[:200]!r}; only the endpoint itself may answer API calls",
        hint="name the right endpoint: --endpoint URL",
        code="UPSTREAM-REDIRECT",
    )


@contextmanager
def guarded_call(
    hosts: AllowedHosts,
    read_timeout: float,
    translated: Callable[[Exception], ComityError],
    most: int = MAX_RESPONSE_BYTES,
) -> Iterator[None]:
    """Allow the calls of one question to an upstream inside the block. Errors come out as those of this program.

    Args:
        translated: the error for an exception of a library: an untrusted answer may raise any.
        most: bytes of all answers.
    """
    with guarded(hosts.origin, seconds=MAX_CALL_SECONDS, size=most, read_timeout=read_timeout):
        try:
            yield
        except Malformed as error:
            if error.hint:
                raise
            raise not_importable(error, hosts) from error
        except (ComityError, RetryLater):
            raise
        except Exception as error:
            raise translated(error) from error


Ask: TypeAlias = Callable[..., Any]
"""Sends a request to an endpoint, by method, URL, content and headers, and returns the answer."""


@contextmanager
def guarded_requests(hosts: AllowedHosts, read_timeout: float, most: int = MAX_RESPONSE_BYTES) -> Iterator[Ask]:
    """What sends requests to the endpoint and reads the answers, which are bounded."""
    module = http_module()

    def translated(error: Exception) -> ComityError:
        return unreachable(hosts, error) if isinstance(error, module.TransportError) else unusable(type(error).__name__)

    with guarded_call(hosts, read_timeout, translated, most), guarded_client(module) as client:

        def ask(method: str, url: str, content: bytes | None = None, **headers: str) -> Any:
            return client.request(method, url, content=content, headers=hosts.headers(url) | headers)

        yield ask


def require_success(answer: Any, what: str, origin: Origin) -> bool:
    """Whether the answer has what was requested; False if the server has it not. Raises Refused (UPSTREAM-DENIED),
    Malformed (UPSTREAM-ANSWER)."""
    if answer.status_code in (404, 410):
        return False
    if answer.status_code in (401, 403):
        raise access_denied(what, f"{origin} answers {answer.status_code}")
    if answer.status_code != 200:
        raise unusable(f"it answers {answer.status_code} for {what[:120]!r}")
    return True


def unusable(why: str) -> Malformed:
    hint = "try again later; if the error persists, report it to the operator of the endpoint"
    return Malformed("the upstream's answer is not usable", why=why, hint=hint, code="UPSTREAM-ANSWER")


def not_importable(error: Malformed, allowed_hosts: AllowedHosts) -> Malformed:
    """Translate an error of our own formats for the operator of an import."""
    what = f"{allowed_hosts.origin} lists files that cannot be imported"
    hint = "nothing was fetched; try another revision, or ask the repository's owner to rename the file"
    return Malformed(what, why=str(error), hint=hint, code=error.code)


def unreachable(allowed_hosts: AllowedHosts, error: Exception) -> Unavailable:
    why = "timed out" if "Timeout" in type(error).__name__ else _system_reason(error)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        why = "this machine does not trust its certificate"
    hint = "try again; received bytes are kept"
    return Unavailable(f"{allowed_hosts.origin} was not reached", why=why, hint=hint, code="UPSTREAM-UNREACHABLE")


def _system_reason(error: Exception) -> str:
    """What this machine says of a failed connection; else the name of the error, whose text may be the server's."""
    cause: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if cause is None or (isinstance(cause, OSError) and cause.strerror):
            break
        cause = cause.__cause__ or cause.__context__
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else type(error).__name__


def access_denied(what: str, why: str) -> Refused:
    return Refused(f"access to {what} is denied", why=why, hint="--token-file FILE", code="UPSTREAM-DENIED")


def not_found(what: str, why: str) -> NotFound:
    hint = f"check the name; if it is already mirrored: comity import --recheck {what}"
    return NotFound(f"{what} was not found", why=why, hint=hint, code="UPSTREAM-NOT-FOUND")
