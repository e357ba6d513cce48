"""Repositories elsewhere, and how they are named here.

hf:org/name              a repository of the Hugging Face Hub
hf:org/name@main         as one of its branches or tags stood
hf:org/name@6c12… (40)   one of its commits, whose bytes never change


`observed`: a node says "I have these bytes from there". Never "this is the word of whose name is on it": only a
publisher can say that.

    obtained   "fetched"   this node asked the upstream itself
               "cache"     from the cache of a Hub client on its disk, whose layout names repository, commit and hashes
               "carried"   from a folder of which its operator says where it came from

What the upstream's own hashes agreed with is counted, file by file in a side object; what was not checked is listed.
Source: protocol, section 5.


What an upstream's own hashes say about bytes that were hashed here.

A Hub lists every file with a git blob id, and a file in LFS with the SHA-256 of its bytes beside the blob id of its
pointer. Both are recomputed here and compared. What that proves: the bytes are those that the Hub lists. It does not
prove that the commit names this list, nor who wrote it. Sources: git object format; Git LFS pointer spec v1.


What a node found when it asked an upstream again: `upstream-changed` and `upstream-gone`.

Neither takes anything back: what was mirrored stays what it was. Source: protocol, section 5.


Repositories elsewhere: their names, what their own hashes prove, and what nodes say of them.

naming      hf:org/name@commit
comparing   what an upstream lists, held against what was hashed here
observed    the `observed` statement: mirrored from there
news        `upstream-changed` and `upstream-gone`
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.artifact import MAX_FILES, FileEntry, Manifest, blob_id, git_tree_ids
from comity.trust.encoding import Digest, Fields, Json, bare_digest, canonical, parse_canonical
from comity.trust.errors import Malformed
from comity.trust.keys import Signer
from comity.trust.names import UPSTREAM, check_segment
from comity.trust.statement import MAX_OBJECT_BYTES, Author, Entry, SideObject, Statement, Subject, sign_statement

HUB: Final = "huggingface-hub"
MAX_ENDPOINT: Final = 300
MAX_REVISION: Final = 255

_ENDPOINT: Final = re.compile(
    r"https?://(?:[A-Za-z0-9.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(?:/[A-Za-z0-9._~%+-]+)*\Z"
)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}\Z")
_REVISION: Final = re.compile(r"[!-~]{1,255}\Z")


def check_commit(text: str) -> str:
    """`text`, if it is a commit id as git writes it: 40 lower-case hex digits. Raises Malformed."""
    if not _COMMIT.match(text):
        raise Malformed("not a commit id", why=f"expected 40 lower-case hex digits, got {text[:60]!r}")
    return text


def is_commit(text: str) -> bool:
    return _COMMIT.match(text) is not None


def check_revision(text: str) -> str:
    """`text`, if it can name a branch, a tag or a commit. Raises Malformed (BAD-NAME)."""
    if not _REVISION.match(text) or ".." in text or text.startswith(("/", "-")) or text.endswith("/"):
        raise Malformed(
            f"{text[:80]!r} is no revision", why="expected a branch, a tag or 40 hex digits", code="BAD-NAME"
        )
    return text


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What a person wants from a Hub: a repository, and a revision, `main` where none is named. The oldest repositories
    have no organisation in their names; the Hub says what they are called now."""

    repository: str
    revision: str = "main"

    def __post_init__(self) -> None:
        if "/" in self.repository:
            check_repository(self.repository)
        else:
            check_segment(self.repository, "repository")
        check_revision(self.revision)

    @classmethod
    def parse(cls, text: str) -> UpstreamRequest:
        """`hf:org/name[@revision]`. Raises Malformed (BAD-NAME)."""
        repository, at, revision = text.removeprefix(UPSTREAM).partition("@")
        if not text.startswith(UPSTREAM):
            raise Malformed(f"{text[:200]!r} names nothing elsewhere", why="expected hf:org/name", code="BAD-NAME")
        return cls(repository, revision if at else "main")

    def __str__(self) -> str:
        return f"{UPSTREAM}{self.repository}@{self.revision}"


def check_repository(text: str) -> str:
    """`text`, if it is `org/name` by the Hub's rules. Raises Malformed (BAD-NAME)."""
    parts = text.split("/")
    if len(parts) != 2:
        raise Malformed(f"{text[:200]!r} is no repository", why="expected org/name", code="BAD-NAME")
    for part in parts:
        check_segment(part, "repository")
    return text


@dataclass(frozen=True, slots=True)
class Upstream:
    """A commit of a repository at a Hub. `endpoint` is the URL that was asked, empty where nobody was; `requested` is
    the branch, tag or commit that a person named."""

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
            raise Malformed("not an upstream", why="the commit that was asked for is another one")

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
        made = cls(
            fields.text("endpoint", least=0, most=MAX_ENDPOINT),
            fields.text("repository", most=200),
            fields.text("commit", most=40),
            fields.text("requested", most=MAX_REVISION),
        )
        fields.done()
        return made


def check_endpoint(url: str) -> str:
    """`url`, if it is `http[s]://host[:port][/path]` without credentials, query and closing slash, or empty. Raises
    Malformed."""
    found = _ENDPOINT.match(url)
    if url and (found is None or len(url) > MAX_ENDPOINT or not 0 < int(found[1] or 1) < 65_536):
        raise Malformed("not an endpoint", why="expected https://host[:port][/path]", code="BAD-ENDPOINT")
    return url


OBSERVED: Final = "observed"
FETCHED: Final = "fetched"
OBTAINED: Final = (FETCHED, "cache", "carried")
UNASKED: Final = "upstream"
UNCHECKED: Final = ("commit", "author", "tls", "xet", UNASKED)
"""What an importer may say that it did not check: that the commit names the tree that was listed; who made the commit;
the upstream's certificate; Xet hashes; and, where nobody was asked, that the upstream has such a commit at all."""
GATED: Final = ("", "auto", "manual")


@dataclass(frozen=True, slots=True)
class Matched:
    """How many of `files` agreed with the upstream's own hashes: by SHA-256, by git blob id; for how many of the former
    the LFS pointer too has the listed id; and how many of its listed folders have the git tree id that follows."""

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
        made = cls(*(fields.integer(name, most=MAX_FILES * 512) for name in names))
        fields.done()
        return made


@dataclass(frozen=True, slots=True)
class Obtained:
    """How and when the bytes came: one of `OBTAINED`, POSIX seconds by the node's clock, the programs that did it, and
    the SHA-256 of the public key in the certificate that the upstream showed, None without TLS."""

    how: str
    begun: int
    ended: int
    tool: str
    tls: Digest | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the upstream says of use: the licence that its card claims, the texts as they were obtained, whether it asks
    for consent (`gated`) and the terms that the operator accepted then."""

    licence: str = ""
    licence_text: SideObject | None = None
    card: SideObject | None = None
    gated: str = ""
    terms: SideObject | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """What an `observed` statement says. `by` claims to be the node; its record and signature decide elsewhere."""

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
        """Whether the node asked the upstream itself: only such observations corroborate one another."""
        return self.obtained.how == FETCHED

    @property
    def likeness(self) -> str:
        """`9/9 files equal what the upstream lists`; of what was never held against a list no such share is told."""
        if UNASKED in self.unchecked and not self.matched.compared:
            return "held against no list of the upstream's"
        return self.matched.text

    def objects(self) -> tuple[SideObject, ...]:
        said = self.conditions
        texts = tuple(item for item in (said.licence_text, said.card, said.terms) if item is not None)
        return tuple(dict.fromkeys((self.manifest, self.pieces, self.files, *texts)))

    def statement(self) -> Statement:
        said, how = self.conditions, self.obtained
        body: dict[str, Json] = {
            "upstream": self.upstream.to_json(),
            "manifest": self.manifest.to_json(),
            "pieces": self.pieces.to_json(),
            "files": self.files.to_json(),
            "matched": self.matched.to_json(),
            "unchecked": list(self.unchecked),
            "obtained": {"how": how.how, "begun": how.begun, "ended": how.ended, "tool": how.tool, "tls": how.tls},
            "conditions": {
                "licence": said.licence,
                "licence_text": _written(said.licence_text),
                "card": _written(said.card),
                "gated": said.gated,
                "terms": _written(said.terms),
            },
        }
        subjects = (Subject(self.upstream.name, self.artifact),)
        return Statement(OBSERVED, subjects, Author("node", self.by), body, self.objects())

    @classmethod
    def parse(cls, statement: Statement) -> Observed:
        """Raises Malformed."""
        by = _author(statement)
        fields = statement.fields()
        made = cls(
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
        if made.manifest.digest != made.artifact or statement.subjects[0].name != made.upstream.name:
            raise Malformed("observed is malformed", why="its subject must be its manifest, by the name of the commit")
        if set(made.objects()) != set(statement.objects):
            raise Malformed("observed is malformed", why="'objects' are not the side objects that it uses")
        if made.fetched != bool(made.upstream.endpoint) or made.fetched == ("upstream" in made.unchecked):
            raise Malformed("observed is malformed", why="what was fetched has an endpoint, and nothing else has one")
        return made


def sign_observed(observed: Observed, online: Signer) -> Entry:
    """Seal the statement into the line that will be logged. Raises Malformed for one that nobody accepts."""
    statement = observed.statement()
    Observed.parse(statement)
    return sign_statement(statement, online)


def _author(statement: Statement) -> Digest:
    if statement.predicate != OBSERVED or statement.by is None or statement.by.kind != "node":
        raise Malformed("observed is malformed", why="not an observed statement of a node")
    return statement.by.id


def _written(item: SideObject | None) -> Json:
    return None if item is None else item.to_json()


def _object(fields: Fields, name: str) -> SideObject | None:
    value = fields.take(name)
    return None if value is None else SideObject.from_json(value)


def _unchecked(items: Sequence[Json]) -> tuple[str, ...]:
    found = tuple(word for word in UNCHECKED if word in items)
    if len(found) != len(items):
        raise Malformed("observed is malformed", why=f"'unchecked' lists some of {', '.join(UNCHECKED)}, each once")
    return tuple(str(item) for item in items)


def _obtained(fields: Fields) -> Obtained:
    how, begun, ended = fields.choice("how", OBTAINED), fields.integer("begun"), fields.integer("ended")
    tool, tls = fields.text("tool", most=200), fields.take("tls")
    fields.done()
    if ended < begun:
        raise Malformed("observed is malformed", why="it ended before it began")
    return Obtained(how, begun, ended, tool, None if tls is None else bare_digest(tls))


def _conditions(fields: Fields) -> Conditions:
    made = Conditions(
        fields.text("licence", least=0, most=200),
        _object(fields, "licence_text"),
        _object(fields, "card"),
        fields.text("gated", least=0, most=20),
        _object(fields, "terms"),
    )
    fields.done()
    if made.gated not in GATED:
        raise Malformed("observed is malformed", why="'gated' is auto, manual, or empty")
    return made


SCHEMA: Final = "comity/observation/v1"
MATCHES: Final = ("sha256", "git-blob", "none")
"""How a file's bytes agree with what the upstream lists for it: by the SHA-256 of LFS, by the git blob id, or nothing
was listed that can be compared."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file as an upstream lists it. `blob` is a git blob id: of its bytes, or of its pointer where `lfs` gives their
    SHA-256; both are empty where the upstream says nothing. `xet` is kept as it came: nothing here can check it."""

    path: str
    size: int
    blob: str = ""
    lfs: Digest | None = None
    xet: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """A file whose bytes were hashed here, beside what its upstream lists for it.

    `match` is one of `MATCHES`; `pointer` says that the pointer made of the SHA-256 and size has the listed blob id.
    """

    entry: FileEntry
    listed: ListedFile
    match: str
    pointer: bool


class BlobHash:
    """The git blob id of bytes that come in parts; `size` is how many there will be."""

    def __init__(self, size: int) -> None:
        self._sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        self._sha1.update(data)

    def hexdigest(self) -> str:
        return self._sha1.hexdigest()


def compare(listed: ListedFile, entry: FileEntry, blob: str) -> Observation | None:
    """What was hashed here, held against what is listed; None where the bytes are not the listed ones.

    Args:
        blob: the git blob id of the bytes.
    """
    if entry.size != listed.size:
        return None
    if listed.lfs is not None:
        return (
            Observation(entry, listed, "sha256", blob_id(entry) == listed.blob) if listed.lfs == entry.sha256 else None
        )
    if listed.blob:
        return Observation(entry, listed, "git-blob", False) if listed.blob == blob else None
    return Observation(entry, listed, "none", False)


def matching_folders(observations: Iterable[Observation], listed: Mapping[str, str]) -> int:
    """How many of the `listed` git tree ids (folder path to id) are those that the listed blob ids make.

    A folder with a file of another mode than 100644 (an executable, a link) does not match: a Hub lists no modes.
    """
    blobs = {observation.entry.path: observation.listed.blob for observation in observations}
    if not all(blobs.values()):
        return 0
    manifest = Manifest.of(observation.entry for observation in observations)
    computed = git_tree_ids(manifest, lambda entry: blobs[entry.path])
    return sum(1 for path, tree in listed.items() if computed.get(path) == tree)


def encode_observations(observations: Sequence[Observation]) -> bytes:
    """The side object that an `observed` statement names in `files`: one item a file, in the manifest's order."""
    items: list[Json] = [
        {
            "path": seen.entry.path,
            "size": seen.entry.size,
            "sha256": seen.entry.sha256,
            "blob": seen.listed.blob,
            "lfs": seen.listed.lfs,
            "xet": seen.listed.xet,
            "match": seen.match,
            "pointer": seen.pointer,
        }
        for seen in observations
    ]
    return canonical({"schema": SCHEMA, "files": items})


def parse_observations(data: bytes) -> tuple[Observation, ...]:
    """Exactly what `encode_observations` writes, at most 64 MiB. Raises Malformed."""
    fields = Fields(parse_canonical(data, limit=MAX_OBJECT_BYTES, what="observation"), "observation")
    fields.constant("schema", SCHEMA)
    found = tuple(_observation(Fields(item, "observation file")) for item in fields.items("files", most=MAX_FILES))
    fields.done()
    return found


def _observation(fields: Fields) -> Observation:
    path, size = fields.text("path", most=1024), fields.integer("size")
    entry = FileEntry(path, size, fields.digest("sha256"))
    lfs = fields.take("lfs")
    listed = ListedFile(
        path,
        size,
        fields.text("blob", least=0, most=64),
        None if lfs is None else bare_digest(lfs),
        fields.text("xet", least=0, most=128),
    )
    match, pointer = fields.choice("match", MATCHES), fields.take("pointer")
    fields.done()
    if not isinstance(pointer, bool):
        raise fields.error("member 'pointer' must be true or false")
    return Observation(entry, listed, match, pointer)


CHANGED: Final = "upstream-changed"
GONE: Final = "upstream-gone"
LOST: Final = ("repository", "commit", "revision", "access")


@dataclass(frozen=True, slots=True)
class Changed:
    """A branch or tag that `artifact` was mirrored from stands for another commit now, `successor`; the bytes here do
    not change."""

    by: Digest
    upstream: Upstream
    artifact: Digest
    successor: str
    at: int


@dataclass(frozen=True, slots=True)
class Gone:
    """What `artifact` was mirrored from is given out no more: repository, commit, branch or tag, access (`LOST`)."""

    by: Digest
    upstream: Upstream
    artifact: Digest
    lost: str
    at: int


def sign_changed(changed: Changed, online: Signer) -> Entry:
    body: dict[str, Json] = {"upstream": changed.upstream.to_json(), "now": changed.successor, "at": changed.at}
    return _signed(_about(CHANGED, changed, body), parse_changed, online)


def sign_gone(gone: Gone, online: Signer) -> Entry:
    body: dict[str, Json] = {"upstream": gone.upstream.to_json(), "lost": gone.lost, "at": gone.at}
    return _signed(_about(GONE, gone, body), parse_gone, online)


def parse_changed(statement: Statement) -> Changed:
    """Raises Malformed."""
    by, fields = author(statement, CHANGED), statement.fields()
    upstream = Upstream.from_json(fields.object("upstream"))
    made = Changed(
        by, upstream, statement.sole_subject(), check_commit(fields.text("now", most=40)), fields.integer("at")
    )
    fields.done()
    _require_name(statement, upstream)
    if made.successor == upstream.commit:
        raise Malformed(f"{CHANGED} is malformed", why="it names the same commit twice")
    return made


def parse_gone(statement: Statement) -> Gone:
    """Raises Malformed."""
    by, fields = author(statement, GONE), statement.fields()
    upstream = Upstream.from_json(fields.object("upstream"))
    made = Gone(by, upstream, statement.sole_subject(), fields.choice("lost", LOST), fields.integer("at"))
    fields.done()
    _require_name(statement, upstream)
    return made


def _signed(statement: Statement, reader: Callable[[Statement], object], online: Signer) -> Entry:
    reader(statement)
    return sign_statement(statement, online)


def _about(predicate: str, said: Changed | Gone, body: dict[str, Json]) -> Statement:
    return Statement(predicate, (Subject(said.upstream.name, said.artifact),), Author("node", said.by), body)


def _require_name(statement: Statement, upstream: Upstream) -> None:
    if statement.subjects[0].name != upstream.name or not upstream.endpoint:
        raise Malformed(f"{statement.predicate} is malformed", why="its subject must bear the commit's name")


def author(statement: Statement, predicate: str) -> Digest:
    if statement.predicate != predicate or statement.by is None or statement.by.kind != "node":
        raise Malformed(f"{predicate} is malformed", why=f"not a {predicate} statement of a node")
    return statement.by.id
