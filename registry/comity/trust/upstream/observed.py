"""`observed`: a node says "I have these bytes from there". Never "this is the word of whose name is on it": only a
publisher can say that.

    obtained   "fetched"   this node asked the upstream itself
               "cache"     from the cache of a Hub client on its disk, whose layout names repository, commit and hashes
               "carried"   from a folder of which its operator says where it came from

What the upstream's own hashes agreed with is counted, file by file in a side object; what was not checked is listed.
Source: protocol, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, bare_digest
from comity.trust.encoding import Json
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.keys import Signer
from comity.trust.manifest import MAX_FILES
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject, sign_statement
from comity.trust.upstream.naming import Upstream

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
