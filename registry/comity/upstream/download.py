"""Who reads a commit while it comes: told of each byte that is on the disk, asked which files are waited for.

One file of a commit: fetched by ranges, resumed after anything, hashed as it comes, and held against what is listed.

(1) what a killed process left is hashed again, and the download goes on from there
(2) redirects are followed where `Reach` allows, and never with the token
(3) not one byte more than the listed size is written
(4) an upstream that falls silent or breaks off is asked again for the rest; one that says when to come back is obeyed
(5) the whole is compared with the listed hash; what differs is removed, and after a resumption fetched once more
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from comity.content.durable import disk_errors
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.upstream import BlobHash, ListedFile, Observation, compare
from comity.upstream.hub_api import (
    MAX_RETRY_AFTER,
    PATIENCE,
    AllowedHosts,
    RepositoryListing,
    RetryLater,
    gated,
    http_module,
    retry_after,
    unreachable,
)


class FileObserver(Protocol):
    """Whoever reads one file. Called in the thread that fetches it."""

    def came(self, data: bytes) -> None:
        """The next bytes are in the file; nothing is known of the whole yet."""
        ...

    def lost(self) -> None:
        """What came is thrown away: the file begins anew, or never will."""
        ...


class ImportObserver(Protocol):
    """Whoever reads a commit. Called in threads; must not block."""

    def expected(self, listing: RepositoryListing, paths: Sequence[Path]) -> None:
        """What is about to come, and where each file will lie. Called once, before the first byte."""
        ...

    def awaited(self) -> Collection[int]:
        """Numbers of files that somebody waits for: begun before others. May name some that are under way, or here."""
        ...

    def of(self, number: int) -> FileObserver: ...

    def whole(self, number: int, observation: Observation) -> None:
        """A file is here, and is the one that is listed."""
        ...


class NoImportObserver:
    """No one reads before all of it is here."""

    def expected(self, listing: RepositoryListing, paths: Sequence[Path]) -> None:
        pass

    def awaited(self) -> Collection[int]:
        return ()

    def of(self, number: int) -> FileObserver:
        return _NO_FILE

    def whole(self, number: int, observation: Observation) -> None:
        pass


class _NoFile:
    def came(self, data: bytes) -> None:
        pass

    def lost(self) -> None:
        pass


_NO_FILE = _NoFile()
NOBODY = NoImportObserver()


CHUNK: Final = 1024 * 1024
TRIES: Final = 6
"""Failures in a row without one new byte after which a file is given up for now."""
PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
LEAST_WINDOW: Final = 60.0
LEAST_BYTES: Final = 16 * 1024
"""Fewer bytes than this in a window of so many seconds is silence, drop by drop."""
MAX_REDIRECTS: Final = 5
REDIRECTS: Final = (301, 302, 303, 307, 308)


class Work(Protocol):
    """Whoever waits for the downloads."""

    def progress(self, path: str, count: int) -> None:
        """`count` more bytes of `path` are here; negative where some had to be thrown away. Raises where the work was
        given up."""

    def wait(self, seconds: float, why: str) -> None:
        """Return after that time. Raises where the work was given up."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait: for a byte, and for an upstream that says when to come back."""

    silence: float = PATIENCE
    later: float = 3600.0
    pause: float = PAUSE


class _Partial:
    """A file under way: its bytes so far, their hashes, and who reads them."""

    def __init__(self, path: Path, listed: ListedFile, audience: FileObserver) -> None:
        self.path = path
        self.size = listed.size
        self._plain = listed.lfs is None
        self._audience = audience
        self._begin()

    def _begin(self) -> None:
        self.had, self.sha256, self._blob = 0, hashlib.sha256(), BlobHash(self.size)

    def forget(self) -> None:
        self._begin()
        self._audience.lost()

    @property
    def blob(self) -> str:
        """The git blob id; empty for a file in LFS, of which only the pointer is a blob."""
        return self._blob.hexdigest() if self._plain else ""

    def add(self, data: bytes) -> None:
        """The next bytes, which are in the file."""
        self.sha256.update(data)
        if self._plain:
            self._blob.update(data)
        self.had += len(data)
        self._audience.came(data)


class Downloads:
    """Fetches files of one commit. Thread-safe: several files may come at once."""

    def __init__(self, reach: AllowedHosts, repository: str, commit: str, patience: Timeouts, work: Work) -> None:
        self._reach = reach
        self._repository = repository
        self._commit = commit
        self._patience = patience
        self._work = work
        timeouts = http_module().Timeout(patience.silence)
        self._client = http_module().Client(follow_redirects=False, timeout=timeouts)
        self.tls: set[Digest | None] = set()
        """SHA-256 of the public keys that the endpoint showed; None for a request without TLS."""

    def close(self) -> None:
        self._client.close()

    def fetch(self, listed: ListedFile, into: Path, audience: FileObserver) -> Observation:
        """Have the listed bytes at `into`, which may hold their beginning.

        Raises Untrusted (UPSTREAM-LIED, UPSTREAM-REDIRECT), NotFound (UPSTREAM-NOT-FOUND), Refused (UPSTREAM-GATED,
        UPSTREAM-DENIED), Unavailable (UPSTREAM-UNREACHABLE, UPSTREAM-BUSY), OutOfSpace.
        """
        resumed = True
        while True:
            with disk_errors(f"{listed.path} was not written"):
                partial = self._begin(listed, into, audience)
                resumed = resumed and partial.had > 0
                self._complete(listed, partial)
            entry = FileEntry(listed.path, partial.had, Digest(partial.sha256.hexdigest()))
            observation = compare(listed, entry, partial.blob)
            if observation is not None:
                return observation
            into.unlink()
            audience.lost()
            self._work.progress(listed.path, -partial.had)
            if not resumed:
                here = f"sha256 {entry.sha256}" if listed.lfs else f"git blob {partial.blob}"
                raise self._lie(listed, f"its bytes are {here}, and it lists {listed.lfs or listed.blob}")
            resumed = False

    def _begin(self, listed: ListedFile, into: Path, audience: FileObserver) -> _Partial:
        """Step (1)."""
        partial = _Partial(into, listed, audience)
        if into.exists() and into.stat().st_size <= listed.size:
            with into.open("rb") as file:
                while data := file.read(CHUNK):
                    partial.add(data)
                    self._work.progress(listed.path, len(data))
            return partial
        descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.close(descriptor)
        return partial

    def _complete(self, listed: ListedFile, partial: _Partial) -> None:
        """Steps (2) to (4)."""
        failures = 0
        while partial.had < partial.size:
            before = partial.had
            try:
                self._range(listed, partial)
                failure: ComityError = Unavailable(
                    f"{self._reach.origin} breaks {listed.path} off",
                    why=f"{partial.had} of {partial.size} bytes came",
                    hint="try again; what is here already stays",
                    code="UPSTREAM-BUSY",
                )
                pause = None
            except RetryLater as later:
                pause = later.seconds
                failure = Unavailable(
                    f"{self._reach.origin} asks to come back later",
                    why=str(later),
                    hint="try again then; what is here already stays",
                    code="UPSTREAM-BUSY",
                )
            except http_module().TransportError as error:
                pause, failure = None, unreachable(self._reach, error)
            if partial.had == partial.size:
                return
            failures = 0 if partial.had > before else failures + 1
            if failures >= TRIES or (pause or 0) > min(self._patience.later, MAX_RETRY_AFTER):
                raise failure
            rest = min(LONGEST_PAUSE, self._patience.pause * 2**failures) if pause is None else pause
            self._work.wait(rest, failure.what)

    def _range(self, listed: ListedFile, partial: _Partial) -> None:
        """One request for what is missing."""
        with self._answer(listed, partial.had) as answer:
            self._require_range(listed, partial, answer)
            with partial.path.open("r+b") as file:
                if answer.status_code == 200 and partial.had:  # it cannot resume: from the beginning then
                    self._work.progress(listed.path, -partial.had)
                    file.truncate(0)
                    partial.forget()
                file.seek(partial.had)
                for data in self._flowing(listed, answer):
                    if len(data) > partial.size - partial.had:
                        raise self._lie(listed, f"it sends more than the {partial.size} bytes that it lists")
                    file.write(data)
                    file.flush()
                    partial.add(data)
                    self._work.progress(listed.path, len(data))

    @contextmanager
    def _answer(self, listed: ListedFile, offset: int) -> Iterator[Any]:
        """Step (2)."""
        url = self._reach.file(self._repository, self._commit, listed.path)
        for _ in range(MAX_REDIRECTS):
            headers = self._reach.headers(url) | ({"Range": f"bytes={offset}-"} if offset else {})
            with self._client.stream("GET", url, headers=headers) as answer:
                self._note_tls(url, answer)
                self._require_commit(listed, answer)
                if answer.status_code not in REDIRECTS:
                    yield answer
                    return
                url = self._reach.redirect(url, answer.headers.get("location", ""))
        why = f"more than {MAX_REDIRECTS} redirects, one after the other"
        raise Untrusted(f"{listed.path} is led around", why=why, code="UPSTREAM-REDIRECT")

    def _flowing(self, listed: ListedFile, answer: Any) -> Iterator[bytes]:
        """The bytes of an answer, for as long as they come at some speed."""
        begun, came = time.monotonic(), 0
        for data in answer.iter_raw():
            came += len(data)
            yield data
            if (now := time.monotonic()) - begun > LEAST_WINDOW:
                if came < LEAST_BYTES:
                    raise RetryLater(f"{listed.path} comes drop by drop", None)
                begun, came = now, 0

    def _require_range(self, listed: ListedFile, partial: _Partial, answer: Any) -> None:
        """Raises for anything but the bytes from `partial.had` on, or all of them."""
        status, given = answer.status_code, answer.headers.get("content-range", "")
        if status in (408, 429) or status >= 500:
            raise RetryLater(f"{self._reach.origin} answers {status}", retry_after(answer.headers))
        if status in (401, 403):
            code = answer.headers.get("x-error-code", "")
            if code == "GatedRepo":
                raise gated(self._repository, self._reach.origin)
            why = f"{self._reach.origin} answers {status}"
            raise Refused(f"{listed.path} is not given out", why=why, hint="--token-file FILE", code="UPSTREAM-DENIED")
        if status in (404, 410):
            why = f"{self._reach.origin} lists it, and answers {status}: it went away meanwhile, or never was there"
            hint = "list it again: run the same command once more"
            raise NotFound(f"{listed.path} is not there", why=why, hint=hint, code="UPSTREAM-NOT-FOUND")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise Malformed(f"{listed.path} is not usable", why="it came compressed unasked", code="UPSTREAM-ANSWER")
        if status == 206 and given == f"bytes {partial.had}-{partial.size - 1}/{partial.size}":
            return
        if status == 200:
            announced = answer.headers.get("content-length", "")
            if announced and announced != str(partial.size):
                raise self._lie(listed, f"it lists {partial.size} bytes and sends {announced[:30]}")
            return
        if status in (206, 416):
            raise self._lie(listed, f"it lists {partial.size} bytes, and answers {status} ({given[:60]!r}) for a range")
        raise Malformed(f"{listed.path} is not usable", why=f"the upstream answers {status}", code="UPSTREAM-ANSWER")

    def _require_commit(self, listed: ListedFile, answer: Any) -> None:
        named = answer.headers.get("x-repo-commit", self._commit)
        if answer.status_code < 400 and named != self._commit:
            raise self._lie(listed, f"it was asked for commit {self._commit}, and answers for {named[:60]!r}")

    def _note_tls(self, url: str, answer: Any) -> None:
        if not url.startswith(self._reach.endpoint):
            return
        stream = answer.extensions.get("network_stream")
        shown = stream.get_extra_info("ssl_object") if stream is not None else None
        self.tls.add(_public_key(shown.getpeercert(True)) if shown is not None else None)

    def _lie(self, listed: ListedFile, why: str) -> Untrusted:
        return Untrusted(
            f"the upstream contradicts itself about {listed.path[:200]}",
            why=why,
            hint="nothing of it is kept; try again later or another endpoint, and tell whoever runs this one",
            code="UPSTREAM-LIED",
        )


def _public_key(certificate: bytes) -> Digest:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_der_x509_certificate(certificate).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Digest(hashlib.sha256(spki).hexdigest())
