"""HTTP as huggingface-hub does it, held to one endpoint and to bounds.

The library's API calls go through one HTTP client of the whole process. The one that is given to it here answers only
inside `guarded`: every request goes to the endpoint's own origin (so no page link and no redirect takes a token
elsewhere), in plain encoding, with patience for each read; every answer is bounded, in bytes and in time; and an answer
that says "later" is raised at once, because the library would sleep for as long as a stranger says.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from comity.trust.errors import ComityError, Malformed, Unavailable, Untrusted
from comity.upstream.reach import Origin

PATIENCE: Final = 20.0
"""Seconds without a byte after which an upstream has fallen silent."""
MAX_RETRY_AFTER: Final = 24 * 3600

_TIMEOUTS: Final = ("connect", "read", "write", "pool")


class Later(Exception):
    """The upstream asks to come back. `seconds` is None where it does not say when."""

    def __init__(self, what: str, seconds: float | None) -> None:
        super().__init__(what)
        self.seconds = seconds


@dataclass(slots=True)
class _Guard:
    origin: Origin
    ends: float
    bytes: int
    patience: float


_guard: ContextVar[_Guard | None] = ContextVar("comity_upstream_guard", default=None)


@contextlib.contextmanager
def guarded(origin: Origin, *, seconds: float, size: int, patience: float) -> Iterator[None]:
    """Let the library ask `origin` inside the block: for at most `seconds`, and `size` bytes of answers."""
    http_module()
    token = _guard.set(_Guard(origin, time.monotonic() + seconds, size, patience))
    try:
        yield
    finally:
        _guard.reset(token)


@functools.cache
def http_module() -> Any:
    """The HTTP library that this huggingface-hub uses (httpx, or what followed it), after making sure that the hub
    library asks nobody behind our back. Raises Unavailable (NO-IMPORTER)."""
    try:
        hub = importlib.import_module("huggingface_hub")
        module = sys.modules[type(hub.get_session()).__module__.partition(".")[0]]
        hub.set_client_factory(lambda: _client(module))
    except (ImportError, AttributeError) as error:
        hint = "pip install 'huggingface-hub>=1'"
        raise Unavailable("this installation cannot import", why=str(error), hint=hint, code="NO-IMPORTER") from error
    return module


def retry_after(headers: Any) -> float | None:
    """Seconds that an answer asks to wait, by `Retry-After` or by the Hub's `RateLimit`; None where it does not say."""
    said = str(headers.get("retry-after", ""))
    if said.isascii() and said.isdigit() and len(said) < 7:
        return float(said)
    if said:
        from email.utils import parsedate_to_datetime

        with contextlib.suppress(ValueError, TypeError, OverflowError):
            return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    for part in str(headers.get("ratelimit", "")).split(";"):
        key, _, value = part.strip().partition("=")
        if key == "t" and value.isascii() and value.isdigit() and len(value) < 7:
            return float(value)
    return None


def _client(module: Any) -> Any:
    hooks = {"request": [_asked], "response": [_answered]}
    return module.Client(event_hooks=hooks, follow_redirects=True)


def _asked(request: Any) -> None:
    guard = _guard.get()
    if guard is None:
        raise Unavailable("nobody is asked here", why="the hub library made a request of its own")
    if Origin.of(str(request.url)) != guard.origin:
        raise _elsewhere(guard, str(request.url.host))
    left = guard.ends - time.monotonic()
    if left <= 0:
        raise _endless(guard, "it takes too long")
    request.headers["Accept-Encoding"] = "identity"
    request.extensions["timeout"] = dict.fromkeys(_TIMEOUTS, min(guard.patience, left))


def _answered(response: Any) -> None:
    guard = _guard.get()
    assert guard is not None, "no answer without a guarded question"
    if response.status_code in (408, 429) or response.status_code >= 500:
        raise Later(f"{guard.origin} answers {response.status_code}", retry_after(response.headers))
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Malformed("the upstream's answer is not usable", why="it is compressed unasked", code="UPSTREAM-ANSWER")
    base = http_module().SyncByteStream  # the kind of stream that the HTTP library insists on
    response.stream = type("BoundedStream", (_Bounded, base), {})(response.stream, guard)


class _Bounded:
    def __init__(self, stream: Any, guard: _Guard) -> None:
        self._stream = stream
        self._guard = guard

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            self._guard.bytes -= len(part)
            if self._guard.bytes < 0:
                raise _endless(self._guard, "it is larger than any repository needs")
            if time.monotonic() > self._guard.ends:
                raise _endless(self._guard, "it takes too long")
            yield part

    def close(self) -> None:
        self._stream.close()


def _endless(guard: _Guard, why: str) -> ComityError:
    return Malformed(f"the answer of {guard.origin} does not end", why=why, code="UPSTREAM-ANSWER")


def _elsewhere(guard: _Guard, host: str) -> ComityError:
    return Untrusted(
        f"{guard.origin} leads elsewhere",
        why=f"to {host[:200]!r}, for an answer that only the endpoint itself may give",
        hint="name the endpoint that you mean: --endpoint URL",
        code="UPSTREAM-REDIRECT",
    )
