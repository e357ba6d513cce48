"""Reads a repository of ModelScope as an upstream, by the API that its own client uses.

    GET /api/v1/models/ORG/NAME/repo/files?Revision=REV&Recursive=True   paths, sizes and SHA-256
    GET /api/v1/models/ORG/NAME/repo?Revision=REV&FilePath=PATH          a file

The API names a revision by branch or tag, and lists no hash of a tree. So the commit is computed from the paths and
SHA-256, as that of a list at a web server, and a file is requested by the branch or tag: if it was replaced meanwhile,
its bytes do not have the listed SHA-256. Every file must have one. Source: modelscope, `hub/api.py`, 2026.
"""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote, urlencode

from comity.trust.artifact import MAX_FILES
from comity.trust.encoding import bare_digest
from comity.trust.errors import Malformed
from comity.trust.upstream import MODEL_SCOPE, Upstream, is_commit
from comity.upstream.guarded import AllowedHosts, Ask, guarded_requests, not_found, require_success, unusable
from comity.upstream.listed_files import (
    MAIN,
    MAX_TOTAL,
    ListedFile,
    RepositoryListing,
    RevisionInfo,
    UpstreamRequest,
    check_paths,
    list_commit,
)

SCOPE_ENDPOINT: Final = "https://www.modelscope.cn"
DEFAULT_BRANCH: Final = "master"


def parse_files(body: bytes) -> dict[str, ListedFile]:
    """The files of an answer to `repo/files`. Raises Malformed (UPSTREAM-ANSWER)."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise unusable("the list of files is not JSON") from error
    data = found.get("Data") if isinstance(found, dict) else None
    items = data.get("Files") if isinstance(data, dict) else None
    if not isinstance(items, list) or len(items) > 2 * MAX_FILES:
        raise unusable("the answer has no list of files, or too long a one")
    files: dict[str, ListedFile] = {}
    for item in items:
        if not isinstance(item, dict):
            raise unusable("a file is not an object")
        if item.get("Type") != "tree":
            file = _file(item)
            if file.path in files:
                raise unusable(f"it lists {file.path[:120]!r} twice")
            files[file.path] = file
    return files


def _file(item: dict[str, Any]) -> ListedFile:
    path, size, digest = item.get("Path"), item.get("Size"), item.get("Sha256")
    if not isinstance(path, str) or type(size) is not int or not 0 <= size <= MAX_TOTAL:
        raise unusable("a file has no path or no size")
    try:
        return ListedFile(path, size, "", bare_digest(digest))
    except Malformed as error:
        raise unusable(f"{path[:120]!r} has no SHA-256") from error


class ModelScope:
    """Reads repositories of one endpoint. Blocking; raises as `HubApi` does."""

    def __init__(self, allowed_hosts: AllowedHosts, *, read_timeout: float) -> None:
        self.allowed_hosts = allowed_hosts
        self._read_timeout = read_timeout

    def revision_info(self, wanted: UpstreamRequest) -> RevisionInfo:
        """The commit of the files that a branch or tag has now."""
        with guarded_requests(self.allowed_hosts, self._read_timeout) as ask:
            commit = _commit(self._files(ask, wanted.repository, wanted.revision))
        if is_commit(wanted.revision) and wanted.revision != commit:
            raise not_found(f"{wanted}", f"the branch {DEFAULT_BRANCH} has other files now, {commit}")
        upstream = Upstream(self.allowed_hosts.endpoint, wanted.repository, commit, wanted.revision, MODEL_SCOPE)
        return RevisionInfo(upstream, "", "")

    def listing(self, revision_info: RevisionInfo) -> RepositoryListing:
        """The pinned files. Raises NotFound if the branch or tag has others meanwhile."""
        upstream = revision_info.upstream
        with guarded_requests(self.allowed_hosts, self._read_timeout) as ask:
            files = self._files(ask, upstream.repository, upstream.requested)
            if _commit(files) != upstream.commit:
                raise not_found(upstream.name, "files were replaced while they were listed")
            return RepositoryListing.of(revision_info, files)

    def file_request(self, upstream: Upstream, listed: ListedFile) -> tuple[str, dict[str, str]]:
        """The URL of a file."""
        query = urlencode({"Revision": _branch(upstream.requested), "FilePath": listed.path}, quote_via=quote)
        return f"{self._base(upstream.repository)}?{query}", {}

    def _files(self, ask: Ask, repository: str, revision: str) -> dict[str, ListedFile]:
        query = urlencode({"Revision": _branch(revision), "Recursive": "True"}, quote_via=quote)
        what = f"ms:{repository}@{revision}"
        answer = ask("GET", f"{self._base(repository)}/files?{query}")
        if not require_success(answer, what, self.allowed_hosts.origin):
            raise not_found(what, f"{self.allowed_hosts.origin} has no such repository, branch or tag")
        files = parse_files(answer.content)
        check_paths(files)
        return files

    def _base(self, repository: str) -> str:
        return f"{self.allowed_hosts.endpoint}/api/v1/models/{quote(repository)}/repo"


def _branch(revision: str) -> str:
    """The branch or tag that the API is asked for; a commit of ours is looked for on its default branch."""
    return DEFAULT_BRANCH if revision == MAIN or is_commit(revision) else revision


def _commit(files: dict[str, ListedFile]) -> str:
    return list_commit({path: file.lfs or "" for path, file in files.items()})
