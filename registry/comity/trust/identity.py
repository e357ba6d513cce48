"""Self-certifying identities of publishers and members: no authority assigns an identity or revokes it.

The id of an identity is the SHA-256 of its *inception record*. The record names the first keys, the threshold of
signatures, and digests of the recovery keys that alone may rotate the keys later (`rotation`). Source: protocol,
section 3.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import field
from typing import Annotated, ClassVar, Final, Protocol

from comity.trust.codec import JsonItems, JsonMerged, JsonNumber, JsonObject, JsonText, JsonWord
from comity.trust.content import Content
from comity.trust.encoding import Digest, Fields, canonical, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.frozen import frozen
from comity.trust.keys import PublicKey, VerifyingKey
from comity.trust.statement import Author, Entry, Envelope, Statement, Subject
from comity.trust.statement_kinds import INCEPTION

SCHEMA: Final = "comity/inception/v1"
KINDS: Final = ("publisher", "member")
MAX_KEYS: Final = 7
_JURISDICTION = re.compile(r"[A-Z]{2}\Z|[a-z][a-z0-9-]{2,30}\Z")


def check_jurisdiction(code: str) -> str:
    """Return `code` if it is an ISO 3166-1 alpha-2 code, or a lower-case name as charters define. Raises Malformed."""
    if not _JURISDICTION.match(code):
        raise Malformed(
            f"{code[:40]!r} is not a jurisdiction", why="expected two capital letters (CH), or a longer lower-case name"
        )
    return code


class SignatureCheck(Protocol):
    """Verifies the signatures of an envelope: `KeySet.signed`, or a cheaper function in simulations."""

    def __call__(self, keys: KeySet, envelope: Envelope, extra_keys: Collection[PublicKey] = (), /) -> bool: ...


class Signatory(Protocol):
    """A possible signer of an envelope: a key set, or an identity with its rotations.

    `signed` returns whether this signer and each of `extra_keys`, and no other key, signed (`Envelope.signed_by`).
    """

    def signed(self, envelope: Envelope, extra_keys: Collection[PublicKey] = ()) -> bool: ...


@frozen
class KeySet:
    """`threshold` of `keys` must sign; `threshold` is more than half of the keys."""

    keys: Annotated[tuple[VerifyingKey, ...], JsonItems(MAX_KEYS, 1, once=True)]
    threshold: Annotated[int, JsonNumber(1, MAX_KEYS), "More than half of the keys."]

    def __post_init__(self) -> None:
        if len(self.keys) > MAX_KEYS or not len(self.keys) < 2 * self.threshold <= 2 * len(self.keys):
            raise Malformed("bad key set", why=f"expected 1 to {MAX_KEYS} keys and a threshold above half of them")
        halves = [half.id for key in self.keys for half in key.halves]
        if len(set(halves)) != len(halves):
            raise Malformed("bad key set", why="one key appears twice")

    def signed(self, envelope: Envelope, extra_keys: Collection[PublicKey] = ()) -> bool:
        return envelope.signed_by(self.keys, self.threshold, extra_keys)

    @property
    def post_quantum(self) -> bool:
        return all(key.post_quantum for key in self.keys)


@frozen
class Inception(JsonObject):
    """An inception record.

    `home` names the log that orders this identity's statements (`home_logs`): its verifier key, its origin, or empty.
    `label` and `jurisdiction` are claims of the identity and prove nothing. `id` is the SHA-256 of the record's JSON.
    """

    constants: ClassVar = {"schema": SCHEMA}
    kind: Annotated[str, JsonWord(KINDS)]
    keys: Annotated[KeySet, JsonMerged()]
    recovery: Annotated[tuple[Digest, ...], JsonItems(MAX_KEYS)]
    home: Annotated[str, JsonText(255, 0)] = ""
    jurisdiction: Annotated[str, JsonText(31, 0)] = ""
    label: Annotated[str, JsonText(200, 0)] = ""
    id: Digest = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise Malformed("inception is malformed", why=f"kind must be one of {', '.join(KINDS)}")
        if len(self.recovery) > MAX_KEYS or len(set(self.recovery)) != len(self.recovery):
            raise Malformed("inception is malformed", why=f"at most {MAX_KEYS} recovery digests, each once")
        if self.jurisdiction:
            check_jurisdiction(self.jurisdiction)
        object.__setattr__(self, "id", sha256(canonical(self.to_json())))

    @property
    def author(self) -> Author:
        return Author("identity", self.id)

    @property
    def display(self) -> str:
        """A short name for display; the label is a claim of the identity."""
        return self.label or self.id[:12]


def read_key_set(fields: Fields, name: str = "keys") -> KeySet:
    """Read the list of keys in member `name`, and the member `threshold`."""
    keys = tuple(VerifyingKey.from_json(item) for item in fields.items(name, most=MAX_KEYS))
    return KeySet(keys, fields.integer("threshold", most=MAX_KEYS))


@frozen
class InceptionStatement(Content):
    """The first keys of an identity. All of them sign the record."""

    predicate: ClassVar = INCEPTION
    record: Inception

    @classmethod
    def parse(cls, statement: Statement) -> InceptionStatement:
        """Raises Malformed/Untrusted."""
        if statement.predicate != INCEPTION:
            raise Malformed("inception is malformed", why="not an inception statement")
        said = cls.read(statement.fields())
        if statement.by != said.record.author or statement.sole_subject() != said.record.id:
            raise Untrusted("inception refused", why="its subject is not the record that it contains", code="INCEPTION")
        return said

    def statement(self, by: Author | None = None) -> Statement:
        record = self.record
        return Statement(INCEPTION, (Subject(record.label, record.id),), by or record.author, self.to_json())


def check_inception(entry: Entry, *, signed: SignatureCheck = KeySet.signed) -> Inception:
    """Return the record of an `inception` statement that each of its keys signed. Raises Malformed/Untrusted.

    The statement is valid by its signatures, whatever its source; a log only orders it.

    Args:
        signed: verifies signatures; simulations of many members pass a cheaper function.
    """
    inception = InceptionStatement.parse(entry.statement).record
    if not signed(KeySet(inception.keys.keys, len(inception.keys.keys)), entry.envelope):
        raise Untrusted("inception refused", why="not signed by exactly the keys that it lists", code="INCEPTION")
    return inception
