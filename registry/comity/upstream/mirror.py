"""A whole commit into a folder: pinned once, listed once, several files at once, each whole and compared, or nothing.

The folder is the importer's own. Files lie in it under numbers, in the order of the listing, so that no name of a
stranger ever touches this disk. What a killed import left is taken up by the next one of the same commit.


The files of a repository from a folder that came by other ways, with what its layout says about where it is from.

    …/models--org--name/snapshots/<commit>/…     a Hub client's cache: links to blobs named by the Hub's own hashes
    …/.cache/huggingface/download/….metadata     what a Hub client writes beside files in a folder: commit and hash
    anything else                                an operator says which commit it is

Files are copied, not linked: the folder stays its owner's. A link is followed only to where a cache's links go.


Bringing a repository of a Hub here, with everything that was checked on the way and nothing that was not.

    session    HTTP as huggingface-hub does it, held to one endpoint and to bounds
    listing    what a Hub lists for a commit, through huggingface-hub's own API
    reach      where a download may be led, and with which credentials
    download   one file: ranges, resumed after anything, hashed as it comes
    mirror     a whole commit into a folder
    folder     the same from a folder that came by other ways

Blocking, for threads. huggingface-hub's own download functions are not used: they hash nothing, know no bound, and do
not resume what another process began.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from comity.content.durable import disk_errors
from comity.trust.artifact import MAX_FILES, RESERVED, FileEntry, Manifest, check_path
from comity.trust.encoding import Digest, bare_digest
from comity.trust.errors import Conflict, Malformed, NotFound, OutOfSpace, Unavailable, Untrusted
from comity.trust.upstream import (
    BlobHash,
    ListedFile,
    Observation,
    Upstream,
    UpstreamRequest,
    check_repository,
    compare,
    is_commit,
)
from comity.upstream.download import CHUNK, NOBODY, Downloads, ImportObserver, Timeouts, Work
from comity.upstream.hub_api import (
    MAX_RETRY_AFTER,
    MAX_TOTAL,
    AllowedHosts,
    HubApi,
    RepositoryListing,
    RetryLater,
    RevisionInfo,
    gated,
)
from comity.verifier import hub_blob

FILES_AT_ONCE: Final = 4
AWAITED_AT_ONCE: Final = 24
"""Of files that somebody waits for: a stock client asks for eight of them at once, and takes a refusal for an end."""
LOOK: Final = 0.2
"""Seconds after which it is asked again which files are waited for."""
SPARE: Final = 256 * 1024 * 1024
"""Bytes of the disk that an import leaves free."""
TRIES: Final = 5
SLICE: Final = 1.0
"""Seconds of waiting in one go."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MirrorOrder:
    """What to mirror, from where, and on which conditions: `terms` is the text of those that the operator accepted,
    `most` the bytes that the repository may have."""

    wanted: UpstreamRequest
    reach: AllowedHosts
    terms: bytes = b""
    patience: Timeouts = field(default_factory=Timeouts)
    most: int = MAX_TOTAL


@dataclass(frozen=True, slots=True)
class MirrorResult:
    """A commit that is here whole: each file's observation and where its bytes lie, in the order of the listing."""

    listing: RepositoryListing
    observations: tuple[Observation, ...]
    paths: tuple[Path, ...]
    tls: Digest | None


class _Together(Work):
    """The work of several downloads, of which none goes on when one has failed."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._turn = threading.Lock()
        self._ended = threading.Event()

    def end(self) -> None:
        self._ended.set()

    def progress(self, path: str, count: int) -> None:
        if self._ended.is_set():
            raise CancelledError
        with self._turn:
            self._work.progress(path, count)

    def wait(self, seconds: float, why: str) -> None:
        while seconds > 0:
            self._work.wait(min(seconds, SLICE), why)
            if self._ended.is_set():
                raise CancelledError
            seconds -= SLICE


def revision_info(order: MirrorOrder, work: Work) -> RevisionInfo:
    """What is wanted, as it stands now. Raises as `HubApi` does."""
    api = HubApi(order.reach, patience=order.patience.silence)
    return _patiently(order, work, lambda: api.standing(order.wanted))


def pin_revision(order: MirrorOrder, work: Work) -> RevisionInfo:
    """The same, on conditions that are met: Refused (UPSTREAM-GATED) where terms would have to be accepted first."""
    standing = revision_info(order, work)
    if standing.gated and not order.terms:
        raise gated(standing.upstream.name, order.reach.origin)
    return standing


def list_repository(order: MirrorOrder, standing: RevisionInfo, work: Work) -> RepositoryListing:
    """Raises as `HubApi` does."""
    api = HubApi(order.reach, patience=order.patience.silence)
    return _patiently(order, work, lambda: api.listing(standing))


def fetch_repository(
    order: MirrorOrder, listing: RepositoryListing, folder: Path, work: Work, audience: ImportObserver = NOBODY
) -> MirrorResult:
    """Have every file of the listing in `folder`. Raises as `Downloads.fetch` does, and OutOfSpace."""
    upstream = listing.standing.upstream
    paths = tuple(folder / f"{number:06d}" for number in range(len(listing.files)))
    if listing.size > order.most:
        why = f"it has {listing.size} bytes, and at most {order.most} are taken in"
        hint = f"its operator can import it: comity import {upstream.name}"
        raise OutOfSpace(f"{upstream.name} is too large here", why=why, hint=hint, code="UPSTREAM-TOO-LARGE")
    with disk_errors(f"{upstream.name} was not mirrored"):
        require_room(folder, listing, paths)
    audience.expected(listing, paths)
    together = _Together(work)
    downloads = Downloads(order.reach, upstream.repository, upstream.commit, order.patience, together)
    try:
        observations = _all(downloads, listing.files, paths, together, audience)
    finally:
        downloads.close()
    shown = downloads.tls - {None}
    tls = next(iter(shown)) if len(shown) == 1 and None not in downloads.tls else None
    return MirrorResult(listing, observations, paths, tls)


def _all(
    downloads: Downloads,
    files: Sequence[ListedFile],
    paths: Sequence[Path],
    together: _Together,
    audience: ImportObserver,
) -> tuple[Observation, ...]:
    """The first failure ends all the others."""
    turns = _Turns(files, audience)
    running: dict[Future[Observation], int] = {}
    found: dict[int, Observation] = {}
    with ThreadPoolExecutor(AWAITED_AT_ONCE, thread_name_prefix="import") as pool:
        try:
            while len(found) < len(files):
                for number in turns.take(len(running)):
                    given = files[number], paths[number], audience.of(number)
                    running[pool.submit(downloads.fetch, *given)] = number
                for future in wait(running, LOOK, FIRST_COMPLETED).done:
                    number = running.pop(future)
                    found[number] = future.result()
                    audience.whole(number, found[number])
        except BaseException:
            together.end()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return tuple(found[number] for number in range(len(files)))


class _Turns:
    """Which files are begun next: those that are waited for, then those outside LFS, whose SHA-256 nobody knows before
    they are here, then the largest."""

    def __init__(self, files: Sequence[ListedFile], audience: ImportObserver) -> None:
        order = sorted(range(len(files)), key=lambda n: (files[n].lfs is not None, -files[n].size))
        self._left = dict.fromkeys(order)
        self._audience = audience

    def take(self, running: int) -> Iterator[int]:
        """The numbers of files to begin now, beside so many that are under way."""
        if not self._left:
            return
        awaited = [number for number in self._audience.awaited() if number in self._left]
        for number in awaited[: max(0, AWAITED_AT_ONCE - running)]:
            del self._left[number]
            running += 1
            yield number
        while self._left and running < FILES_AT_ONCE:
            number = next(iter(self._left))
            del self._left[number]
            running += 1
            yield number


def require_room(folder: Path, listing: RepositoryListing, paths: Sequence[Path]) -> None:
    """Raises OutOfSpace where the disk below `folder` has no room for what is not at `paths` yet."""
    here = sum(path.stat().st_size for path in paths if path.exists())
    missing, free = max(0, listing.size - here), shutil.disk_usage(folder).free
    if free < missing + SPARE:
        why = f"{missing} bytes to come, {free} free"
        hint = "free some space and run the same command again"
        raise OutOfSpace(f"no room for {listing.standing.upstream.name}", why=why, hint=hint)


def _patiently(order: MirrorOrder, work: Work, ask: Callable[[], T]) -> T:
    """Ask, and ask again where the upstream says when, or may be better off in a moment."""
    for number in range(TRIES):
        try:
            return ask()
        except RetryLater as later:
            pause = order.patience.pause * 2**number if later.seconds is None else later.seconds
            if pause > min(order.patience.later, MAX_RETRY_AFTER):
                break
            work.wait(pause, str(later))
        except Unavailable as error:
            if error.code != "UPSTREAM-UNREACHABLE" or number == TRIES - 1:
                raise
            work.wait(order.patience.pause * 2**number, error.what)
    hint = "try again later"
    raise Unavailable(f"{order.reach.origin} asks to come back later", hint=hint, code="UPSTREAM-BUSY")


METADATA: Final = ".cache/huggingface/download"
MAX_METADATA: Final = 1024
_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder and what is known of it. `how` is `cache` where its layout names commit and hashes, else `carried`."""

    how: str
    listing: RepositoryListing
    files: tuple[Path, ...]


def recognise_folder(folder: Path, named: UpstreamRequest | None) -> LocalFolder:
    """What the folder is, by its layout, and by what its operator says where that does not tell. Reads no file's bytes.

    Raises NotFound, Malformed (BAD-PATH, NOT-A-FILE, WHICH-UPSTREAM), Conflict where layout and operator disagree.
    """
    with disk_errors(f"{folder} was not read"):
        if not folder.is_dir():
            raise NotFound(f"no folder {folder}", why="on the node's own machine, where the node may read it")
        snapshot = _snapshot(folder)
        found = dict(_files(snapshot or folder, in_cache=snapshot is not None))
    if not found:
        raise NotFound(f"{folder} has no files", why="there is nothing to import", code="EMPTY")
    if snapshot is not None:
        return _of_cache(snapshot, found, named)
    return _of_folder(folder, found, named)


def take_folder(carried: LocalFolder, into: Path, work: Work) -> MirrorResult:
    """Copy every file, hashed on the way. Raises Untrusted (UPSTREAM-LIED) where a file is not what its cache says,
    Conflict (CHANGED), OutOfSpace."""
    paths = tuple(into / f"{number:06d}" for number in range(len(carried.files)))
    with disk_errors(f"{carried.listing.standing.upstream.name} was not copied"):
        require_room(into, carried.listing, ())
        observations = tuple(
            _copied(listed, source, path, work)
            for listed, source, path in zip(carried.listing.files, carried.files, paths, strict=True)
        )
    return MirrorResult(carried.listing, observations, paths, None)


def _snapshot(folder: Path) -> Path | None:
    """The snapshot of a Hub cache that the folder is, or holds alone."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots" and is_commit(folder.name):
        return folder
    within = [path for path in folder.glob("snapshots/*") if is_commit(path.name)]
    return within[0] if len(within) == 1 else None


def _files(folder: Path, *, in_cache: bool) -> Iterator[tuple[str, Path]]:
    """Files by manifest path. In a cache they may be links to its blobs, and to nothing else."""
    pending, count = [(folder, "")], 0
    while pending:
        here, prefix = pending.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if path not in RESERVED:
                        pending.append((Path(entry.path), f"{path}/"))
                    continue
                count += 1
                if count > MAX_FILES:
                    raise Malformed(
                        "too many files", why=f"at most {MAX_FILES} make an artifact", code="TOO-MANY-FILES"
                    )
                found = Path(entry.path)
                in_blobs = in_cache and entry.is_symlink()
                yield check_path(path), _real(path, hub_blob(found, folder) if in_blobs else found)


def _real(path: str, real: Path | None) -> Path:
    if real is None:
        raise Malformed(f"{path} is not taken in", why="it links out of the cache", code="NOT-A-FILE")
    if not stat.S_ISREG(real.lstat().st_mode):
        raise Malformed(f"{path} is not taken in", why="it is a link or a special file", code="NOT-A-FILE")
    return real


def _of_cache(snapshot: Path, found: Mapping[str, Path], named: UpstreamRequest | None) -> LocalFolder:
    repository = check_repository(snapshot.parent.parent.name.removeprefix("models--").replace("--", "/", 1))
    commit = snapshot.name
    ref = next((ref for ref in _refs(snapshot.parent.parent, commit)), commit)
    _require_same(named, repository, commit)
    listed = {
        path: _hashed(path, real, real.name if real.parent.name == "blobs" else "") for path, real in found.items()
    }
    return _carried("cache", Upstream("", repository, commit, ref), listed, found)


def _of_folder(folder: Path, found: Mapping[str, Path], named: UpstreamRequest | None) -> LocalFolder:
    if named is None:
        raise Malformed(
            f"{folder} does not say where it is from",
            why="it is no cache of a Hub client that names repository and commit",
            hint="--from hf:org/name@COMMIT if you know it; else publish it: comity publish --help",
            code="WHICH-UPSTREAM",
        )
    notes = {path: note for path in found if (note := _metadata(folder / METADATA / f"{path}.metadata")) is not None}
    commits = {commit for commit, _ in notes.values()}
    if notes.keys() == found.keys() and len(commits) == 1:
        commit = commits.pop()
        if is_commit(named.revision):
            _require_same(named, named.repository, commit)
        listed = {path: _hashed(path, real, notes[path][1]) for path, real in found.items()}
        return _carried("cache", Upstream("", named.repository, commit, named.revision), listed, found)
    if not is_commit(named.revision):
        why = f"{named.revision} may stand for any commit, and nobody is asked"
        raise Malformed(
            f"which commit of {named.repository}?", why=why, hint="--from hf:org/name@COMMIT", code="WHICH-UPSTREAM"
        )
    listed = {path: _hashed(path, real, "") for path, real in found.items()}
    return _carried("carried", Upstream("", named.repository, named.revision, named.revision), listed, found)


def _carried(how: str, upstream: Upstream, listed: Mapping[str, ListedFile], found: Mapping[str, Path]) -> LocalFolder:
    manifest = Manifest.of(FileEntry(path, listed[path].size, Digest("0" * 64)) for path in found)  # no names that meet
    order = [entry.path for entry in manifest.files]
    listing = RepositoryListing(RevisionInfo(upstream, "", ""), tuple(listed[path] for path in order), {})
    return LocalFolder(how, listing, tuple(found[path] for path in order))


def _require_same(named: UpstreamRequest | None, repository: str, commit: str) -> None:
    if named is None or (named.repository == repository and named.revision in (commit, "main")):
        return
    why = f"its layout says hf:{repository}@{commit}"
    raise Conflict(f"the folder is not {named}", why=why, hint="leave --from away", code="WHICH-UPSTREAM")


def _refs(repository: Path, commit: str) -> Iterator[str]:
    """The branches and tags that stand for a commit in a cache, `main` first."""
    folder = repository / "refs"
    refs = sorted((ref for ref in folder.rglob("*") if ref.is_file()), key=lambda ref: ref.name != "main")
    for ref in refs:
        if ref.stat().st_size <= 64 and ref.read_text("ascii", "replace").strip() == commit:
            yield ref.relative_to(folder).as_posix()


def _metadata(file: Path) -> tuple[str, str] | None:
    """Commit and hash that a Hub client wrote down for a file: two lines, and a third with the time."""
    if not file.is_file() or file.stat().st_size > MAX_METADATA:
        return None
    lines = file.read_text("utf-8", "replace").splitlines()
    return (lines[0], lines[1]) if len(lines) >= 2 and is_commit(lines[0]) else None


def _hashed(path: str, real: Path, name: str) -> ListedFile:
    """A file as a cache lists it: under its SHA-256, or under its git blob id."""
    known = name if set(name) <= _HEX else ""
    lfs = bare_digest(known) if len(known) == 64 else None
    return ListedFile(path, real.stat().st_size, known if len(known) == 40 else "", lfs)


def _copied(listed: ListedFile, source: Path, path: Path, work: Work) -> Observation:
    whole, blob, size = hashlib.sha256(), BlobHash(listed.size), 0
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file, path.open("wb") as target:
        while data := file.read(CHUNK):
            target.write(data)
            whole.update(data)
            blob.update(data)
            size += len(data)
            work.progress(listed.path, len(data))
    if size != listed.size:
        raise Conflict(f"{listed.path} changed while it was read", why="somebody writes to it", code="CHANGED")
    entry = FileEntry(listed.path, size, Digest(whole.hexdigest()))
    observation = compare(listed, entry, blob.hexdigest())
    if observation is None:
        why = f"the cache has it as {listed.lfs or listed.blob}, its bytes hash to {entry.sha256}"
        raise Untrusted(f"{listed.path} is damaged", why=why, hint="fetch it again", code="UPSTREAM-LIED")
    if listed.lfs is not None and not listed.blob:  # a cache names no pointers: there was nothing to compare
        observation = replace(observation, pointer=False)
    return observation
