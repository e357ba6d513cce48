"""What a Hub says of a repository: which commit a revision stands for now, which files it has, and on which conditions.

Asked through huggingface-hub's API, so that we understand its Hub exactly as its own clients do. Whatever comes back is
a stranger's word: it is parsed into checked values here, or refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import comity
from comity.trust.digest import Digest, bare_digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable
from comity.trust.manifest import MAX_FILES, FileEntry, Manifest
from comity.trust.upstream.comparing import Listed
from comity.trust.upstream.naming import Upstream, Wanted, check_repository, is_commit
from comity.upstream.reach import Reach
from comity.upstream.session import Later, guarded, http_module

MAX_TOTAL: Final = 64 * 1024**4
"""Bytes of one repository: four times the largest that is known."""
ANSWERS: Final = 128 * 1024 * 1024
"""Bytes of all pages of one listing: 100,000 files at a kilobyte each, and room."""
SECONDS: Final = 600.0
MAX_XET: Final = 128

_EMPTY: Final = sha256(b"")


@dataclass(frozen=True, slots=True)
class Standing:
    """What a revision stands for now. `licence` is what the card claims; `gated` is empty, `auto` or `manual`."""

    upstream: Upstream
    gated: str
    licence: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A commit with its files, by path, and the git tree ids of its folders."""

    standing: Standing
    files: tuple[Listed, ...]
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

    def __init__(self, reach: Reach, *, patience: float) -> None:
        self._reach = reach
        self._patience = patience

    def standing(self, wanted: Wanted) -> Standing:
        """Pin the commit that a revision stands for now."""
        with self._asking(f"{wanted}"):
            info = self._api().model_info(wanted.repository, revision=wanted.revision)
            return self._standing(wanted, info)

    def listing(self, standing: Standing) -> Listing:
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
            except (ComityError, Later):
                raise
            except Exception as error:  # the library lets out whatever a stranger's answer made of it
                raise _meaning(error, what, self._reach) from error

    def _standing(self, wanted: Wanted, info: Any) -> Standing:
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
        return Standing(upstream, gated, licence[:200] if isinstance(licence, str) and licence.isprintable() else "")


def _checked(standing: Standing, found: Any) -> Listing:
    from huggingface_hub.hf_api import RepoFile, RepoFolder

    files: dict[str, Listed] = {}
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
    return Listing(standing, tuple(files[entry.path] for entry in manifest.files), folders)


def _file(item: Any) -> Listed:
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
    return Listed(path, size, blob, lfs, xet if _plain(xet) else "")


def _plain(text: object) -> bool:
    return isinstance(text, str) and len(text) <= MAX_XET and text.isascii() and text.isprintable()


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise _unusable(f"its {what!r} is no text")
    return value


def _unusable(why: str) -> Malformed:
    hint = "try again later; if it stays so, tell whoever runs the endpoint"
    return Malformed("the upstream's answer is not usable", why=why, hint=hint, code="UPSTREAM-ANSWER")


def _not_taken(error: Malformed, reach: Reach) -> Malformed:
    """What our own formats refuse, as the operator of an import needs to hear it."""
    what = f"{reach.origin} lists what cannot be taken in"
    hint = "nothing was fetched; another revision may do, and whoever keeps the repository can rename it"
    return Malformed(what, why=str(error), hint=hint, code=error.code)


def _meaning(error: Exception, what: str, reach: Reach) -> ComityError:
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


def unreachable(reach: Reach, error: Exception) -> Unavailable:
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
