"""Statements of publishers and others about artifacts: content, encoding and checks.

    advisory      a warning about an artifact, by any author; it deletes and blocks nothing
    published     a publisher publishes an artifact under a name, licence and lineage
    vouched       a statement of any author about an artifact: rehashed, evaluated, reproduced
    derived       the author derived the child's weights from the parent's; how many tensors are equal

The parse functions do not verify the author; `check_published` and `Signatory` do. A statement proves only that its
author signed it. Source: protocol, sections 5 and 8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, ClassVar, Final, Literal

from comity.trust.codec import (
    JsonItems,
    JsonMap,
    JsonMerged,
    JsonNumber,
    JsonObject,
    JsonPath,
    JsonRead,
    JsonText,
    JsonWord,
)
from comity.trust.content import ByAuthor, ById, Content, SubjectDigest
from comity.trust.encoding import Digest
from comity.trust.errors import Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import Inception, Signatory
from comity.trust.names import Name
from comity.trust.statement import Author, Entry, SideObject, Statement, Subject
from comity.trust.statement_kinds import ADVISORY, DERIVED, PUBLISHED, VOUCHED
from comity.trust.tlog.note import check_name

KEY_COMPROMISE: Final = "key-compromise"
ADVISORIES: Final = ("yank", "superseded", "vulnerability", "malware", "licence-change", KEY_COMPROMISE)
INFO: Final = "info"
"""A severity that warns of nothing: the advisory is listed and fails no row."""
SEVERITIES: Final = (INFO, "low", "medium", "high", "critical")
MAX_TEXT: Final = 4000
STATE_SETTING: Final = ("yank", "superseded")
"""Kinds by which the publisher of an artifact withdraws it; by others they only warn."""


@frozen
class Compromise:
    """A key (SHA-256 of its JSON) that is compromised from entry `index` of the log `origin` on."""

    key: Annotated[Digest, "SHA-256 of the lost key's canonical JSON."]
    origin: Annotated[str, JsonRead(check_name, "origin"), JsonPath("since.origin")]
    index: Annotated[int, JsonPath("since.index")]


@frozen
class Advisory(Content):
    """A warning; it deletes and blocks nothing. It is about `artifact`; with `compromise`, about a key of the identity
    with the id `artifact`."""

    predicate: ClassVar = ADVISORY
    by: ByAuthor
    artifact: SubjectDigest
    kind: Annotated[str, JsonWord(ADVISORIES)]
    severity: Annotated[str, JsonWord(SEVERITIES)]
    text: Annotated[str, JsonText(MAX_TEXT, 0, lines=True)]
    compromise: Annotated[Compromise | None, JsonMerged()] = None

    def withdraws_for(self, publisher: Digest) -> bool:
        """Whether this publisher, an identity, withdraws the artifact by it. Who signed it is the caller's to prove."""
        return self.by == Author("identity", publisher) and self.kind in STATE_SETTING

    def check(self, statement: Statement) -> None:
        if self.compromise and self.kind != KEY_COMPROMISE:
            raise self.malformed("unknown member 'key'")


LINEAGE_RELATIONS = ("finetune", "adapter", "quantized", "merge", "distilled", "converted")
DOCUMENTS = ("card", "training-summary", "evaluation")
MAX_PARENTS = 32


@frozen
class Licence:
    """The SPDX expression that the publisher claims, and the licence text as obtained (None: no text)."""

    spdx: Annotated[str, JsonText(200)]
    text: SideObject | None = None


@frozen
class Parent(JsonObject):
    """A claimed lineage edge: by digest if known, else by name only."""

    relation: Annotated[str, JsonWord(LINEAGE_RELATIONS)]
    name: Annotated[str, JsonText(300)]
    digest: Digest | None = None


@frozen
class Published(Content):
    """A publisher publishes an artifact. `by` is the claimed publisher; `check_published` verifies it."""

    predicate: ClassVar = PUBLISHED
    by: ById
    name: Annotated[Name, JsonRead(Name.parse, "name")]
    artifact: SubjectDigest
    manifest: SideObject
    pieces: SideObject
    licence: Annotated[Licence, JsonMerged("licence")]
    lineage: Annotated[tuple[Parent, ...], JsonItems(MAX_PARENTS)] = ()
    documents: Annotated[Mapping[str, SideObject], JsonMap(len(DOCUMENTS), DOCUMENTS)] = field(default_factory=dict)

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject(str(self.name), self.artifact),)

    def check(self, statement: Statement) -> None:
        if self.manifest.digest != self.artifact:
            raise self.malformed("its subject must be the digest of its manifest")


def check_published(entry: Entry, publisher: Inception, keys: Signatory | None = None) -> Published:
    """Return the content if `publisher` is the author and signed it. Raises Malformed/Untrusted (SIGNATURE).

    Args:
        keys: the publisher's keys including rotations; by default the keys of its inception.
    """
    published = Published.parse(entry.statement)
    if published.by != publisher.id:
        raise Untrusted("published refused", why="it names another publisher", code="SIGNATURE")
    if not (keys or publisher.keys).signed(entry.envelope):
        raise Untrusted("published refused", why=f"not signed by {publisher.display}'s keys", code="SIGNATURE")
    return published


VOUCH_KINDS: Final = ("rehashed", "evaluated", "reproduced")


@frozen
class Vouched(Content):
    """Somebody rehashed, evaluated or reproduced an artifact. Source: protocol, section 5.

        {"statement":"rehashed","text":"on two machines","document":null}

    `rehashed`: the author had the bytes, and their hashes match the manifest (`comity vouch` checks before it logs).
    `evaluated`: the author measured the model; the document has the results. `reproduced`: the author made the model
    again from data and code; the document says how. The document is a side object.
    """

    predicate: ClassVar = VOUCHED
    objects_rule: ClassVar = "its side objects must be exactly its document"
    by: ByAuthor
    artifact: SubjectDigest
    kind: Annotated[str, JsonWord(VOUCH_KINDS), JsonPath("statement")]
    text: Annotated[str, JsonText(MAX_TEXT, 0, lines=True)] = ""
    document: SideObject | None = None


METHOD: Final = "comity/tensors/v1"
DERIVED_RELATIONS: Final = ("same-weights", "converted", "quantized", "overlap")
"""Equal tensors, in any distribution over files; cast to another width; quantised; or only some tensors equal."""
MAX_STEPS: Final = 16
MAX_TOOLS: Final = 8
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_+./-]{0,63}\Z")


@frozen
class Extent(JsonObject):
    """`equal` of `total` tensors or bytes are the same as derived from the parent."""

    total: int
    equal: int


@frozen
class Derived(Content):
    """The child's weights were computed again from the parent's. Source: protocol, section 5.

        {"parent":"9f2c…","relation":"quantized","result":"exact",
         "method":{"id":"comity/tensors/v1","steps":{"copy":62,"q8_0":39},"tools":{"comity":"0.1.0","gguf":"0.19.0"}},
         "files":{"child":1,"parent":1},"tensors":{"total":101,"equal":101,"left_out":3},
         "bytes":{"total":24065952,"equal":24065952}}

    `exact` means that every tensor of the child follows from the parent by the counted steps; `share` gives the number
    of tensors that do, and claims nothing about the others. `left_out` counts tensors of the parent that the child
    does not have. Anyone with both artifacts can repeat the derivation and compare.
    """

    predicate: ClassVar = DERIVED
    constants: ClassVar = {"method.id": METHOD}
    by: ByAuthor
    child: SubjectDigest
    parent: Digest
    relation: Annotated[str, JsonWord(DERIVED_RELATIONS)]
    result: Annotated[Literal["exact", "share"], JsonWord(("exact", "share"))]
    steps: Annotated[Mapping[str, int], JsonMap(MAX_STEPS, _LABEL, of=JsonNumber(1)), JsonPath("method.steps")]
    tools: Annotated[Mapping[str, str], JsonMap(MAX_TOOLS, _LABEL, of=JsonText(64)), JsonPath("method.tools")]
    files: Annotated[int, JsonPath("files.child")]
    parent_files: Annotated[int, JsonPath("files.parent")]
    tensors: Annotated[Extent, JsonMerged("tensors")]
    left_out: Annotated[int, JsonPath("tensors.left_out")]
    bytes: Extent

    @property
    def exact(self) -> bool:
        return self.result == "exact"

    def check(self, statement: Statement) -> None:
        tensors, counted = self.tensors, self.bytes
        contradictions = {
            "child and parent are the same artifact": self.child == self.parent,
            "'equal' is larger than 'total'": tensors.equal > tensors.total or counted.equal > counted.total,
            "the sum of its steps is not the number of equal tensors": sum(self.steps.values()) != tensors.equal,
            "an exact result needs at least one tensor, and all tensors equal": self.exact
            and (tensors.total == 0 or tensors.equal != tensors.total),
            "an exact result needs all bytes equal": self.exact and counted.equal != counted.total,
            "result 'share' and relation 'overlap' require each other": self.exact == (self.relation == "overlap"),
        }
        for why, found in contradictions.items():
            if found:
                raise self.malformed(why)
