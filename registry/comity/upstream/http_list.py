"""Reads a list of files with their SHA-256 at a web server, as an upstream.

    ENDPOINT/NAME/.comity/manifest.json   the manifest of a folder that `comity pull` made: paths, sizes and SHA-256
    ENDPOINT/NAME/SHA256SUMS              else what `sha256sum` writes; the size of each file is asked for by HEAD

The files are beside the list, under their paths in it. A server has one list at a time and no branches. The commit of a
list is the first 40 hex digits of the SHA-256 of its paths and digests, so it names exactly these bytes wherever they
are served, and a list that was changed since has another commit. All answers come through `guarded`: from the endpoint
only, bounded in bytes and time.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote

from comity.trust.artifact import MAX_FILES, Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound
from comity.trust.upstream import HTTPS_LIST, Upstream, is_commit
from comity.upstream.guarded import AllowedHosts, Ask, guarded_requests, not_found, require_success, unusable
from comity.upstream.listed_files import (
    MAIN,
    ListedFile,
    RepositoryListing,
    RevisionInfo,
    UpstreamRequest,
    check_paths,
    list_commit,
    require_host,
)

MANIFEST: Final = ".comity/manifest.json"
CHECKSUMS: Final = "SHA256SUMS"
MAX_ASKED: Final = 10_000
"""Files of `SHA256SUMS` whose sizes are asked for, one by one; a longer list needs the manifest, which has sizes."""
_LINE: Final = re.compile(r"([0-9A-Fa-f]{64}) [ *](?:\./)?(.{1,1024})\Z")
_SIZE: Final = re.compile(r"[0-9]{1,15}\Z")


def parse_checksums(data: bytes) -> dict[str, Digest]:
    """The paths and SHA-256 in the output of `sha256sum`. Empty lines and lines that begin with `#` are ignored.

    Raises Malformed (UPSTREAM-ANSWER): a line of another form, such as one with an escaped name, a path twice, or more
    than `MAX_FILES` files.
    """
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise unusable(f"{CHECKSUMS} is not UTF-8") from error
    found: dict[str, Digest] = {}
    for number, line in enumerate((line.removesuffix("\r") for line in lines), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise unusable(f"line {number} of {CHECKSUMS} is not a SHA-256, two spaces and a path")
        if match[2] in found:
            raise unusable(f"{CHECKSUMS} lists {match[2][:120]!r} twice")
        found[match[2]] = Digest(match[1].lower())
        if len(found) > MAX_FILES:
            raise unusable(f"{CHECKSUMS} lists more than {MAX_FILES} files")
    return found


class HttpList:
    """Reads lists below one endpoint. Blocking; raises as `HubApi` does."""

    def __init__(self, allowed_hosts: AllowedHosts, *, read_timeout: float) -> None:
        self.allowed_hosts = allowed_hosts
        self._read_timeout = read_timeout

    def revision_info(self, wanted: UpstreamRequest) -> RevisionInfo:
        """The commit of the list that the server has now."""
        require_host(self.allowed_hosts.endpoint, wanted)
        with guarded_requests(self.allowed_hosts, self._read_timeout) as ask:
            commit = list_commit(_Reader(ask, self._base(wanted.repository), self.allowed_hosts).digests())
        if wanted.revision not in (MAIN, commit):
            kind = "commit" if is_commit(wanted.revision) else "branch or tag"
            raise not_found(f"{wanted}", f"{self.allowed_hosts.origin} has one list, {commit}, and no such {kind}")
        upstream = Upstream(self.allowed_hosts.endpoint, wanted.repository, commit, wanted.revision, HTTPS_LIST)
        return RevisionInfo(upstream, "", "")

    def listing(self, revision_info: RevisionInfo) -> RepositoryListing:
        """The files of the pinned list. Raises NotFound if the server has another one meanwhile."""
        upstream = revision_info.upstream
        with guarded_requests(self.allowed_hosts, self._read_timeout) as ask:
            reader = _Reader(ask, self._base(upstream.repository), self.allowed_hosts)
            digests = reader.digests()
            if list_commit(digests) != upstream.commit:
                raise not_found(upstream.name, "the list was replaced while it was read")
            files = {path: ListedFile(path, reader.size(path), "", digest) for path, digest in digests.items()}
            return RepositoryListing.of(revision_info, files)

    def file_request(self, upstream: Upstream, listed: ListedFile) -> tuple[str, dict[str, str]]:
        """The URL of a file."""
        return self._base(upstream.repository) + quote(listed.path), {}

    def _base(self, repository: str) -> str:
        return f"{self.allowed_hosts.endpoint}/{quote(repository.partition('/')[2])}/"


class _Reader:
    """Reads one list, and what it does not say about its files."""

    def __init__(self, ask: Ask, base: str, allowed_hosts: AllowedHosts) -> None:
        self._ask = ask
        self._base = base
        self._origin = allowed_hosts.origin
        self._sizes: dict[str, int] = {}

    def digests(self) -> dict[str, Digest]:
        """The paths and SHA-256 of the list. Raises NotFound (UPSTREAM-NOT-FOUND, EMPTY), Malformed."""
        answer = self._answer("GET", MANIFEST)
        if answer is not None:
            manifest = Manifest.parse(answer.content)
            self._sizes = {entry.path: entry.size for entry in manifest.files}
            return {entry.path: entry.sha256 for entry in manifest.files}
        answer = self._answer("GET", CHECKSUMS)
        if answer is None:
            raise not_found(self._base, f"{self._origin} has neither {MANIFEST} nor {CHECKSUMS} there")
        if not (found := parse_checksums(answer.content)):
            raise NotFound(f"{self._base}{CHECKSUMS} lists no files", why="there is nothing to mirror", code="EMPTY")
        if len(found) > MAX_ASKED:
            raise Malformed(
                f"{self._origin} lists more than {MAX_ASKED} files without their sizes",
                why=f"{CHECKSUMS} has no sizes, and each of them is one request",
                hint=f"ask its owner to put {MANIFEST} beside it",
                code="TOO-MANY-FILES",
            )
        check_paths(found)  # before any of them is requested
        return found

    def size(self, path: str) -> int:
        """The size of a listed file: from the manifest, else as the server says."""
        if path in self._sizes:
            return self._sizes[path]
        answer = self._answer("HEAD", path)
        if answer is None:
            raise not_found(f"{self._base}{quote(path)}", f"{self._origin} lists the file and has it not")
        given = str(answer.headers.get("content-length", ""))
        if not _SIZE.match(given):
            raise unusable(f"it does not say how large {path[:120]!r} is")
        return int(given)

    def _answer(self, method: str, path: str) -> Any:
        """The answer; None if the server has no such file."""
        answer = self._ask(method, self._base + quote(path))
        return answer if require_success(answer, self._base + path, self._origin) else None
