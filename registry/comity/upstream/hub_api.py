"""Asks a Hub about repositories: commit of a revision, files, and terms.

Calls use huggingface-hub's API, so that we read a Hub exactly as its own clients do, through the HTTP client of
`upstream.guarded`. All answers are untrusted: they are parsed into checked values or refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import comity
from comity.trust.artifact import MAX_FILES
from comity.trust.encoding import Digest, bare_digest
from comity.trust.errors import ComityError, Refused
from comity.trust.upstream import Upstream, check_repository, is_commit
from comity.upstream.guarded import (
    AllowedHosts,
    access_denied,
    guarded_call,
    http_module,
    not_found,
    unreachable,
    unusable,
)
from comity.upstream.listed_files import MAX_TOTAL, ListedFile, RepositoryListing, RevisionInfo, UpstreamRequest

MAX_XET: Final = 128


class HubApi:
    """Calls the API of one endpoint. Blocking.

    Every method raises NotFound (UPSTREAM-NOT-FOUND), Refused (UPSTREAM-GATED, UPSTREAM-DENIED, UPSTREAM-PRIVATE),
    Malformed (UPSTREAM-ANSWER, BAD-PATH), Untrusted (UPSTREAM-REDIRECT), Unavailable (UPSTREAM-UNREACHABLE,
    NO-IMPORTER), and `RetryLater`.
    """

    def __init__(self, allowed_hosts: AllowedHosts, *, read_timeout: float) -> None:
        self.allowed_hosts = allowed_hosts
        self._read_timeout = read_timeout

    def revision_info(self, wanted: UpstreamRequest) -> RevisionInfo:
        """Resolve a revision to its current commit."""
        with self._call_api(f"{wanted}"):
            info = self._api().model_info(wanted.repository, revision=wanted.revision)
            return self._parse_revision(wanted, info)

    def listing(self, revision_info: RevisionInfo) -> RepositoryListing:
        """Every file of a commit, with names, sizes and counts checked."""
        upstream = revision_info.upstream
        with self._call_api(upstream.name):
            found = self._api().list_repo_tree(upstream.repository, revision=upstream.commit, recursive=True)
            return _checked(revision_info, found)

    def file_request(self, upstream: Upstream, listed: ListedFile) -> tuple[str, dict[str, str]]:
        """The URL of a file. Source: hub protocol, `/{id}/resolve/{revision}/{path}`."""
        endpoint = self.allowed_hosts.endpoint
        return f"{endpoint}/{upstream.repository}/resolve/{upstream.commit}/{quote(listed.path)}", {}

    def _api(self) -> Any:
        http_module()
        from huggingface_hub import HfApi

        return HfApi(
            endpoint=self.allowed_hosts.endpoint,
            token=self.allowed_hosts.token or False,
            library_name="comity",
            library_version=comity.__version__,
        )

    def _call_api(self, what: str) -> AbstractContextManager[None]:
        translated = partial(_translate_error, what=what, allowed_hosts=self.allowed_hosts)
        return guarded_call(self.allowed_hosts, self._read_timeout, translated)

    def _parse_revision(self, wanted: UpstreamRequest, info: Any) -> RevisionInfo:
        repository = check_repository(_text(info.id, "id"))
        commit = _text(info.sha, "sha")
        if not is_commit(commit) or (is_commit(wanted.revision) and commit != wanted.revision):
            raise unusable(f"it gives {commit[:60]!r} as the commit of {wanted}")
        if info.private:
            hint = "publish the files that you may publish: comity publish --help"
            why = "mirrored files are public"
            raise Refused(f"{repository} is private", why=why, hint=hint, code="UPSTREAM-PRIVATE")
        gated = info.gated or ""
        if gated not in ("", "auto", "manual"):
            gated = "manual"
        licence = getattr(getattr(info, "card_data", None), "license", None)
        upstream = Upstream(self.allowed_hosts.endpoint, repository, commit, wanted.revision)
        return RevisionInfo(
            upstream, gated, licence[:200] if isinstance(licence, str) and licence.isprintable() else ""
        )


def _checked(revision_info: RevisionInfo, found: Any) -> RepositoryListing:
    from huggingface_hub.hf_api import RepoFile, RepoFolder

    files: dict[str, ListedFile] = {}
    folders: dict[str, str] = {}
    for item in found:
        if isinstance(item, RepoFile):
            file = _file(item)
            if file.path in files:
                raise unusable(f"it lists {file.path[:120]!r} twice")
            files[file.path] = file
        elif isinstance(item, RepoFolder):
            folders[_text(item.path, "path")] = _text(item.tree_id, "oid")
        if len(files) > MAX_FILES or len(folders) > MAX_FILES:
            raise unusable(f"it lists more than {MAX_FILES} files")
    return RepositoryListing.of(revision_info, files, folders)


def _file(item: Any) -> ListedFile:
    path, size = _text(item.path, "path"), item.size
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_TOTAL:
        raise unusable(f"{path[:120]!r} has an invalid size")
    blob, xet = _text(item.blob_id, "oid"), item.xet_hash or ""
    lfs: Digest | None = None
    if item.lfs is not None:
        lfs = bare_digest(item.lfs.sha256)
        if item.lfs.size != size:
            raise unusable(f"it gives two sizes for {path[:120]!r}")
    if not is_commit(blob):
        blob = ""
    return ListedFile(path, size, blob, lfs, xet if _plain(xet) else "")


def _plain(text: object) -> bool:
    return isinstance(text, str) and len(text) <= MAX_XET and text.isascii() and text.isprintable()


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise unusable(f"{what!r} is not a string")
    return value


def _translate_error(error: Exception, what: str, allowed_hosts: AllowedHosts) -> ComityError:
    """Translate an error of the library."""
    from huggingface_hub import errors

    origin = allowed_hosts.origin
    known: tuple[tuple[str, Callable[[], ComityError]], ...] = (
        ("GatedRepoError", lambda: gated(what, origin)),
        ("DisabledRepoError", lambda: access_denied(what, "the upstream disabled it")),
        ("RevisionNotFoundError", lambda: not_found(what, f"{origin} has no such revision")),
        (
            "RepositoryNotFoundError",
            lambda: not_found(what, f"{origin} has no such repository, or it is not visible to us"),
        ),
        ("EntryNotFoundError", lambda: not_found(what, f"{origin} has no such file")),
    )
    for name, made in known:
        kind = getattr(errors, name, None)
        if kind is not None and isinstance(error, kind):
            return made()
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return access_denied(what, f"{origin} answers {status}")
    if status == 404:
        return not_found(what, f"{origin} answers 404")
    if isinstance(error, http_module().TransportError):
        return unreachable(allowed_hosts, error)
    return unusable(f"{type(error).__name__}{f', status {status}' if status else ''}")


def gated(what: str, origin: object) -> Refused:
    return Refused(
        f"{what} is gated",
        why=f"{origin} requires acceptance of its terms",
        hint="accept the terms there, then: --accept-terms FILE --token-file FILE",
        code="UPSTREAM-GATED",
    )
