"""Where a download may be led, and who gets to see the token: the endpoint's own origin, and hosts named beforehand.

A Hub answers a request for a large file by a redirect to wherever the bytes lie. Who controls that answer could send a
node into its own network; so a redirect is followed to the endpoint's origin and to hosts that the operator named,
never from HTTPS to HTTP, and never with the token.


HTTP as huggingface-hub does it, held to one endpoint and to bounds.

The library's API calls go through one HTTP client of the whole process. The one that is given to it here answers only
inside `guarded`: every request goes to the endpoint's own origin (so no page link and no redirect takes a token
elsewhere), in plain encoding, with patience for each read; every answer is bounded, in bytes and in time; and an answer
that says "later" is raised at once, because the library would sleep for as long as a stranger says.


What a Hub says of a repository: which commit a revision stands for now, which files it has, and on which conditions.

Asked through huggingface-hub's API, so that we understand its Hub exactly as its own clients do. Whatever comes back is
a stranger's word: it is parsed into checked values here, or refused with the reason.
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
from typing import Any, Final
from urllib.parse import quote, urljoin, urlsplit

import comity
from comity.trust.artifact import MAX_FILES, FileEntry, Manifest
from comity.trust.encoding import Digest, bare_digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.upstream import ListedFile, Upstream, UpstreamRequest, check_endpoint, check_repository, is_commit

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
class AllowedHosts:
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
    def to(cls, endpoint: str, hosts: Sequence[str] = (), token: str = "") -> AllowedHosts:
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


PATIENCE: Final = 20.0
"""Seconds without a byte after which an upstream has fallen silent."""
MAX_RETRY_AFTER: Final = 24 * 3600

_TIMEOUTS: Final = ("connect", "read", "write", "pool")


class RetryLater(Exception):
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
        raise RetryLater(f"{guard.origin} answers {response.status_code}", retry_after(response.headers))
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


MAX_TOTAL: Final = 64 * 1024**4
"""Bytes of one repository: four times the largest that is known."""
ANSWERS: Final = 128 * 1024 * 1024
"""Bytes of all pages of one listing: 100,000 files at a kilobyte each, and room."""
SECONDS: Final = 600.0
MAX_XET: Final = 128

_EMPTY: Final = sha256(b"")


@dataclass(frozen=True, slots=True)
class RevisionInfo:
    """What a revision stands for now. `licence` is what the card claims; `gated` is empty, `auto` or `manual`."""

    upstream: Upstream
    gated: str
    licence: str


@dataclass(frozen=True, slots=True)
class RepositoryListing:
    """A commit with its files, by path, and the git tree ids of its folders."""

    standing: RevisionInfo
    files: tuple[ListedFile, ...]
    folders: dict[str, str]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class HubApi:
    """Asks one endpoint. Blocking.

    Every method raises NotFound (UPSTREAM-NOT-FOUND), Refused (UPSTREAM-GATED, UPSTREAM-DENIED, UPSTREAM-PRIVATE),
    Malformed (UPSTREAM-ANSWER, BAD-PATH), Untrusted (UPSTREAM-REDIRECT), Unavailable (UPSTREAM-UNREACHABLE,
    NO-IMPORTER), and `Later`.
    """

    def __init__(self, reach: AllowedHosts, *, patience: float) -> None:
        self._reach = reach
        self._patience = patience

    def standing(self, wanted: UpstreamRequest) -> RevisionInfo:
        """Pin the commit that a revision stands for now."""
        with self._asking(f"{wanted}"):
            info = self._api().model_info(wanted.repository, revision=wanted.revision)
            return self._standing(wanted, info)

    def listing(self, standing: RevisionInfo) -> RepositoryListing:
        """Every file of a commit, checked: names, sizes, numbers."""
        upstream = standing.upstream
        with self._asking(upstream.name):
            found = self._api().list_repo_tree(upstream.repository, revision=upstream.commit, recursive=True)
            return _checked(standing, found)

    def _api(self) -> Any:
        http_module()
        from huggingface_hub import HfApi

        return HfApi(
            endpoint=self._reach.endpoint,
            token=self._reach.token or False,
            library_name="comity",
            library_version=comity.__version__,
        )

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        with guarded(self._reach.origin, seconds=SECONDS, size=ANSWERS, patience=self._patience):
            try:
                yield
            except Malformed as error:
                if error.hint:
                    raise
                raise _not_taken(error, self._reach) from error
            except (ComityError, RetryLater):
                raise
            except Exception as error:  # the library lets out whatever a stranger's answer made of it
                raise _meaning(error, what, self._reach) from error

    def _standing(self, wanted: UpstreamRequest, info: Any) -> RevisionInfo:
        repository = check_repository(_text(info.id, "id"))
        commit = _text(info.sha, "sha")
        if not is_commit(commit) or (is_commit(wanted.revision) and commit != wanted.revision):
            raise _unusable(f"it names {commit[:60]!r} as the commit of {wanted}")
        if info.private:
            hint = "publish what you may publish: comity publish --help"
            why = "anybody may read what is mirrored"
            raise Refused(f"{repository} is private", why=why, hint=hint, code="UPSTREAM-PRIVATE")
        gated = info.gated or ""
        if gated not in ("", "auto", "manual"):
            gated = "manual"
        licence = getattr(getattr(info, "card_data", None), "license", None)
        upstream = Upstream(self._reach.endpoint, repository, commit, wanted.revision)
        return RevisionInfo(
            upstream, gated, licence[:200] if isinstance(licence, str) and licence.isprintable() else ""
        )


def _checked(standing: RevisionInfo, found: Any) -> RepositoryListing:
    from huggingface_hub.hf_api import RepoFile, RepoFolder

    files: dict[str, ListedFile] = {}
    folders: dict[str, str] = {}
    for item in found:
        if isinstance(item, RepoFile):
            file = _file(item)
            if file.path in files:
                raise _unusable(f"it lists {file.path[:120]!r} twice")
            files[file.path] = file
        elif isinstance(item, RepoFolder):
            folders[_text(item.path, "path")] = _text(item.tree_id, "oid")
        if len(files) > MAX_FILES or len(folders) > MAX_FILES:
            raise _unusable(f"it lists more than {MAX_FILES} files")
    if not files:
        raise NotFound(
            f"{standing.upstream.name} has no files",
            why="there is nothing to mirror",
            hint="name another revision",
            code="EMPTY",
        )
    if sum(file.size for file in files.values()) > MAX_TOTAL:
        raise _unusable(f"its files have more than {MAX_TOTAL} bytes")
    # Every path is one that a manifest may hold, and no two of them meet on any file system.
    manifest = Manifest.of(FileEntry(file.path, file.size, _EMPTY) for file in files.values())
    return RepositoryListing(standing, tuple(files[entry.path] for entry in manifest.files), folders)


def _file(item: Any) -> ListedFile:
    path, size = _text(item.path, "path"), item.size
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_TOTAL:
        raise _unusable(f"{path[:120]!r} has no size that a file can have")
    blob, xet = _text(item.blob_id, "oid"), item.xet_hash or ""
    lfs: Digest | None = None
    if item.lfs is not None:
        lfs = bare_digest(item.lfs.sha256)
        if item.lfs.size != size:
            raise _unusable(f"it gives two sizes for {path[:120]!r}")
    if not is_commit(blob):
        blob = ""
    return ListedFile(path, size, blob, lfs, xet if _plain(xet) else "")


def _plain(text: object) -> bool:
    return isinstance(text, str) and len(text) <= MAX_XET and text.isascii() and text.isprintable()


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise _unusable(f"its {what!r} is no text")
    return value


def _unusable(why: str) -> Malformed:
    hint = "try again later; if it stays so, tell whoever runs the endpoint"
    return Malformed("the upstream's answer is not usable", why=why, hint=hint, code="UPSTREAM-ANSWER")


def _not_taken(error: Malformed, reach: AllowedHosts) -> Malformed:
    """What our own formats refuse, as the operator of an import needs to hear it."""
    what = f"{reach.origin} lists what cannot be taken in"
    hint = "nothing was fetched; another revision may do, and whoever keeps the repository can rename it"
    return Malformed(what, why=str(error), hint=hint, code=error.code)


def _meaning(error: Exception, what: str, reach: AllowedHosts) -> ComityError:
    """What the library's error is in our words."""
    from huggingface_hub import errors

    origin = reach.origin
    known: tuple[tuple[str, Callable[[], ComityError]], ...] = (
        ("GatedRepoError", lambda: gated(what, origin)),
        ("DisabledRepoError", lambda: _denied(what, "the upstream disabled it")),
        ("RevisionNotFoundError", lambda: _gone(what, f"{origin} has no such revision")),
        (
            "RepositoryNotFoundError",
            lambda: _gone(what, f"{origin} has no such repository, or shows it to nobody like us"),
        ),
        ("EntryNotFoundError", lambda: _gone(what, f"{origin} has no such file")),
    )
    for name, made in known:
        kind = getattr(errors, name, None)
        if kind is not None and isinstance(error, kind):
            return made()
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return _denied(what, f"{origin} answers {status}")
    if status == 404:
        return _gone(what, f"{origin} answers 404")
    if isinstance(error, http_module().TransportError):
        return unreachable(reach, error)
    return _unusable(f"{type(error).__name__}{f', status {status}' if status else ''}")


def gated(what: str, origin: object) -> Refused:
    return Refused(
        f"{what} is gated",
        why=f"{origin} gives it only to those who accepted its terms",
        hint="accept them there, then: --accept-terms FILE --token-file FILE",
        code="UPSTREAM-GATED",
    )


def unreachable(reach: AllowedHosts, error: Exception) -> Unavailable:
    why = "no answer in time" if "Timeout" in type(error).__name__ else type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        why = "its certificate is none that this machine trusts"
    hint = "try again; what is here already stays"
    return Unavailable(f"{reach.origin} was not reached", why=why, hint=hint, code="UPSTREAM-UNREACHABLE")


def _denied(what: str, why: str) -> Refused:
    return Refused(f"{what} is not given out", why=why, hint="--token-file FILE", code="UPSTREAM-DENIED")


def _gone(what: str, why: str) -> NotFound:
    hint = f"check the name; if it is mirrored already: comity import --recheck {what}"
    return NotFound(f"{what} is not there", why=why, hint=hint, code="UPSTREAM-NOT-FOUND")
