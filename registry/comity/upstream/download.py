"""Downloads one file of a commit by ranges, resumes it, hashes it, and compares it with the listing.

(1) bytes that a killed process left are hashed again, and the download continues from there
(2) redirects are followed where `AllowedHosts` permits, and never with the token
(3) no byte beyond the listed size is written
(4) after a timeout or a broken connection the rest is requested again; `Retry-After` is obeyed
(5) the complete file is compared with the listed hash; a mismatch is removed, and after a resumption fetched once more

Observers see each byte that is on disk, and say which files a reader waits for.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from comity.content.durable import disk_errors
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.upstream import Upstream
from comity.upstream.guarded import (
    MAX_RETRY_AFTER,
    READ_TIMEOUT,
    AllowedHosts,
    Origin,
    RetryLater,
    http_module,
    retry_after,
    unreachable,
)
from comity.upstream.hub_api import gated
from comity.upstream.listed_files import (
    BlobHash,
    ListedFile,
    Observation,
    RepositoryListing,
    RevisionInfo,
    UpstreamRequest,
    compare,
)


class FileObserver(Protocol):
    """Observes one file. Called in the thread that fetches it."""

    def on_data(self, data: bytes) -> None:
        """The next bytes are in the file; the whole file is not verified yet."""
        ...

    def on_discard(self) -> None:
        """The bytes so far were discarded; the file is fetched again from the start, or failed."""
        ...


class ImportObserver(Protocol):
    """Observes the import of a commit. Called from several threads; must not block."""

    def on_listing(self, listing: RepositoryListing, paths: Sequence[Path]) -> None:
        """The listing, and the path of each file. Called once, before the first byte."""
        ...

    def awaited(self) -> Collection[int]:
        """Numbers of files that a reader waits for: begun before others. May include files begun or complete."""
        ...

    def file_observer(self, number: int) -> FileObserver:
        """The observer of one file."""
        ...

    def on_complete(self, number: int, observation: Observation) -> None:
        """A file is complete and matches the listing."""
        ...


class NoImportObserver:
    """An observer without readers."""

    def on_listing(self, listing: RepositoryListing, paths: Sequence[Path]) -> None:
        pass

    def awaited(self) -> Collection[int]:
        return ()

    def file_observer(self, number: int) -> FileObserver:
        return _NO_FILE

    def on_complete(self, number: int, observation: Observation) -> None:
        pass


class _NoFile:
    def on_data(self, data: bytes) -> None:
        pass

    def on_discard(self) -> None:
        pass


_NO_FILE = _NoFile()
NO_OBSERVER = NoImportObserver()


CHUNK: Final = 1024 * 1024
MAX_FAILURES: Final = 6
"""Consecutive failures without a new byte after which the download fails."""
FIRST_DELAY: Final = 1.0
MAX_DELAY: Final = 60.0
RATE_WINDOW: Final = 60.0
MIN_WINDOW_BYTES: Final = 16 * 1024
"""Fewer bytes than this in RATE_WINDOW seconds count as a timeout."""
MAX_REDIRECTS: Final = 5
REDIRECTS: Final = (301, 302, 303, 307, 308)


class UpstreamSource(Protocol):
    """An upstream of one kind: pins a revision, lists its files with the hashes that it gives, and says how to request
    each file, which `Downloads` reads from any offset. Blocking; every method raises as `HubApi` does."""

    @property
    def allowed_hosts(self) -> AllowedHosts:
        """The hosts that may serve files, with the token that may be sent to the endpoint."""
        ...

    def revision_info(self, wanted: UpstreamRequest) -> RevisionInfo:
        """What a revision resolves to now."""
        ...

    def listing(self, revision_info: RevisionInfo) -> RepositoryListing:
        """Every file of a commit, with names, sizes and counts checked."""
        ...

    def file_request(self, upstream: Upstream, listed: ListedFile) -> tuple[str, dict[str, str]]:
        """The URL of a file of a commit, and headers with conditions on the answer, or for its host alone. Not called
        for a file that was listed with its content."""
        ...


class ImportControl(Protocol):
    """Receives progress of the downloads and can cancel them."""

    def progress(self, path: str, count: int) -> None:
        """`count` more bytes of `path` are on disk; negative if some were discarded. Raises if the import was
        cancelled."""

    def wait(self, seconds: float, why: str) -> None:
        """Wait for `seconds`. Raises if the import was cancelled."""


@frozen
class Timeouts:
    """Timeouts in seconds: `read_timeout` without a byte, the longest accepted Retry-After, the first retry delay."""

    read_timeout: float = READ_TIMEOUT
    max_retry_after: float = 3600.0
    first_delay: float = FIRST_DELAY


class _PartialDownload:
    """A file in progress: its size so far, the running hashes, and its observer."""

    def __init__(self, path: Path, listed: ListedFile, observer: FileObserver) -> None:
        self.path = path
        self.size = listed.size
        self._plain = listed.lfs is None
        self._observer = observer
        self._begin()

    def _begin(self) -> None:
        self.received, self.sha256, self._blob = 0, hashlib.sha256(), BlobHash(self.size)

    def restart(self) -> None:
        self._begin()
        self._observer.on_discard()

    @property
    def blob(self) -> str:
        """The git blob id; empty for an LFS file, whose pointer is the blob."""
        return self._blob.hexdigest() if self._plain else ""

    def add(self, data: bytes) -> None:
        """Hash the next bytes, which are already in the file."""
        self.sha256.update(data)
        if self._plain:
            self._blob.update(data)
        self.received += len(data)
        self._observer.on_data(data)


class Downloads:
    """Fetches files of one commit. Thread-safe: several files may be fetched at once."""

    def __init__(
        self,
        source: UpstreamSource,
        upstream: Upstream,
        timeouts: Timeouts,
        control: ImportControl,
    ) -> None:
        self._source = source
        self._allowed_hosts = source.allowed_hosts
        self._upstream = upstream
        self._timeouts = timeouts
        self._control = control
        timeout = http_module().Timeout(timeouts.read_timeout)
        self._client = http_module().Client(follow_redirects=False, timeout=timeout)
        self.tls: set[Digest | None] = set()
        """SHA-256 of the endpoint's TLS public keys; None for a request without TLS."""

    def close(self) -> None:
        self._client.close()

    def fetch(self, listed: ListedFile, into: Path, observer: FileObserver) -> Observation:
        """Fetch the listed file to `into`, which may hold its first bytes.

        Raises Untrusted (UPSTREAM-LIED, UPSTREAM-REDIRECT), NotFound (UPSTREAM-NOT-FOUND), Refused (UPSTREAM-GATED,
        UPSTREAM-DENIED), Unavailable (UPSTREAM-UNREACHABLE, UPSTREAM-BUSY), OutOfSpace.
        """
        resumed = True
        while True:
            with disk_errors(f"{listed.path} was not written"):
                partial = self._begin(listed, into, observer)
                resumed = resumed and partial.received > 0
                self._complete(listed, partial)
            entry = FileEntry(listed.path, partial.received, Digest(partial.sha256.hexdigest()))
            observation = compare(listed, entry, partial.blob)
            if observation is not None:
                return observation
            into.unlink()
            observer.on_discard()
            self._control.progress(listed.path, -partial.received)
            if not resumed:
                here = f"sha256 {entry.sha256}" if listed.lfs else f"git blob {partial.blob}"
                raise self._contradiction(
                    listed, f"the bytes are {here}, and the listing says {listed.lfs or listed.blob}"
                )
            resumed = False

    def _begin(self, listed: ListedFile, into: Path, observer: FileObserver) -> _PartialDownload:
        """Step (1)."""
        partial = _PartialDownload(into, listed, observer)
        if into.exists() and into.stat().st_size <= listed.size:
            with into.open("rb") as file:
                while data := file.read(CHUNK):
                    partial.add(data)
                    self._control.progress(listed.path, len(data))
            return partial
        descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.close(descriptor)
        return partial

    def _complete(self, listed: ListedFile, partial: _PartialDownload) -> None:
        """Steps (2) to (4)."""
        if listed.content is not None:
            self._write_content(listed, listed.content, partial)
        failures = 0
        while partial.received < partial.size:
            before = partial.received
            try:
                self._range(listed, partial)
                failure: ComityError = Unavailable(
                    f"{self._allowed_hosts.origin} interrupted {listed.path}",
                    why=f"{partial.received} of {partial.size} bytes were received",
                    hint="try again; received bytes are kept",
                    code="UPSTREAM-BUSY",
                )
                pause = None
            except RetryLater as retry:
                pause = retry.seconds
                failure = Unavailable(
                    f"{self._allowed_hosts.origin} asks to retry later",
                    why=str(retry),
                    hint="try again then; received bytes are kept",
                    code="UPSTREAM-BUSY",
                )
            except http_module().TransportError as error:
                pause, failure = None, unreachable(self._allowed_hosts, error)
            except Unavailable as error:  # of the question where the file is
                if error.code != "UPSTREAM-UNREACHABLE":
                    raise
                pause, failure = None, error
            if partial.received == partial.size:
                return
            failures = 0 if partial.received > before else failures + 1
            if failures >= MAX_FAILURES or (pause or 0) > min(self._timeouts.max_retry_after, MAX_RETRY_AFTER):
                failure.retry_after = pause or 0.0
                raise failure
            delay = min(MAX_DELAY, self._timeouts.first_delay * 2**failures) if pause is None else pause
            self._control.wait(delay, failure.what)

    def _write_content(self, listed: ListedFile, content: bytes, partial: _PartialDownload) -> None:
        """Write the rest of a file that came with the listing."""
        with partial.path.open("r+b") as file:
            file.seek(partial.received)
            file.write(data := content[partial.received :])
        partial.add(data)
        self._control.progress(listed.path, len(data))

    def _range(self, listed: ListedFile, partial: _PartialDownload) -> None:
        """Request the missing bytes once."""
        with self._open_response(listed, partial.received) as response:
            self._require_range(listed, partial, response)
            with partial.path.open("r+b") as file:
                if response.status_code == 200 and partial.received:  # the server does not support ranges: start again
                    self._control.progress(listed.path, -partial.received)
                    file.truncate(0)
                    partial.restart()
                file.seek(partial.received)
                for data in self._read_chunks(listed, response):
                    if len(data) > partial.size - partial.received:
                        raise self._contradiction(listed, f"the answer is longer than the listed {partial.size} bytes")
                    file.write(data)
                    file.flush()
                    partial.add(data)
                    self._control.progress(listed.path, len(data))

    @contextmanager
    def _open_response(self, listed: ListedFile, offset: int) -> Iterator[Any]:
        """Step (2)."""
        url, conditions = self._source.file_request(self._upstream, listed)
        for _ in range(MAX_REDIRECTS):
            headers = self._allowed_hosts.headers(url) | conditions | ({"Range": f"bytes={offset}-"} if offset else {})
            with self._client.stream("GET", url, headers=headers) as response:
                self._note_tls(url, response)
                self._require_commit(listed, response)
                if response.status_code not in REDIRECTS:
                    yield response
                    return
                target = self._allowed_hosts.redirect(url, response.headers.get("location", ""))
                if Origin.of(target) != Origin.of(url):
                    conditions = {name: conditions[name] for name in conditions if name != "Authorization"}
                url = target
        why = f"more than {MAX_REDIRECTS} redirects"
        raise Untrusted(f"too many redirects for {listed.path}", why=why, code="UPSTREAM-REDIRECT")

    def _read_chunks(self, listed: ListedFile, response: Any) -> Iterator[bytes]:
        """The bytes of an answer. Raises RetryLater if fewer than MIN_WINDOW_BYTES arrive in RATE_WINDOW seconds."""
        window_start, received = time.monotonic(), 0
        for data in response.iter_raw():
            received += len(data)
            yield data
            if (now := time.monotonic()) - window_start > RATE_WINDOW:
                if received < MIN_WINDOW_BYTES:
                    raise RetryLater(f"{listed.path} arrives too slowly", None)
                window_start, received = now, 0

    def _require_range(self, listed: ListedFile, partial: _PartialDownload, response: Any) -> None:
        """Raise unless the answer has the bytes from `partial.received` on, or the whole file."""
        status, given = response.status_code, response.headers.get("content-range", "")
        if status in (408, 429) or status >= 500:
            raise RetryLater(f"{self._allowed_hosts.origin} answers {status}", retry_after(response.headers))
        if status in (401, 403):
            code = response.headers.get("x-error-code", "")
            if code == "GatedRepo":
                raise gated(self._upstream.repository, self._allowed_hosts.origin)
            why = f"{self._allowed_hosts.origin} answers {status}"
            raise Refused(
                f"access to {listed.path} is denied", why=why, hint="--token-file FILE", code="UPSTREAM-DENIED"
            )
        if status in (404, 410, 412):
            reason = "it was replaced" if status == 412 else "it was removed, or never existed"
            why = f"{self._allowed_hosts.origin} lists the file and answers {status}: {reason}"
            hint = "run the same command again to list the files again"
            raise NotFound(f"{listed.path} was not found", why=why, hint=hint, code="UPSTREAM-NOT-FOUND")
        if response.headers.get("content-encoding", "identity") != "identity":
            why = "the answer is compressed, which was not requested"
            raise Malformed(f"{listed.path} is not usable", why=why, code="UPSTREAM-ANSWER")
        if status == 206 and given == f"bytes {partial.received}-{partial.size - 1}/{partial.size}":
            return
        if status == 200:
            announced = response.headers.get("content-length", "")
            if announced and announced != str(partial.size):
                raise self._contradiction(listed, f"the listing says {partial.size} bytes, the answer {announced[:30]}")
            return
        if status in (206, 416):
            why = f"the listing says {partial.size} bytes, the answer to a range {status} ({given[:60]!r})"
            raise self._contradiction(listed, why)
        raise Malformed(f"{listed.path} is not usable", why=f"the upstream answers {status}", code="UPSTREAM-ANSWER")

    def _require_commit(self, listed: ListedFile, response: Any) -> None:
        commit = self._upstream.commit
        named = response.headers.get("x-repo-commit", commit)
        if response.status_code < 400 and named != commit:
            raise self._contradiction(listed, f"commit {commit} was requested, the answer is for {named[:60]!r}")

    def _note_tls(self, url: str, response: Any) -> None:
        if not url.startswith(self._allowed_hosts.endpoint):
            return
        stream = response.extensions.get("network_stream")
        shown = stream.get_extra_info("ssl_object") if stream is not None else None
        self.tls.add(_public_key(shown.getpeercert(True)) if shown is not None else None)

    def _contradiction(self, listed: ListedFile, why: str) -> Untrusted:
        return Untrusted(
            f"the upstream contradicts itself about {listed.path[:200]}",
            why=why,
            hint="the file was discarded; try again later or use another endpoint, and report this to its operator",
            code="UPSTREAM-LIED",
        )


def _public_key(certificate: bytes) -> Digest:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_der_x509_certificate(certificate).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Digest(hashlib.sha256(spki).hexdigest())
