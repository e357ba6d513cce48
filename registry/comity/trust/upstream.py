"""Statements about upstream repositories (Hugging Face Hub), and their names.

    hf:org/name@6c12… (40)   a commit, whose bytes never change

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.artifact import MAX_FILES
from comity.trust.encoding import Digest, Fields, Json, bare_digest
from comity.trust.errors import Malformed
from comity.trust.keys import Signer
from comity.trust.names import UPSTREAM, check_segment
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement
from comity.trust.statement_kinds import OBSERVED, UPSTREAM_CHANGED, UPSTREAM_GONE

HUB: Final = "huggingface-hub"
MAX_ENDPOINT: Final = 300

_ENDPOINT: Final = re.compile(
    r"https?://(?:[A-Za-z0-9.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(?:/[A-Za-z0-9._~%+-]+)*\Z"
)
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


@dataclass(frozen=True, slots=True)
class Upstream:
    """A commit of a repository at a Hub. `endpoint` is the URL of the Hub, empty if no Hub was queried; `requested` is
    the requested branch, tag or commit."""

    endpoint: str
    repository: str
    commit: str
    requested: str

    def __post_init__(self) -> None:
        check_endpoint(self.endpoint)
        check_repository(self.repository)
        check_commit(self.commit)
        check_revision(self.requested)
        if is_commit(self.requested) and self.requested != self.commit:
            raise Malformed("not an upstream", why="the commit is not the requested commit")

    @property
    def name(self) -> str:
        """`hf:org/name@commit`."""
        return f"{UPSTREAM}{self.repository}@{self.commit}"

    def to_json(self) -> dict[str, Json]:
        return {
            "kind": HUB,
            "endpoint": self.endpoint,
            "repository": self.repository,
            "commit": self.commit,
            "requested": self.requested,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Upstream:
        fields.constant("kind", HUB)
        parsed = cls(
            fields.text("endpoint", least=0),
            fields.text("repository"),
            fields.text("commit"),
            fields.text("requested"),
        )
        fields.done()
        return parsed


def check_endpoint(url: str) -> str:
    """Return `url` if it is empty, or `http[s]://host[:port][/path]` without credentials, query or trailing slash.
    Raises Malformed (BAD-ENDPOINT)."""
    found = _ENDPOINT.match(url)
    if url and (found is None or len(url) > MAX_ENDPOINT or not 0 < int(found[1] or 1) < 65_536):
        raise Malformed("not an endpoint", why="expected https://host[:port][/path]", code="BAD-ENDPOINT")
    return url


FETCHED: Final = "fetched"
OBTAINED: Final = (FETCHED, "cache", "carried")
UNASKED: Final = "upstream"
UNCHECKED: Final = ("commit", "author", "tls", "xet", UNASKED)
"""Checks that an importer may list as not done: that the commit has the listed tree; the author of the commit; the
upstream's certificate; Xet hashes; and, if no upstream was queried, that the upstream has this commit."""
GATED: Final = ("", "auto", "manual")


@dataclass(frozen=True, slots=True)
class Matched:
    """Number of `files` that match the upstream's hashes, by `sha256` or by `git_blob` id; number of SHA-256 matches
    whose LFS pointer has the listed id (`pointers`); and number of listed folders with the listed git tree id
    (`folders`)."""

    files: int
    sha256: int
    git_blob: int
    pointers: int
    folders: int
    folders_listed: int

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

    def to_json(self) -> dict[str, Json]:
        return {
            "files": self.files,
            "sha256": self.sha256,
            "git_blob": self.git_blob,
            "pointers": self.pointers,
            "folders": self.folders,
            "folders_listed": self.folders_listed,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Matched:
        names = ("files", "sha256", "git_blob", "pointers", "folders", "folders_listed")
        parsed = cls(*(fields.integer(name, most=MAX_FILES * 512) for name in names))
        fields.done()
        return parsed


@dataclass(frozen=True, slots=True)
class Obtained:
    """How and when the bytes were obtained: one of `OBTAINED`, begin and end in POSIX seconds by the node's clock, the
    programs used, and the SHA-256 of the public key in the upstream's certificate (None without TLS)."""

    how: str
    begun: int
    ended: int
    tool: str
    tls: Digest | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """The upstream's conditions of use: the licence that its card claims, the obtained texts, whether access needs
    consent (`gated`), and the terms that the operator accepted."""

    licence: str = ""
    licence_text: SideObject | None = None
    card: SideObject | None = None
    gated: str = ""
    terms: SideObject | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """The content of an `observed` statement. `by` is the claimed node; the caller checks node record and signature."""

    by: Digest
    upstream: Upstream
    artifact: Digest
    manifest: SideObject
    pieces: SideObject
    files: SideObject
    matched: Matched
    unchecked: tuple[str, ...]
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

    def objects(self) -> tuple[SideObject, ...]:
        conditions = self.conditions
        texts = tuple(item for item in (conditions.licence_text, conditions.card, conditions.terms) if item is not None)
        return tuple(dict.fromkeys((self.manifest, self.pieces, self.files, *texts)))

    def statement(self) -> Statement:
        conditions, how = self.conditions, self.obtained
        body: dict[str, Json] = {
            "upstream": self.upstream.to_json(),
            "manifest": self.manifest.to_json(),
            "pieces": self.pieces.to_json(),
            "files": self.files.to_json(),
            "matched": self.matched.to_json(),
            "unchecked": list(self.unchecked),
            "obtained": {"how": how.how, "begun": how.begun, "ended": how.ended, "tool": how.tool, "tls": how.tls},
            "conditions": {
                "licence": conditions.licence,
                "licence_text": _side_object_json(conditions.licence_text),
                "card": _side_object_json(conditions.card),
                "gated": conditions.gated,
                "terms": _side_object_json(conditions.terms),
            },
        }
        subjects = (Subject(self.upstream.name, self.artifact),)
        return Statement(OBSERVED, subjects, Author("node", self.by), body, self.objects())

    @classmethod
    def parse(cls, statement: Statement) -> Observed:
        """Raises Malformed."""
        by = statement.author(OBSERVED).id
        fields = statement.fields()
        parsed = cls(
            by=by,
            upstream=Upstream.from_json(fields.object("upstream")),
            artifact=statement.sole_subject(),
            manifest=SideObject.from_json(fields.take("manifest")),
            pieces=SideObject.from_json(fields.take("pieces")),
            files=SideObject.from_json(fields.take("files")),
            matched=Matched.from_json(fields.object("matched")),
            unchecked=_unchecked(fields.items("unchecked", most=len(UNCHECKED))),
            obtained=_obtained(fields.object("obtained")),
            conditions=_conditions(fields.object("conditions")),
        )
        fields.done()
        if parsed.manifest.digest != parsed.artifact or statement.subjects[0].name != parsed.upstream.name:
            raise Malformed("observed is malformed", why="the subject must be the manifest, named after the commit")
        if set(parsed.objects()) != set(statement.objects):
            raise Malformed("observed is malformed", why="'objects' are not the side objects that the body names")
        if parsed.fetched != bool(parsed.upstream.endpoint) or parsed.fetched == ("upstream" in parsed.unchecked):
            raise Malformed(
                "observed is malformed", why="an endpoint is required for 'fetched', and only for 'fetched'"
            )
        return parsed


def sign_observed(observed: Observed, online: Signer) -> Entry:
    """Sign the statement. Returns the entry to log. Raises Malformed if the statement is not valid."""
    return _signed(observed.statement(), Observed.parse, online)


def _side_object_json(item: SideObject | None) -> Json:
    return None if item is None else item.to_json()


def _object(fields: Fields, name: str) -> SideObject | None:
    value = fields.take(name)
    return None if value is None else SideObject.from_json(value)


def _unchecked(items: Sequence[Json]) -> tuple[str, ...]:
    found = tuple(check for check in UNCHECKED if check in items)
    if len(found) != len(items):
        raise Malformed("observed is malformed", why=f"'unchecked' may list {', '.join(UNCHECKED)}, each once")
    return tuple(str(item) for item in items)


def _obtained(fields: Fields) -> Obtained:
    how, begun, ended = fields.choice("how", OBTAINED), fields.integer("begun"), fields.integer("ended")
    tool, tls = fields.text("tool", most=200), fields.take("tls")
    fields.done()
    if ended < begun:
        raise Malformed("observed is malformed", why="'ended' is before 'begun'")
    return Obtained(how, begun, ended, tool, None if tls is None else bare_digest(tls))


def _conditions(fields: Fields) -> Conditions:
    parsed = Conditions(
        fields.text("licence", least=0, most=200),
        _object(fields, "licence_text"),
        _object(fields, "card"),
        fields.text("gated", least=0),
        _object(fields, "terms"),
    )
    fields.done()
    if parsed.gated not in GATED:
        raise Malformed("observed is malformed", why="'gated' must be auto, manual, or empty")
    return parsed


LOST: Final = ("repository", "commit", "revision", "access")


@dataclass(frozen=True, slots=True)
class Changed:
    """`upstream-changed`: the branch or tag that `artifact` was mirrored from is now at the commit `successor`. The
    mirrored bytes do not change."""

    by: Digest
    upstream: Upstream
    artifact: Digest
    successor: str
    at: int


@dataclass(frozen=True, slots=True)
class Gone:
    """`upstream-gone`: the source of `artifact` is no longer available: repository, commit, branch or tag, or access
    (`LOST`)."""

    by: Digest
    upstream: Upstream
    artifact: Digest
    lost: str
    at: int


def sign_changed(changed: Changed, online: Signer) -> Entry:
    body: dict[str, Json] = {"upstream": changed.upstream.to_json(), "now": changed.successor, "at": changed.at}
    return _signed(_statement_about(UPSTREAM_CHANGED, changed, body), parse_changed, online)


def sign_gone(gone: Gone, online: Signer) -> Entry:
    body: dict[str, Json] = {"upstream": gone.upstream.to_json(), "lost": gone.lost, "at": gone.at}
    return _signed(_statement_about(UPSTREAM_GONE, gone, body), parse_gone, online)


def parse_changed(statement: Statement) -> Changed:
    """Raises Malformed."""
    by, fields = statement.author(UPSTREAM_CHANGED).id, statement.fields()
    upstream = Upstream.from_json(fields.object("upstream"))
    parsed = Changed(by, upstream, statement.sole_subject(), check_commit(fields.text("now")), fields.integer("at"))
    fields.done()
    _require_name(statement, upstream)
    if parsed.successor == upstream.commit:
        raise Malformed(f"{UPSTREAM_CHANGED} is malformed", why="'now' is the mirrored commit")
    return parsed


def parse_gone(statement: Statement) -> Gone:
    """Raises Malformed."""
    by, fields = statement.author(UPSTREAM_GONE).id, statement.fields()
    upstream = Upstream.from_json(fields.object("upstream"))
    parsed = Gone(by, upstream, statement.sole_subject(), fields.choice("lost", LOST), fields.integer("at"))
    fields.done()
    _require_name(statement, upstream)
    return parsed


def _signed(statement: Statement, reader: Callable[[Statement], object], online: Signer) -> Entry:
    reader(statement)
    return sign_statement(statement, online)


def _statement_about(predicate: str, change: Changed | Gone, body: dict[str, Json]) -> Statement:
    subjects = (Subject(change.upstream.name, change.artifact),)
    return Statement(predicate, subjects, Author("node", change.by), body)


def _require_name(statement: Statement, upstream: Upstream) -> None:
    if statement.subjects[0].name != upstream.name or not upstream.endpoint:
        raise Malformed(f"{statement.predicate} is malformed", why="the subject must have the name of the commit")
