"""Imports a whole commit into a folder, from an upstream or from a local folder.

From an upstream (`UpstreamSource`): the commit is pinned once and listed once, and several files are fetched at a time;
the import is complete and compared, or fails. Files are named by their number in the listing, so that no untrusted name
reaches this disk. A killed import is resumed by the next import of the same commit.

From a local folder: the layout tells the origin.

    …/models--org--name/snapshots/<commit>/…     a Hub client's cache: links to blobs named by the Hub's own hashes
    …/.cache/huggingface/download/….metadata     commit and hash that a Hub client writes beside files in a folder
    anything else                                the operator names the commit

Files are copied, not linked: the folder still belongs to its owner. A link is followed only where a cache's links lead.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import field, replace
from pathlib import Path
from typing import Final, TypeVar

from comity.content.durable import disk_errors
from comity.trust.artifact import MAX_FILES, RESERVED, FileEntry, Manifest, check_path
from comity.trust.encoding import Digest, bare_digest
from comity.trust.errors import Conflict, Malformed, NotFound, OutOfSpace, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.names import GIT, LISTED, MS, OCI, S3, UPSTREAM
from comity.trust.upstream import Upstream, check_repository, is_commit
from comity.upstream.download import (
    CHUNK,
    NO_OBSERVER,
    Downloads,
    ImportControl,
    ImportObserver,
    Timeouts,
    UpstreamSource,
)
from comity.upstream.git_repository import GitRepository
from comity.upstream.guarded import HUB_ENDPOINT, MAX_RETRY_AFTER, AllowedHosts, RetryLater
from comity.upstream.http_list import HttpList
from comity.upstream.hub_api import HubApi, gated
from comity.upstream.listed_files import (
    MAX_TOTAL,
    BlobHash,
    ListedFile,
    Observation,
    RepositoryListing,
    RevisionInfo,
    UpstreamRequest,
    compare,
)
from comity.upstream.model_scope import SCOPE_ENDPOINT, ModelScope
from comity.upstream.oci_image import OciImage
from comity.upstream.packed_layers import remove_unpacked, unpack_layers
from comity.upstream.s3_prefix import S3Prefix
from comity.verifier import hub_blob

FILES_AT_ONCE: Final = 4
AWAITED_AT_ONCE: Final = 24
"""Including files that readers wait for: a stock client requests eight at once, and does not retry after a refusal."""
POLL_INTERVAL: Final = 0.2
"""Seconds between two checks of the files that readers wait for."""
MAX_TRIES: Final = 5
MAX_WAIT_STEP: Final = 1.0
"""Longest single wait in seconds, so that cancellation is noticed."""

T = TypeVar("T")


@frozen
class MirrorOrder:
    """What to mirror, from which hosts, and the conditions: `terms` is the text that the operator accepted, `max_bytes`
    the largest size of the repository."""

    wanted: UpstreamRequest
    allowed_hosts: AllowedHosts
    terms: bytes = b""
    timeouts: Timeouts = field(default_factory=Timeouts)
    max_bytes: int = MAX_TOTAL


@frozen
class MirrorResult:
    """A complete commit: the observation and the path of each file, in the order of a manifest."""

    listing: RepositoryListing
    observations: tuple[Observation, ...]
    paths: tuple[Path, ...]
    tls: Digest | None


class _SharedControl(ImportControl):
    """The control of several downloads, which all stop when one has failed."""

    def __init__(self, control: ImportControl) -> None:
        self._control = control
        self._turn = threading.Lock()
        self._ended = threading.Event()

    def end(self) -> None:
        self._ended.set()

    def progress(self, path: str, count: int) -> None:
        if self._ended.is_set():
            raise CancelledError
        with self._turn:
            self._control.progress(path, count)

    def wait(self, seconds: float, why: str) -> None:
        while seconds > 0:
            self._control.wait(min(seconds, MAX_WAIT_STEP), why)
            if self._ended.is_set():
                raise CancelledError
            seconds -= MAX_WAIT_STEP


def source_of(order: MirrorOrder) -> UpstreamSource:
    """The upstream that an order names by its origin."""
    return _KINDS[order.wanted.origin](order.allowed_hosts, read_timeout=order.timeouts.read_timeout)


_KINDS: Final[dict[str, Callable[..., UpstreamSource]]] = {
    UPSTREAM: HubApi,
    LISTED: HttpList,
    S3: S3Prefix,
    OCI: OciImage,
    MS: ModelScope,
    GIT: GitRepository,
}


def default_endpoint(wanted: UpstreamRequest) -> str:
    """The endpoint of a request without one: the Hub, ModelScope, or the host that a name has."""
    known = {UPSTREAM: HUB_ENDPOINT, MS: SCOPE_ENDPOINT}
    return known.get(wanted.origin, f"https://{wanted.repository.partition('/')[0]}")


def fetch_revision(order: MirrorOrder, control: ImportControl) -> RevisionInfo:
    """Resolve the wanted revision. Raises as `HubApi` does."""
    api = source_of(order)
    return _with_retries(order, control, lambda: api.revision_info(order.wanted))


def pin_revision(order: MirrorOrder, control: ImportControl) -> RevisionInfo:
    """As `fetch_revision`, but raises Refused (UPSTREAM-GATED) if terms must be accepted first."""
    revision_info = fetch_revision(order, control)
    if revision_info.gated and not order.terms:
        raise gated(revision_info.upstream.name, order.allowed_hosts.origin)
    return revision_info


def list_repository(order: MirrorOrder, revision_info: RevisionInfo, control: ImportControl) -> RepositoryListing:
    """The listing of a commit. Raises as `HubApi` does."""
    api = source_of(order)
    return _with_retries(order, control, lambda: api.listing(revision_info))


def fetch_repository(
    order: MirrorOrder,
    listing: RepositoryListing,
    folder: Path,
    control: ImportControl,
    observer: ImportObserver = NO_OBSERVER,
    *,
    reserve_bytes: int = 0,
) -> MirrorResult:
    """Fetch every file of the listing into `folder`, and leave `reserve_bytes` of its disk free. Raises as
    `Downloads.fetch` does, and OutOfSpace."""
    upstream = listing.revision_info.upstream
    paths = tuple(folder / f"{number:06d}" for number in range(len(listing.files)))
    if listing.size > order.max_bytes:
        why = f"it has {listing.size} bytes, at most {order.max_bytes} are allowed"
        hint = f"the node's operator can import it: comity import {upstream.name}"
        raise OutOfSpace(f"{upstream.name} is too large", why=why, hint=hint, code="UPSTREAM-TOO-LARGE")
    remove_unpacked(folder)
    with disk_errors(f"{upstream.name} was not mirrored"):
        require_space(folder, listing, paths, reserve_bytes)
    observer.on_listing(listing, paths)
    shared_control = _SharedControl(control)
    downloads = Downloads(source_of(order), upstream, order.timeouts, shared_control)
    try:
        observations = _fetch_all(downloads, listing.files, paths, shared_control, observer)
    finally:
        downloads.close()
    shown = downloads.tls - {None}
    tls = next(iter(shown)) if len(shown) == 1 and None not in downloads.tls else None
    if any(listed.packing for listed in listing.files):
        space = shutil.disk_usage(folder).free - reserve_bytes
        observations, paths = unpack_layers(observations, paths, space, shared_control)
    return MirrorResult(listing, observations, paths, tls)


def _fetch_all(
    downloads: Downloads,
    files: Sequence[ListedFile],
    paths: Sequence[Path],
    shared_control: _SharedControl,
    observer: ImportObserver,
) -> tuple[Observation, ...]:
    """Fetch all files; the first failure ends the others."""
    queue = _FileQueue(files, observer)
    running: dict[Future[Observation], int] = {}
    found: dict[int, Observation] = {}
    with ThreadPoolExecutor(AWAITED_AT_ONCE, thread_name_prefix="import") as pool:
        try:
            while len(found) < len(files):
                for number in queue.take(len(running)):
                    given = files[number], paths[number], observer.file_observer(number)
                    running[pool.submit(downloads.fetch, *given)] = number
                for future in wait(running, POLL_INTERVAL, FIRST_COMPLETED).done:
                    number = running.pop(future)
                    found[number] = future.result()
                    observer.on_complete(number, found[number])
        except BaseException:
            shared_control.end()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return tuple(found[number] for number in range(len(files)))


class _FileQueue:
    """The order of files: those that readers wait for, then those outside LFS, whose SHA-256 is unknown before the
    download, then the largest."""

    def __init__(self, files: Sequence[ListedFile], observer: ImportObserver) -> None:
        order = sorted(range(len(files)), key=lambda n: (files[n].lfs is not None, -files[n].size))
        self._left = dict.fromkeys(order)
        self._observer = observer

    def take(self, running: int) -> Iterator[int]:
        """The numbers of files to begin now, while `running` others are in progress."""
        if not self._left:
            return
        awaited = [number for number in self._observer.awaited() if number in self._left]
        for number in awaited[: max(0, AWAITED_AT_ONCE - running)]:
            del self._left[number]
            running += 1
            yield number
        while self._left and running < FILES_AT_ONCE:
            number = next(iter(self._left))
            del self._left[number]
            running += 1
            yield number


def require_space(folder: Path, listing: RepositoryListing, paths: Sequence[Path], reserve_bytes: int) -> None:
    """Raises OutOfSpace if the disk of `folder` cannot hold the files that are not at `paths` yet, beside
    `reserve_bytes` that stay free. What is packed needs its size twice, at least."""
    here = sum(path.stat().st_size for path in paths if path.exists())
    unpacked = sum(file.size for file in listing.files if file.packing)
    missing, free = max(0, listing.size + unpacked - here), shutil.disk_usage(folder).free
    if free < missing + reserve_bytes:
        why = f"{missing} bytes are missing, {free} are free, and {reserve_bytes} of them stay free"
        hint = "free some space or lower reserve_bytes in [storage] of node.toml, and run the same command again"
        raise OutOfSpace(f"not enough disk space for {listing.revision_info.upstream.name}", why=why, hint=hint)


def _with_retries(order: MirrorOrder, control: ImportControl, ask: Callable[[], T]) -> T:
    """Call `ask`, and again after RetryLater or if the upstream was unreachable."""
    asked = 0.0
    for number in range(MAX_TRIES):
        try:
            return ask()
        except RetryLater as retry:
            asked = retry.seconds or 0.0
            pause = order.timeouts.first_delay * 2**number if retry.seconds is None else retry.seconds
            if pause > min(order.timeouts.max_retry_after, MAX_RETRY_AFTER):
                break
            control.wait(pause, str(retry))
        except Unavailable as error:
            if error.code != "UPSTREAM-UNREACHABLE" or number == MAX_TRIES - 1:
                raise
            control.wait(order.timeouts.first_delay * 2**number, error.what)
    hint = "try again later"
    busy = Unavailable(f"{order.allowed_hosts.origin} asks to retry later", hint=hint, code="UPSTREAM-BUSY")
    busy.retry_after = asked
    raise busy


METADATA: Final = ".cache/huggingface/download"
MAX_METADATA: Final = 1024
_HEX: Final = frozenset("0123456789abcdef")


@frozen
class LocalFolder:
    """A local folder and its listing. `how` is `cache` if the layout names commit and hashes, else `carried`."""

    how: str
    listing: RepositoryListing
    files: tuple[Path, ...]


def recognise_folder(folder: Path, named: UpstreamRequest | None) -> LocalFolder:
    """Determine the origin of a folder from its layout, else from the operator's `named`. Reads no file content.

    Raises NotFound, Malformed (BAD-PATH, NOT-A-FILE, WHICH-UPSTREAM), Conflict if layout and `named` disagree.
    """
    if named is not None and named.origin != UPSTREAM:
        why = "an import from a folder asks no upstream, and this name is computed from a list"
        hint = "import it from its endpoint, or publish the folder: comity publish --help"
        raise Malformed(f"a folder cannot be {named}", why=why, hint=hint, code="WHICH-UPSTREAM")
    with disk_errors(f"{folder} was not read"):
        if not folder.is_dir():
            why = "it must be on the node's machine, and the node must be able to read it"
            raise NotFound(f"folder {folder} was not found", why=why)
        snapshot = _snapshot(folder)
        found = dict(_files(snapshot or folder, in_cache=snapshot is not None))
    if not found:
        raise NotFound(f"{folder} has no files", why="there is nothing to import", code="EMPTY")
    if snapshot is not None:
        return _from_cache(snapshot, found, named)
    return _from_plain_folder(folder, found, named)


def copy_folder(local: LocalFolder, into: Path, control: ImportControl, *, reserve_bytes: int = 0) -> MirrorResult:
    """Copy and hash every file, and leave `reserve_bytes` of the disk free. Raises Untrusted (UPSTREAM-LIED) if a file
    does not match the hash in its cache, Conflict (CHANGED), OutOfSpace."""
    paths = tuple(into / f"{number:06d}" for number in range(len(local.files)))
    with disk_errors(f"{local.listing.revision_info.upstream.name} was not copied"):
        require_space(into, local.listing, (), reserve_bytes)
        observations = tuple(
            _copy_file(listed, source, path, control)
            for listed, source, path in zip(local.listing.files, local.files, paths, strict=True)
        )
    return MirrorResult(local.listing, observations, paths, None)


def _snapshot(folder: Path) -> Path | None:
    """The snapshot of a Hub cache: the folder itself, or the only snapshot in it; else None."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots" and is_commit(folder.name):
        return folder
    within = [path for path in folder.glob("snapshots/*") if is_commit(path.name)]
    return within[0] if len(within) == 1 else None


def _files(folder: Path, *, in_cache: bool) -> Iterator[tuple[str, Path]]:
    """Files by manifest path. In a cache they may be links to its blobs only."""
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
                yield check_path(path), _require_regular_file(path, hub_blob(found, folder) if in_blobs else found)


def _require_regular_file(path: str, real: Path | None) -> Path:
    if real is None:
        raise Malformed(f"{path} cannot be imported", why="it links outside the cache", code="NOT-A-FILE")
    if not stat.S_ISREG(real.lstat().st_mode):
        raise Malformed(f"{path} cannot be imported", why="it is a link or a special file", code="NOT-A-FILE")
    return real


def _from_cache(snapshot: Path, found: Mapping[str, Path], named: UpstreamRequest | None) -> LocalFolder:
    repository = check_repository(snapshot.parent.parent.name.removeprefix("models--").replace("--", "/", 1))
    commit = snapshot.name
    ref = next((ref for ref in _refs(snapshot.parent.parent, commit)), commit)
    _require_same(named, repository, commit)
    listed = {
        path: _listed_file(path, real, real.name if real.parent.name == "blobs" else "") for path, real in found.items()
    }
    return _local_folder("cache", Upstream("", repository, commit, ref), listed, found)


def _from_plain_folder(folder: Path, found: Mapping[str, Path], named: UpstreamRequest | None) -> LocalFolder:
    if named is None:
        raise Malformed(
            f"the origin of {folder} is unknown",
            why="it is not a Hub client's cache with repository and commit",
            hint="--from hf:org/name@COMMIT if you know the origin; else publish it: comity publish --help",
            code="WHICH-UPSTREAM",
        )
    notes = {path: note for path in found if (note := _metadata(folder / METADATA / f"{path}.metadata")) is not None}
    commits = {commit for commit, _ in notes.values()}
    if notes.keys() == found.keys() and len(commits) == 1:
        commit = commits.pop()
        if is_commit(named.revision):
            _require_same(named, named.repository, commit)
        listed = {path: _listed_file(path, real, notes[path][1]) for path, real in found.items()}
        return _local_folder("cache", Upstream("", named.repository, commit, named.revision), listed, found)
    if not is_commit(named.revision):
        why = f"{named.revision} may mean any commit, and no upstream is asked"
        raise Malformed(
            f"the commit of {named.repository} is unknown",
            why=why,
            hint="--from hf:org/name@COMMIT",
            code="WHICH-UPSTREAM",
        )
    listed = {path: _listed_file(path, real, "") for path, real in found.items()}
    return _local_folder("carried", Upstream("", named.repository, named.revision, named.revision), listed, found)


def _local_folder(
    how: str, upstream: Upstream, listed: Mapping[str, ListedFile], found: Mapping[str, Path]
) -> LocalFolder:
    manifest = Manifest.of(
        FileEntry(path, listed[path].size, Digest("0" * 64)) for path in found
    )  # checks for colliding names
    order = [entry.path for entry in manifest.files]
    listing = RepositoryListing(RevisionInfo(upstream, "", ""), tuple(listed[path] for path in order), {})
    return LocalFolder(how, listing, tuple(found[path] for path in order))


def _require_same(named: UpstreamRequest | None, repository: str, commit: str) -> None:
    if named is None or (named.repository == repository and named.revision in (commit, "main")):
        return
    why = f"the layout gives hf:{repository}@{commit}"
    raise Conflict(f"the folder is not {named}", why=why, hint="omit --from", code="WHICH-UPSTREAM")


def _refs(repository: Path, commit: str) -> Iterator[str]:
    """The branches and tags that point to a commit in a cache, `main` first."""
    folder = repository / "refs"
    refs = sorted((ref for ref in folder.rglob("*") if ref.is_file()), key=lambda ref: ref.name != "main")
    for ref in refs:
        if ref.stat().st_size <= 64 and ref.read_text("ascii", "replace").strip() == commit:
            yield ref.relative_to(folder).as_posix()


def _metadata(file: Path) -> tuple[str, str] | None:
    """Commit and hash that a Hub client recorded for a file: two lines, and a third with the time."""
    if not file.is_file() or file.stat().st_size > MAX_METADATA:
        return None
    lines = file.read_text("utf-8", "replace").splitlines()
    return (lines[0], lines[1]) if len(lines) >= 2 and is_commit(lines[0]) else None


def _listed_file(path: str, real: Path, name: str) -> ListedFile:
    """A file with its cache name as the listed hash: a SHA-256 (LFS) or a git blob id."""
    known = name if set(name) <= _HEX else ""
    lfs = bare_digest(known) if len(known) == 64 else None
    return ListedFile(path, real.stat().st_size, known if len(known) == 40 else "", lfs)


def _copy_file(listed: ListedFile, source: Path, path: Path, control: ImportControl) -> Observation:
    whole, blob, size = hashlib.sha256(), BlobHash(listed.size), 0
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file, path.open("wb") as target:
        while data := file.read(CHUNK):
            target.write(data)
            whole.update(data)
            blob.update(data)
            size += len(data)
            control.progress(listed.path, len(data))
    if size != listed.size:
        raise Conflict(f"{listed.path} changed while it was read", why="another process writes to it", code="CHANGED")
    entry = FileEntry(listed.path, size, Digest(whole.hexdigest()))
    observation = compare(listed, entry, blob.hexdigest())
    if observation is None:
        why = f"the cache names it {listed.lfs or listed.blob}, the bytes hash to {entry.sha256}"
        raise Untrusted(f"{listed.path} is damaged", why=why, hint="fetch it again", code="UPSTREAM-LIED")
    if listed.lfs is not None and not listed.blob:  # a cache has no pointers to compare
        observation = replace(observation, pointer=False)
    return observation
