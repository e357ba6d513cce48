"""Statements about upstream repositories, and their names.

    hf:org/name@6c12… (40)     a commit of the Hugging Face Hub, whose bytes never change
    https:host/name@6c12…      a list of files with their SHA-256 at a web server; the commit is computed from the list
    s3:host/name@6c12…         objects below a prefix of an S3 bucket; the commit is computed from their list
    oci:host/name@6c12…        an image in an OCI registry; the commit begins the SHA-256 of its manifest
    ms:org/name@6c12…          a repository of ModelScope; the commit is computed from its list of files
    git:host/name@6c12…        a commit of a git repository, whose trees were hashed

The host in the names of `https:`, `s3:`, `oci:` and `git:` is the endpoint's, so that no observation claims a name
of another host.

With `observed`, a node states that it got these bytes from an upstream. It does not state that the named author made
them; only a publisher can do that. The statement counts the files that match the upstream's hashes (file by file in a
side object, `comity.upstream.listed_files`), and lists what was not checked. `obtained` is one of:

    "fetched"   this node requested the bytes from the upstream
    "cache"     from the disk cache of a Hub client, whose layout names repository, commit and hashes
    "carried"   from a folder; its operator states the origin

`upstream-changed` and `upstream-gone` report later changes; they do not revoke what was mirrored. Source: protocol,
section 5.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, TypeAlias

from comity.trust.artifact import MAX_FILES
from comity.trust.codec import JsonItems, JsonNumber, JsonObject, JsonPath, JsonRead, JsonText, JsonWord
from comity.trust.content import ById, Content, SubjectDigest
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.names import GIT, LISTED, MS, OCI, S3, UPSTREAM, check_segment
from comity.trust.statement import SideObject, Statement, Subject
from comity.trust.statement_kinds import OBSERVED, UPSTREAM_CHANGED, UPSTREAM_GONE

HUB: Final = "huggingface-hub"
HTTPS_LIST: Final = "https-list"
S3_PREFIX: Final = "s3-prefix"
OCI_IMAGE: Final = "oci-image"
MODEL_SCOPE: Final = "modelscope"
GIT_REPOSITORY: Final = "git-repository"
KINDS: Final = {
    HUB: UPSTREAM,
    HTTPS_LIST: LISTED,
    S3_PREFIX: S3,
    OCI_IMAGE: OCI,
    MODEL_SCOPE: MS,
    GIT_REPOSITORY: GIT,
}
"""The kinds of upstreams, and the origin in the names of each."""
MAX_ENDPOINT: Final = 300

_ENDPOINT: Final = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(?:/[A-Za-z0-9._~%+-]+)*\Z")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}\Z")
_REVISION: Final = re.compile(r"[!-~]{1,255}\Z")


def check_commit(text: str) -> str:
    """Return `text` if it is a git commit id: 40 lower-case hex digits. Raises Malformed."""
    if not _COMMIT.match(text):
        raise Malformed("not a commit id", why=f"expected 40 lower-case hex digits, got {text[:60]!r}")
    return text


def is_commit(text: str) -> bool:
    return _COMMIT.match(text) is not None


def check_revision(text: str) -> str:
    """Return `text` if it can name a branch, a tag or a commit. Raises Malformed (BAD-NAME)."""
    if not _REVISION.match(text) or ".." in text or text.startswith(("/", "-")) or text.endswith("/"):
        raise Malformed(
            f"{text[:80]!r} is not a revision", why="expected a branch, a tag or 40 hex digits", code="BAD-NAME"
        )
    return text


def check_repository(text: str) -> str:
    """Return `text` if it is `org/name` by the Hub's rules. Raises Malformed (BAD-NAME)."""
    parts = text.split("/")
    if len(parts) != 2:
        raise Malformed(f"{text[:200]!r} is not a repository", why="expected org/name", code="BAD-NAME")
    for part in parts:
        check_segment(part, "repository")
    return text


@frozen
class Upstream(JsonObject):
    """A commit of a repository at an upstream of one of `KINDS`. `endpoint` is its URL, empty if no Hub was queried;
    `requested` is the requested branch, tag or commit."""

    endpoint: Annotated[str, JsonText(least=0)]
    repository: str
    commit: str
    requested: str
    kind: Annotated[str, JsonWord(tuple(KINDS))] = HUB

    def __post_init__(self) -> None:
        check_endpoint(self.endpoint)
        check_repository(self.repository)
        check_commit(self.commit)
        check_revision(self.requested)
        if is_commit(self.requested) and self.requested != self.commit:
            raise Malformed("not an upstream", why="the commit is not the requested commit")
        if self.kind != HUB and not self.endpoint:
            raise Malformed("not an upstream", why="it has no endpoint")
        if self.kind not in (HUB, MODEL_SCOPE) and endpoint_host(self.endpoint) != self.repository.partition("/")[0]:
            raise Malformed("not an upstream", why="the namespace is not the host of the endpoint")

    @property
    def name(self) -> str:
        """`hf:org/name@commit`."""
        return f"{KINDS[self.kind]}{self.repository}@{self.commit}"


def endpoint_host(url: str) -> str:
    """The host of an endpoint in lower case, without port; empty if `url` is none."""
    found = _ENDPOINT.match(url)
    return found[1].lower() if found else ""


def check_endpoint(url: str) -> str:
    """Return `url` if it is empty, or `http[s]://host[:port][/path]` without credentials, query or trailing slash.
    Raises Malformed (BAD-ENDPOINT)."""
    found = _ENDPOINT.match(url)
    if url and (found is None or len(url) > MAX_ENDPOINT or not 0 < int(found[2] or 1) < 65_536):
        why = "expected https://host[:port][/path], without a slash at the end"
        raise Malformed(f"{url[:200]!r} is not an endpoint", why=why, code="BAD-ENDPOINT")
    return url


FETCHED: Final = "fetched"
OBTAINED: Final = (FETCHED, "cache", "carried")
UNASKED: Final = "upstream"
UNCHECKED: Final = ("commit", "author", "tls", "xet", UNASKED)
"""Checks that an importer may list as not done: that the commit has the listed tree; the author of the commit; the
upstream's certificate; Xet hashes; and, if no upstream was queried, that the upstream has this commit."""
GATED: Final = ("", "auto", "manual")


_Count: TypeAlias = Annotated[int, JsonNumber(most=MAX_FILES * 512)]


@frozen
class Matched(JsonObject):
    """Number of `files` that match the upstream's hashes, by `sha256` or by `git_blob` id; number of SHA-256 matches
    whose LFS pointer has the listed id (`pointers`); and number of listed folders with the listed git tree id
    (`folders`)."""

    files: _Count
    sha256: _Count
    git_blob: _Count
    pointers: _Count
    folders: _Count
    folders_listed: _Count

    def __post_init__(self) -> None:
        if self.compared > self.files or self.pointers > self.sha256 or self.folders > self.folders_listed:
            raise Malformed("observed is malformed", why="more matches than there are files or folders")

    @property
    def compared(self) -> int:
        return self.sha256 + self.git_blob

    @property
    def text(self) -> str:
        """`9/9 files equal what the upstream lists`."""
        return f"{self.compared}/{self.files} files equal what the upstream lists"


@frozen
class Obtained(JsonObject):
    """How and when the bytes were obtained: one of `OBTAINED`, begin and end in POSIX seconds by the node's clock, the
    programs used, and the SHA-256 of the public key in the upstream's certificate (None without TLS)."""

    how: Annotated[str, JsonWord(OBTAINED)]
    begun: int
    ended: int
    tool: Annotated[str, JsonText(200)]
    tls: Digest | None = None


@frozen
class Conditions(JsonObject):
    """The upstream's conditions of use: the licence that its card claims, the obtained texts, whether access needs
    consent (`gated`), and the terms that the operator accepted."""

    licence: Annotated[str, JsonText(200, 0)] = ""
    licence_text: SideObject | None = None
    card: SideObject | None = None
    gated: Annotated[str, JsonWord(GATED)] = ""
    terms: SideObject | None = None


@frozen
class Observed(Content):
    """A node mirrored a repository of an upstream. `by` is the claimed node; the caller checks node record and
    signature."""

    predicate: ClassVar = OBSERVED
    by: ById
    upstream: Upstream
    artifact: SubjectDigest
    manifest: SideObject
    pieces: SideObject
    files: Annotated[SideObject, "observation.json."]
    matched: Matched
    unchecked: Annotated[tuple[str, ...], JsonItems(len(UNCHECKED), of=JsonWord(UNCHECKED), once=True)]
    obtained: Obtained
    conditions: Conditions = Conditions()

    @property
    def name(self) -> str:
        """`hf:org/name@commit`."""
        return self.upstream.name

    @property
    def fetched(self) -> bool:
        """Whether the node requested the bytes from the upstream; only such observations corroborate one another."""
        return self.obtained.how == FETCHED

    @property
    def match_text(self) -> str:
        """`9/9 files equal what the upstream lists`, or that nothing was compared."""
        if UNASKED in self.unchecked and not self.matched.compared:
            return "not compared with a list of the upstream"
        return self.matched.text

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject(self.upstream.name, self.artifact),)

    def check(self, statement: Statement) -> None:
        if self.manifest.digest != self.artifact or statement.subjects[0].name != self.upstream.name:
            raise self.malformed("the subject must be the manifest, named after the commit")
        if self.fetched != bool(self.upstream.endpoint) or self.fetched == (UNASKED in self.unchecked):
            raise self.malformed("an endpoint is required for 'fetched', and only for 'fetched'")
        if self.obtained.ended < self.obtained.begun:
            raise self.malformed("'ended' is before 'begun'")


LOST: Final = ("repository", "commit", "revision", "access")


@frozen
class Changed(Content):
    """The upstream's branch points to another commit. The branch or tag that `artifact` was mirrored from is now at the
    commit `successor`; the mirrored bytes do not change."""

    predicate: ClassVar = UPSTREAM_CHANGED
    by: ById
    upstream: Upstream
    artifact: SubjectDigest
    successor: Annotated[str, JsonRead(check_commit, "commit"), JsonPath("now")]
    at: int

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject(self.upstream.name, self.artifact),)

    def check(self, statement: Statement) -> None:
        _check_name(self, statement)
        if self.successor == self.upstream.commit:
            raise self.malformed("'now' is the mirrored commit")


@frozen
class Gone(Content):
    """The source of an artifact is no longer available: repository, commit, branch or tag, or access (`LOST`)."""

    predicate: ClassVar = UPSTREAM_GONE
    by: ById
    upstream: Upstream
    artifact: SubjectDigest
    lost: Annotated[str, JsonWord(LOST)]
    at: int

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject(self.upstream.name, self.artifact),)

    def check(self, statement: Statement) -> None:
        _check_name(self, statement)


def _check_name(change: Changed | Gone, statement: Statement) -> None:
    if statement.subjects[0].name != change.upstream.name or not change.upstream.endpoint:
        raise change.malformed("the subject must have the name of the commit")
